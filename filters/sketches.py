"""Sketches of clips: MinHash signatures of windows of perceptual hashes, and the pairs of clips that they propose.

A sketch depends on its clip alone, so it is made once and kept. `candidates` finds windows that share a band of their
signatures by sorting, never by comparing all with all, and works on flat arrays: a million clips of five seconds need
about 400 bytes each. The signatures are datasketch's own (its permutations and its rule for bands), only computed for
many windows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

CHUNK_BITS = 16
"""A hash is shingled into four chunks with their place: hashes that differ in three bits share one or more of them."""
PERMUTATIONS = 48
"""MinHash values of a window, as 24 bands of 2: a Jaccard similarity of 0.2 is found with p = 0.62, 0.4 with 0.98."""
WINDOW, HOP = 12, 6
"""Ticks of a window and between windows: two seconds and one at the usual 6 Hz, so that short excerpts are found."""
CROWD = 24
"""Buckets with more clips than this are linked to their first one and in a chain, which keeps the cost linear."""
NEAR_BITS = 10
"""Two windows are worth a close look if half of the one's pictures lie this near to some picture of the other."""

_LSH = MinHashLSH(num_perm=PERMUTATIONS, params=(24, 2))
BANDS, ROWS = _LSH.b, _LSH.r
PARAMETERS = (CHUNK_BITS, PERMUTATIONS, WINDOW, HOP, BANDS, ROWS)
"""What a kept sketch depends on besides its clip."""

_SEED = MinHash(num_perm=PERMUTATIONS)
_FACTOR, _SHIFT = (np.asarray(row, np.uint32) for row in _SEED.permutations)
_BLOCK = 1 << 15


