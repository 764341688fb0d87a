"""LPIPS, where its weights are given: arXiv 1801.03924 over torchvision's VGG16 or AlexNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and spread for pictures in [-1, 1], as the reference implementation rounds them."""
WANTED = (
    "give a folder with a backbone of torchvision (vgg16-397923af.pth or alexnet-owt-7be5be79.pth, from "
    "https://download.pytorch.org/models/) and the linear weights of the same net (vgg.pth or alex.pth: the packages "
    "lpips, in weights/v0.1, and torchmetrics, in functional/image/lpips_models, carry them)"
)


@dataclass(frozen=True)
class _Net:
    build: Callable[[], nn.Sequential]
    layers: tuple[int, ...]
    """The layers of torchvision's `features` whose output is compared: activations."""
    widths: tuple[int, ...]
    kernel: int
    """Side of the first kernel, by which weights are told apart."""


def _vgg() -> nn.Sequential:
    from torchvision.models import vgg16

    with torch.device("meta"):  # of its half a gigabyte most is a classifier
        return vgg16(weights=None).features


def _alex() -> nn.Sequential:
    from torchvision.models import alexnet

    with torch.device("meta"):
        return alexnet(weights=None).features


NETS = {
    "vgg": _Net(_vgg, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), kernel=3),
    "alex": _Net(_alex, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), kernel=11),
}


class LPIPS(nn.Module):
    """The learned perceptual distance of pictures: Eq. 1 of arXiv 1801.03924, version 0.1 of its weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, path: str):
        """Load the weights in a folder, told apart by what they hold, not by their names; nothing is unpickled.

        Raises ValueError where one is missing, damaged, or of another net than the other.
        """
        super().__init__()
        backbone, linear = _files(path)
        net = next((name for name, net in NETS.items() if _is_backbone(backbone[1], net)), "")
        other = next((name for name, net in NETS.items() if _weights(linear[1]) == net.widths), "")
        if not net or net != other:
            raise ValueError(
                f"{backbone[0]} is the backbone {net or 'of neither VGG16 nor AlexNet'} and {linear[0]} holds linear "
                f"weights of {other or 'another net'}; LPIPS needs both of one: {WANTED}"
            )
        self.name, self.layers = f"lpips_{net}", NETS[net].layers
        """How it is called in metrics: distances of the two nets cannot be compared."""
        self.network = NETS[net].build()
        features = {name.removeprefix("features."): w for name, w in backbone[1].items() if name.startswith("features")}
        try:
            self.network.load_state_dict(features, assign=True)
        except RuntimeError as error:
            raise ValueError(f"{backbone[0]} is no {net} of torchvision: {error}; {WANTED}") from error
        self.linear = nn.ParameterList(linear[1][f"lin{i}.model.1.weight"] for i in range(len(self.layers)))
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Return itself; it is never trained."""
        return super().train(False)

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Return the mean distance of images in [-1, 1]."""
        pairs = zip(self.features(x), self.features(y), self.linear, strict=True)
        distances = [F.conv2d((_unit(a) - _unit(b)).square(), weight).mean() for a, b, weight in pairs]
        return torch.stack(distances).sum()

    def features(self, x: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c h w"]]:
        """Return the activations that are compared."""
        x, found = (x - self.shift) / self.scale, []
        for number, layer in enumerate(self.network[: self.layers[-1] + 1]):
            x = layer(x)
            if number in self.layers:
                found.append(x)
        return found


def _unit(x: Tensor) -> Tensor:
    """Return features of norm one at each position."""
    return x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _files(path: str) -> list[tuple[Path, Mapping[str, Tensor]]]:
    """Return backbone and linear weights in a folder. Raises ValueError where one is missing or damaged."""
    found: dict[str, tuple[Path, Mapping[str, Tensor]]] = {}
    for file in sorted(Path(path).glob("*.pth")) if Path(path).is_dir() else ():
        try:
            state: Any = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
            raise ValueError(f"{file} is damaged or holds more than weights ({error}); {WANTED}") from error
        if isinstance(state, Mapping):
            kind = "backbone" if "features.0.weight" in state else "linear" if "lin0.model.1.weight" in state else ""
            found.setdefault(kind, (file, state))
    missing = [what for what in ("backbone", "linear") if what not in found]
    if missing:
        raise ValueError(f"lpips={path} has no {' and no '.join(missing)} weights of LPIPS; {WANTED}")
    return [found["backbone"], found["linear"]]


def _is_backbone(state: Mapping[str, Tensor], net: _Net) -> bool:
    return tuple(state["features.0.weight"].shape) == (64, 3, net.kernel, net.kernel)


def _weights(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return how many channels each of the linear weights weighs."""
    weights = (state[name] for i in range(len(state)) if (name := f"lin{i}.model.1.weight") in state)
    return tuple(weight.shape[1] for weight in weights)
