"""Steps that are no cuts: the place stays, and something in it pops in, goes on after a freeze or is lit.

Drawings that are held and replaced, windows and titles that open, captures that stutter and lamps change a picture at
one moment as a cut does. What tells them: corners of the picture are found again; what is light divides by what was as
smoothly as a lamp shines; what was there before is seen again after a while; the cells that change stand still before
and after, as nothing that a camera sees does, or change in such steps alone; or others follow at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rushes.filters.changes import CELLS

FOUND, FOUND_ALL, FOUND_LEAST = 0.35, 0.9, 0.2
"""Share of corners that are found again in the same place at least; where whatever else changed is light; and with less
it is surely another place."""
OTHER_TONES, SAME_TONES, EQUAL_TONES = 0.5, 0.05, 0.02
"""Distance of histograms from which on the tones are others, if more than luma changed, and up to which they are the
same, or equal."""
KEPT_LEVELS, KEPT_MOST = 3, (0.4, 25.0)
"""Levels within which a cell outside of bars is kept; share of them, and the spread of light among them (levels), with
which the same background stands behind what changed …"""
KEPT, KEPT_EQUAL = (0.2, 12.0), (0.15, 4.0)
"""… less of both where tones are the same or nothing moves before or after, and still less where tones are equal."""
BAR = 20
"""Light of cells in bars at most."""
TOP = 14
"""Cells that change most, of 144: what pops."""
AROUND = 12
"""Frames before and after a step in which it is seen whether its cells are alive …"""
ALIVE = 0.18
"""… which they are if they change by a level or more in this share of the frames, at least."""
BACK_S, BACK, ALIKE = 5.0, 0.5, 0.9
"""Seconds within which a step is undone by another; how large that is at least, by the step, and how much like it."""
POPS, ALL_ALIVE = 0.2, 0.3
"""Cells that change by this share of the most at least are those that pop; how alive the others are at least where all
of the picture moves."""
REST, AS_EVER, ROUNDING = 10, 1.4, 0.3
"""So many other cells at least tell whether the film goes on: they change up to so many times as much as in the frames
beside, to which a part of a level is added."""
LIT, LAMP, TELLING, BURNT = 0.75, 0.7, 40, 250
"""How alike the light of cells is (correlation of logarithms) when what a lamp may do is taken away, at least; the
share of a step that a lamp can do, at least; both of so many cells at least, which are in no bar and not burnt."""
LIT_CORNERS = 0.1
"""Share of corners found again with less of which it is another place, however alike the light."""
DARK, FLAT = 8.0, 0.02
"""Levels added to light before its logarithm is taken, coding noise of the dark; and the spread of logarithms of a
picture that tells something, at least."""
SURE_OTHER, MAY_DIFFER = ((0.3, 0.2), (0.1, 0.1)), 0.3
"""Distance of histograms from which on a picture with less than a share of the corners of the one before is surely
another, and share of corners found again up to which it may be."""
HABIT_FRAMES, STEPS, LARGE = 36, 3, 0.3
"""Frames before and after a step in which others are looked for that stand alone; how many of them are a habit; and how
large they are, by the one that is looked at …"""
FEW, FEW_MAKE, FEWER, SAME_VIEW = 6, 0.35, 1.2, 0.75
"""… or which part of the change of the cells that change most so few steps make, one of them as large, and by how much
more that is than of the cells that move in each frame; and the share of corners found again up to which that is not
looked at where parts of the picture change as never around it …"""
BESIDE, STILL, STILLS = 6, 0.15, 0.4
"""… or in which share of the frames beside it the film stands still, changing less than that by the upper quartile."""
BURST_S = 0.6
"""Jumps nearer to each other than that belong to what moves: a clip between them would be of no use."""

Signals = Mapping[str, npt.NDArray[Any]]


def is_same_place(signals: Signals, at: int) -> bool:
    """Return whether a frame shows the place of the frame before, whatever changed in it."""
    histogram = float(signals["histogram"][at])
    found = _corners(signals, at)
    lit = signals["luma"][at] >= signals["hue"][at] + signals["saturation"][at]
    if found >= FOUND_ALL or (found >= FOUND and (lit or histogram < OTHER_TONES)):
        return True
    before, after = signals["cell_light"][at - 1 : at + 1]
    if (lit or _is_undone(signals, at)) and not found < LIT_CORNERS and _is_lit(before, after):
        return True
    share, spread = _kept(before, after)
    most = KEPT_MOST if _is_alive(signals["cell_light"], at) else KEPT
    tones = [(2.0, most), (SAME_TONES, KEPT), (EQUAL_TONES, KEPT_EQUAL)]
    return any(histogram <= most and share >= least[0] and spread >= least[1] for most, least in tones)


def _kept(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the share of cells outside of bars whose light is kept, and the spread of light among them."""
    inside = np.maximum(before, after) > BAR
    kept = inside & (np.abs(before.astype(np.int16) - after) <= KEPT_LEVELS)
    return (float(kept.sum() / inside.sum()), float(before[kept].std())) if kept.any() else (0.0, 0.0)