def informative(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Return which hashes come from pictures with structure: those with about half of their bits set."""
    bits = np.bitwise_count(hashes)
    return (bits >= 24) & (bits <= 40)


def shingles(hashes: Hashes) -> npt.NDArray[np.uint32]:
    """Return the (place, chunk) numbers of hashes, [n, 4], whose sets MinHash compares."""
    places = np.arange(64 // CHUNK_BITS, dtype=np.uint64)
    chunks = (hashes[:, None] >> (places * np.uint64(CHUNK_BITS))) & np.uint64(2**CHUNK_BITS - 1)
    return (chunks | places << np.uint64(CHUNK_BITS)).astype(np.uint32)


def windows(counts: Ints) -> tuple[Ints, Ints, Ints]:
    """Return clip, first tick and length of each window of clips with so many informative hashes, in order."""
    last = np.maximum(counts - WINDOW, 0)
    number = np.where(counts > 0, 1 + -(-last // HOP), 0)
    owners = np.repeat(np.arange(len(counts)), number)
    turn = np.arange(len(owners)) - np.repeat(np.cumsum(number) - number, number)
    return owners, np.minimum(turn * HOP, last[owners]), np.minimum(counts[owners], WINDOW)


def signatures(hashes: Hashes, starts: Ints, lengths: Ints) -> npt.NDArray[np.uint32]:
    """Return the MinHash values [w, PERMUTATIONS] of windows; each row equals datasketch's digest of its shingles.

    Args:
        hashes: [n] hashes.
        starts: [w] first hash of each window, not descending.
        lengths: [w] hashes in each window, at least 1.
    """
    found = np.empty((len(starts), PERMUTATIONS), np.uint32)
    for first in range(0, len(starts), _BLOCK // HOP):
        here = slice(first, first + _BLOCK // HOP)
        low, high = int(starts[here][0]), int((starts[here] + lengths[here]).max())
        ticks = np.concatenate([_minima(hashes[low:high]), np.zeros((1, PERMUTATIONS), np.uint32)])
        edges = np.stack([starts[here], starts[here] + lengths[here]], axis=1).ravel() - low
        found[here] = np.minimum.reduceat(ticks, edges, axis=0)[::2]
    return found


def _minima(hashes: Hashes) -> npt.NDArray[np.uint32]:
    """Return the MinHash values of single hashes: the signature of a set is the least one of its parts."""
    mixed = _mix(shingles(hashes))
    least = mixed[:, :1] * _FACTOR + _SHIFT
    for place in range(1, mixed.shape[1]):
        np.minimum(least, mixed[:, place : place + 1] * _FACTOR + _SHIFT, out=least)
    return least


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the 32-bit finalizer of MurmurHash3 (Appleby, 2011), datasketch's scheme `affine32`."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def bands(hashes: Hashes, counts: Ints) -> npt.NDArray[np.uint32]:
    """Return the sketches of clips: for each window of `windows(counts)`, BANDS numbers of which equal ones collide.

    Args:
        hashes: the informative hashes of all clips, one clip after the other.
        counts: [clips] how many each has.
    """
    owners, starts, lengths = windows(counts)
    starts = starts + (np.cumsum(counts) - counts)[owners]
    found = np.empty((len(owners), BANDS), np.uint32)
    for first in range(0, len(owners), _BLOCK):
        here = slice(first, first + _BLOCK)
        rows = signatures(hashes, starts[here], lengths[here]).reshape(-1, BANDS, ROWS)
        folded = rows[:, :, 0]
        for row in range(1, ROWS):
            folded = _mix(folded + np.uint32(0x9E3779B9)) ^ rows[:, :, row]
        found[here] = folded
    return found


@dataclass(frozen=True, kw_only=True)
class Sketches:
    """The sketches of clips with the hashes they were made of, all flat; see `bands`."""

    hashes: Hashes
    counts: Ints
    bands: npt.NDArray[np.uint32]


def candidates(sketches: Sketches) -> Ints:
    """Return pairs of clips [n, 2] that share a band and look alike there, each once, sorted, the lower one first."""
    owners, starts, lengths = windows(sketches.counts)
    starts = starts + (np.cumsum(sketches.counts) - sketches.counts)[owners]
    near = _Near(sketches.hashes, starts, lengths)
    found = np.empty(0, np.int64)
    for band in range(BANDS):
        fresh = [found]
        for left, right in _collisions(sketches.bands[:, band], owners):
            code = (owners[left] << 32) | owners[right]
            new = np.flatnonzero(~_known(code, found))
            fresh.append(np.unique(code[new[near(left[new], right[new])]]))
        found = np.unique(np.concatenate(fresh))
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1)


def _known(codes: Ints, found: Ints) -> npt.NDArray[np.bool_]:
    if not len(found):
        return np.zeros(len(codes), np.bool_)
    return found[np.minimum(np.searchsorted(found, codes), len(found) - 1)] == codes


@dataclass(frozen=True)
class _Near:
    """Whether windows look alike, picture by picture in any order."""

    hashes: Hashes
    starts: Ints
    lengths: Ints

    def __call__(self, left: Ints, right: Ints) -> npt.NDArray[np.bool_]:
        a, b = self._gather(left), self._gather(right)
        nearest = np.full(a.shape, 64, np.uint8)
        for tick in range(WINDOW):
            np.minimum(nearest, np.bitwise_count(a ^ b[:, tick : tick + 1]), out=nearest)
        return (nearest <= NEAR_BITS).mean(axis=1) >= 0.5

    def _gather(self, which: Ints) -> Hashes:
        steps = np.minimum(np.arange(WINDOW), self.lengths[which, None] - 1)  # a short window repeats its last picture
        return self.hashes[self.starts[which, None] + steps]


def _collisions(values: npt.NDArray[np.uint32], owners: Ints, block: int = 100_000) -> Iterator[tuple[Ints, Ints]]:
    """Yield blocks of pairs of windows with equal values, of different clips: all pairs of a small bucket, star and
    chain of a crowd. Of a clip that is in a bucket several times, the first window stands for it.
    """
    packed = np.sort(values.astype(np.uint64) << np.uint64(32) | np.arange(len(values), dtype=np.uint64))
    value, window = (packed >> np.uint64(32)).astype(np.uint32), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    first = np.r_[True, (value[1:] != value[:-1]) | (owners[window[1:]] != owners[window[:-1]])][: len(value)]
    value, window = value[first], window[first]
    edges = np.flatnonzero(np.r_[True, value[1:] != value[:-1], True]) if len(value) else np.zeros(1, np.int64)
    shared = np.diff(edges) > 1
    sizes, heads = np.diff(edges)[shared], edges[:-1][shared]
    size, head = np.repeat(sizes, sizes), np.repeat(heads, sizes)
    turn = np.arange(len(size)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    for gap in range(1, CROWD):  # the partner that stands `gap` places before
        here = (turn >= gap) & ((size <= CROWD) | (gap == 1))
        if not here.any():
            break
        yield from _blocks(window[head[here] + turn[here] - gap], window[head[here] + turn[here]], block)
    star = (size > CROWD) & (turn > 1)
    yield from _blocks(window[head[star]], window[head[star] + turn[star]], block)


def _blocks(left: Ints, right: Ints, block: int) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, len(left), block):
        yield left[start : start + block], right[start : start + block]
