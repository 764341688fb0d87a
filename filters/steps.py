"""What tells a cut from other steps: the numbers of one step from a frame to the next that the judge of cuts weighs.

Drawings that are held and replaced, windows and titles that open, captures that stutter and lamps change a picture at
one moment as a cut does. What may tell them: corners of the picture that are found again; light that divides by what it
was as smoothly as a lamp shines; what is seen again after a while; cells that stand still before and after, as nothing
that a camera sees does; a film that goes on around what changes; other steps of the same kind. No number decides alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rushes.filters.changes import CELLS

KEPT_LEVELS = 3
"""Levels within which a cell is kept."""
BAR, BURNT, TELLING = 20, 250, 40
"""Light of cells in bars at most, and of burnt ones at least; so many others tell something of a lamp."""
DARK = 8.0
"""Levels added to light before its logarithm is taken: coding noise of the dark."""
TOP = 14
"""Cells that change most, of 144: what pops."""
POPS = 0.2
"""Cells that change by this share of the most at least are those that pop."""
BESIDE, AROUND, HABIT = 6, 12, 36
"""Frames before and after a step in which it is looked at whether the film stands still, whether cells are alive, and
whether it is made of such steps."""
STILL, FROZEN = 0.15, 0.1
"""A frame stands still that changes less than that by the upper quartile around it, and is frozen with less levels."""
LARGE = 0.3
"""Steps that are so large, by the one that is looked at, are of its kind."""
FEW = 6
"""The largest steps, whose part of all change is told."""
UNDONE_S, UNDONE = 5.0, 0.5
"""Seconds within which a step may be undone or done again by another, and how large that is at least, by the step."""
FLASH_S, WHILE_S = 0.35, 2.0
"""Seconds within which a picture comes back after a flash, and after a thing that passed."""
BURST_S, SCENE_S = 0.6, 3.0
"""Seconds in which other steps are counted."""
IN_LIGHT = 0.5
"""Levels by which a step changes the light, at least, or it is one in colour."""
SIDE_FRAMES = 4
"""Frames on either side to which the step is compared in how unlike it makes the picture."""
NOISE = 0.3
"""Levels of change, a part of which rounding makes, that are added to what is divided by."""

Signals = Mapping[str, npt.NDArray[Any]]
Light = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating]


class Series(NamedTuple):
    """What is known of all frames beside the signals."""

    ratio: Values
    """How many times as much as those around it each frame changes."""
    share: Values
    """Share of cells that change as they do not around them in space and time."""
    steps: npt.NDArray[np.intp]
    """The frames that may be cuts."""


def evidence(signals: Signals, at: int, series: Series) -> dict[str, float]:
    """Return the numbers of the step to a frame, by name; NaN where one cannot be told.

    Args:
        signals: as `rushes.filters.shots.boundaries` takes them.
        at: the frame, not the first.
        series: what is known of all frames.
    """
    light = signals["cell_light"]
    return {
        **_change(signals, at, series),
        **_light(light[at - 1], light[at]),
        **_unlike(light, at),
        **_life(light, at),
        **_stillness(signals["change"], at),
        **_habit(light, at),
        **_undone(signals, at),
        **_comes_back(signals, at),
        **_company(signals["time_s"], at, series),
    }


def _change(signals: Signals, at: int, series: Series) -> dict[str, float]:
    names = ("content", "hue", "saturation", "luma", "histogram", "change", "corners")
    found = {name: float(signals[name][at]) for name in names}
    share = series.share
    beside = np.concatenate([share[max(0, at - BESIDE) : at], share[at + 1 : at + 1 + BESIDE]])
    found |= {"ratio": float(series.ratio[at]), "share": float(share[at]), "share_beside": float(beside.max(initial=0))}
    return found | {"of_luma": found["luma"] / (3 * found["content"] + 0.1)}


def _light(before: Light, after: Light) -> dict[str, float]:
    """Say how much of the light, `[9, 16]`, is kept, and how much of the step is what a lamp does.

    A lamp multiplies light by what varies smoothly over the picture. So the logarithms of two pictures of a place are
    alike (`lit`, a correlation) when the quadratic that fits each best is taken away, and those of two places are not.
    """
    most = np.maximum(before, after)
    inside = most > BAR
    kept = inside & (np.abs(before.astype(np.int16) - after) <= KEPT_LEVELS)
    found = {
        "kept": float(kept.sum() / max(inside.sum(), 1)),
        "kept_spread": float(before[kept].std()) if kept.any() else 0.0,
        "lit": np.nan,
        "texture": np.nan,
        "lamp": 0.0,
    }
    told = inside & (most < BURNT)
    if told.sum() < TELLING:
        return found
    old, new = (np.log(cells[told] + DARK) for cells in (before, after))
    step = new - old
    power, smooth = float((step**2).sum()), _smooth(step, told)
    old, new = old - _smooth(old, told), new - _smooth(new, told)
    spread = old.std() * new.std()
    if spread > 0:
        found["lit"] = float((old * new).mean() / spread)
    found |= {"texture": float(min(old.std(), new.std())), "lamp": float((smooth**2).sum()) / power if power else 0.0}
    return found


def _smooth(values: Values, told: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the quadratic over the picture that fits values of some cells best, at these cells."""
    axes, _ = np.linalg.qr(QUADRATIC[told])
    return np.asarray(axes @ (axes.T @ values), np.float64)


