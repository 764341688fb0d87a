"""Wipes: ranges in which a front moves over the picture, the old one before it and the new one behind.

Each cell goes over when the front passes it. Shift the cells in time by when that is, and a wipe becomes a cut: all of
them change at once, and otherwise no more than they do before and after the range. A camera's pan changes all cells at
all times, a dissolve all of them slowly, and a cut, shifted so, is no cut any more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rushes.filters.blends import (
    LARGEST_STEP,
    LEAST_FRAMES,
    UNLIKE,
    Blend,
    Fits,
    apart,
    is_plain,
    lengths,
    likeness,
    ranges,
)
from rushes.filters.changes import CELLS

LENGTHS_S = (0.3, 0.4, 0.5, 0.62, 0.78, 1.0, 1.25, 1.55, 1.95, 2.4)
"""Lengths that are tried: near enough to each other that every cell is crossed about when it should be."""
PASSING = 0.16
"""How long a front with a soft edge takes to pass a row of cells, as a share of the whole wipe."""
STANDS_OUT, STANDS_OUT_ROUND = 1.7, 2.3
"""How many times as much cells change when the front passes as in the moments before and after, at least: a straight
front, and an iris or doors, which more things resemble."""
CROSSED = 0.9
"""Share of the change from end to end that cells make while the front passes them, at least."""
CONCENTRATED = 2.0
"""How many times as much a cell at the front changes as one elsewhere in the range, at least."""
MOVING = 1.1
"""How many times as much cells away from the front may change as they do before and after the range."""
IN_ORDER = 0.4
"""By how much later cells go over for each moment that the front comes later, at least; 1 in a wipe without motion."""
HALFWAY = 0.32
"""How far cells are from the nearer end in the middle of a range at most, by the change; 0.5 in a dissolve."""
MOVED, STILL = 0.6, 3.0
"""Share of cells that change by more than so many levels from end to end, at least."""
USUAL_FRAMES = 12
"""Frames before and after a range, at most, from which it is known how much they change."""
NOISE, ROUNDING = 2.0, 0.25
"""Levels added to changes over some frames, and over one, that others are compared with."""
BACK_S, BACK = 3.0, 0.4
"""Seconds within which a picture comes back that no wipe but something passing has covered, and how far it may be from
what it was, by the change."""
SOFT = 0.05
"""Share of a range by which its ends are moved apart: a front with a soft edge begins and ends outside the picture."""


def _fronts() -> npt.NDArray[np.float64]:
    """Return when a front reaches each cell, 0–1, by kind `[kind, 144]`."""
    y, x = ((np.arange(side) + 0.5) / side for side in CELLS)
    down, right = (plane.ravel() for plane in np.meshgrid(y, x, indexing="ij"))
    far = np.hypot((down - 0.5) * CELLS[0], (right - 0.5) * CELLS[1])
    half = [
        right, down, (right + down) / 2, (right + 1 - down) / 2,  # from a side, from a corner
        far / np.hypot(*CELLS) * 2, 2 * np.abs(right - 0.5), 2 * np.abs(down - 0.5),  # an iris, doors
    ]  # fmt: skip
    return np.stack([*half, *(1 - front for front in half)])


FRONTS, STRAIGHT = _fronts(), 4
"""Fronts, and how many of each half of them are straight."""


class _Front(NamedTuple):
    """How a range looks along the front that fits it best."""

    kind: int
    change: float
    """Mean change of cells while the front passes them."""
    beside: float
    """The most that they change in as long a time before and after."""


def wipes(light: npt.NDArray[np.uint8], time_s: npt.NDArray[np.float64]) -> list[Blend]:
    """Return the wipes in the order of time; of those that overlap, the one whose front stands out most.

    Args:
        light: cells `[n, 9, 16]`, 0–255.
        time_s: times of the frames.
    """
    if len(time_s) < 2 * LEAST_FRAMES:
        return []
    frame_s, plain = float(np.median(np.diff(time_s))), is_plain(light)
    cells = light.reshape(len(light), -1)
    found = apart([
        blend
        for length in lengths(LENGTHS_S, frame_s)
        for first in ranges(light, plain, length, frame_s, _goes_over(cells, length))
        if (blend := _wiped(cells, first, length))
    ])  # fmt: skip
    return [blend for blend in found if not _passes(cells, blend, round(BACK_S / frame_s))]


def _passes(cells: npt.NDArray[np.uint8], blend: Blend, reach: int) -> bool:
    """Return whether the picture before a range is seen again some frames later, or the one after it some before."""
    old, new = (cells[at].astype(np.int16) for at in (blend.first, blend.last))
    later, sooner = cells[blend.last : blend.last + reach], cells[max(0, blend.first - reach) : blend.first + 1]
    least = min(float(np.abs(part - one).mean(axis=1).min()) for part, one in ((later, old), (sooner, new)))
    return least < BACK * float(np.abs(new - old).mean())


def _goes_over(cells: npt.NDArray[np.uint8], length: int) -> Fits:
    """Return a test of whether most cells go over, and in the middle are like the one end or the other."""

    def fits(at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        old, middle, new = (cells[at + lag].astype(np.int16) for lag in (0, length // 2, length))
        change = np.abs(new - old)
        between = np.minimum(np.abs(middle - old), np.abs(middle - new))
        return np.asarray(
            (between.mean(axis=1) <= HALFWAY * change.mean(axis=1)) & ((change > STILL).mean(axis=1) > MOVED)
        )

    return fits


def _wiped(cells: npt.NDArray[np.uint8], first: int, length: int) -> Blend | None:
    """Return the range as a wipe if a front passes over it and little happens elsewhere."""
    inside = np.asarray(cells[first : first + length + 1], np.float32)
    change, step = np.abs(inside[-1] - inside[0]), np.abs(np.diff(inside, axis=0))
    moves = change > 1.0
    if step.mean(axis=1).max() > LARGEST_STEP * change.mean():
        return None
    if likeness(inside[0][moves], inside[-1][moves]) > 1 - UNLIKE:
        return None
    front = _front(cells, first, length, _in_order(inside))
    if front is None or front.change < CROSSED * change.mean():
        return None
    moment = np.arange(length)[:, None] + 0.5 - FRONTS[front.kind] * length  # t c
    passing = np.abs(moment) <= PASSING * length / 2 + 1
    elsewhere = float(step[~passing].mean()) if not passing.all() else 0.0
    around = min(length, USUAL_FRAMES)
    beside = cells[max(0, first - around) : first + 1], cells[first + length : first + length + around + 1]
    usual = sum(map(_usual, beside)) / 2  # half of what moves in a wipe moves in either picture
    if step[passing].mean() < CONCENTRATED * (elsewhere + ROUNDING) or elsewhere > MOVING * usual + ROUNDING:
        return None
    more = round(SOFT * length)
    last = min(first + length + more, len(cells) - 1)
    return Blend(max(0, first - more), last, "wipe", (front.beside + NOISE) / front.change)


def _in_order(inside: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the kinds of fronts with which cells go over the later, the later the front reaches them."""
    before, after = np.abs(inside - inside[0]), np.abs(inside - inside[-1])
    tells = before[-1] > 0.5 * before[-1].mean()
    moment = np.argmax(after < before, axis=0)[tells] / (len(inside) - 1)
    due = FRONTS[:, tells] - FRONTS[:, tells].mean(axis=1, keepdims=True)
    return np.flatnonzero(due @ moment >= IN_ORDER * (due**2).sum(axis=1))


