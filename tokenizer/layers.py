"""The layers of the tokenizer: pure in time, with every cache passed in and out.

Inside, video is `b t c h w`, so folding time into the batch is free. Legend: b batch, t frame, c channel, h w cells.
A layer that looks back takes the last frames of its input from `before` and leaves its own in `after`, two mappings by
layer name; nothing is kept in a module. What a layer computes for a frame depends on this frame and earlier ones alone;
no kernel is chosen by the length of the chunk.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, MutableMapping
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

Caches = Mapping[str, Tensor]
NextCaches = MutableMapping[str, Tensor]
Video = Float[Tensor, "b t c h w"]

_HAAR = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float32) / 2


def next_caches() -> NextCaches:
    """Return the empty `after` of a chunk.

    It is no `dict`, for FSDP2's hooks hand a module a copy of any `dict` that holds tensors, and what is left in a copy
    is lost.
    """
    return UserDict()


def haar(x: Video, levels: int = 1) -> Video:
    """Return the orthonormal Haar wavelet packet: each level halves the sides, has 4 × the channels, loses nothing.

    The subband is the outer part of the channel index; the first of the four is the low one. All levels are one
    convolution, which on a CPU takes a tenth of the time of moving pixels about. Raises ValueError where the sides are
    no multiple of 2 to the power of levels.
    """
    if any(side % 2**levels for side in x.shape[-2:]):
        raise ValueError(f"{levels} halvings need sides that are multiples of {2**levels}, not {list(x.shape[-2:])}")
    basis = _packet(levels, x.shape[2]).to(x)
    return F.conv2d(x.flatten(0, 1), basis, stride=2**levels).unflatten(0, x.shape[:2])


def unhaar(x: Video, levels: int = 1) -> Video:
    """Return the inverse of `haar`."""
    b, t, bands, h, w = x.shape
    basis = _packet(levels, bands // 4**levels).to(x).flatten(1).T
    pixels = torch.bmm(basis.expand(b * t, -1, -1), x.reshape(b * t, bands, h * w))
    return F.pixel_shuffle(pixels.unflatten(2, (h, w)), 2**levels).unflatten(0, (b, t))


@cache
@torch.inference_mode(False)  # what is made within it could not be used in training later
def _packet(levels: int, channels: int) -> Float[Tensor, "bands channels side side"]:
    """Return what each subband of each channel, the channel inner, sees of the pixels of a cell."""
    basis = torch.ones(1, 1, 1)
    for _ in range(levels):  # each further level is coarser: its subbands and its pixels are the outer ones
        side = 2 * basis.shape[1]
        basis = torch.einsum("spq,kcd->skpcqd", _HAAR.view(4, 2, 2), basis).reshape(-1, side, side)
    return torch.einsum("shw,co->scohw", basis, torch.eye(channels)).flatten(0, 1)


def each_frame(layer: nn.Module, x: Video) -> Video:
    """Return the output of a 2D layer on every frame."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Return the layer with weights and bias set to zero: what starts so adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class RateNorm(nn.Module):
    """RMSNorm over the channels of one position (never over time), with a gain for each rate: the rate embedding."""

    def __init__(self, channels: int, rates: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.by_rate = nn.Parameter(torch.zeros(rates, channels))

    def forward(self, x: Video, rate: int) -> Video:
        """Return the normed video; `rate` is the index of the rate."""
        scale = torch.rsqrt(x.square().mean(dim=2, keepdim=True) + 1e-6)
        gain = self.gain * (1 + self.by_rate[rate])
        scale, gain = scale.to(x.dtype), gain.to(x.dtype)[:, None, None]  # else half precision would be promoted
        return x * scale * gain if torch.is_grad_enabled() else (x * scale).mul_(gain)


def activated(norm: nn.Module, x: Video, rate: int) -> Video:
    """Return the SiLU of what is normed, in the place of it where no gradient is asked for."""
    return F.silu(norm(x, rate), inplace=not torch.is_grad_enabled())


class TimeConv(nn.Module):
    """The (3,1,1) causal convolution, as three products of matrices for each frame, one for each tap.

    One kernel for all sizes and any length of chunk: a frame's products have the same shapes whatever stands beside it.
    Against 1×1 convolutions of three joined frames, on a CPU: tokenizers of 80 to 256 channels take 0.64 to 0.88 × the
    time, and the layer in training 0.6 to 0.95 × from crops of 96 pixels on. On crops of 32 pixels a base would train
    3 × slower, since the gradient of the weights is formed for each frame. Before the first frame stands its copy.
    """

    def __init__(self, channels: int, name: str):
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.empty(3, channels, channels))
        """Taps, oldest first; `[out, in]` each."""
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=0.1 / channels**0.5)  # a block starts close to the identity

    def forward(self, x: Video, before: Caches, after: NextCaches) -> Video:
        """Return the convolved chunk; two past frames come from `before`, the last two go to `after`."""
        past = before[self.name] if self.name in before else x[:, :1].expand(-1, 2, -1, -1, -1)
        seen = torch.cat([past, x], dim=1)
        after[self.name] = seen[:, -2:].clone()  # a view would keep the whole chunk in memory
        b, t, _, h, w = x.shape
        del x, past  # where no gradient is asked for, `seen` is all that is needed
        frames = [rearrange(seen[:, tap : tap + t], "b t c h w -> (b t) c (h w)") for tap in range(3)]
        weights = [weight.expand(b * t, -1, -1) for weight in self.weight]
        out = torch.baddbmm(self.bias[:, None], weights[0], frames[0])
        for weight, frame in zip(weights[1:], frames[1:], strict=True):
            out.baddbmm_(weight.to(out.dtype), frame.to(out.dtype))  # autocast leaves alone what is done in place
        return rearrange(out, "(b t) c (h w) -> b t c h w", b=b, h=h, w=w)


