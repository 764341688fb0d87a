"""Gradual transitions, as ranges of time: fades through black and white, dissolves and wipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from rushes.filters.blends import Blend, detail, dissolves, is_light
from rushes.filters.boundary import Boundary, Rules
from rushes.filters.wipes import wipes

FADE_SLOPE = 6.0
"""Luma per second by which a fade must rise or fall at least."""
FADE_LEAST_S = 0.2
"""Shorter ramps are cuts, or objects that pass."""
FADE_LAG = 3
"""Frames over which the slope is taken, which bridges repeated frames and coding noise."""

ALONE = 0.3
"""How far from the model a dissolve may be where the witness was not asked …"""
DENIED, ASSENTED = 0.25, 0.6
"""… where it sees no transition at all, and where it is sure of one; in proportion between."""
PART = 0.5
"""How sure it is of the frames with which a dissolve that it assents to goes on beyond its ends …"""
BESIDE = 10
"""… and frames beyond them that it is asked about, so that it can."""
CROSSED, SHORT_SLOPE = 1.12, 3.0
"""How many times as bright (or as dark) the other end of a fade is that the footage begins or ends in, at least, and
the luma per second by which it rises or falls …"""
ALIKE = 0.03
"""… while three measures of its gain differ by this much at most, on average."""

Series = npt.NDArray[np.floating]


def gradual(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return fades, dissolves and wipes in the order of time; where they overlap, the fade, then the dissolve.

    The further a dissolve is from the model, the surer the witness must be of it. Of wipes and of what fades from or
    to white it knows little.
    """
    found = fades(signals, rules)
    time_s, light = signals["time_s"], signals["cell_light"]
    part = signals.get("witness_part", np.full(len(time_s), np.nan))
    blended = [
        _part_around(part, blend)
        for blend in _candidates(found, signals)
        if blend.left
        <= _most(part[blend.first : blend.last + 1], bool(is_light(light[[blend.first, blend.last]]).any()))
    ]
    for blend in [*blended, *wipes(light, time_s)]:
        span = _uncovered(float(time_s[blend.first]), float(time_s[blend.last]), found)
        if span:
            found.append(Boundary(start_s=span[0], end_s=span[1], kind=blend.kind, score=1 - blend.left))
    return sorted(found, key=lambda boundary: boundary.start_s)


def doubts(signals: Mapping[str, npt.NDArray], found: Sequence[Boundary]) -> list[tuple[int, int]]:
    """Return the ranges of frames, half-open, of what may be a dissolve beside fades, and `BESIDE` frames around them.

    Whether it is one, and where it ends, the witness says.
    """
    frames = len(signals["time_s"])
    return [
        (max(0, blend.first - BESIDE), min(frames, blend.last + 1 + BESIDE)) for blend in _candidates(found, signals)
    ]


def _candidates(found: Sequence[Boundary], signals: Mapping[str, npt.NDArray]) -> list[Blend]:
    """Return what may be a dissolve and is not, for the most part, a fade."""
    time_s = signals["time_s"]
    return [
        blend
        for blend in dissolves(signals["cell_light"], signals["luma_std"], time_s)
        if _uncovered(float(time_s[blend.first]), float(time_s[blend.last]), found)
    ]


def _uncovered(start_s: float, end_s: float, found: Sequence[Boundary]) -> tuple[float, float] | None:
    """Return what other ranges leave of one; None where that is less than half of it."""
    least_s = (end_s - start_s) / 2
    for other in found:
        if other.start_s <= start_s < other.end_s:
            start_s = other.end_s
        if other.start_s < end_s <= other.end_s:
            end_s = other.start_s
    inside = any(start_s < other.end_s and other.start_s < end_s for other in found)
    return (start_s, end_s) if end_s - start_s >= least_s and not inside else None


def _most(part: Series, light: bool) -> float:
    """Return how far from the model a dissolve may be, by what the witness says of its frames."""
    said = DENIED + (ASSENTED - DENIED) * float(np.nanmax(part)) if not np.isnan(part).all() else ALONE
    return max(said, ALONE) if light else said


def _part_around(part: Series, blend: Blend) -> Blend:
    """Return a dissolve with the frames beside it that the witness takes for its parts."""
    first, last = blend.first, blend.last
    while first > 0 and part[first - 1] >= PART:
        first -= 1
    while last + 1 < len(part) and part[last + 1] >= PART:
        last += 1
    return blend._replace(first=first, last=last)


def fades(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return the ramps to and from black or white, each with the dark or light between two of them."""
    mean, std = (np.asarray(signals[name], np.float64) for name in ("luma_mean", "luma_std"))
    time_s = np.asarray(signals["time_s"], np.float64)
    fine = np.sqrt(detail(signals["cell_light"], std))
    found: list[Boundary] = []
    for shade in (mean, 255 - mean):
        found += [*_fades_of(shade + std, time_s, rules), *_cut_short(np.stack([shade, std, fine]), time_s, rules)]
    return found


def _cut_short(measures: Series, time_s: Series, rules: Rules) -> list[Boundary]:
    """Return a fade under way where the footage begins or ends.

    A fade multiplies the picture by a gain, so that its distance from black (or white), its spread and its detail,
    the rows of `measures`, shrink alike, as nothing else does.
    """
    found: list[Boundary] = []
    for back in (False, True):
        seen, at_s = (measures[:, ::-1], time_s[::-1]) if back else (measures, time_s)
        level = seen[0] + seen[1]
        rise = _ramp(level, at_s, rules, SHORT_SLOPE)
        if level[0] < rules.fade_luma or level[rise] < CROSSED * level[0] or seen[:, rise].min() < 1.0:
            continue
        gains = seen[:, : rise + 1] / seen[:, rise, None]
        if max(float(np.abs(a - b).mean()) for a, b in combinations(gains, 2)) <= ALIKE:
            start_s, end_s = sorted((float(at_s[0]), float(at_s[rise])))
            found.append(Boundary(start_s=start_s, end_s=end_s, kind="fade", score=float(level[rise] - level[0])))
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


def _ramp(level: Series, time_s: Series, rules: Rules, least: float = FADE_SLOPE) -> int:
    """Return how many frames a steady rise of level from the first frame on lasts; 0 if that is a step or no rise."""
    rise, steepest = 0, 0.0
    while rise + FADE_LAG < len(level):
        ahead = rise + FADE_LAG
        slope = (level[ahead] - level[rise]) / max(abs(time_s[ahead] - time_s[rise]), 1e-9)
        step = np.diff(level[rise : ahead + 1]).max()
        steepest = max(steepest, slope)
        steady = slope >= max(least, 0.2 * steepest) and step <= 0.9 * rules.fade_luma
        if not steady or abs(time_s[ahead] - time_s[0]) > rules.fade_max_s:
            break
        rise += 1
    end = rise + FADE_LAG - 1 if rise else 0
    return end if abs(time_s[end] - time_s[0]) >= FADE_LEAST_S and level[end] > rules.fade_luma else 0


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
