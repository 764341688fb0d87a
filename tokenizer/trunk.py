"""Encoder and decoder: stages of blocks, and the subbands from which a fresh tokenizer starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.config import PATCH, TokenizerConfig
from rushes.tokenizer.layers import (
    Block,
    Caches,
    NextCaches,
    RateNorm,
    SpaceDown,
    SpaceUp,
    TimeDown,
    TimeUp,
    Video,
    each_frame,
    haar,
    unhaar,
)


def plain_block(channels: int, groups: Sequence[int], name: str) -> nn.Module:
    """Return a block that knows of no groups of frames."""
    return Block(channels, len(groups), name)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """The layers of which a trunk is made; a variant may bring its own."""

    conv: Callable[..., nn.Module] = nn.Conv2d
    """Within a frame: channels in and out, side of the kernel, padding."""
    norm: Callable[[int, int], nn.Module] = RateNorm
    """Channels, and how many rates there are."""
    block: Callable[[int, Sequence[int], str], nn.Module] = plain_block
    """Channels, the frames at this stage that become one latent at each rate, and the name of its caches."""
    time_down: Callable[[int], nn.Module] = TimeDown
    time_up: Callable[[int], nn.Module] = TimeUp


class Blocks(nn.Module):
    """The blocks of one stage, which has the frame rate of the video halved so many times."""

    def __init__(self, channels: int, config: TokenizerConfig, name: str, halvings: int = 0, kit: Kit | None = None):
        super().__init__()
        groups, make = [rate >> halvings for rate in config.rates], (kit or Kit()).block
        blocks = [make(channels, groups, f"{name}.{i}") for i in range(config.depth)]
        for weight in (weight for block in blocks if halvings for weight in cast(nn.Module, block.time).parameters()):
            nn.init.zeros_(weight)  # a halving of the frame rate starts as the identity, so that it can come late
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Video, rate: int, before: Caches, after: NextCaches) -> Video:
        """Return the chunk after all blocks."""
        for block in self.blocks:
            x = block(x, rate, before, after)
        return x


class SpaceEncoder(nn.Module):
    """The half of an encoder in which every frame is a frame: from Haar subbands down to the latent cells."""

    kit = Kit()
    faint: Tensor | float = -9.0
    """Log variances of the latents to start from: faint noise."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths, kit = widths_of(config), self.kit
        self.enter = nn.Conv2d(3 * PATCH**2, widths[0], 3, padding=1)
        self.space = nn.ModuleList(
            Blocks(width, config, f"encoder.space{i}", 0, kit) for i, width in enumerate(widths[:-1])
        )
        self.space_down = nn.ModuleList(SpaceDown(a, b, kit.conv) for a, b in pairwise(widths))
        self.full = Blocks(config.width, config, "encoder.full", 0, kit)

    def frames(self, x: Video, rate: int, before: Caches, after: NextCaches) -> Video:
        """Return the features of every frame."""
        x = each_frame(self.enter, x)
        for blocks, down in zip(self.space, self.space_down, strict=True):
            x = down(blocks(x, rate, before, after))
        return self.full(x, rate, before, after)


