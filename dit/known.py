"""Latents that are known while the others of a clip are generated: one format for every such condition.

First and last frames, a clip that goes on and a part of the picture that is filled in are all a clip and a mask that
says of each token whether it is known (the masked video of VACE, arXiv 2503.07598). Known tokens enter the network as
they are, without noise, through a layer of their own that starts at zero, and bear no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushes.dit.plan import VALIDATION, Ticket

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of the picture, in shares of its sides."""
KINDS = ("first", "last", "ends", "around")
"""What is known in training: the first segments, the last one, the first and the last, all around a box."""
SIDES = (0.25, 0.75)
"""Shares of the picture's sides that a box has in training."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The latents of a segment that is known."""

    z: Float[Tensor, "n c h w"]
    mask: Bool[Tensor, "rows columns"]
    """Which of its tokens are known."""


def drawn(ticket: Ticket, counts: Sequence[int], rows: int, columns: int, share: float) -> Bool[Tensor, " n"]:
    """Return which tokens of a window of a clip are given in training: of a `share` of the windows some, else none.

    The kinds are equally likely; one that the window is too short or too small for means none. Nothing is given where
    the loss is measured for comparison.

    Args:
        ticket: whose random numbers are used.
        counts: latents of each segment.
        rows: tokens of a column of the picture.
        columns: tokens of a row of it.
        share: of the windows, `TrainConfig.known`.
    """
    dice, segments = ticket.generator("known"), len(counts)
    given, grid = np.zeros(segments, bool), torch.zeros(rows, columns, dtype=torch.bool)
    kind = KINDS[dice.integers(len(KINDS))] if dice.random() < share and ticket.epoch != VALIDATION else ""
    if kind == "around":
        grid = around(_box(dice), rows, columns)
    elif kind == "first" and segments > 1:
        given[: dice.integers(1, segments)] = True
    elif kind and segments > (2 if kind == "ends" else 1):
        given[-1], given[0] = True, kind == "ends"
    every = torch.from_numpy(np.repeat(given, counts))[:, None, None] | grid
    return every.flatten()


def _box(dice: np.random.Generator) -> Box:
    width, height = dice.uniform(*SIDES, 2)
    left, top = dice.uniform(0, 1 - width), dice.uniform(0, 1 - height)
    return left, top, left + width, top + height


def around(box: Box, rows: int, columns: int) -> Bool[Tensor, "rows columns"]:
    """Return the tokens of a picture that a box does not touch; none where it touches all of them."""
    (left, right), (top, bottom) = _touched(box[0], box[2], columns), _touched(box[1], box[3], rows)
    outside = torch.ones(rows, columns, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    return outside


def _touched(begin: float, end: float, count: int) -> tuple[int, int]:
    """Return the first token that a stretch touches, and what is behind the last; an edge that just meets does not."""
    return int(begin * count + 1e-6), max(int(np.ceil(end * count - 1e-6)), int(begin * count + 1e-6) + 1)