def _is_lit(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> bool:
    """Return whether the same picture, `[9, 16]`, is in other light.

    A lamp multiplies light by what varies smoothly over the picture. So the logarithms of two pictures of a place are
    alike when the quadratic that fits each best is taken away, and those of two places are not.
    """
    told = _told(before, after)
    old, new = (_log(cells, told) - _smooth(_log(cells, told), told) for cells in (before, after))
    if told.sum() < TELLING or min(old.std(), new.std()) < FLAT:
        return False
    return bool((old * new).mean() >= LIT * old.std() * new.std())


def _lamp_makes(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> float:
    """Return which share of what changes between two pictures, `[9, 16]`, a lamp can do."""
    told = _told(before, after)
    step = _log(after, told) - _log(before, told)
    power = float((step**2).sum())
    return float((_smooth(step, told) ** 2).sum()) / power if told.sum() >= TELLING and power else 0.0


def _told(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which cells are in no bar and not burnt."""
    most = np.maximum(before, after)
    return np.asarray((most > BAR) & (most < BURNT))


def _log(light: npt.NDArray[np.uint8], told: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.asarray(np.log(light[told] + DARK), np.float64)


def _smooth(values: npt.NDArray[np.float64], told: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the quadratic over the picture that fits values of some cells best, at these cells."""
    axes, _ = np.linalg.qr(QUADRATIC[told])
    return np.asarray(axes @ (axes.T @ values), np.float64)


def _quadratic() -> npt.NDArray[np.float64]:
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in CELLS), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


QUADRATIC = _quadratic()
"""The terms of a quadratic over the cells, `[9, 16, 6]`."""


def has_other_tones(signals: Signals, at: int) -> bool:
    """Return whether a frame has other tones than the frame before and hardly a corner of it."""
    return any(bool(signals["histogram"][at] >= tones) and _corners(signals, at) < most for tones, most in SURE_OTHER)


def may_differ(signals: Signals, at: int) -> bool:
    """Return whether so few corners of the frame before are found again that it may be another view."""
    return _corners(signals, at) < MAY_DIFFER


def _corners(signals: Signals, at: int) -> float:
    return float(signals["corners"][at])


def is_pop(signals: Signals, at: int) -> bool:
    """Return whether what changes in a picture at a frame pops in or out or is lit, and is no jump in time."""
    light = signals["cell_light"]
    lit = _lamp_makes(light[at - 1], light[at]) >= LAMP
    return lit or not _is_alive(light, at) or _goes_on(light, at) or _is_undone(signals, at)


def _goes_on(light: npt.NDArray[np.uint8], at: int) -> bool:
    """Return whether what does not pop at a frame moves, and moves on there as it does around it.

    A jump in time is one for all that moves; over what pops in, the film goes on.
    """
    first = max(1, at - BESIDE)
    step = np.abs(np.diff(light[first - 1 : at + BESIDE + 1].astype(np.int16), axis=0)).reshape(-1, light[0].size)
    own = step[at - first]
    rest = own < POPS * own.max()
    if len(step) < 2 or rest.sum() < REST or _life(light, at)[rest].mean() < ALL_ALIVE:
        return False
    usual = float(np.delete(step, at - first, axis=0)[:, rest].mean())
    return bool(own[rest].mean() <= AS_EVER * (usual + ROUNDING))


def is_habit(signals: Signals, at: int, in_parts: bool) -> bool:
    """Return whether steps such as one at a frame are what the film is made of, and no jump in time.

    What a camera sees moves on from frame to frame. Drawings that are held, captures that stutter and windows of a
    screen stand still, or go on by steps. And what comes before a place, or over it, changes the cells that change most
    by a few steps, of which the one that stands out is but the largest.

    Args:
        signals: as `rushes.filters.shots.boundaries` takes them.
        at: the frame.
        in_parts: whether parts of the picture change there as they never do around it.
    """
    light, first = signals["cell_light"], max(1, at - HABIT_FRAMES)
    change = np.delete(signals["change"][first : at + HABIT_FRAMES + 1], at - first)
    if not len(change):
        return False
    beside = change[max(0, at - first - BESIDE) : at - first + BESIDE]
    if (beside < STILL * np.quantile(change, 0.75)).mean() >= STILLS:
        return True
    step = np.abs(np.diff(light[first - 1 : at + HABIT_FRAMES + 1].astype(np.int16), axis=0)).reshape(-1, light[0].size)
    top = np.argsort(-step[at - first], kind="stable")[:TOP]
    size, others = LARGE * float(step[at - first, top].mean()), np.delete(step, at - first, axis=0)
    here, moving = others[:, top].mean(axis=1), np.sort(others, axis=1)[:, -TOP:].mean(axis=1)
    if _alone(moving, size) >= STEPS:
        return True
    if (in_parts and _corners(signals, at) < SAME_VIEW) or here.max() < size:
        return False
    return _in_few(here) >= max(FEW_MAKE, FEWER * _in_few(moving))


def _in_few(change: npt.NDArray[np.float64]) -> float:
    """Return which part of all change the few largest steps make."""
    return float(np.sort(change)[-FEW:].sum() / max(change.sum(), 1e-9))


def _alone(change: npt.NDArray[np.float64], least: float) -> int:
    """Return in how many frames change is at least so large and twice as large as in those beside it."""
    beside = np.pad(change, 1)
    return int(((change >= least) & (change >= 2 * np.maximum(beside[:-2], beside[2:]))).sum())


def _is_other_place(signals: Signals, at: int) -> bool:
    found = _corners(signals, at)
    return found < FOUND_LEAST and not is_same_place(signals, at)


def _is_alive(light: npt.NDArray[np.uint8], at: int) -> bool:
    """Return whether the cells that change most at a frame change around it as well."""
    top = np.argsort(-np.abs(_step(light, at)), kind="stable")[:TOP]
    return bool(_life(light, at)[top].mean() >= ALIVE)


def _life(light: npt.NDArray[np.uint8], at: int) -> npt.NDArray[np.float64]:
    """Return of each cell in which share of the frames around one, without it, it changes by a level or more."""
    first, end = max(1, at - AROUND), min(len(light), at + AROUND + 1)
    step = np.abs(np.diff(light[first - 1 : end].astype(np.int16), axis=0)).reshape(end - first, -1)
    return np.asarray((np.delete(step, at - first, axis=0) >= 1).mean(axis=0), np.float64)


def _step(light: npt.NDArray[np.uint8], at: int) -> npt.NDArray[np.float32]:
    """Return by how much each cell changes at a frame, `[144]`."""
    return (light[at].astype(np.float32) - light[at - 1].astype(np.float32)).ravel()


def _is_undone(signals: Signals, at: int) -> bool:
    """Return whether another step within `BACK_S`, before or after, is the same in the other direction.

    Where all of the picture moves, what pops over it is looked at alone; else a thing that comes and goes by two jump
    cuts, in a place that stands still, would be taken for it.
    """
    light, time_s = signals["cell_light"], signals["time_s"]
    first, end = np.searchsorted(time_s, [time_s[at] - BACK_S, time_s[at] + BACK_S])
    part = light[max(0, int(first) - 1) : int(end)].astype(np.float32).reshape(-1, light[0].size)
    own = _step(light, at)
    pops = np.abs(own) >= POPS * np.abs(own).max()
    if pops.all() or _life(light, at)[~pops].mean() < ALL_ALIVE:
        pops[:] = True
    step, own = np.diff(part[:, pops], axis=0), own[pops]
    power, others = float((own**2).sum()), (step**2).sum(axis=1)
    against = -(step @ own) / np.sqrt(np.maximum(others * power, 1.0))
    return bool((against[others >= BACK**2 * power] >= ALIKE).any())


def without_bursts(signals: Signals, jumps: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which jumps show another place, or stand alone: no other one within `BURST_S`."""
    at = np.flatnonzero(jumps)
    gaps = np.diff(signals["time_s"][at], prepend=-np.inf, append=np.inf)
    other = np.array([_is_other_place(signals, k) for k in at.tolist()], np.bool_)
    alone = np.zeros(len(jumps), np.bool_)
    alone[at[(np.minimum(gaps[:-1], gaps[1:]) >= BURST_S) | other]] = True
    return alone
