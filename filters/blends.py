"""Dissolves: ranges in which one picture is mixed into another, found in the light of 9 × 16 cells and in their detail.

Inside a dissolve a frame is (1 − w) of the old picture and w of the new one, with a weight that rises from 0 to 1.
Two things follow. The cells go over from one end to the other on a straight line. And detail, the variance of light
within the cells, in which two pictures have nothing in common, sags: (1 − w)² of the old and w² of the new, half of it
in the middle. That second law holds whatever moves in the pictures, and nothing else in footage obeys it: things that
come and go, pans, wipes and changes of light leave detail where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LENGTHS_S = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Lengths that are tried; the ends of what is found are then moved to where they fit best."""
LEAST_FRAMES = 5
"""Shorter ranges are cuts with a frame or two between."""
REST_S = 0.2
"""How long before and after a range the picture must be at rest, by comparison …"""
REST = 0.6
"""… changing at most this share of what the range changes."""
LEAST_STEP = 8.0
"""Mean change of cells (0–255) from end to end."""
LARGEST_STEP = 0.4
"""Share of the whole change that one step may make: more is a cut."""
UNLIKE = 0.25
"""How unlike the ends are (1 − correlation of cells) at least: else only the light changed."""
FLAT_SPREAD = 4.0
"""Levels between the cells of a flat picture."""
WHITE, WHITE_SPREAD = 160.0, 6.0
"""Light of an almost white picture at least, and levels between its median cell and its brighter ones."""
LEFT = 0.32
"""What blends of the ends leave unexplained (RMS) at most, as a share of the change from end to end …"""
LEFT_LIGHT = 0.16
"""… and where one end is almost white between bars, whose edges have more detail than all else."""
OVERALL = 0.6
"""Share of cells that change at all, and median change of these by their mean, at least: things that come and go
change a part of the picture."""
DETAIL = 20.0
"""Variance of luma within cells that an end has at least, on average, for its sag to be told from coding noise."""
SAG = 0.8
"""Detail in the middle third of a range at most, by that of its ends; the law says 0.54 for a dissolve."""
PURE = 0.04
"""Weight of the other picture up to which a frame counts as one picture alone."""
BAR = 20
"""Light of cells in bars at most."""
BACKWARD = 0.1
"""How far the weight may fall back."""
MOST = 0.6
"""Ranges that agree with both laws less than this (see `Blend.left`) are none."""
THROUGH_S = 1.0
"""Longest plain picture that two ranges go through as one."""
AROUND = 4
"""Frames beyond an end over which its detail is taken."""
CHUNK_FRAMES = 4096

Light = npt.NDArray[np.float32]
Series = npt.NDArray[np.floating]


class Blend(NamedTuple):
    """A range of frames in which one picture becomes another."""

    first: int
    """Last frame that shows the first picture alone."""
    last: int
    """First frame that shows the second one alone."""
    kind: str
    """dissolve or wipe."""
    left: float
    """How far it is from the model, 0 for a perfect one; the lower, the surer."""


def detail(light: npt.NDArray[np.uint8], luma_std: Series) -> npt.NDArray[np.float64]:
    """Return the mean variance of luma within the cells of each frame: what of its variance is not between them."""
    within = np.asarray(luma_std, np.float64) ** 2
    for first in range(0, len(light), CHUNK_FRAMES):
        part = light[first : first + CHUNK_FRAMES]
        within[first : first + CHUNK_FRAMES] -= part.reshape(len(part), -1).var(axis=1, dtype=np.float64)
    return np.maximum(within, 0.0)


def dissolves(light: npt.NDArray[np.uint8], luma_std: Series, time_s: npt.NDArray[np.float64]) -> list[Blend]:
    """Return the dissolves in the order of time; of those that overlap, the one nearest to the model.

    Args:
        light: cells `[n, 9, 16]`, 0–255.
        luma_std: standard deviation of luma of each frame.
        time_s: times of the frames.
    """
    if len(time_s) < 2 * LEAST_FRAMES:
        return []
    frame_s, fine = float(np.median(np.diff(time_s))), detail(light, luma_std)
    plain, white = is_plain(light), is_light(light)
    found = [
        blend
        for length in lengths(LENGTHS_S, frame_s)
        for first in ranges(light, plain, length, frame_s, _sags(fine, white, length))
        if (blend := _explained(light, fine, first, first + length))
    ]
    found = _joined(apart([_refined(light, fine, blend) for blend in apart(found)]), plain, THROUGH_S / frame_s)
    return [_widened(blend, len(light)) for blend in found]