def _quadratic() -> npt.NDArray[np.float64]:
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in CELLS), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


QUADRATIC = _quadratic()
"""The terms of a quadratic over the cells, `[9, 16, 6]`."""


def _unlike(light: Light, at: int) -> dict[str, float]:
    """Say how unlike the frame before a frame is (1 − correlation of cells), and by those around it."""
    first, end = max(0, at - SIDE_FRAMES - 1), min(len(light), at + SIDE_FRAMES + 1)
    cells = np.asarray(light[first:end], np.float64).reshape(end - first, -1)
    cells = cells[:, cells.max(axis=0) > BAR]
    cells -= cells.mean(axis=1, keepdims=True) if cells.size else 0.0
    power = np.sqrt((cells**2).sum(axis=1))
    unlike = 1 - (cells[1:] * cells[:-1]).sum(axis=1) / np.maximum(power[1:] * power[:-1], 1.0)
    own = at - first - 1
    usual = np.delete(unlike, own).max(initial=0.0)
    return {"unlike": float(unlike[own]), "unlike_ratio": float(unlike[own] / (usual + 0.02))}


def _life(light: Light, at: int) -> dict[str, float]:
    """Say how alive what changes is, how alive the rest, and whether the rest goes on as it does around the step.

    A jump in time is one for all that moves; over what pops in, the film goes on.
    """
    step, own = _steps(light, at, AROUND)
    alive = (step >= 1).mean(axis=0) if len(step) else np.zeros(own.size)
    top, rest = np.argsort(-own, kind="stable")[:TOP], own < POPS * own.max()
    found = {"alive": float(alive[top].mean()), "rest": float(rest.mean()), "rest_alive": np.nan, "goes_on": np.nan,
             "evenness": float(own.mean() / max(own.max(), 1))}  # fmt: skip
    near, _ = _steps(light, at, BESIDE)
    if rest.any() and len(near):
        found["rest_alive"] = float(alive[rest].mean())
        found["goes_on"] = float(own[rest].mean() / (near[:, rest].mean() + NOISE))
    return found


def _stillness(change: Values, at: int) -> dict[str, float]:
    """Say how much of the film beside the step stands still, and how the step compares with the largest others."""
    before, after = change[max(1, at - HABIT) : at], change[at + 1 : at + 1 + HABIT]
    others, own = np.concatenate([before, after]), float(change[at])
    quartile = float(np.quantile(others, 0.75)) if len(others) else 0.0
    sides = {"before": before[-BESIDE:], "after": after[:BESIDE]}
    beside = np.concatenate(list(sides.values()))
    found = {f"still_{name}": _share(part < STILL * quartile) for name, part in sides.items()}
    largest = np.sort(others)[::-1]
    found |= {"still": _share(beside < STILL * quartile), "frozen": _share(beside < FROZEN)}
    for name, usual in (("quartile", quartile), ("most", largest[:1].sum()), ("third", largest[2:3].sum())):
        found[f"by_{name}"] = own / (float(usual) + NOISE)
    return found