class Encoder(SpaceEncoder):
    """From Haar subbands to the mean and log variance of latents, each of its own frames: that of published systems."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        kit, stages = self.kit, range(config.time_stages)
        self.time_down = nn.ModuleList(kit.time_down(config.width) for _ in stages)
        self.time = nn.ModuleList(Blocks(config.width, config, f"encoder.time{i}", i + 1, kit) for i in stages)
        self.norm = kit.norm(config.width, len(config.rates))
        self.leave = kit.conv(config.width, 2 * config.channels, 1)
        self.levels = config.space.bit_length() - 1

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches, coarse: Video) -> Video:
        """Return means and log variances, `2·channels` of them; `rate` is an index, `halvings` its logarithm."""
        return self.moments(self.features(x, rate, halvings, before, after), rate)

    def features(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches) -> Video:
        """Return what the trunk makes of a chunk, at the frame rate of the latents."""
        x = self.frames(x, rate, before, after)
        for down, blocks in islice(zip(self.time_down, self.time, strict=True), halvings):
            x = blocks(down(x), rate, before, after)
        return x

    def moments(self, x: Video, rate: int) -> Video:
        """Return means and log variances of features."""
        return each_frame(self.leave, F.silu(self.norm(x, rate)))

    def exits(self) -> list[nn.Conv2d]:
        """Return the convolutions that give moments: half of the channels of each are means, half log variances."""
        return [cast(nn.Conv2d, self.leave)]

    def coarse(self, codec: nn.Module, x: Video, halvings: int) -> Video:
        """Return the latents of the linear codec."""
        return each_frame(codec, self.summary(x, 1 << halvings))

    def summary(self, x: Video, rate: int) -> Video:
        """Return what the linear codec sees: the Haar subbands of one picture for every `rate` frames, their mean."""
        return haar(x.unflatten(1, (-1, rate)).mean(dim=2), self.levels)


class SpaceDecoder(nn.Module):
    """The half of a decoder in which every frame is a frame: from the latent cells to Haar subbands."""

    kit = Kit()

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths, kit = widths_of(config), self.kit
        self.full = Blocks(config.width, config, "decoder.full", 0, kit)
        self.space_up = nn.ModuleList(SpaceUp(b, a, kit.conv) for a, b in pairwise(widths))
        self.space = nn.ModuleList(
            Blocks(width, config, f"decoder.space{i}", 0, kit) for i, width in enumerate(widths[:-1])
        )
        self.norm = kit.norm(widths[0], len(config.rates))
        self.leave = nn.Conv2d(widths[0], 3 * PATCH**2, 3, padding=1)

    def pictures(self, x: Video, rate: int, before: Caches, after: NextCaches, seen: Video | float = 0.0) -> Video:
        """Return the features of every frame at the sides of the Haar subbands, where `seen` is added to them."""
        x = self.full(x, rate, before, after)
        for i in reversed(range(len(self.space))):
            x = self.space_up[i](x) if i else self.space_up[i](x) + seen
            x = self.space[i](x, rate, before, after)
        return x if len(self.space) else x + seen

    def subbands(self, x: Video, rate: int) -> Video:
        """Return the Haar subbands of features."""
        return each_frame(self.leave, F.silu(self.norm(x, rate)))


class Decoder(SpaceDecoder):
    """From latents, each of its own frames, to Haar subbands: the encoder's mirror image."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        kit, stages = self.kit, range(config.time_stages)
        self.levels = config.space.bit_length() - 1
        self.enter = kit.conv(config.channels, config.width, 3, padding=1)
        self.time = nn.ModuleList(Blocks(config.width, config, f"decoder.time{i}", i + 1, kit) for i in stages)
        self.time_up = nn.ModuleList(kit.time_up(config.width) for _ in stages)

    def forward(self, z: Video, rate: int, doublings: int, before: Caches, after: NextCaches, still: Video) -> Video:
        """Return Haar subbands at the full frame rate; `still`, the video of the linear codec, is not looked at."""
        return self.subbands(self.features(each_frame(self.enter, z), rate, doublings, before, after), rate)

    def features(self, x: Video, rate: int, doublings: int, before: Caches, after: NextCaches) -> Video:
        """Return what the trunk makes of latents that have entered it, at the full frame rate."""
        for i in reversed(range(doublings)):
            x = self.time_up[i](self.time[i](x, rate, before, after))
        return self.pictures(x, rate, before, after)

    def coarse(self, codec: nn.Module, z: Video, doublings: int) -> Video:
        """Return the video of the linear codec: each latent's picture, held."""
        return unhaar(each_frame(codec, z), self.levels).repeat_interleave(1 << doublings, dim=1)


def widths_of(config: TokenizerConfig) -> list[int]:
    """Return the channels at each size of picture, from the Haar patches down to the latent cells."""
    return [config.width // 2] * bool(config.space_stages) + [config.width] * max(config.space_stages, 1)


@torch.no_grad()
def linear_codec(config: TokenizerConfig) -> tuple[nn.Module, nn.Module]:
    """Return the 1×1 convolutions from the subbands of a picture to a latent and back: they keep the lowest."""
    bands, low = 3 * config.space**2, low_bands(config.channels, config.space)
    into, out = (nn.Conv2d(*sides, 1, bias=False) for sides in ((bands, config.channels), (config.channels, bands)))
    into.weight.copy_((low / 4)[:, :, None, None])
    out.weight.copy_((low.T * 4)[:, :, None, None])
    return into, out


def low_bands(channels: int, space: int) -> Float[Tensor, "channels bands"]:
    """Return rows that pick the lowest Haar subbands: the mean in three colours, then luma.

    Frequencies rise with the rows.
    """
    levels = space.bit_length() - 1
    bands = sorted(range(space**2), key=lambda band: (_coarseness(band, levels), band))
    rows = torch.zeros(channels, 3 * space**2)
    for row in range(channels):
        if row < 3:
            rows[row, bands[0] * 3 + row] = 1
        elif row - 2 < len(bands):
            rows[row, bands[row - 2] * 3 : bands[row - 2] * 3 + 3] = 3**-0.5
    return rows


def _coarseness(band: int, levels: int) -> tuple[int, ...]:
    """Return the detail indices of a subband, finest level first; 0 is low, so low bands sort first."""
    return tuple(band // 4**level % 4 for level in range(levels))