def _joined(found: list[Blend], plain: npt.NDArray[np.bool_], most: float) -> list[Blend]:
    """Return one range for what goes to a plain picture and, at most some frames later, from it."""
    joined: list[Blend] = []
    for blend in found:
        last = joined[-1].last if joined else -1
        if joined and blend.first - last <= most and plain[min(last, blend.first) : max(last, blend.first) + 1].all():
            before = joined.pop()
            blend = blend._replace(first=before.first, left=max(before.left, blend.left))
        joined.append(blend)
    return joined


def _widened(blend: Blend, frames: int) -> Blend:
    """Return a range with the frames beside it in which the other picture is too faint to be told."""
    more = max(1, round(PURE * (blend.last - blend.first)))
    return blend._replace(first=max(0, blend.first - more), last=min(frames - 1, blend.last + more))


def lengths(seconds: tuple[float, ...], frame_s: float) -> list[int]:
    """Return lengths in frames, without repetition, shortest first."""
    return sorted({frames for s in seconds if (frames := round(s / frame_s)) >= LEAST_FRAMES})


def apart(found: list[Blend]) -> list[Blend]:
    """Return in the order of time those that overlap no better one, or longer one that is as good."""
    kept: list[Blend] = []
    for blend in sorted(set(found), key=lambda b: (b.left, b.first - b.last, b.first)):
        if all(blend.last <= other.first or blend.first >= other.last for other in kept):
            kept.append(blend)
    return sorted(kept)


Fits = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.bool_]]
"""From first frames of ranges, which of them are worth a closer look."""


def ranges(
    light: npt.NDArray[np.uint8], plain: npt.NDArray[np.bool_], length: int, frame_s: float, fits: Fits
) -> list[int]:
    """Return the first frames of the ranges of a length that change much, with rest on either side, and that fit.

    Args:
        light: cells `[n, 9, 16]`.
        plain: which frames are of one tone: beside them there need be no rest.
        length: frames from the first to the last.
        frame_s: seconds from frame to frame.
        fits: a further test.
    """
    rest, count, found = max(2, round(REST_S / frame_s)), len(light) - length, list[int]()
    for start in range(0, count, CHUNK_FRAMES):
        at = np.arange(start, min(start + CHUNK_FRAMES, count))
        change = _between(light, at, at + length)
        at, change = at[change >= LEAST_STEP], change[change >= LEAST_STEP]
        calm = np.ones(len(at), np.bool_)
        for end, beyond in ((at, at - rest), (at + length, at + length + rest)):  # at rest outside the footage
            calm &= (_between(light, end, np.clip(beyond, 0, len(light) - 1)) <= REST * change) | plain[end]
        found += at[calm][fits(at[calm])].tolist()
    return found


