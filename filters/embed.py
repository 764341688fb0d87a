"""What a picture shows, as numbers: EfficientNet-Lite0 (embedded) and OpenCLIP (given weights).

Models are built from files at hand; nothing here downloads, and no pickle is run: state dicts are read as tensors only.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

RGB = UInt8[np.ndarray, "h w 3"]

LITE0_SIDE_PX = 224
LITE0_WIDTH = 1280
LITE0_BLOCKS = 16
LITE0_EPSILON = 1e-3
"""What batch normalization adds to the variance."""
_HALVING = {f"_blocks.{number}." for number in (1, 3, 5, 11)}
"""The blocks that halve height and width."""


class Lite0(nn.Module):
    """EfficientNet-Lite0 (arXiv 1905.11946, without squeeze and excitation) up to its pooled features and its classes.

    Its layers are those of the package `efficientnet-lite-pytorch`, laid out for a processor: channels stand last, so
    that a convolution of single pixels is a product of matrices, and each normalization is folded into the convolution
    before it. The sums are the same but for rounding, in a third of the time.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        """Take the package's weights. Raises KeyError where some are missing."""
        super().__init__()
        self.stem = _Spatial(*_folded(weights, "_conv_stem", "_bn0"), stride=2)
        self.blocks = nn.ModuleList(_Block(weights, f"_blocks.{number}.") for number in range(LITE0_BLOCKS))
        self.head = _Pointwise(*_folded(weights, "_conv_head", "_bn1"))
        self.classes = _Pointwise(weights["_fc.weight"], weights["_fc.bias"])

    def forward(self, views: Float[Tensor, "n 224 224 3"]) -> tuple[Float[Tensor, "n 1280"], Float[Tensor, "n 1000"]]:
        """Return pooled features and what the classes get, before their softmax."""
        x = self.stem(views).clamp_(0, 6)
        for block in self.blocks:
            x = block(x)
        pooled = self.head(x).clamp_(0, 6).mean(dim=(1, 2))
        return pooled, self.classes(pooled)


class _Block(nn.Module):
    """Channels are multiplied, seen in space each by itself, and brought down again."""

    def __init__(self, weights: Mapping[str, Tensor], name: str):
        super().__init__()
        wide = f"{name}_expand_conv.weight" in weights
        self.expand = _Pointwise(*_folded(weights, f"{name}_expand_conv", f"{name}_bn0")) if wide else None
        stride = 2 if name in _HALVING else 1
        self.space = _Spatial(*_folded(weights, f"{name}_depthwise_conv", f"{name}_bn1"), stride=stride)
        self.project = _Pointwise(*_folded(weights, f"{name}_project_conv", f"{name}_bn2"))

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h2 w2 c2"]:
        inside = x if self.expand is None else self.expand(x).clamp_(0, 6)
        found = self.project(self.space(inside).clamp_(0, 6))
        return found.add_(x) if found.shape == x.shape else found


class _Pointwise(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.flatten(1)), nn.Parameter(bias)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c2"]:
        return F.linear(x, self.weight, self.bias)


class _Spatial(nn.Module):
    """A convolution in space.

    At stride 2 TensorFlow pads more below and to the right. Here the kernel gets a row and a column of zeros above and
    to the left instead, which costs less than a padded copy of what it sees.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int):
        super().__init__()
        weight = F.pad(weight, (1, 0, 1, 0)) if stride == 2 else weight
        self.weight, self.bias = nn.Parameter(weight.contiguous(memory_format=torch.channels_last)), nn.Parameter(bias)
        self.stride, self.groups = stride, len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h2 w2 c2"]:
        reach = (self.weight.shape[-1] - 1) // 2
        found = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, reach, groups=self.groups)
        return found.permute(0, 2, 3, 1)


def _folded(weights: Mapping[str, Tensor], layer: str, norm: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the normalization that follows it."""
    gain = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + LITE0_EPSILON)
    offset = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    return weights[f"{layer}.weight"] * gain[:, None, None, None], offset


