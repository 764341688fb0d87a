"""Embeddings: real weights, no pickles, and views that see the whole picture."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rushes.filters import embed
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def lite0() -> embed.Lite0:
    return embed.load_lite0(weights.lite0())


def test_the_network_is_that_of_the_package_but_for_rounding(lite0: embed.Lite0) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    package = EfficientNet.from_name("efficientnet-lite0")
    package.load_state_dict(embed.tensors(weights.lite0()))
    noise = np.random.default_rng(0).integers(0, 256, (2, 9, 16, 3), np.uint8)
    views = embed.prepare_lite0([cv2.resize(picture, (320, 180)) for picture in noise])
    with torch.inference_mode():
        theirs = package.eval().extract_features(views.permute(0, 3, 1, 2)).mean(dim=(2, 3))
        pooled, said = lite0(views)
        assert pooled.numpy() == pytest.approx(theirs.numpy(), abs=1e-4)
        assert said.numpy() == pytest.approx(package._fc(theirs).numpy(), abs=1e-3)
        assert theirs.std() > 0.1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"_fc.bias": torch.zeros(1000)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="are not EfficientNet-Lite0's"):
        embed.load_lite0(tmp_path / "other.pth")


def test_a_batch_gives_what_its_pictures_give_alone(lite0: embed.Lite0) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 255, (90, 160, 3), np.uint8) for seed in range(3)]
    together, _ = embed.look_lite0(lite0, pictures)
    alone = np.concatenate([embed.look_lite0(lite0, [picture])[0] for picture in pictures])
    assert together == pytest.approx(alone, abs=1e-4)


def test_probabilities_sum_to_one_and_pictures_may_differ_in_size(lite0: embed.Lite0) -> None:
    pictures = [np.zeros((h, w, 3), np.uint8) for h, w in ((180, 320), (320, 180), (1, 1), (7, 300))]
    features, probabilities = embed.look_lite0(lite0, pictures)
    assert features.shape == (4, embed.LITE0_WIDTH)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 8), elements=st.floats(-10, 10, width=32)))
def test_pooling_ignores_the_order_of_frames_and_agreement_is_a_cosine(vectors: np.ndarray) -> None:
    assert embed.pool(vectors) == pytest.approx(embed.pool(vectors[::-1]), abs=1e-4)
    assert -1.001 <= embed.agreement(vectors) <= 1.001


def test_equal_frames_agree_fully() -> None:
    assert embed.agreement(np.tile(np.arange(1.0, 5.0), (3, 1))) == pytest.approx(1.0)
    assert embed.agreement(np.ones((1, 4))) == 1.0


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/nonexistent/trap",))


def test_weights_that_are_a_pickle_of_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": _Trap()}, path)
    with pytest.raises(ValueError, match="hold no plain state dict"):
        embed.tensors(path)
    path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(ValueError, match="hold no plain state dict"):
        embed.tensors(path)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="OpenCLIP NoSuchModel cannot be loaded"):
        embed.load_clip("NoSuchModel", str(tmp_path / "w.pt"))


def test_openai_weights_get_the_activation_that_they_were_trained_with() -> None:
    assert embed.needs_quick_gelu("ViT-L-14", "openai")
    assert not embed.needs_quick_gelu("ViT-L-14-quickgelu", "openai")
    assert not embed.needs_quick_gelu("ViT-L-14", "laion2b_s32b_b82k")


def test_the_width_of_a_model_is_known_before_it_is_loaded() -> None:
    assert embed.configured_width("ViT-L-14") == 768
    assert embed.configured_width("hf-hub:somebody/something") is None  # told only by its own files
