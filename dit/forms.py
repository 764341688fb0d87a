"""Other forms of a block: attention over one axis after another, and words that are tokens in a stream of their own.

Packed as in `layers`: `n` tokens of `clips` clips, those of a clip latent by latent, as `model.grid` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushes.dit.config import DiTConfig
from rushes.dit.layers import Block, SelfAttention, gated, modulate, packed_attention


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Which tokens of a pack share a latent, and which share a cell of the picture in the latents of their clip."""

    latents: list[int]
    """Tokens of each latent of all clips."""
    cells: list[int]
    """Tokens of each cell of all clips: the latents of its clip."""
    by_cell: Int[Tensor, " n"]
    """The tokens, those of a cell one behind the other."""
    back: Int[Tensor, " n"]
    """Undoes that."""
    moving: Float[Tensor, "clips 1"]
    """1 for clips of several latents, 0 for a picture, whose tokens have nothing to see in other latents."""

    @classmethod
    def of(cls, positions: Float[Tensor, "n 3"], lengths: Sequence[int]) -> Axes:
        """Return them for clips whose tokens stand at `positions`: a latent is what stands at one second."""
        seconds = positions[:, 0].split(list(lengths))
        shared = torch.stack([(one == one[0]).sum() for one in seconds]).tolist()
        shapes = [(length // cells, cells) for length, cells in zip(lengths, shared, strict=True)]
        assert all(t * cells == length for (t, cells), length in zip(shapes, lengths, strict=True)), "ragged latents"
        numbers = torch.arange(sum(lengths)).split(list(lengths))
        order = torch.cat([one.view(shape).T.flatten() for one, shape in zip(numbers, shapes, strict=True)])
        return cls(
            latents=[cells for t, cells in shapes for _ in range(t)],
            cells=[t for t, cells in shapes for _ in range(cells)],
            by_cell=order.to(positions.device),
            back=order.argsort().to(positions.device),
            moving=positions.new_tensor([[float(t > 1)] for t, _ in shapes]),
        )


class AxialBlock(Block):
    """AdaLN-Zero block whose attention is over its latent, over its cell, or over both in turn.

    Both is factorised self-attention, model 3 of arXiv 2103.15691; blocks over latents followed by blocks over cells
    are its factorised encoder, model 2, but for one thing: there a latent is summed up as a single token before it
    meets others, here every token meets its own in them, for a generator has to answer each. It loses nothing by that:
    a token that has seen its latent tells of it in all others. A picture has no other latents: the gate of what is seen
    in them is closed, so blocks over both treat a picture as joint attention does.
    """

    def __init__(self, width: int, heads: int, over: Literal["latents", "cells", "both"]):
        super().__init__(width, heads)
        self.over = over
        if over == "both":
            self.temporal = SelfAttention(width, heads)
            self.temporal_modulation = nn.Linear(width, 3 * width)
            nn.init.zeros_(self.temporal_modulation.weight)
            nn.init.zeros_(self.temporal_modulation.bias)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "n d"],
        state: Float[Tensor, "clips d"],
        angles: Float[Tensor, "n half"],
        words: Float[Tensor, "m d"],
        lengths: Sequence[int],
        word_lengths: Sequence[int],
        axes: Axes,
    ) -> Float[Tensor, "n d"]:
        """Mix tokens along their axes, read the words, transform."""
        shift, scale, gate, *rest = self.modulation(F.silu(state)).chunk(6, dim=-1)
        seen = modulate(x, lengths, shift, scale)
        if self.over == "cells":
            x = x + gated(_over_cells(self.attention, seen, angles, axes), lengths, gate * axes.moving)
        else:
            x = x + gated(self.attention(seen, angles, axes.latents), lengths, gate)
        if self.over == "both":
            shift, scale, gate = self.temporal_modulation(F.silu(state)).chunk(3, dim=-1)
            seen = modulate(x, lengths, shift, scale)
            x = x + gated(_over_cells(self.temporal, seen, angles, axes), lengths, gate * axes.moving)
        x = self.read(x, words, lengths, word_lengths)
        return self.transform(x, lengths, *rest)


def _over_cells(attention: SelfAttention, x: Tensor, angles: Tensor, axes: Axes) -> Float[Tensor, "n d"]:
    """Return what tokens see of the same cell in the other latents of their clip."""
    found: Tensor = attention(x[axes.by_cell], angles[axes.by_cell], axes.cells)
    return found[axes.back]


class DualBlock(nn.Module):
    """Two streams, each through weights of its own, that meet in attention alone: MM-DiT, arXiv 2403.03206."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.tokens = Block(width, heads, reads=False)
        self.words = Block(width, heads, reads=False)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        state: Float[Tensor, "clips d"],
        angles: Float[Tensor, "n half"],
        words: Float[Tensor, "m d"],
        lengths: Sequence[int],
        word_lengths: Sequence[int],
    ) -> Float[Tensor, "n d"]:
        """Mix the rows of each clip: tokens, and as the last of them its words, so that `words` are not read."""
        counts = [whole - own for whole, own in zip(lengths, word_lengths, strict=True)], list(word_lengths)
        parts, turns = apart(x, *counts), apart(angles, *counts)
        streams = list(zip((self.tokens, self.words), parts, turns, counts, strict=True))
        told = [block.modulation(F.silu(state)).chunk(6, dim=-1) for block, *_ in streams]
        asked = [
            block.attention.project(modulate(own, count, shift, scale), turn)
            for (block, own, turn, count), (shift, scale, *_) in zip(streams, told, strict=True)
        ]
        q, k, v = (together(own, more, *counts) for own, more in zip(*asked, strict=True))
        mixed = apart(packed_attention(q, k, v, lengths, lengths).flatten(1), *counts)
        tokens, read = (
            block.transform(own + gated(block.attention.out(seen), count, gate_a), count, *rest)
            for (block, own, _, count), seen, (_, _, gate_a, *rest) in zip(streams, mixed, told, strict=True)
        )
        return together(tokens, read, *counts)


def together(
    tokens: Float[Tensor, "n ..."], words: Float[Tensor, "m ..."], lengths: Sequence[int], word_lengths: Sequence[int]
) -> Float[Tensor, "n+m ..."]:
    """Return the tokens of each clip with its words behind them."""
    pairs = zip(tokens.split(list(lengths)), words.split(list(word_lengths)), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def apart(
    rows: Float[Tensor, "n+m ..."], lengths: Sequence[int], word_lengths: Sequence[int]
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "m ..."]]:
    """Undo `together`."""
    parts = rows.split([count for pair in zip(lengths, word_lengths, strict=True) for count in pair])
    return torch.cat(parts[::2]), torch.cat(parts[1::2])


def blocks(config: DiTConfig) -> list[nn.Module]:
    """Return the blocks of a network, of the form that its config asks for."""
    d, heads, number = config.width, config.heads, config.blocks
    if config.streams == "dual-to-single":
        single = number - config.dual_blocks
        return [DualBlock(d, heads) for _ in range(number - single)] + [Block(d, heads, False) for _ in range(single)]
    if config.attention == "factorised":
        return [AxialBlock(d, heads, "both") for _ in range(number)]
    if config.attention == "factorised-encoder":
        return [AxialBlock(d, heads, "latents" if i < config.spatial_blocks else "cells") for i in range(number)]
    return [Block(d, heads) for _ in range(number)]