def _front(cells: npt.NDArray[np.uint8], first: int, length: int, kinds: npt.NDArray[np.intp]) -> _Front | None:
    """Return the front of some kinds along which cells change most by what they change just before and after.

    None where that is not enough for its kind.
    """
    if not len(kinds):
        return None
    moment = first + np.round(FRONTS[kinds] * length).astype(np.intp)  # k c
    span = int(np.ceil(PASSING * length)) + 2
    lags = np.round((np.arange(-3, 3) + 0.5) * span).astype(np.intp)
    at = np.clip(moment[..., None] + lags, 0, len(cells) - 1)
    values = cells[at, np.arange(cells.shape[1])[None, :, None]].astype(np.int16)  # k c lag
    change = np.abs(np.diff(values, axis=-1)).mean(axis=1)
    beside = np.delete(change, 2, axis=1).max(axis=1)
    stands = change[:, 2] / (beside + NOISE)
    best = int(np.argmax(stands))
    found = _Front(int(kinds[best]), float(change[best, 2]), float(beside[best]))
    straight = found.kind % (len(FRONTS) // 2) < STRAIGHT
    return found if stands[best] >= (STANDS_OUT if straight else STANDS_OUT_ROUND) else None


def _usual(cells: npt.NDArray[np.uint8]) -> float:
    """Return the mean change of cells from frame to frame; 0 of a single frame."""
    return float(np.abs(np.diff(cells.astype(np.int16), axis=0)).mean()) if len(cells) > 1 else 0.0
