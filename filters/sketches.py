"""Sketches of clips: MinHash signatures of windows of perceptual hashes, and the pairs of clips that they propose.

A sketch depends on its clip alone, so it is made once and kept. `candidates` finds windows that share a band of their
signatures by sorting, never by comparing all with all, and works on flat arrays: a million clips of five seconds need
about 400 bytes each. The signatures are datasketch's own (its permutations and its rule for bands), only computed for
many windows at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

CHUNK_BITS = 16
"""A hash is shingled into four chunks with their place: hashes that differ in three bits share one or more of them."""
BANDS, ROWS = 24, 2
PERMUTATIONS = BANDS * ROWS
"""MinHash values of a window, as 24 bands of 2: a Jaccard similarity of 0.2 is found with p = 0.62, 0.4 with 0.98."""
WINDOW, HOP = 12, 6
"""Ticks of a window and between windows: two seconds and one at the usual 6 Hz, so that short excerpts are found."""
CROWD = 24
"""Buckets with more clips than this are linked to their first one and in a chain, which keeps the cost linear."""
FINER = (1, 7, 13)
"""Other bands, counted from the one that a crowd shares, by which its members are told apart."""
NEAR_BITS = 10
"""Two windows are worth a close look if half of the one's pictures lie this near to some picture of the other."""

PARAMETERS = (CHUNK_BITS, PERMUTATIONS, WINDOW, HOP, BANDS, ROWS)
"""What a kept sketch depends on besides its clip."""

_BLOCK = 1 << 15


@functools.cache
def _permutations() -> npt.NDArray[np.uint32]:
    """Return factor and shift of each MinHash value, [2, PERMUTATIONS]."""
    from datasketch import MinHash  # half a second, which a selection has no need of

    return np.asarray(MinHash(num_perm=PERMUTATIONS).permutations, np.uint32)


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
    mixed, (factor, shift) = _mix(shingles(hashes)), _permutations()
    least = mixed[:, :1] * factor + shift
    for place in range(1, mixed.shape[1]):
        np.minimum(least, mixed[:, place : place + 1] * factor + shift, out=least)
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
        for left, right in _collisions(sketches.bands, band, owners):
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


def _collisions(bands_: npt.NDArray[np.uint32], band: int, owners: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield blocks of pairs of windows that share a band, of different clips: all pairs of a small bucket, star and
    chain of a crowd. Those of a crowd that share another band as well are paired, too, if they are few.
    """
    buckets = _buckets(bands_[:, band], np.arange(len(owners)), owners)
    yield from _couples(buckets.of(buckets.sizes <= CROWD))
    crowds = buckets.of(buckets.sizes > CROWD)
    first = np.repeat(crowds.heads, crowds.sizes)
    turn = crowds.turns()
    for here, left in ((turn >= 1, np.arange(len(turn)) - 1), (turn > 1, first)):
        yield from _blocks(crowds.windows[left[here]], crowds.windows[here])
    for step in FINER:
        both = _mix(bands_[crowds.windows, band]) ^ bands_[crowds.windows, (band + step) % BANDS]
        finer = _buckets(both, crowds.windows, owners)
        yield from _couples(finer.of(finer.sizes <= CROWD))


@dataclass(frozen=True)
class _Buckets:
    """Windows, bucket after bucket; of a clip that is in one several times, the first window stands for it."""

    windows: Ints
    sizes: Ints

    @property
    def heads(self) -> Ints:
        return np.cumsum(self.sizes) - self.sizes

    def turns(self) -> Ints:
        """Return the place of each window in its bucket."""
        return np.arange(len(self.windows)) - np.repeat(self.heads, self.sizes)

    def of(self, wanted: npt.NDArray[np.bool_]) -> _Buckets:
        return _Buckets(self.windows[np.repeat(wanted, self.sizes)], self.sizes[wanted])


def _buckets(values: npt.NDArray[np.uint32], windows_: Ints, owners: Ints) -> _Buckets:
    """Return the buckets of windows with equal values that hold more than one clip."""
    packed = np.sort(values.astype(np.uint64) << np.uint64(32) | windows_.astype(np.uint64))
    value, window = (packed >> np.uint64(32)).astype(np.uint32), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    first = np.ones(len(value), np.bool_)
    first[1:] = (value[1:] != value[:-1]) | (owners[window[1:]] != owners[window[:-1]])
    value, window = value[first], window[first]
    edges = np.flatnonzero(np.r_[len(value) > 0, value[1:] != value[:-1], len(value) > 0])
    sizes = np.diff(edges)
    found = _Buckets(window, sizes)
    return found.of(sizes > 1)


def _couples(buckets: _Buckets) -> Iterator[tuple[Ints, Ints]]:
    """Yield all pairs of each bucket, the earlier window first."""
    turn = buckets.turns()
    for gap in range(1, int(buckets.sizes.max(initial=1))):
        later = np.flatnonzero(turn >= gap)
        yield from _blocks(buckets.windows[later - gap], buckets.windows[later])


def _blocks(left: Ints, right: Ints, block: int = 100_000) -> Iterator[tuple[Ints, Ints]]:
    for start in range(0, len(left), block):
        yield left[start : start + block], right[start : start + block]
