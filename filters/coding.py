"""What coding and conversion left in a picture: combing of fields, blocks, repeated frames. Needs full resolution.

Luma planes are [h, w] of any unsigned integers, rows as they are shown; series are one number per frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from rushes.filters.frames import SAME_CHANGE

Plane = npt.NDArray[np.unsignedinteger]
Series = npt.NDArray[np.floating]

BANDS, BAND_ROWS, COLUMNS = 6, 16, 480
"""Rows looked at, one below the other in bands, and about how many pixels of each."""
LINES = 48
"""Rows in which the columns of the grid of blocks are looked at, and edges of blocks between rows."""
GRID = 8
"""Side of the blocks of nearly all codecs."""
MOVED = 6
"""Levels (of 255) by which a pixel changes at least where something moves."""
MOVING_AREA = 0.005
"""Share of the picture that must move, else nothing can be told of fields."""
COMBED = 0.3
"""Doublings by which the two fields of interlaced footage differ in their distance to the frame before, at least."""
REPEATED = 0.1
"""A frame repeats the one before if it changes less than this share of what frames on either side of it change …"""
SURELY = 0.3
"""… or less than `SAME_CHANGE`, and less than this share of it, since repeats are coded with some noise."""
BESIDE = 3
"""Frames on either side that are looked at: animation on fours still has a new one among them."""
REPEATS = 0.1
"""Share of repeats from which a clip has a cadence at all; fewer are hiccups, as where 24 frames a second became 25."""


class Cadence(NamedTuple):
    """How new pictures follow each other."""

    label: str
    """none (few repeats), telecine (4 of 5 or 2 of 5 frames are new), doubled (every second is) or irregular."""
    fps: float
    """New pictures per second."""


def parity(before: Plane, luma: Plane) -> float:
    """Return how much nearer the even lines stand to the frame before than the odd ones: 0 for progressive footage.

    Interlaced frames hold two moments: lines of the earlier field fit between those of the frame before better than
    lines of the later one (the idea of FFmpeg's idet filter). Doublings; positive where the top field is first, NaN
    where nothing moves, so that nothing can be told. Fine texture and stripes look the same to both fields.

    Args:
        before: the frame before, at full resolution.
        luma: this frame.
    """
    if before.shape != luma.shape or len(luma) < 16:
        return float("nan")
    moved = MOVED if luma.dtype == np.uint8 else MOVED * int(luma.max()) // 255
    then, now = _bands(before), _bands(luma)
    steps = np.abs(now[:, 1:-1] - then[:, 1:-1])
    sample = steps[:, ::4, ::4].ravel()
    nearly_all = 3 * len(sample) // 4
    moves = steps > max(moved, int(np.partition(sample, nearly_all)[nearly_all]))
    if np.count_nonzero(moves) < MOVING_AREA * moves.size:
        return float("nan")
    crossed = np.abs(then[:, :-2] + then[:, 2:] - 2 * now[:, 1:-1]) * moves
    odd, even = (float(crossed[:, first::2].sum(dtype=np.int64)) for first in (0, 1))
    return float(np.log2((odd + 1.0) / (even + 1.0)))


def _bands(plane: Plane) -> npt.NDArray[Any]:
    """Return bands of rows of a plane, `[bands, rows, columns]`, of a type that holds the sum of four samples.

    Each band begins with an even row. Memory is read along rows, so bands cost less than columns.
    """
    height, width = plane.shape
    bands = max(1, min(BANDS, height // BAND_ROWS))
    step = height // bands // 2 * 2
    rows = plane[: step * bands].reshape(bands, step, width)[:, :BAND_ROWS, :: max(1, width // COLUMNS)]
    return rows.astype(np.int16 if plane.dtype == np.uint8 else np.int32)


def interlaced(parities: Series) -> float | None:
    """Return the share of telling frames that are combed; None where nothing moves.

    Fields keep their order, so a clip whose frames disagree on it is progressive.
    """
    telling = parities[np.isfinite(parities)]
    if len(telling) < 2:
        return None
    return float(max((telling > COMBED).mean(), (telling < -COMBED).mean()))


def blockiness(luma: Plane) -> float:
    """Return by which share neighbours differ more across the edges of 8×8 blocks than elsewhere; about 0 without.

    Footage that was shrunk or enlarged after it was coded has its blocks elsewhere and shows 0. NaN for a picture
    that is too small or has no texture.
    """
    lines = luma[:: max(1, len(luma) // LINES)]
    every = max(1, len(luma) // GRID // LINES)
    found = [_between(np.ascontiguousarray(lines.T), 1), _between(luma, every)]
    edge, inner = (sum(pair[k] for pair in found) for k in (0, 1))
    return float("nan") if inner < 0.05 else float(edge / inner - 1)


def _between(luma: Plane, every: int) -> tuple[float, float]:
    """Return the mean difference of neighbouring rows across the edges of blocks (some of them), and amid them."""
    blocks, width = len(luma) // GRID - 1, luma.shape[1]
    if blocks < 3 or width < 2:
        return 0.0, 0.0

    def differing(at: int) -> float:
        above, below = (luma[k : k + blocks * GRID : GRID * every] for k in (at, at + 1))
        return float(cv2.norm(above, below, cv2.NORM_L1)) / above.size

    return differing(GRID - 1), (differing(2) + differing(4)) / 2


def cadence(changes: Series, durations_s: Series) -> Cadence | None:
    """Return how new pictures follow each other; None for a still or too short clip, which cannot tell.

    Field-based pulldown leaves no repeated frames but combed ones: see `parity`.

    Args:
        changes: change of each frame against the one before; that of the first is not looked at.
        durations_s: how long each frame is shown.
    """
    if len(changes) < 12:
        return None
    changed, shown_s = np.array(changes, np.float64), np.asarray(durations_s, np.float64)
    level = _beside(changed)
    repeated = (changed < REPEATED * level) | ((changed < SAME_CHANGE) & (changed < SURELY * level))
    repeated[0] = False
    telling = repeated | (changed >= SAME_CHANGE) | (level >= SAME_CHANGE / SURELY)  # a standing picture tells nothing
    if telling.sum() < 12 or telling.mean() < 0.5:
        return None
    repeats = float(repeated[telling].mean())
    fps = float((~repeated & telling).sum() / shown_s[telling].sum())
    if repeats < REPEATS:
        return Cadence("none", fps)
    for label, period, shares in (("doubled", 2, (0.5,)), ("telecine", 5, (0.2, 0.6))):
        both = telling[period:] & telling[:-period]
        alike = (repeated[period:] == repeated[:-period])[both]
        if both.any() and alike.mean() > 0.9 and any(abs(repeats - share) < 0.05 for share in shares):
            return Cadence(label, fps)
    return Cadence("irregular", fps)


def _beside(changes: Series) -> Series:
    """Return the largest change among the few frames before each, or among those after it, whichever is less.

    A slow stretch between fast ones is no repeat, nor is a pause: both must move. The first frame and what lies beyond
    the ends are unknown, so the other side decides there.
    """
    known = np.concatenate([np.full(BESIDE + 1, np.inf), changes[1:], np.full(BESIDE, np.inf)])
    after = np.lib.stride_tricks.sliding_window_view(known, BESIDE).max(axis=1)
    count = len(changes)
    level = np.minimum(after[:count], after[BESIDE + 1 : BESIDE + 1 + count])
    return np.where(np.isfinite(level), level, 0.0)
