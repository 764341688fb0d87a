"""Steps that are no cuts: the place stays, and something in it pops in, goes on after a freeze or is lit.

Drawings that are held and replaced, windows and titles that open, captures that stutter and lamps change a picture at
one moment as a cut does. What tells them: corners of the picture are found again; what was there before is seen again
after a while; the cells that change stand still before and after, as nothing that a camera sees does; the step comes
after repeated frames of a film that moves; or others follow at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

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
"""… less of both where tones are the same, and still less where they are equal."""
BAR = 20
"""Light of cells in bars at most."""
TOP = 14
"""Cells that change most, of 144: what pops."""
AROUND = 12
"""Frames before and after a step in which it is seen whether its cells are alive …"""
ALIVE = 0.18
"""… which they are if they change by a level or more in this share of the frames, at least."""
STILL, FREEZE_FRAMES = 0.1, 2
"""Mean change (0–255) below which a frame repeats the one before, and how many of them are a freeze …"""
MOVES = 5.0
"""… before and after which the frames of a film that moves, those that repeat none, change so many times as much …"""
MOTION_FRAMES = 36
"""… on average of so many frames."""
BACK_S, BACK, ALIKE = 5.0, 0.5, 0.85
"""Seconds within which a step is undone by another; how large that is at least, by the step, and how much like it."""
POPS, ALL_ALIVE = 0.2, 0.3
"""Cells that change by this share of the most at least are those that pop; how alive the others are at least where all
of the picture moves."""
BURST_S = 0.6
"""Jumps nearer to each other than that belong to what moves: a clip between them would be of no use."""

Signals = Mapping[str, npt.NDArray[Any]]


def is_same_place(signals: Signals, at: int) -> bool:
    """Return whether a frame shows the place of the frame before, whatever changed in it."""
    histogram = float(signals["histogram"][at])
    found = float(signals["corners"][at]) if "corners" in signals else float("nan")
    lit = signals["luma"][at] >= signals["hue"][at] + signals["saturation"][at]
    if found >= FOUND_ALL or (found >= FOUND and (lit or histogram < OTHER_TONES)):
        return True
    if found >= FOUND and _is_undone(signals, at):  # lamps of two colours
        return True
    share, spread = _kept(signals["cell_light"][at - 1], signals["cell_light"][at])
    tones = [(2.0, KEPT_MOST), (SAME_TONES, KEPT), (EQUAL_TONES, KEPT_EQUAL)]
    return any(histogram <= most and share >= least[0] and spread >= least[1] for most, least in tones)


def _kept(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return the share of cells outside of bars whose light is kept, and the spread of light among them."""
    inside = np.maximum(before, after) > BAR
    kept = inside & (np.abs(before.astype(np.int16) - after) <= KEPT_LEVELS)
    return (float(kept.sum() / inside.sum()), float(before[kept].std())) if kept.any() else (0.0, 0.0)


def is_pop(signals: Signals, at: int) -> bool:
    """Return whether what changes in parts of the picture at a frame pops in or out there, and is no jump in time."""
    found = float(signals["corners"][at]) if "corners" in signals else float("nan")
    if found >= FOUND_ALL or _thaws(signals["change"], at) or not _is_alive(signals["cell_light"], at):
        return True
    return not _is_other_place(signals, at) and _is_undone(signals, at)


def _is_other_place(signals: Signals, at: int) -> bool:
    found = float(signals["corners"][at]) if "corners" in signals else float("nan")
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


def _thaws(change: npt.NDArray[np.floating], at: int) -> bool:
    """Return whether a film that moves goes on after a freeze: it moves before and after it, and not between."""
    after = _moving(change[at + 1 : at + 1 + MOTION_FRAMES], STILL)
    still = max(STILL, float(np.median(after)) / MOVES) if len(after) else np.inf
    freeze = at
    while freeze > 1 and change[freeze - 1] < still:
        freeze -= 1
    before = _moving(change[max(1, freeze - MOTION_FRAMES) : freeze], STILL)
    if (change[freeze:at] < STILL).sum() < FREEZE_FRAMES or min(len(before), len(after)) < FREEZE_FRAMES:
        return False
    return bool(min(np.median(before), np.median(after)) >= MOVES * STILL)


def _moving(change: npt.NDArray[np.floating], still: float) -> npt.NDArray[np.floating]:
    return change[change >= still]


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