class Block(nn.Module):
    """Residual block: (1,3,3) within the frame, then (3,1,1) over this frame and the two before."""

    def __init__(self, channels: int, rates: int, name: str):
        super().__init__()
        self.norm_space, self.norm_time = RateNorm(channels, rates), RateNorm(channels, rates)
        self.space = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = TimeConv(channels, name)

    def forward(self, x: Video, rate: int, before: Caches, after: NextCaches) -> Video:
        """Return the chunk after the block."""
        y = each_frame(self.space, activated(self.norm_space, x, rate))
        y = activated(self.norm_time, y, rate)  # of the same name, so that the one before is let go
        y = self.time(y, before, after)
        return x + y if torch.is_grad_enabled() else y.add_(x)


class SpaceDown(nn.Module):
    """Halves the sides; the shortcut is space-to-channel and a mean over channel groups (arXiv 2410.10733, §3.2)."""

    def __init__(self, inside: int, outside: int, conv: Callable[..., nn.Module] = nn.Conv2d):
        super().__init__()
        self.conv = conv(inside, outside // 4, 3, padding=1)
        self.outside = outside

    def forward(self, x: Video) -> Video:
        """Return the chunk at half the sides."""
        short = reduce(_unshuffle(x), "b t (c k) h w -> b t c h w", "mean", c=self.outside)
        return short + _unshuffle(each_frame(self.conv, x))


class SpaceUp(nn.Module):
    """Doubles the sides; the shortcut repeats channels into space."""

    def __init__(self, inside: int, outside: int, conv: Callable[..., nn.Module] = nn.Conv2d):
        super().__init__()
        self.conv = conv(inside, outside * 4, 1)
        self.copies = outside * 4 // inside

    def forward(self, x: Video) -> Video:
        """Return the chunk at twice the sides."""
        short = repeat(x, "b t c h w -> b t (c k) h w", k=self.copies)
        return rearrange(short + each_frame(self.conv, x), "b t (c p q) h w -> b t c (h p) (w q)", p=2, q=2)


def _unshuffle(x: Video) -> Video:
    """Return space as channels; torch's own pixel_unshuffle has no backward for some strides of 5D tensors on CPUs."""
    return rearrange(x, "b t c (h p) (w q) -> b t (c p q) h w", p=2, q=2)


class TimeDown(nn.Module):
    """Halves the frame rate: the mean of each pair, plus a learned part that starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = zeroed(nn.Conv2d(2 * channels, channels, 1))

    def forward(self, x: Video) -> Video:
        """Return the chunk at half the frame rate; a pair never reaches over to the next."""
        pairs = rearrange(x, "b (t p) c h w -> b t (p c) h w", p=2)
        return reduce(x, "b (t p) c h w -> b t c h w", "mean", p=2) + each_frame(self.conv, pairs)


class TimeUp(nn.Module):
    """Doubles the frame rate: each frame twice, plus a learned part that starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = zeroed(nn.Conv2d(channels, 2 * channels, 1))

    def forward(self, x: Video) -> Video:
        """Return the chunk at twice the frame rate."""
        change = rearrange(each_frame(self.conv, x), "b t (p c) h w -> b (t p) c h w", p=2)
        return repeat(x, "b t c h w -> b (t p) c h w", p=2) + change
