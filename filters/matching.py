"""Whether two clips show the same footage: one slid along the other, at its own speed or another.

All pairs are compared at once, in batches of alike lengths. Two things are measured at the best lag: the distance of
the aligned hashes in bits, and how well their changes agree (the correlation of each bit over time, its mean taken
out). A copy with a logo, a crop or other light differs by the same bits all the time and changes alike; another take of
the same scene lies near and changes otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from rushes.filters.sketches import Hashes, Ints, informative

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

TICK_HZ = 6.0
"""Hashes per second, as the scan takes them."""
CELLS = 1 << 20
"""Hashes of a batch on either side, which bounds its memory."""
BLOCK = 1 << 16
"""Clips that are moved at once."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """The informative hashes of clips on a grid of ticks, flat."""

    hashes: Hashes
    slots: npt.NDArray[np.int32]
    """Number of the tick of each hash, counted from the first one of its clip."""
    starts: Ints
    """[clips + 1] where each clip begins in the two above."""
    first_s: Floats
    """Seconds from the start of each clip to its tick 0."""

    @property
    def counts(self) -> Ints:
        """Hashes of each clip."""
        return np.diff(self.starts)

    def at(self, clips: Ints) -> Sequences:
        """Return some of the clips, in the order in which they are given."""
        counts = self.counts[clips]
        starts = np.r_[0, np.cumsum(counts)]
        hashes, slots = np.empty(starts[-1], np.uint64), np.empty(starts[-1], np.int32)
        for first in range(0, len(clips), BLOCK):  # the places of all hashes at once would outweigh the hashes
            own = slice(first, first + BLOCK)
            here = slice(starts[first], starts[min(first + BLOCK, len(clips))])
            flat = np.arange(here.start, here.stop) + np.repeat(self.starts[clips[own]] - starts[:-1][own], counts[own])
            hashes[here], slots[here] = self.hashes[flat], self.slots[flat]
        return Sequences(hashes=hashes, slots=slots, starts=starts, first_s=self.first_s[clips])


def sequences(hashes: Hashes, times_s: npt.NDArray[np.floating], starts: Ints, use: Flags | None = None) -> Sequences:
    """Return clips' hashes without those that prove nothing, each at the tick nearest to its time.

    Frames come a little after the tick that they stand for; how late on average is found from the clip's own times.

    Args:
        hashes: [n] hashes of all clips, one clip after the other.
        times_s: [n] seconds from the start of the clip.
        starts: [clips + 1] where each clip begins.
        use: [clips] whether a clip is used; one that is not has no hashes.
    """
    telling = informative(hashes)
    if use is not None:
        telling &= np.repeat(use, np.diff(starts))
    ends = np.r_[0, np.cumsum(telling)][starts]
    counts = np.diff(ends)
    turns = times_s[telling].astype(np.float64) * TICK_HZ
    filled = counts > 0
    heads = ends[:-1][filled]
    circle = np.exp(2j * np.pi * turns)
    late = np.angle(np.add.reduceat(circle, heads)) / (2 * np.pi) if len(heads) else np.empty(0)
    slots = np.rint(turns - np.repeat(late, counts[filled])).astype(np.int32)
    zero = slots[heads]
    first_s = np.zeros(len(counts))
    first_s[filled] = (zero + late) / TICK_HZ
    return Sequences(
        hashes=hashes[telling], slots=slots - np.repeat(zero, counts[filled]), starts=ends, first_s=first_s
    )


def joined(parts: Sequence[Sequences]) -> Sequences:
    """Return the clips of several parts, one part after the other."""
    ends = [part.starts[1:] for part in parts]
    before = np.cumsum([0, *(len(part.hashes) for part in parts)])
    return Sequences(
        hashes=np.concatenate([part.hashes for part in parts]),
        slots=np.concatenate([part.slots for part in parts]),
        starts=np.concatenate([np.zeros(1, np.int64), *(end + more for end, more in zip(ends, before, strict=False))]),
        first_s=np.concatenate([part.first_s for part in parts]),
    )


def spread(seq: Sequences) -> Floats:
    """Return the mean distance in bits between two pictures of each clip; 0 for a still picture, and for none."""
    moved = np.zeros(len(seq.counts))
    filled = seq.counts > 1
    heads, many = seq.starts[:-1][seq.counts > 0], seq.counts[filled]
    for bit in range(64):
        is_set = ((seq.hashes >> np.uint64(bit)) & np.uint64(1)).astype(np.int64)
        often = np.zeros(len(moved))
        often[seq.counts > 0] = np.add.reduceat(is_set, heads) if len(heads) else 0
        moved[filled] += often[filled] * (many - often[filled])
    moved[filled] *= 2 / (many * (many - 1.0))
    return moved


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How pairs of clips (a, b) lie at their best lag: time in a = `speed` × time in b + `offset_s`."""

    speed: Floats
    offset_s: Floats
    ticks: Ints
    """Aligned hashes; 0 where no lag aligns enough of them."""
    distance: Floats
    """Mean distance of the aligned hashes, in bits of 64."""
    own: Floats
    """Mean distance between the pictures of the overlap, in the stiller of the two: 0 for a still picture."""
    standing: Floats
    """The part of the distance that is there all the time, in bits: what a logo or a crop adds."""
    accord: Floats
    """Correlation of the bits' changes, −1 … 1; 0 where nothing changes."""
    overlap_s: Floats

    @classmethod
    def untried(cls, count: int) -> Alignment:
        """Return the alignments of so many pairs of which none was tried: no ticks, and NaN for all else."""
        names = [field.name for field in fields(cls) if field.name != "ticks"]
        return cls(ticks=np.zeros(count, np.int64), **{name: np.full(count, np.nan) for name in names})

    def at(self, rows: Flags | Ints) -> Alignment:
        """Return the alignment of some of the pairs, a copy."""
        return Alignment(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def put(self, rows: Flags, found: Alignment) -> None:
        """Set the alignment of some of the pairs."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(found, field.name)


def align(seq: Sequences, pairs: Ints, min_ticks: int, min_share: float, speed: Floats | None = None) -> Alignment:
    """Return the best lag of each pair [n, 2] at given speeds [n] of b (1 where none are given).

    Best is the longest overlap among those within half a bit of the least distance; at least `min_ticks` hashes and
    `min_share` of the shorter clip must lie in it.
    """
    speed = np.ones(len(pairs)) if speed is None else speed
    found = {name: np.zeros(len(pairs)) for name in _FIELDS}
    for rows in _batches(seq, pairs, speed):
        grids = (*_grid(seq, pairs[rows, 0], np.ones(len(rows))), *_grid(seq, pairs[rows, 1], speed[rows]))
        lag, mean = _best_lag(*grids, min_ticks, min_share)
        found["lag"][rows] = lag
        for name, values in _at_lag(*grids, lag).items():
            found[name][rows] = values
        found["ticks"][rows[np.isinf(mean)]] = 0
    first = seq.first_s[pairs[:, 0]] - speed * seq.first_s[pairs[:, 1]]
    return Alignment(
        speed=speed,
        offset_s=found["lag"] / TICK_HZ + first,
        ticks=found["ticks"].astype(np.int64),
        distance=found["distance"],
        own=found["own"],
        standing=found["standing"],
        accord=found["accord"],
        overlap_s=found["span"] / TICK_HZ,
    )


def fastest(
    seq: Sequences, pairs: Ints, min_ticks: int, min_share: float, speeds: Floats, around: Floats | None = None
) -> Floats:
    """Return the speed [n] at which each pair lies nearest, the first one of equals.

    Args:
        seq: the clips.
        pairs: [n, 2] clips.
        min_ticks: as in `align`.
        min_share: as in `align`.
        speeds: [k] speeds to try.
        around: [n] speeds of the pairs by which these are multiplied, where a rough one is known.
    """
    around = np.ones(len(pairs)) if around is None else around
    best, least = around.copy(), np.full(len(pairs), np.inf)
    for speed in speeds:
        tried, mean = around * speed, np.empty(len(pairs))
        for rows in _batches(seq, pairs, tried):
            grids = (*_grid(seq, pairs[rows, 0], np.ones(len(rows))), *_grid(seq, pairs[rows, 1], tried[rows]))
            mean[rows] = _best_lag(*grids, min_ticks, min_share)[1]
        nearer = mean < least
        best[nearer], least[nearer] = tried[nearer], mean[nearer]
    return best


_FIELDS = ("lag", "ticks", "distance", "own", "standing", "accord", "span")


def _batches(seq: Sequences, pairs: Ints, speed: Floats) -> Iterator[Ints]:
    """Yield rows of pairs of about the same length, few enough that their grids stay small."""
    last = np.zeros(len(seq.counts), np.int64)
    filled = seq.counts > 0
    last[filled] = seq.slots[seq.starts[1:][filled] - 1]
    longest = np.maximum(last[pairs[:, 0]], np.ceil(last[pairs[:, 1]] * speed).astype(np.int64)) + 1
    order = np.argsort(longest, kind="stable")
    at = 0
    while at < len(order):
        size = max(1, CELLS // int(longest[order[min(at + 256, len(order) - 1)]]))
        size = max(1, min(size, CELLS // int(longest[order[min(at + size, len(order) - 1)]])))
        yield order[at : at + size]
        at += size


def _grid(seq: Sequences, clips: Ints, speed: Floats) -> tuple[Hashes, Flags]:
    """Return the hashes of clips [n, ticks], shown at another speed, and where there is one."""
    counts = seq.counts[clips]
    row = np.repeat(np.arange(len(clips)), counts)
    flat = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(seq.starts[clips], counts)
    slots = seq.slots[flat]
    width = int(slots.max(initial=0)) + 1
    grid, there = np.zeros((len(clips), width), np.uint64), np.zeros((len(clips), width), np.bool_)
    grid[row, slots], there[row, slots] = seq.hashes[flat], True
    if (speed == 1).all():
        return grid, there
    steps = np.rint(np.arange(np.ceil((width - 1) * speed.max()) + 1)[None, :] / speed[:, None]).astype(np.int64)
    inside = np.minimum(steps, width - 1)
    rows = np.arange(len(clips))[:, None]
    return grid[rows, inside], there[rows, inside] & (steps < width)


def _lapped(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic], lag: int) -> tuple[slice, slice]:
    """Return which columns of a and b meet where column j of b lies under column j + lag of a."""
    low, high = max(0, lag), min(a.shape[1], b.shape[1] + lag)
    return slice(low, high), slice(low - lag, high - lag)


def _best_lag(
    a: Hashes, a_there: Flags, b: Hashes, b_there: Flags, min_ticks: int, min_share: float
) -> tuple[Ints, Floats]:
    """Return the best lag of each row and its mean distance in bits, infinite where no lag aligns enough."""
    shorter = np.minimum(a_there.sum(axis=1), b_there.sum(axis=1))
    need = np.maximum(max(min_ticks, 1), np.ceil(min_share * shorter - 1e-9))
    lags = np.arange(1 - b.shape[1], a.shape[1])
    count, total = (np.zeros((len(a), len(lags)), np.int32) for _ in range(2))
    for place, lag in enumerate(lags):
        in_a, in_b = _lapped(a, b, int(lag))
        both = a_there[:, in_a] & b_there[:, in_b]
        count[:, place] = both.sum(axis=1)
        total[:, place] = (np.bitwise_count(a[:, in_a] ^ b[:, in_b]) * both).sum(axis=1, dtype=np.int32)
    mean = np.where(count >= need[:, None], total / np.maximum(count, 1), np.inf)
    least = mean.min(axis=1, keepdims=True)
    close = mean <= least + 0.5
    longest = close & (count == np.where(close, count, -1).max(axis=1, keepdims=True))
    # Of equally long overlaps the nearest one, then the one with the least shift, then with the lesser lag.
    final = longest & (mean == np.where(longest, mean, np.inf).min(axis=1, keepdims=True))
    shift = np.where(final, np.abs(lags), np.iinfo(np.int64).max)
    place = shift.argmin(axis=1)
    return lags[place], mean[np.arange(len(a)), place]


def _at_lag(a: Hashes, a_there: Flags, b: Hashes, b_there: Flags, lag: Ints) -> dict[str, npt.NDArray[np.generic]]:
    columns = np.arange(a.shape[1])[None, :] - lag[:, None]
    valid = (columns >= 0) & (columns < b.shape[1])
    columns = np.clip(columns, 0, b.shape[1] - 1)
    rows = np.arange(len(a))[:, None]
    under = b[rows, columns]
    both = a_there & b_there[rows, columns] & valid
    ticks = both.sum(axis=1)
    many = np.maximum(ticks, 1)
    distance = (np.bitwise_count(a ^ under) * both).sum(axis=1, dtype=np.int64) / many
    in_a, in_b, joint = (_bit_sums(values, both) for values in (a, under, a & under))
    moved_a, moved_b = ((n - n * n / many[:, None]).sum(axis=1) for n in (in_a, in_b))
    together = (joint - in_a * in_b / many[:, None]).sum(axis=1)
    scale = np.sqrt(moved_a * moved_b)
    where = np.arange(a.shape[1])[None, :]
    begin, end = np.where(both, where, a.shape[1]).min(axis=1), np.where(both, where, -1).max(axis=1)
    return {
        "ticks": ticks,
        "distance": distance,
        "own": 2 * np.minimum(moved_a, moved_b) / np.maximum(ticks - 1, 1),
        "standing": (((in_a - in_b) / many[:, None]) ** 2).sum(axis=1),
        "accord": np.where(scale > 0, together / np.maximum(scale, 1e-12), 0.0),
        "span": np.maximum(end - begin + 1, 0),
    }


def _bit_sums(hashes: Hashes, use: Flags) -> Floats:
    """Return how often each of the 64 bits is set in the used hashes of each row."""
    sums = np.empty((len(hashes), 64))
    hashes = np.where(use, hashes, np.uint64(0))
    for bit in range(64):
        sums[:, bit] = ((hashes >> np.uint64(bit)) & np.uint64(1)).sum(axis=1)
    return sums