def load_lite0(weights: Path, device: str = "cpu") -> Lite0:
    """Return EfficientNet-Lite0 with ImageNet weights, ready to look. Raises ValueError where they are unreadable."""
    try:
        model = Lite0(tensors(weights))
    except KeyError as error:
        raise ValueError(f"weights {weights} are not EfficientNet-Lite0's: {error} is missing") from error
    return model.eval().requires_grad_(False).to(device)


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file, as tensors only.

    Raises ValueError where it is missing, damaged, or a pickle that would run code.
    """
    if not path.is_file():
        raise ValueError(f"weights {path} are missing")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, … by kind of damage
        raise ValueError(f"weights {path} hold no plain state dict ({error}); convert them to safetensors") from error
    return found.get("state_dict", found)


def prepare_lite0(images: Sequence[RGB]) -> Float[Tensor, "n 224 224 3"]:
    """Return pictures squeezed to a square and scaled as the network was trained to see them."""
    side = (LITE0_SIDE_PX, LITE0_SIDE_PX)
    squares = np.stack([cv2.resize(image, side, interpolation=_kind(image)) for image in images])
    return (
        torch.from_numpy(squares).float() - 127
    ) / 128  # the Lite models' own scaling, not ImageNet's mean and deviation


def _kind(image: RGB) -> int:
    return cv2.INTER_AREA if min(image.shape[:2]) > LITE0_SIDE_PX else cv2.INTER_CUBIC


@torch.inference_mode()
def look_lite0(model: Lite0, images: Sequence[RGB]) -> tuple[Float[np.ndarray, "n 1280"], Float[np.ndarray, "n 1000"]]:
    """Return pooled features and ImageNet class probabilities of pictures, each the mean of two views.

    One view is the whole picture squeezed to a square, the other the square in its middle: together they were right
    where either alone was not (things at the edge; things drawn out of shape).
    """
    views = prepare_lite0([*images, *(middle(image) for image in images)])
    pooled, said = model(views.to(model.classes.bias.device))
    both = [found.unflatten(0, (2, len(images))).mean(dim=0).cpu().numpy() for found in (pooled, said.softmax(dim=-1))]
    return both[0], both[1]


def middle(image: RGB) -> RGB:
    """Return the largest square in the middle of a picture."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


_UNLOADABLE = (RuntimeError, OSError, LookupError, AttributeError, ValueError, AssertionError, pickle.UnpicklingError)
"""What open_clip and torch raise for weights that are damaged, of another architecture, or a pickle of code."""


@dataclass(frozen=True)
class Clip:
    """An OpenCLIP model and the transform that it was trained with."""

    model: Any
    transform: Any
    device: str


def load_clip(name: str, weights: str, device: str = "cpu") -> Clip:
    """Return an OpenCLIP model.

    Args:
        name: an architecture of open_clip, or `local-dir:FOLDER` or `hf-hub:OWNER/NAME`, which hold their own weights.
        weights: a weights file, or the pretrained tag of weights that are in open_clip's cache; empty with the latter.
        device: where the model runs.

    Raises ValueError where the architecture is unknown or the weights are not a plain state dict of it; it never falls
    back to random weights.
    """
    import open_clip

    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name,
            pretrained=weights or None,
            device=device,
            weights_only=True,
            pretrained_text=False,
            require_pretrained=True,
            force_quick_gelu=needs_quick_gelu(name, weights),
        )
    except _UNLOADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"OpenCLIP {name} cannot be loaded from {weights or name}: {reason}; "
            f"clip_model must be the architecture that the weights were trained for, clip_weights a plain state dict"
        ) from error
    return Clip(model.eval().requires_grad_(False), transform, device)


def needs_quick_gelu(name: str, weights: str) -> bool:
    """Whether weights were trained with another activation than open_clip's configuration of that name has.

    OpenAI's own weights were; open_clip only warns of it, and every embedding would be off.
    """
    import open_clip

    tag = open_clip.get_pretrained_cfg(name, weights) if weights else {}
    named = "openai" in Path(weights).name.lower()
    return bool(tag.get("quick_gelu", named)) and not name.endswith("-quickgelu")


@torch.inference_mode()
def look_clip(clip: Clip, images: Sequence[RGB]) -> Float[np.ndarray, "n d"]:
    """Return the unit-length image embeddings of pictures."""
    from PIL import Image

    batch = torch.stack([clip.transform(Image.fromarray(image)) for image in images]).to(clip.device)
    with torch.autocast("cuda", torch.float16, enabled=clip.device == "cuda"):  # half as fast again on no CPU
        found = clip.model.encode_image(batch).float()
    return nn.functional.normalize(found, dim=-1).cpu().numpy()


def width(clip: Clip) -> int:
    """Return how many numbers an embedding of this model has, by looking at a black picture."""
    return look_clip(clip, [np.zeros((1, 1, 3), np.uint8)]).shape[1]


def configured_width(name: str) -> int | None:
    """Return the width of embeddings that an architecture's configuration states, None where it is not at hand."""
    import open_clip

    if name.startswith("local-dir:"):
        path = Path(name.removeprefix("local-dir:"), "open_clip_config.json")
        return int(json.loads(path.read_text())["model_cfg"]["embed_dim"])
    found = None if name.startswith("hf-hub:") else open_clip.get_model_config(name)
    return int(found["embed_dim"]) if found else None


def pool(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Return the direction in which the embeddings of a clip's frames point together: unit length."""
    units = unit(vectors)
    return unit(units.mean(axis=0))


def agreement(vectors: Float[np.ndarray, "n d"]) -> float:
    """Return how alike the frames of a clip are: the mean cosine over its pairs of frames, 1 for a single frame."""
    units = unit(vectors)
    count = len(units)
    if count == 1:
        return 1.0
    return float(((units @ units.T).sum() - count) / (count * (count - 1)))


def unit(vectors: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Return vectors at unit length; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length == 0, 1, length)
