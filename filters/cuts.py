"""Cuts: frames that stand out from those around them, weighed by a judge over the whole series."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rushes.filters.boundary import Boundary, Rules
from rushes.filters.judge import SURE, judge, log_odds
from rushes.filters.steps import Series as Known
from rushes.filters.steps import evidence

SIDE_FRAMES = 4
"""Frames on either side that a cut must stand out from."""
FLOOR = 2.0
"""Added to the content of the surroundings, so that the ratio means something in a still picture."""
CALM, CALM_RATIO = 18.0, 2.2
"""Content change (scenedetect's HSV score) from which on a frame may begin a shot, standing out by this factor …"""
BUSY, BUSY_RATIO, BUSY_HISTOGRAM = 27.0, 1.33, 0.08
"""… or, amid fast motion, from that and by that factor on, where histograms differ so much (1 − correlation) …"""
JUMP_SHARE = 0.025
"""… or where the light of that share of the picture changes as it does not around it in space and time."""
CHUNK_FRAMES = 4096
"""Frames whose cells stand in memory as floats."""
JUMP_RATIO, JUMP_STEP = 1.25, 2.0
"""A cell stands out if it changes this many times as much as those around it do at most, and by so many levels more."""
BURNT = 245.0
"""Light of a cell that may have been cut off at white."""
STILL, HELD_FRAMES = 0.1, 3
"""Mean change (0–255) below which a frame repeats the one before, and how many of them are counted."""
POP_LUMA = 0.4
"""Share of a key frame's content change that its luma has at least, or its tones must differ: else coding popped."""
BAR = 20
"""Light of cells in bars at most."""
POP = 2.0
"""How many times as much a key frame that comes by the clock may change as the frames around it."""
STILL_LIGHT, CADENCE_FRAMES = 0.5, 12
"""Added to usual steps (levels), and frames on either side in which the cadence of steps is looked at."""
SAME = 0.1
"""A picture that comes so near again to what it was, by the step away from it, is the same: that was a flash."""
BESIDE = 2
"""Frames before a cut, and from it on, at which the witness may see it; of cuts so near to each other one counts."""

Series = npt.NDArray[np.floating]


def cuts(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return the cuts in the order of time; `rushes.filters.shots.boundaries` says how they are found."""
    time_s, (steps, odds, weight) = signals["time_s"], _judged(signals, rules)
    odds = odds + weight * log_odds(asked(signals)[steps])
    found = np.flatnonzero(odds >= _enough(rules))
    likely = 1 / (1 + np.exp(-odds))
    return [
        Boundary(start_s=float(time_s[steps[k]]), end_s=float(time_s[steps[k]]), kind="cut", score=float(likely[k]))
        for k in found.tolist()
        if odds[k] >= odds[found][abs(steps[found] - steps[k]) <= BESIDE].max()
    ]


def doubts(signals: Mapping[str, npt.NDArray], rules: Rules) -> npt.NDArray[np.intp]:
    """Return the frames at which there is a cut if the witness sees one there, and none if it sees none."""
    steps, odds, weight = _judged(signals, rules)
    enough = _enough(rules)
    return np.asarray(steps[(odds + weight * SURE >= enough) & (odds - weight * SURE < enough)], np.intp)


def _judged(signals: Mapping[str, npt.NDArray], rules: Rules) -> tuple[npt.NDArray[np.intp], Series, Series]:
    """Return the frames that may be cuts, the log odds that each is one, and how much a witness counts there."""
    known = candidates(signals, rules)
    steps = [evidence(signals, at, known) for at in known.steps.tolist()]
    odds, weight = judge().odds(steps)
    same = np.array([min(step["back_flash"], step["was_flash"]) < SAME for step in steps], np.bool_)
    return known.steps, np.where(same, -np.inf, odds), np.where(same, 0.0, weight)


def _enough(rules: Rules) -> float:
    """Return the log odds from which on a frame begins a shot."""
    likely = min(max(rules.cut_likely, 1e-12), 1 - 1e-12)
    return math.log(likely / (1 - likely))


def candidates(signals: Mapping[str, npt.NDArray], rules: Rules) -> Known:
    """Return the frames that stand out from those around them, in the whole picture or in parts of it, and by what.

    Fast motion and shaking change many frames in a row, and so does what moves in a part of the picture.
    """
    ratio, share = _ratio(signals), _shares(signals)
    found = _stand_out(signals, ratio, rules) | ((share >= JUMP_SHARE) & _peaks(share))
    return Known(ratio, share, np.flatnonzero(found))


def _ratio(signals: Mapping[str, npt.NDArray]) -> Series:
    """Return by how much each frame changes more than those around it; a step after repetitions is expected longer."""
    content = np.asarray(signals["content"], np.float64)
    return content / (_surroundings(content) * (1 + _held(signals["change"])) + FLOOR)


def _stand_out(signals: Mapping[str, npt.NDArray], ratio: Series, rules: Rules) -> npt.NDArray[np.bool_]:
    """Return which frames change the whole picture more than those around them; between black ones none does."""
    content = np.asarray(signals["content"], np.float64)
    clear = (content >= CALM) & (ratio >= CALM_RATIO) & ~_colour_pops(signals, content)
    busy = (content / _picture_share(signals["cell_light"]) >= BUSY) & (ratio >= BUSY_RATIO)
    busy &= signals["histogram"] >= BUSY_HISTOGRAM
    level = np.asarray(signals["luma_mean"], np.float64) + signals["luma_std"]
    light = np.maximum(level, np.concatenate([level[:1], level[:-1]])) >= rules.fade_luma
    return (clear | busy) & light & _peaks(content)


def _colour_pops(signals: Mapping[str, npt.NDArray], content: Series) -> npt.NDArray[np.bool_]:
    """Return which key frames after predicted ones change in colour alone, in the same tones of luma."""
    key = np.asarray(signals["key"]) > 0
    pops = key & ~np.concatenate([[True], key[:-1]])  # where every frame is a key frame, none of them pops
    return pops & (signals["luma"] < POP_LUMA * content) & (signals["histogram"] < BUSY_HISTOGRAM)


def _picture_share(light: npt.NDArray[np.uint8]) -> Series:
    """Return which share of each frame's cells is not in bars: rows and columns at the edges, black around it."""
    rows, columns = (_around_most(light.max(axis=axis)) > BAR for axis in (2, 1))
    share = np.ones(len(light))
    for inside in (rows, columns):
        share *= 1 - (np.argmax(inside, axis=1) + np.argmax(inside[:, ::-1], axis=1)) / inside.shape[1]
    return np.clip(share, 0.5, 1.0)


def _around_most(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the largest of each number within `SIDE_FRAMES` of each frame."""
    padded = np.pad(values, ((SIDE_FRAMES, SIDE_FRAMES), (0, 0)), mode="edge")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * SIDE_FRAMES + 1, axis=0).max(axis=-1))


def asked(signals: Mapping[str, npt.NDArray]) -> Series:
    """Return what the witness says of a cut at each frame or next to it, 0–1; NaN where it was not asked."""
    said = signals.get("witness_cut")
    if said is None:
        return np.full(len(signals["time_s"]), np.nan)
    near = _around(np.where(np.isnan(said), -np.inf, said), BESIDE)[:, : 2 * BESIDE]
    return near.max(axis=1) + np.where(np.isnan(said), np.nan, 0)


def _shares(signals: Mapping[str, npt.NDArray]) -> Series:
    share = outstanding(signals["cell_light"], signals["key"], signals["change"])
    share[-1:] = 0.0  # of the last frame it is not known how things go on
    return share


def outstanding(light: npt.NDArray[np.uint8], key: Series, change: Series) -> npt.NDArray[np.float64]:
    """Return of each frame the share of cells whose light changes more than it does around them in space and time.

    Around them means: in the cells beside them, too, and in each of the `SIDE_FRAMES` steps before and after. A thing
    that moves changes the next cell in the next frame; after repeated frames a longer step is expected; and a key frame
    that comes by the clock, with which the picture of a low bitrate jumps, is compared with its like as well.

    Args:
        light: cells `[n, 9, 16]`, 0–255.
        key: whether each frame is a key frame.
        change: mean change of each frame, which tells repetitions.
    """
    found = np.zeros(len(light), np.float64)
    expected = np.maximum(1 + _held(change), _unevenness(change))
    clocked = _clocked(key)
    expected[list(clocked)] = np.maximum(expected[list(clocked)], POP)
    for first in range(0, len(light), CHUNK_FRAMES):
        start, end = max(0, first - SIDE_FRAMES - 4), min(len(light), first + CHUNK_FRAMES)
        part = _outstanding(light[start : end + SIDE_FRAMES], expected[start : end + SIDE_FRAMES])
        found[first:end] = part[first - start : end - start]
    for at, others in clocked.items():
        pops = _most_beside(np.stack([_steps(light[[other - 1, other]])[1] for other in others])).max(axis=0)
        own = _steps(light[[at - 1, at]])[1]
        found[at] = min(found[at], float((own > JUMP_RATIO * pops + JUMP_STEP).mean()))
    return found


def _clocked(key: Series) -> dict[int, list[int]]:
    """Return the key frames that come as late as one may in this stream, each with its nearest like."""
    keys = np.flatnonzero(np.asarray(key) > 0)
    gaps = np.diff(keys)
    if not len(gaps):
        return {}
    clocked = [int(at) for at, gap in zip(keys[1:], gaps, strict=True) if gap >= gaps.max() - 1]
    if len(clocked) < 2:
        return {}  # the longest of uneven gaps is no clock
    return {at: clocked[max(0, k - 2) : k] + clocked[k + 1 : k + 3] for k, at in enumerate(clocked)}


def _steps(light: npt.NDArray) -> npt.NDArray[np.float32]:
    step = np.zeros(light.shape, np.float32)
    step[1:] = np.abs(np.diff(np.asarray(light, np.float32), axis=0))
    return step


def _outstanding(light: npt.NDArray[np.uint8], expected: Series) -> npt.NDArray[np.float64]:
    step, values = _steps(light), np.asarray(light, np.float32)
    usual = _most_around(_most_beside(step)) * expected.astype(np.float32)[:, None, None]
    step[1:] = np.minimum(step[1:], _unexplained(values[:-1], values[1:]))
    return (step > JUMP_RATIO * usual + JUMP_STEP).mean(axis=(1, 2))


def _unevenness(change: Series) -> Series:
    """Return how uneven the steps around each frame are: 1 for smooth motion, 2 where single frames were dropped.

    It is the third largest of the steps near it, each by the median of its own neighbours: two cuts do not count.
    """
    usual = np.median(_around(change, SIDE_FRAMES), axis=1)
    uneven = np.asarray(change, np.float64) / (usual + STILL_LIGHT)
    third = np.partition(_around(uneven, CADENCE_FRAMES), -3, axis=1)[:, -3]
    return np.clip(third, 1.0, 2.0)


def _around(values: Series, reach: int) -> Series:
    padded = np.pad(np.asarray(values, np.float64), reach, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)


def _unexplained(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the change that a gain and an offset of the light of the whole picture leave; none where it is burnt."""
    flat_before, flat_after = (x.reshape(len(x), -1) for x in (before, after))
    mean_before, mean_after = flat_before.mean(axis=1, keepdims=True), flat_after.mean(axis=1, keepdims=True)
    spread = ((flat_before - mean_before) ** 2).mean(axis=1, keepdims=True)
    gain = ((flat_before - mean_before) * (flat_after - mean_after)).mean(axis=1, keepdims=True) / (spread + 1.0)
    left = np.abs(flat_after - mean_after - gain * (flat_before - mean_before))
    left[np.maximum(flat_before, flat_after) >= BURNT] = 0.0
    return left.reshape(before.shape)


def _most_beside(step: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    padded = np.pad(step, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    return np.maximum(np.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def _most_around(step: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    most = np.zeros_like(step)
    for lag in range(1, SIDE_FRAMES + 1):
        most[lag + 1 :] = np.maximum(most[lag + 1 :], step[1:-lag])
        most[:-lag] = np.maximum(most[:-lag], step[lag:])
    return most


def _held(change: Series) -> Series:
    """Return how many frames before each were repetitions, up to `HELD_FRAMES`: the step after them is longer."""
    run = np.asarray(change) < STILL
    run[:1] = False
    held = np.zeros(len(run))
    for _ in range(HELD_FRAMES):
        run = np.concatenate([run[:1] & False, run[:-1]])
        held += run
        run &= np.concatenate([run[:1] & False, np.asarray(change)[:-1] < STILL])
    return held


def _surroundings(values: Series) -> Series:
    """Return for each frame the mean over the frames before or over those after, whichever is larger."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - SIDE_FRAMES, 1), np.minimum(at + 1 + SIDE_FRAMES, len(values))
    before = (total[at] - total[np.minimum(first, at)]) / np.maximum(at - first, 1)
    after = (total[last] - total[at + 1]) / np.maximum(last - at - 1, 1)
    return np.maximum(np.maximum(before, after), 0.0)


def _peaks(values: Series) -> npt.NDArray[np.bool_]:
    """Return which frames change at least as much as the two before and more than the two after; never the first."""
    padded = np.pad(values, 2, constant_values=-1.0)
    peaks = (values >= padded[:-4]) & (values >= padded[1:-3]) & (values > padded[3:-1]) & (values > padded[4:])
    peaks[0] = False
    return peaks
