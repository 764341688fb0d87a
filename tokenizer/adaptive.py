"""An adaptive frame rate on others' frozen VAEs, without training: what DLFR-VAE (arXiv 2502.11897) is after.

A segment is as many frames as the longest stride makes one latent of, 16 where the VAE's factor is 4; the first one has
the clip's first frame on top, which such a VAE codes alone. A segment of stride s keeps every s-th frame, always its
last, and what all segments keep goes through the VAE as one clip, so a latent stands for 4, 8 or 16 frames and none
reaches over two segments. What was dropped comes back by linear interpolation in time between the decoded frames around
it. That is the honest baseline without training: it blends where things move, and a learned interpolator would do
better. The frame before a segment is always kept, so with a causal VAE no segment's frames need a later one. The VAE is
not told of strides: to it, the picture moves faster where a stride is longer.

    measured = measure(vae, video)                                # cost and distortion of every segment and stride
    latents = encode(vae, video, choose(measured, Budget(latents=20)))
    video = decode(vae, latents)                                  # as many frames as went in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rushes.tokenizer.allocate import allocate, limit
from rushes.tokenizer.config import Budget
from rushes.tokenizer.pretrained import FrozenVAE
from rushes.tokenizer.rates import RateDistortion

STRIDES = (1, 2, 4)  # frames to one kept frame


@dataclass(frozen=True, kw_only=True)
class StridedLatents:
    """The latents of a clip whose segments were thinned by strides before they were coded."""

    z: Float[Tensor, "b c n y x"]
    """Latents of all segments in order, as the VAE gives them; the first is the first frame's."""
    strides: tuple[int, ...]
    """Frames to one kept frame, for each segment."""
    frames: int
    """Frames of the clip."""
    height: int
    """Height of the clip in pixels; latents cover it rounded up to whole cells."""
    width: int
    """Width of the clip in pixels."""


def segments(frames: int, factor_t: int) -> list[range]:
    """Return the frames of each segment; the first has one more than the others, the last may be short."""
    length = factor_t * STRIDES[-1]
    return [range(start, stop) for start, stop in pairwise([0, *range(1 + length, frames, length), frames])]


def costs(frames: int, factor_t: int) -> Int[np.ndarray, "segments strides"]:
    """Return the latents of each segment at each stride, the first frame's among the first segment's."""
    parts = segments(frames, factor_t)
    after_first = np.array([len(part) - (part.start == 0) for part in parts])[:, None]
    return -(-after_first // (factor_t * np.array(STRIDES))) + np.eye(len(parts), 1, dtype=int)


def kept(frames: int, strides: Sequence[int], factor_t: int) -> list[int]:
    """Return the frames that are coded: the first of the clip, then every stride-th of a segment and its last.

    Raises:
        ValueError: there is not one stride for each segment, or one is not in `STRIDES`.
    """
    parts = segments(frames, factor_t)
    if len(strides) != len(parts) or not set(strides) <= set(STRIDES):
        raise ValueError(
            f"strides {list(strides)} for {frames} frames: {len(parts)} segments need one each, of {list(STRIDES)}"
        )
    found = [0]
    for part, stride in zip(parts, strides, strict=True):
        ends = range(found[-1] + stride, part[-1] + stride, stride)
        found += [min(end, part[-1]) for end in ends]
    return found


def encode(vae: FrozenVAE, video: Float[Tensor, "b 3 t h w"], strides: Sequence[int]) -> StridedLatents:
    """Return the latents of a clip of any number of frames and any size.

    Args:
        vae: the frozen VAE.
        video: RGB in [-1, 1]; sides are padded to whole cells by repeating the border.
        strides: one for each of `segments`.

    Raises:
        ValueError: there is not one stride for each segment, or one is not in `STRIDES`.
    """
    frames, height, width = video.shape[2:]
    chosen = video[:, :, kept(frames, strides, vae.factor_t)]
    missing = (1 - chosen.shape[2]) % vae.factor_t  # the last segment's, where it is short
    sides = (0, -width % vae.factor_s, 0, -height % vae.factor_s, 0, missing)
    z = vae.encode(F.pad(chosen, sides, mode="replicate") if any(sides) else chosen)
    return StridedLatents(z=z, strides=tuple(strides), frames=frames, height=height, width=width)


def decode(vae: FrozenVAE, latents: StridedLatents) -> Float[Tensor, "b 3 t h w"]:
    """Return the video of latents, with exactly the frames and the size that went in; not clamped to [-1, 1].

    Raises:
        ValueError: the number of latents does not fit frames and strides.
    """
    at = kept(latents.frames, latents.strides, vae.factor_t)
    wanted = 1 + -(-(len(at) - 1) // vae.factor_t)
    if latents.z.shape[2] != wanted:
        raise ValueError(
            f"{latents.z.shape[2]} latents, but strides {latents.strides} and {latents.frames} frames mean {wanted}"
        )
    video = vae.decode(latents.z)[:, :, : len(at), : latents.height, : latents.width]
    return interpolate(video, at)


def interpolate(video: Float[Tensor, "b c k h w"], at: Sequence[int]) -> Float[Tensor, "b c t h w"]:
    """Return all frames up to the last one, where frame i of `video` stands at `at[i]`: linear in time between them.

    Args:
        video: the frames that there are.
        at: their places, rising from 0; frames that are there come back as they are.
    """
    places = torch.arange(at[-1] + 1)
    known = torch.tensor(at)
    right = torch.searchsorted(known, places)
    left = (right - 1).clamp(min=0)
    share = (places - known[left]) / (known[right] - known[left]).clamp(min=1)
    weight = share.to(video)[:, None, None]
    return torch.lerp(video[:, :, left], video[:, :, right], weight)


@torch.no_grad()
def measure(vae: FrozenVAE, video: Float[Tensor, "1 3 t h w"]) -> RateDistortion:
    """Return cost and distortion of every segment at every stride, where the whole clip has that stride.

    One pass through the VAE for each stride. What a segment loses depends a little on its neighbours' strides, which a
    causal VAE remembers; the table leaves that out.
    """
    parts = segments(video.shape[2], vae.factor_t)
    distortion = np.empty((len(parts), len(STRIDES)))
    for option, stride in enumerate(STRIDES):
        again = decode(vae, encode(vae, video, [stride] * len(parts)))
        error = (again.clamp(-1, 1) - video).square().mean(dim=(0, 1, 3, 4))
        distortion[:, option] = [float(error[part.start : part.stop].sum()) for part in parts]
    return RateDistortion(costs=costs(video.shape[2], vae.factor_t), distortion=distortion)


def choose(measured: RateDistortion, budget: Budget, duration_s: float = 0.0) -> tuple[int, ...]:
    """Return the strides of least total distortion whose latents are at most the budget.

    Raises:
        BudgetError: the budget is below what the longest strides need; the message names the minimum.
    """
    options = allocate(measured.distortion, measured.costs, limit(budget, measured.costs, duration_s))
    return tuple(STRIDES[option] for option in options)
