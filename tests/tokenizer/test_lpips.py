from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchmetrics.functional.image as carried
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision import models

from rushes.tokenizer.lpips import LPIPS

LINEAR = Path(carried.__file__).parent / "lpips_models"
BACKBONES = {"vgg": models.vgg16, "alex": models.alexnet}


def features(build: Callable[..., torch.nn.Module]) -> dict[str, torch.Tensor]:
    """What is read of torchvision's file; the classifier in it is most of its bytes."""
    with torch.device("meta"):
        network = build(weights=None).features
    network = network.to_empty(device="cpu")
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return {f"features.{name}": weight for name, weight in network.state_dict().items()}


def weights(folder: Path, backbone: str, linear: str) -> Path:
    """A backbone with random weights, for none are carried by a package, and the published linear ones."""
    folder.mkdir()
    torch.manual_seed(1)
    torch.save(features(BACKBONES[backbone]), folder / "a.pth")
    (folder / "b.pth").write_bytes((LINEAR / f"{linear}.pth").read_bytes())
    return folder


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_is_that_of_torchmetrics(tmp_path, net):
    folder = weights(tmp_path / "lpips", net, net)
    ours, theirs = LPIPS(str(folder)), _LPIPS(pretrained=True, net=net, pnet_rand=True)
    theirs.net.load_state_dict(dict(zip(theirs.net.state_dict(), ours.network.state_dict().values(), strict=True)))
    x, y = torch.rand(2, 2, 3, 64, 64).mul(2).sub(1).requires_grad_(True).unbind()
    expected = theirs(x, y).mean()
    torch.testing.assert_close(ours(x, y), expected, rtol=1e-4, atol=1e-8)
    assert ours(x, y) > 0 == ours(x, x) and ours.name == f"lpips_{net}"
    mine, other = (torch.autograd.grad(loss, x)[0] for loss in (ours(x, y), theirs(x, y).mean()))
    torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-7)
    assert not any(p.requires_grad for p in ours.train().parameters()) and not ours.training


@pytest.mark.parametrize(("backbone", "linear"), [("vgg", "alex"), ("alex", "vgg"), ("alex", "squeeze")])
def test_weights_of_two_nets_are_refused(tmp_path, backbone, linear):
    folder = weights(tmp_path / "lpips", backbone, linear)
    with pytest.raises(ValueError, match=rf"a\.pth is the backbone {backbone} and .*b\.pth holds linear weights of"):
        LPIPS(str(folder))


def test_what_is_missing_or_damaged_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"no backbone and no linear weights of LPIPS; give a folder .*vgg16-397923af"):
        LPIPS(str(tmp_path / "nowhere"))
    folder = weights(tmp_path / "lpips", "alex", "alex")
    (folder / "a.pth").write_bytes((folder / "a.pth").read_bytes()[:10_000])
    with pytest.raises(ValueError, match=r"a\.pth is damaged or holds more than weights"):
        LPIPS(str(folder))
    (folder / "a.pth").unlink()
    with pytest.raises(ValueError, match="has no backbone weights of LPIPS"):
        LPIPS(str(folder))


def test_nothing_is_unpickled_from_weights(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of the file ran",))

    torch.save({"features.0.weight": Evil()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds more than weights"):
        LPIPS(str(tmp_path))


def test_another_network_under_the_shape_of_the_first_layer_is_refused(tmp_path):
    folder = weights(tmp_path / "lpips", "vgg", "vgg")
    torch.save(features(models.vgg13), folder / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth is no vgg of torchvision"):
        LPIPS(str(folder))
