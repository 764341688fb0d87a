"""Dissolves and wipes: ranges in which one picture becomes another, found in the light of 9 × 16 cells.

Inside a dissolve every frame is a blend of the two ends, with a weight that rises from 0 to 1. Inside a wipe every cell
is like the one end or the other, and goes over once. Beyond either, the picture is at rest by comparison: what moves
through the whole of a range goes on moving past its ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LENGTHS_S = (0.25, 0.4, 0.6, 0.85, 1.2, 1.7, 2.3)
"""Lengths that are tried."""
LEAST_FRAMES = 5
"""Shorter ranges are cuts with a frame or two between."""
REST_S = 0.2
"""How long before and after a range the picture must be at rest, by comparison …"""
REST = 0.35
"""… changing at most this share of what the range changes."""
LEAST_STEP = 8.0
"""Mean change of cells (0–255) from end to end."""
LARGEST_STEP = 0.4
"""Share of the whole change that one step may make: more is a cut."""
UNLIKE = 0.3
"""How unlike the ends are (1 − correlation of cells) at least: else only the light changed."""
FLAT_SPREAD = 4.0
"""Levels between the cells of a flat picture."""
WHITE, WHITE_SPREAD = 160.0, 6.0
"""Light of an almost white picture at least, and levels between its median cell and its brighter ones."""
LEFT = 0.16
"""What blends of the ends leave unexplained (RMS) at most, as a share of the change from end to end."""
SHORT_S = 0.5
"""Shorter ranges must be explained better, in proportion: any short motion is much like a blend."""
OVERALL = 0.6
"""Share of cells that change at all, and median change of these by their mean, at least: things that come and go
change a part of the picture."""
PURE = 0.04
"""Weight of the other picture up to which a frame counts as one picture alone."""
BACKWARD = 0.08
"""How far the weight may fall back."""
CHUNK_FRAMES = 4096

Light = npt.NDArray[np.float32]


class Blend(NamedTuple):
    """A range of frames in which one picture becomes another."""

    first: int
    """Last frame that shows the first picture alone."""
    last: int
    """First frame that shows the second one alone."""
    kind: str
    """dissolve or wipe."""
    left: float
    """What the model leaves unexplained, as a share of the change; the lower, the surer."""


def blends(light: npt.NDArray[np.uint8], time_s: npt.NDArray[np.float64]) -> list[Blend]:
    """Return dissolves and wipes in the order of time; of those that overlap, the one that explains most.

    Args:
        light: cells `[n, 9, 16]`, 0–255.
        time_s: times of the frames.
    """
    if len(time_s) < 2 * LEAST_FRAMES:
        return []
    frame_s = float(np.median(np.diff(time_s)))
    found = {
        blend
        for first, last in _candidates(light, frame_s)
        if (blend := _explained(light, first, last, LEFT * min(1.0, (last - first) * frame_s / SHORT_S)))
    }
    kept: list[Blend] = []
    for blend in sorted(found, key=lambda b: (round(b.left / LEFT * 2), b.first - b.last, b.left, b.first)):
        if all(blend.last <= other.first or blend.first >= other.last for other in kept):
            kept.append(blend)
    return sorted(kept)


def _candidates(light: npt.NDArray[np.uint8], frame_s: float) -> Iterator[tuple[int, int]]:
    """Yield ranges of each length that change much, with rest on either side."""
    rest = max(2, round(REST_S / frame_s))
    light = np.concatenate([light[:1].repeat(rest, axis=0), light, light[-1:].repeat(rest, axis=0)])  # at rest outside
    lengths = sorted({length for seconds in LENGTHS_S if (length := round(seconds / frame_s)) >= LEAST_FRAMES})
    for start in range(0, len(light), CHUNK_FRAMES):
        reach = rest + (lengths[-1] if lengths else 0)
        part = np.asarray(light[max(0, start - rest) : start + CHUNK_FRAMES + reach], np.float32)
        offset = max(0, start - rest)
        moved, flat = _apart(part, rest), _flat(part)
        for length in lengths:
            if len(part) <= length + 2 * rest:
                continue
            change = _apart(part, length)[rest : len(part) - length - rest]
            before, after = moved[: len(change)], moved[rest + length : rest + length + len(change)]
            calm = (before <= REST * change) | flat[rest : rest + len(change)]
            calm &= (after <= REST * change) | flat[rest + length : rest + length + len(change)]
            for at in np.flatnonzero(calm & (change >= LEAST_STEP)).tolist():
                first = offset + rest + at
                if first < start + CHUNK_FRAMES:
                    yield first - rest, first - rest + length


def _apart(light: Light, lag: int) -> Light:
    """Return how far each frame and the one `lag` later are apart: mean |Δ| of cells."""
    return np.asarray(np.abs(light[lag:] - light[:-lag]).mean(axis=(1, 2)), np.float32)


def _flat(light: Light) -> npt.NDArray[np.bool_]:
    """Return which frames are of one tone but for bars and small things: into it and out of it, pictures fade."""
    low, high = np.percentile(light.reshape(len(light), -1), (35, 80), axis=1)
    return np.asarray(high - low < FLAT_SPREAD)


def is_light(light: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which frames `[n, 9, 16]` are almost white but for bars and small things."""
    middle, high = np.percentile(light.reshape(len(light), -1), (50, 80), axis=1)
    return np.asarray((high - middle < WHITE_SPREAD) & (high >= WHITE))


