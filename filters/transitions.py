"""Gradual transitions, as ranges of time: fades through black and white, and what `filters.blends` finds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from filters.blends import Blend, blends, is_light
from filters.boundary import Boundary, Rules

FADE_SLOPE = 6.0
"""Luma per second by which a fade must rise or fall at least."""
FADE_LEAST_S = 0.2
"""Shorter ramps are cuts, or objects that pass."""
FADE_LAG = 3
"""Frames over which the slope is taken, which bridges repeated frames and coding noise."""

ASSENT = 0.6
"""How sure the witness must be, in some frame of a dissolve, that the frame is part of a transition."""
PART = 0.5
"""How sure it is of the frames with which a dissolve that it assents to goes on beyond its ends."""
CROSSED = 1.6
"""How many times as bright (or as dark) the other end of a fade is that the footage begins or ends in."""

Series = npt.NDArray[np.floating]


def gradual(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return fades, dissolves and wipes in the order of time; where they overlap, the fade, which is the surer.

    A camera that turns, or a large thing that leaves, may look in cells as a dissolve does; so one from picture to
    picture needs the witness's assent where it was asked. Of wipes and of what fades from or to white it knows little.
    """
    found = fades(signals, rules)
    time_s = signals["time_s"]
    part = signals.get("witness_part", np.full(len(time_s), np.nan))
    for blend in blends(signals["cell_light"], time_s):
        first, last = blend.first, blend.last
        if blend.kind == "dissolve" and not is_light(signals["cell_light"][[first, last]]).any():
            said = part[first : last + 1]
            if not np.isnan(said).all() and np.nanmax(said) < ASSENT:
                continue
            first, last = _part_around(part, blend)
        start_s, end_s = float(time_s[first]), float(time_s[last])
        if all(end_s <= fade.start_s or start_s >= fade.end_s for fade in found):
            found.append(Boundary(start_s=start_s, end_s=end_s, kind=blend.kind, score=1 - blend.left))
    return sorted(found, key=lambda boundary: boundary.start_s)


def _part_around(part: Series, blend: Blend) -> tuple[int, int]:
    """Return a dissolve with the frames beside it that the witness takes for its parts."""
    first, last = blend.first, blend.last
    while first > 0 and part[first - 1] >= PART:
        first -= 1
    while last + 1 < len(part) and part[last + 1] >= PART:
        last += 1
    return first, last


def fades(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return the ramps to and from black or white, each with the dark or light between two of them."""
    mean, std = (np.asarray(signals[name], np.float64) for name in ("luma_mean", "luma_std"))
    time_s = np.asarray(signals["time_s"], np.float64)
    levels = [mean + std, 255 - mean + std]
    return [fade for level in levels for fade in [*_fades_of(level, time_s, rules), *_cut_short(level, time_s, rules)]]


def _cut_short(level: Series, time_s: Series, rules: Rules) -> list[Boundary]:
    """Return a fade under way where the footage begins or ends, which it crosses by half at least."""
    found: list[Boundary] = []
    last = len(level) - 1
    rise, fall = _ramp(level, time_s, rules), _ramp(level[::-1], time_s[::-1], rules)
    if level[0] >= rules.fade_luma and level[rise] > CROSSED * level[0]:
        found.append(
            Boundary(
                start_s=float(time_s[0]), end_s=float(time_s[rise]), kind="fade", score=float(level[rise] - level[0])
            )
        )
    if level[last] >= rules.fade_luma and level[last - fall] > CROSSED * level[last]:
        found.append(
            Boundary(
                start_s=float(time_s[last - fall]),
                end_s=float(time_s[last]),
                kind="fade",
                score=float(level[last - fall] - level[last]),
            )
        )
    return found


def _fades_of(level: Series, time_s: Series, rules: Rules) -> list[Boundary]:
    """Return the ramps to and from levels below `fade_luma`, with what lies between them if it is short."""
    found: list[Boundary] = []
    for first, end in _runs(level < rules.fade_luma):
        left = _ramp(level[: first + 1][::-1], time_s[: first + 1][::-1], rules)
        right = _ramp(level[end - 1 :], time_s[end - 1 :], rules)
        start_s, end_s = time_s[first - left], time_s[min(end - 1 + right, len(time_s) - 1)]
        depth = float(max(level[first - left], level[min(end - 1 + right, len(level) - 1)]) - level[first:end].min())
        ranges = [(start_s, end_s)]
        if time_s[end - 1] - time_s[first] > rules.dark_s:
            ranges = [(start_s, time_s[first]), (time_s[end - 1], end_s)]
        elif left and not right:
            ranges = [(start_s, time_s[min(end, len(time_s) - 1)])]
        elif right and not left:
            ranges = [(time_s[first], end_s)]
        if left or right:
            found += [Boundary(start_s=float(a), end_s=float(b), kind="fade", score=depth) for a, b in ranges if b > a]
    return found


def _ramp(level: Series, time_s: Series, rules: Rules) -> int:
    """Return how many frames a steady rise of level from the first frame on lasts; 0 if that is a step or no rise."""
    rise, steepest = 0, 0.0
    while rise + FADE_LAG < len(level):
        ahead = rise + FADE_LAG
        slope = (level[ahead] - level[rise]) / max(abs(time_s[ahead] - time_s[rise]), 1e-9)
        step = np.diff(level[rise : ahead + 1]).max()
        steepest = max(steepest, slope)
        steady = slope >= max(FADE_SLOPE, 0.2 * steepest) and step <= 0.9 * rules.fade_luma
        if not steady or abs(time_s[ahead] - time_s[0]) > rules.fade_max_s:
            break
        rise += 1
    end = rise + FADE_LAG - 1 if rise else 0
    return end if abs(time_s[end] - time_s[0]) >= FADE_LEAST_S and level[end] > rules.fade_luma else 0


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