def _sags(fine: Series, white: npt.NDArray[np.bool_], length: int) -> Fits:
    """Return a test of whether detail sags in the middle of ranges of a length, or an end is almost white."""
    total, third = np.concatenate([[0.0], np.cumsum(fine)]), length // 3

    def fits(at: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        end = at + length
        middle = (total[end - third] - total[at + third]) / (length - 2 * third)
        ends = (fine[at] + fine[end]) / 2
        return np.asarray(((middle <= SAG * ends) & (ends >= DETAIL)) | white[at] | white[end])

    return fits


def _between(light: npt.NDArray[np.uint8], a: npt.NDArray[np.intp], b: npt.NDArray[np.intp]) -> Light:
    """Return how far frames are apart: mean |Δ| of cells."""
    return np.asarray(np.abs(light[a].astype(np.int16) - light[b]).mean(axis=(1, 2)), np.float32)


def is_plain(light: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which frames `[n, 9, 16]` are of one tone but for bars and small things; pictures fade to it."""
    low, high = _ranks(light, 0.35, 0.8)
    return np.asarray((high - low < FLAT_SPREAD) | is_light(light))


def is_light(light: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which frames `[n, 9, 16]` are almost white but for bars and small things."""
    middle, high = _ranks(light, 0.5, 0.8)
    return np.asarray((high - middle < WHITE_SPREAD) & (high >= WHITE))


def _ranks(light: npt.NDArray[np.uint8], *shares: float) -> npt.NDArray[np.int16]:
    """Return of each frame the light of the cells that stand at some shares of their order."""
    order = np.sort(light.reshape(len(light), -1), axis=1)
    return order[:, [round(share * (order.shape[1] - 1)) for share in shares]].T.astype(np.int16)


def _explained(light: npt.NDArray[np.uint8], fine: Series, first: int, last: int) -> Blend | None:
    """Return the range as a dissolve if both laws hold."""
    inside = np.asarray(light[first : last + 1], np.float64).reshape(last - first + 1, -1)
    start, change = inside[0], inside[-1] - inside[0]
    if np.abs(np.diff(inside, axis=0)).mean(axis=1).max() > LARGEST_STEP * np.abs(change).mean():
        return None
    moves = np.abs(change) > 1.0  # bars do not
    if moves.mean() < OVERALL or likeness(inside[0][moves], inside[-1][moves]) > 1 - UNLIKE:
        return None
    if np.median(np.abs(change[moves])) < OVERALL * np.abs(change[moves]).mean():
        return None
    power = float((change**2).mean())
    weight = (inside - start) @ change / (len(change) * power)
    if np.diff(weight).min() < -BACKWARD or weight.min() < -BACKWARD or weight.max() > 1 + BACKWARD:
        return None
    left = float(np.sqrt(((inside - start - weight[:, None] * change) ** 2).mean() / power))
    if is_light(light[[first, last]]).any() and _in_bars(light[[first, last]]):
        return _from_light(weight, first, left) if left <= LEFT_LIGHT else None
    if left > LEFT:
        return None
    bent = float(np.abs(weight - np.linspace(0, 1, len(weight))).max())
    left += 0.5 * bent + _off_the_law(fine, weight, first, last)
    return Blend(first, last, "dissolve", left) if left <= MOST else None


def _in_bars(light: npt.NDArray[np.uint8]) -> bool:
    """Whether frames have black at two opposite sides."""
    return bool(min(light[:, [0, -1]].max(), light[:, :, [0, -1]].max()) <= BAR)


def _from_light(weight: Series, first: int, left: float) -> Blend | None:
    """Return the dissolve from or to white without the frames that show one end alone.

    Any part of it is explained as well as the whole: `left` is in tenths, so that the longest of some is taken.
    """
    begun, done = np.flatnonzero(weight <= PURE)[-1], np.flatnonzero(weight >= 1 - PURE)[0]
    if done - begun < LEAST_FRAMES:
        return None
    return Blend(first + int(begun), first + int(done), "dissolve", round(left, 1))


def _off_the_law(fine: Series, weight: Series, first: int, last: int) -> float:
    """Return how far detail is from (1 − w)² of the old picture's and w² of the new one's.

    That is the straight line from end to end less w (1 − w) of their sum, once: what counts is how many times that
    fits best, by least squares, and what is left then.
    """
    old = float(np.median(fine[max(0, first - AROUND) : first + 1]))
    new = float(np.median(fine[last : last + AROUND + 1]))
    weight = np.clip(weight, 0.0, 1.0)
    line, sag = (1 - weight) * old + weight * new, weight * (1 - weight) * (old + new)
    below = line - fine[first : last + 1]
    times = float((below * sag).sum() / max((sag**2).sum(), 1e-9))
    return 0.5 * abs(1 - times) + float(np.abs(below - times * sag).mean()) / max((old + new) / 2, 1e-9)


def likeness(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the correlation of two pictures; 0 where either is flat."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a**2).mean() * (b**2).mean()))
    return float((a * b).mean()) / spread if min(a.std(), b.std()) > FLAT_SPREAD else 0.0


def _refined(light: npt.NDArray[np.uint8], fine: Series, blend: Blend) -> Blend:
    """Return a dissolve with its ends moved, step by step, to where it is nearest to the model."""
    while True:
        better = min([blend, *_moved(light, fine, blend)], key=lambda b: (b.left, b.first, b.last))
        if better.left >= blend.left:
            return blend
        blend = better


def _moved(light: npt.NDArray[np.uint8], fine: Series, blend: Blend) -> Iterator[Blend]:
    for a in (-2, -1, 0, 1, 2):
        for b in (-2, -1, 0, 1, 2):
            first, last = blend.first + a, blend.last + b
            fits = first >= 0 and last < len(light) and last - first >= LEAST_FRAMES and (a or b)
            if fits and not is_light(light[[first, last]]).any() and (moved := _explained(light, fine, first, last)):
                yield moved
