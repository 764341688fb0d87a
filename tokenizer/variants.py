"""Four published systems beside ours; each is an encoder, a decoder and a linear codec to start from.

* fixed-4x8x8: HunyuanVideo (arXiv 2412.03603): 16 channels, four frames per latent. The trunk as it is, at one rate.
* dual-branch: IV-VAE (arXiv 2411.06449): half of the channels code the key frame, the first of the frames that become
  one latent, and know no time. The other half sees the frames of its group in both directions, and earlier groups.
* grown-16x: ProMAG (arXiv 2501.05442): the trunk of four frames per latent codes every second or fourth frame; new
  stages, which start as identity, add what the frames between have.
* structure-dynamics: VidTwin (arXiv 2412.17726): a segment is one grid of cells, its structure, and for every four of
  its frames a row and a column of cells, its dynamics. All three stand in one grid: see `Twin`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.joint import JointDecoder, JointEncoder, joint_codec
from rushes.tokenizer.layers import (
    Caches,
    NextCaches,
    RateNorm,
    TimeConv,
    TimeDown,
    TimeUp,
    Video,
    each_frame,
    haar,
    next_caches,
    zeroed,
)
from rushes.tokenizer.trunk import Blocks, Decoder, Encoder, Kit, linear_codec, low_bands, widths_of


class HalvedConv(nn.Module):
    """A convolution within the frame: the key half of its output sees the key half alone, the other half sees all."""

    def __init__(self, inside: int, outside: int, kernel: int, padding: int = 0, bias: bool = True):
        super().__init__()
        self.key = nn.Conv2d(inside // 2, outside // 2, kernel, padding=padding, bias=bias)
        self.motion = nn.Conv2d(inside, outside // 2, kernel, padding=padding, bias=bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Return the convolved frames, the key half first."""
        return torch.cat([self.key(x[:, : x.shape[1] // 2]), self.motion(x)], dim=1)


class HalvedNorm(nn.Module):
    """A norm for each half."""

    def __init__(self, channels: int, rates: int):
        super().__init__()
        self.key, self.motion = RateNorm(channels // 2, rates), RateNorm(channels // 2, rates)

    def forward(self, x: Video, rate: int) -> Video:
        """Return the normed video; `rate` is the index of the rate."""
        key, motion = x.chunk(2, dim=2)
        return torch.cat([self.key(key, rate), self.motion(motion, rate)], dim=2)


class GroupConv(nn.Module):
    """The (3,1,1) group-causal convolution: the frame before, this one and the one after, which ends with its group.

    Past the last frame of a group stands its copy, and so before the first frame of all.
    """

    def __init__(self, inside: int, outside: int, name: str):
        super().__init__()
        self.name = name
        self.conv = nn.Conv2d(3 * inside, outside, 1)
        nn.init.normal_(self.conv.weight, std=0.1 / inside**0.5)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Video, group: int, before: Caches, after: NextCaches) -> Video:
        """Return the convolved chunk of whole groups; one past frame comes from `before`, the last goes to `after`."""
        past = torch.cat([before[self.name] if self.name in before else x[:, :1], x[:, :-1]], dim=1)
        groups = x.unflatten(1, (-1, group))
        coming = torch.cat([groups[:, :, 1:], groups[:, :, -1:]], dim=2).flatten(1, 2)
        after[self.name] = x[:, -1:].clone()  # a view would keep the whole chunk in memory
        return each_frame(self.conv, torch.cat([past, x, coming], dim=2))


class HalvedBlock(nn.Module):
    """The block of two branches: over time, the key half is left to itself."""

    def __init__(self, channels: int, groups: Sequence[int], name: str):
        super().__init__()
        self.groups = tuple(groups)
        self.norm_space, self.norm_time = HalvedNorm(channels, len(groups)), HalvedNorm(channels, len(groups))
        self.space = HalvedConv(channels, channels, 3, padding=1)
        self.key = nn.Conv2d(channels // 2, channels // 2, 1)
        self.time = GroupConv(channels, channels // 2, name)

    def forward(self, x: Video, rate: int, before: Caches, after: NextCaches) -> Video:
        """Return the chunk after the block."""
        y = each_frame(self.space, F.silu(self.norm_space(x, rate)))
        y = F.silu(self.norm_time(y, rate))
        key = each_frame(self.key, y[:, :, : y.shape[2] // 2])
        return x + torch.cat([key, self.time(y, self.groups[rate], before, after)], dim=2)


class HalvedTimeDown(nn.Module):
    """Halves the frame rate: the key half keeps the first of each pair, the other half its mean and a learned part."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = zeroed(nn.Conv2d(2 * channels, channels // 2, 1))

    def forward(self, x: Video) -> Video:
        """Return the chunk at half the frame rate."""
        key, motion = x.chunk(2, dim=2)
        pairs = rearrange(x, "b (t p) c h w -> b t (p c) h w", p=2)
        mean = reduce(motion, "b (t p) c h w -> b t c h w", "mean", p=2)
        return torch.cat([key[:, ::2], mean + each_frame(self.conv, pairs)], dim=2)


class HalvedTimeUp(nn.Module):
    """Doubles the frame rate: each frame twice, to which a learned part comes in the half that is not the key's."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Video) -> Video:
        """Return the chunk at twice the frame rate."""
        change = rearrange(each_frame(self.conv, x), "b t (p c) h w -> b (t p) c h w", p=2)
        key, motion = repeat(x, "b t c h w -> b (t p) c h w", p=2).chunk(2, dim=2)
        return torch.cat([key, motion + change], dim=2)


HALVED = Kit(
    conv=HalvedConv, norm=HalvedNorm, block=HalvedBlock, time_down=HalvedTimeDown, time_up=HalvedTimeUp,
)  # fmt: skip


class HalvedEncoder(Encoder):
    """Two branches; the first half of the latent's channels is that of the key frame."""

    kit = HALVED

    def moments(self, x: Video, rate: int) -> Video:
        """Return means and log variances of features; each branch gives its own of both."""
        return rearrange(super().moments(x, rate), "b t (branch m c) h w -> b t (m branch c) h w", branch=2, m=2)

    def exits(self) -> list[nn.Conv2d]:
        """Return the convolutions that give moments."""
        leave = cast(HalvedConv, self.leave)
        return [leave.key, leave.motion]

    def summary(self, x: Video, rate: int) -> Video:
        """Return the subbands of the key frame, and of the difference to the mean of its group."""
        groups = x.unflatten(1, (-1, rate))
        key, mean = groups[:, :, 0], groups.mean(dim=2)
        return torch.cat([haar(key, self.levels), haar(mean - key, self.levels)], dim=2)


class HalvedDecoder(Decoder):
    """The mirror image of two branches; the last layer alone joins them."""

    kit = HALVED


@torch.no_grad()
def halved_codec(config: TokenizerConfig) -> tuple[nn.Module, nn.Module]:
    """Return the linear codec in which each half keeps the lowest subbands of its part of the summary."""
    bands, half = 3 * config.space**2, config.channels // 2
    low = low_bands(half, config.space)
    into, out = HalvedConv(2 * bands, config.channels, 1, bias=False), nn.Conv2d(config.channels, bands, 1, bias=False)
    into.key.weight.copy_((low / 4)[:, :, None, None])
    into.motion.weight.copy_(torch.cat([torch.zeros_like(low), low / 4], dim=1)[:, :, None, None])
    out.weight.copy_((torch.cat([low, low]).T * 4)[:, :, None, None])
    return into, out


class GrownEncoder(Encoder):
    """The trunk of four frames per latent, and new stages on top: rates above 4.

    The trunk's features of every second or fourth frame give the latent; its features of all frames, brought to the
    same frame rate by the new stages, are mixed in by a layer that starts at zero.
    """

    def __init__(self, config: TokenizerConfig):
        super().__init__(config.base)
        self.known, self.halvings = len(config.base.rates), config.base.time_stages
        stages = range(config.time_stages - self.halvings)
        self.grown_down = nn.ModuleList(TimeDown(config.width) for _ in stages)
        self.grown_time = nn.ModuleList(_new_blocks(config.width, config, f"encoder.grown{i}") for i in stages)
        self.grown_mix = zeroed(nn.Conv2d(config.width, config.width, 1))

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches, coarse: Video) -> Video:
        """Return means and log variances; `rate` is an index, `halvings` its logarithm."""
        known, new = min(rate, self.known - 1), halvings - self.halvings
        every = self.features(x, known, min(halvings, self.halvings), before, after)
        if new <= 0:
            return self.moments(every, known)
        passed = next_caches()
        past = {name.removeprefix("keys."): cache for name, cache in before.items() if name.startswith("keys.")}
        keys = self.features(x[:, :: 2**new], known, self.halvings, past, passed)
        after.update({f"keys.{name}": cache for name, cache in passed.items()})
        for down, blocks in islice(zip(self.grown_down, self.grown_time, strict=True), new):
            every = blocks(down(every), rate - self.known, before, after)
        return self.moments(keys + each_frame(self.grown_mix, every), known)

    def summary(self, x: Video, rate: int) -> Video:
        """Return the subbands of the mean of the frames that the trunk sees."""
        every = max(1, rate >> self.halvings)
        return super().summary(x[:, ::every], rate // every)


class GrownDecoder(Decoder):
    """The trunk makes every second or fourth frame; new stages, which start by holding it, make those between."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config.base)
        self.known, self.doublings = len(config.base.rates), config.base.time_stages
        stages, width = range(config.time_stages - self.doublings), widths_of(config)[0]
        self.grown_up = nn.ModuleList(TimeUp(width) for _ in stages)
        self.grown_time = nn.ModuleList(_new_blocks(width, config, f"decoder.grown{i}") for i in stages)

    def forward(self, z: Video, rate: int, doublings: int, before: Caches, after: NextCaches, still: Video) -> Video:
        """Return Haar subbands at the full frame rate."""
        known, new = min(rate, self.known - 1), doublings - self.doublings
        x = self.features(each_frame(self.enter, z), known, min(doublings, self.doublings), before, after)
        for i in reversed(range(new)):
            x = self.grown_time[i](self.grown_up[i](x), rate - self.known, before, after)
        return self.subbands(x, known)


def _new_blocks(channels: int, config: TokenizerConfig, name: str) -> Blocks:
    """Return the blocks of a new stage: they start as identity, and know the new rates alone."""
    new = tuple(rate for rate in config.rates if rate not in config.base.rates)
    blocks = Blocks(channels, replace(config, variant="adaptive", rates=new), name)
    for block in blocks.blocks:
        nn.init.zeros_(cast(TimeConv, block.time).weight)
    return blocks


class Twin(NamedTuple):
    """The latents of segments in two parts, and how they stand in one grid.

        structure | rows        h × w cells, and right of them h × n
        ----------+-----
        columns   |             n × w cells; the n × n in the corner carry nothing

    A segment has n latent frames; the dynamics of each are h cells, one for every row of its picture, and w cells, one
    for every column.
    """

    structure: Float[Tensor, "b k c h w"]
    rows: Float[Tensor, "b k c h n"]
    columns: Float[Tensor, "b k c n w"]

    @classmethod
    def of(cls, z: Float[Tensor, "b k c y x"], n: int) -> Twin:
        """Return the parts of latents whose margin has `n` cells (`TokenizerConfig.margin`)."""
        return cls(z[..., :-n, :-n], z[..., :-n, -n:], z[..., -n:, :-n])

    def grid(self) -> Float[Tensor, "b k c y x"]:
        """Return the parts as one grid."""
        upper = torch.cat([self.structure, self.rows], dim=-1)
        n = self.rows.shape[-1]
        return torch.cat([upper, F.pad(self.columns, (0, n))], dim=-2)


class TimeQuery(nn.Module):
    """One learned query over the latent frames of a segment, at every place by itself; starts as their mean.

    A Q-Former (arXiv 2301.12597) of one layer and one query, which sees the segment alone.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = RateNorm(channels, 1)
        self.query = nn.Parameter(torch.zeros(channels))
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Video, n: int) -> Video:
        """Return one frame for every `n`."""
        y = self.norm(x, 0)
        keys, values = (each_frame(layer, y).unflatten(1, (-1, n)) for layer in (self.key, self.value))
        score = torch.einsum("c,bkncij->bknij", self.query, keys) / len(self.query) ** 0.5
        found = torch.einsum("bknij,bkncij->bkcij", score.softmax(dim=2), values)
        return x.unflatten(1, (-1, n)).mean(dim=2) + found


class TwinEncoder(Encoder):
    """The trunk of four frames per latent; its latent frames become a structure and, as means, dynamics."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config.base)
        self.n, out = config.margin, 2 * config.channels
        self.query = TimeQuery(config.width)
        self.rows, self.columns = nn.Conv2d(config.width, out, 1), nn.Conv2d(config.width, out, 1)

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches, coarse: Video) -> Video:
        """Return means and log variances of one grid for each segment."""
        x = self.features(x, 0, len(self.time_down), before, after)
        y = F.silu(self.norm(x, 0))
        rows, columns = each_frame(self.rows, y.mean(-1, True)), each_frame(self.columns, y.mean(-2, True))
        return Twin(
            structure=self.moments(self.query(x, self.n), 0),
            rows=rearrange(rows, "b (k n) c h 1 -> b k c h n", n=self.n),
            columns=rearrange(columns, "b (k n) c 1 w -> b k c n w", n=self.n),
        ).grid()

    def exits(self) -> list[nn.Conv2d]:
        """Return the convolutions that give moments."""
        return [*super().exits(), self.rows, self.columns]

    def coarse(self, codec: nn.Module, x: Video, halvings: int) -> Video:
        """Return the grid of the linear codec: a structure alone."""
        return F.pad(super().coarse(codec, x, halvings), (0, self.n, 0, self.n))


class TwinDecoder(Decoder):
    """The trunk's mirror image; a latent frame is the structure, and a row and a column spread over it."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config.base)
        self.n = config.margin
        self.rows, self.columns = (nn.Conv2d(config.channels, config.width, 1, bias=False) for _ in range(2))

    def forward(self, z: Video, rate: int, doublings: int, before: Caches, after: NextCaches, still: Video) -> Video:
        """Return Haar subbands at the full frame rate."""
        twin = Twin.of(z, self.n)
        rows = each_frame(self.rows, rearrange(twin.rows, "b k c h n -> b (k n) c h 1"))
        columns = each_frame(self.columns, rearrange(twin.columns, "b k c n w -> b (k n) c 1 w"))
        structure = each_frame(self.enter, twin.structure).repeat_interleave(self.n, dim=1)
        return self.subbands(self.features(structure + rows + columns, 0, len(self.time_up), before, after), 0)

    def coarse(self, codec: nn.Module, z: Video, doublings: int) -> Video:
        """Return the video of the linear codec: that of the structure, held."""
        return super().coarse(codec, z[..., : -self.n, : -self.n], doublings)


class System(NamedTuple):
    """What a variant is made of."""

    encoder: type[Encoder] | type[JointEncoder] = Encoder
    decoder: type[Decoder] | type[JointDecoder] = Decoder
    codec: Callable[[TokenizerConfig], tuple[nn.Module, nn.Module]] = linear_codec


SYSTEMS = {
    "adaptive": System(JointEncoder, JointDecoder, joint_codec),
    "fixed-4x8x8": System(),
    "dual-branch": System(HalvedEncoder, HalvedDecoder, halved_codec),
    "grown-16x": System(GrownEncoder, GrownDecoder),
    "structure-dynamics": System(TwinEncoder, TwinDecoder),
}
