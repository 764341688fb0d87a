"""Encoder and decoder: stages of blocks, and the subbands from which a fresh tokenizer starts."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.config import PATCH, TokenizerConfig
from tokenizer.layers import Block, Caches, RateNorm, SpaceDown, SpaceUp, TimeDown, TimeUp, Video, each_frame


class Blocks(nn.Module):
    """The blocks of one stage; those of a halving of the frame rate start as the identity, so that it can come late."""

    def __init__(self, channels: int, config: TokenizerConfig, name: str, identity: bool = False):
        super().__init__()
        blocks = [Block(channels, len(config.rates), f"{name}.{i}") for i in range(config.depth)]
        for weight in (weight for block in blocks if identity for weight in block.time.parameters()):
            nn.init.zeros_(weight)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Video, rate: int, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk after all blocks."""
        for block in self.blocks:
            x = block(x, rate, before, after)
        return x


class Encoder(nn.Module):
    """From Haar subbands to the mean and log variance of latents."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths = _widths(config)
        self.enter = nn.Conv2d(3 * PATCH**2, widths[0], 3, padding=1)
        self.space = nn.ModuleList(Blocks(width, config, f"encoder.space{i}") for i, width in enumerate(widths[:-1]))
        self.space_down = nn.ModuleList(map(SpaceDown, widths, widths[1:]))
        self.full = Blocks(config.width, config, "encoder.full")
        self.time_down = nn.ModuleList(TimeDown(config.width) for _ in range(config.time_stages))
        self.time = nn.ModuleList(
            Blocks(config.width, config, f"encoder.time{i}", identity=True) for i in range(config.time_stages)
        )
        self.norm = RateNorm(config.width, len(config.rates))
        self.leave = nn.Conv2d(config.width, 2 * config.channels, 1)

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return means and log variances, `2·channels` of them; `rate` is an index, `halvings` its logarithm."""
        x = each_frame(self.enter, x)
        for blocks, down in zip(self.space, self.space_down, strict=True):
            x = down(blocks(x, rate, before, after))
        x = self.full(x, rate, before, after)
        for down, blocks in islice(zip(self.time_down, self.time, strict=True), halvings):
            x = blocks(down(x), rate, before, after)
        return each_frame(self.leave, F.silu(self.norm(x, rate)))


class Decoder(nn.Module):
    """From latents to Haar subbands: the encoder's mirror image."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        widths = _widths(config)
        self.enter = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.time = nn.ModuleList(
            Blocks(config.width, config, f"decoder.time{i}", identity=True) for i in range(config.time_stages)
        )
        self.time_up = nn.ModuleList(TimeUp(config.width) for _ in range(config.time_stages))
        self.full = Blocks(config.width, config, "decoder.full")
        self.space_up = nn.ModuleList(map(SpaceUp, widths[1:], widths))
        self.space = nn.ModuleList(Blocks(width, config, f"decoder.space{i}") for i, width in enumerate(widths[:-1]))
        self.norm = RateNorm(widths[0], len(config.rates))
        self.leave = nn.Conv2d(widths[0], 3 * PATCH**2, 3, padding=1)

    def forward(self, z: Video, rate: int, doublings: int, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return Haar subbands at the full frame rate."""
        x = each_frame(self.enter, z)
        for i in reversed(range(doublings)):
            x = self.time_up[i](self.time[i](x, rate, before, after))
        x = self.full(x, rate, before, after)
        for i in reversed(range(len(self.space))):
            x = self.space[i](self.space_up[i](x), rate, before, after)
        return each_frame(self.leave, F.silu(self.norm(x, rate)))


def _widths(config: TokenizerConfig) -> list[int]:
    """Return the channels at each size of picture, from the Haar patches down to the latent cells."""
    return [config.width // 2] * bool(config.space_stages) + [config.width] * max(config.space_stages, 1)


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
