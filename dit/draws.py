"""Random numbers that belong to a clip and not to a place in a run: from a counter-based generator.

Whatever is drawn for a window of a clip is keyed by (seed, clip, epoch, window) and by what it is for. So it does not
depend on what stands beside it in a pack, nor on ranks, workers, or where a run was broken off. Philox: Salmon et al.,
Parallel random numbers: as easy as 1, 2, 3, 2011.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

VALIDATION = -1
"""The epoch of what is drawn for validation: the same each time."""


def generator(purpose: str, *key: int | str) -> np.random.Generator:
    """Return the generator of a key. Equal keys give equal numbers; others have nothing to do with each other."""
    words = "\0".join([purpose, *map(str, key)])
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.blake2b(words.encode(), digest_size=16).digest()))
    )


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What the random numbers of a window of a clip are keyed by."""

    seed: int
    clip: str
    epoch: int
    window: int

    def generator(self, purpose: str) -> np.random.Generator:
        """Return the generator of what is drawn for one purpose."""
        return generator(purpose, self.seed, self.clip, self.epoch, self.window)


def noise(tickets: Sequence[Ticket], lengths: Sequence[int], width: int) -> Float[Tensor, "n width"]:
    """Return normal noise for the tokens of windows, one behind the other."""
    found = np.empty((sum(lengths), width), np.float32)
    for ticket, length, end in zip(tickets, lengths, np.cumsum(lengths), strict=True):
        ticket.generator("noise").standard_normal(dtype=np.float32, out=found[end - length : end])
    return torch.from_numpy(found)


def drawn(tickets: Sequence[Ticket], count: int) -> tuple[Float[Tensor, " clips"], Float[Tensor, "clips count"]]:
    """Return a normal number for each window, from which its time is made, and some in [0, 1), by which its condition
    is thinned.
    """
    dice = [ticket.generator("time and condition") for ticket in tickets]
    normals = [one.standard_normal(dtype=np.float32) for one in dice]
    return torch.tensor(normals), torch.from_numpy(np.stack([one.random(count, dtype=np.float32) for one in dice]))