def _share(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _habit(light: Light, at: int) -> dict[str, float]:
    """Say whether the film is made of such steps, in the whole picture or in the cells that change in this one.

    What a camera sees moves on from frame to frame. Drawings that are held, captures that stutter and windows of a
    screen go on by steps, of which the one that stands out is but the largest.
    """
    step, own = _steps(light, at, HABIT)
    top = np.argsort(-own, kind="stable")[:TOP]
    size = float(own[top].mean())
    here, moving = step[:, top].mean(axis=1), np.sort(step, axis=1)[:, -TOP:].mean(axis=1)
    largest = np.sort(moving)[::-1]
    return {
        "size": size, "alone": _alone(moving, LARGE * size), "alone_here": _alone(here, LARGE * size),
        "here": float(here.max(initial=0) / (size + 1)), "third": float(largest[2:3].sum() / (size + 1)),
        "few": _in_few(here), "few_moving": _in_few(moving),
    }  # fmt: skip


def _alone(change: Values, least: float) -> float:
    """Return in how many frames change is at least so large and twice as large as in those beside it."""
    beside = np.pad(change, 1)
    return float(((change >= least) & (change >= 2 * np.maximum(beside[:-2], beside[2:]))).sum())


def _in_few(change: Values) -> float:
    """Return which part of all change the few largest steps make."""
    return float(np.sort(change)[-FEW:].sum() / max(change.sum(), 1e-9))


def _undone(signals: Signals, at: int) -> dict[str, float]:
    """Say how like other steps near it are to this one turned back, in all cells or those that pop, and to itself."""
    light, time_s = signals["cell_light"], signals["time_s"]
    first, end = (int(k) for k in np.searchsorted(time_s, [time_s[at] - UNDONE_S, time_s[at] + UNDONE_S]))
    first = max(0, first - 1)
    steps = np.diff(light[first:end].astype(np.float32).reshape(-1, light[0].size), axis=0)
    own = steps[at - first - 1]
    pops = np.abs(own) >= POPS * np.abs(own).max()
    whole, popping = _likeness(steps, own), _likeness(steps[:, pops], own[pops])
    again = np.delete(whole, at - first - 1)
    found = {"undone": -whole, "undone_here": -popping, "again": again}
    return {name: float(values[~np.isnan(values)].max(initial=-1.0)) for name, values in found.items()}


def _likeness(steps: npt.NDArray[np.float32], own: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how like each step is to one, −1 to 1; NaN of those that are much smaller."""
    power, others = float((own**2).sum()), (steps**2).sum(axis=1)
    like = (steps * own).sum(axis=1) / np.sqrt(np.maximum(others * power, 1.0))
    return np.where(others >= UNDONE**2 * power, like, np.float32(np.nan))


def _comes_back(signals: Signals, at: int) -> dict[str, float]:
    """Say how near the picture before comes back, by the step, and how near this one was seen before; 1 is not at all.

    Of a step in colour alone it cannot be told.
    """
    time_s, light, found = signals["time_s"], signals["cell_light"], dict[str, float]()
    step = _far(light[at], light[at - 1])
    for name, within_s in (("flash", FLASH_S), ("while", WHILE_S)):
        last = int(np.searchsorted(time_s, time_s[at] + within_s, side="right"))
        first = int(np.searchsorted(time_s, time_s[at] - within_s))
        back, was = _nearest(light[at + 1 : last], light[at - 1]), _nearest(light[first : at - 1], light[at])
        for side, near in (("back", back), ("was", was)):
            found[f"{side}_{name}"] = min(near / step, 1.0) if step >= IN_LIGHT else 1.0
    return found


def _nearest(many: Light, one: Light) -> float:
    return float(np.abs(many.astype(np.int16) - one).mean(axis=(1, 2)).min(initial=np.inf))


def _far(a: Light, b: Light) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def _company(time_s: Values, at: int, series: Series) -> dict[str, float]:
    """Say how many other steps there are within moments and within seconds."""
    away_s = np.abs(time_s[series.steps[series.steps != at]] - time_s[at])
    return {name: float((away_s < reach).sum()) for name, reach in (("burst", BURST_S), ("scene", SCENE_S))}


def _steps(light: Light, at: int, reach: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Return by how much each cell changes in the frames around one, without it, `[n, 144]`, and in it, `[144]`."""
    first = max(1, at - reach)
    step = np.abs(np.diff(light[first - 1 : at + reach + 1].astype(np.int16), axis=0)).reshape(-1, light[0].size)
    return np.delete(step, at - first, axis=0), step[at - first]