def _explained(light: npt.NDArray[np.uint8], first: int, last: int, most: float) -> Blend | None:
    inside = np.asarray(light[first : last + 1], np.float64).reshape(last - first + 1, -1)
    start, change = inside[0], inside[-1] - inside[0]
    if np.abs(np.diff(inside, axis=0)).mean(axis=1).max() > LARGEST_STEP * np.abs(change).mean():
        return None
    moves = np.abs(change) > 1.0  # bars do not
    if moves.mean() < OVERALL or _likeness(inside[0][moves], inside[-1][moves]) > 1 - UNLIKE:
        return None
    if np.median(np.abs(change[moves])) < OVERALL * np.abs(change[moves]).mean():
        return None
    power = float((change**2).mean())
    weight = (inside - start) @ change / (len(change) * power)
    if np.diff(weight).min() < -BACKWARD or weight.min() < -BACKWARD or weight.max() > 1 + BACKWARD:
        return None
    blended = inside - start - weight[:, None] * change
    left = float(np.sqrt((blended**2).mean() / power))
    if left <= most:
        begun, done = np.flatnonzero(weight <= PURE)[-1], np.flatnonzero(weight >= 1 - PURE)[0]
        return Blend(first + int(begun), first + int(done), "dissolve", left) if done - begun >= LEAST_FRAMES else None
    left = _left_by_wipe(inside)
    return Blend(first, last, "wipe", left) if left <= most else None


def _likeness(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the correlation of two pictures; 0 where either is flat."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a**2).mean() * (b**2).mean()))
    return float((a * b).mean()) / spread if min(a.std(), b.std()) > FLAT_SPREAD else 0.0


def _left_by_wipe(inside: npt.NDArray[np.float64]) -> float:
    """Return what is left if each cell is the first picture's until a moment and the second one's from then on.

    1 where the moments do not follow a front that moves over the picture.
    """
    from filters.changes import CELLS

    start, end = inside[0], inside[-1]
    change = np.abs(end - start)
    tells = change > 0.5 * change.mean()
    gone = np.abs(inside - end) < np.abs(inside - start)  # t c
    moment = np.argmax(gone[:, tells], axis=0).astype(np.float64)
    rows, columns = np.divmod(np.flatnonzero(tells), CELLS[1])
    plane = np.stack([rows, columns, np.ones_like(rows)], axis=1).astype(np.float64)
    fit, *_ = np.linalg.lstsq(plane, moment, rcond=None)
    off = moment - plane @ fit
    if moment.std() < 0.15 * len(inside) or off.std() > 0.4 * moment.std():
        return 1.0
    after = np.arange(len(inside))[:, None] >= moment[None]
    model = np.where(after, end[tells], start[tells])
    return float(np.abs(inside[:, tells] - model).mean() / change[tells].mean())
