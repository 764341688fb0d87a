"""Duplicates among clips: the same shot in another codec, size or container, and excerpts of a longer shot.

Three steps, each pure. `Index` proposes pairs by MinHash over windows of perceptual hashes, so that the cost stays near
linear. `verify` slides one clip along the other and accepts a pair only if it agrees better than the clip's own motion
could explain. `resolve` keeps the best copy of each shot. A wrong merge is worse than a miss: pictures without
structure prove nothing, and clips of one source must move alike, since a still camera looks like itself at any time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

Hashes = npt.NDArray[np.uint64]

CHUNK_BITS = 16
"""A hash is shingled into four chunks with their place: hashes that differ in three bits share one or more of them."""
PERMUTATIONS = 48
"""MinHash values of a window, as 24 bands of 2: a Jaccard similarity of 0.2 is found with p = 0.62, 0.4 with 0.98."""
WINDOW, HOP = 12, 6
"""Ticks of a window and between windows: two seconds and one at the usual 6 Hz, so that short excerpts are found."""
CROWD = 24
"""Buckets with more windows than this are linked to their first one and in a chain, which keeps the cost linear."""
NEAR_BITS = 10
"""Two windows are worth a close look if half of the one's pictures lie this near to some picture of the other."""


@dataclass(frozen=True, kw_only=True)
class DuplicateRules:
    """When two clips count as the same footage."""

    enabled: bool = True
    """Whether duplicates are dropped at all."""
    min_overlap: float = 0.75
    """Share of the shorter clip that must lie inside the other, and share of length that tells copy from excerpt."""
    min_ticks: int = 5
    """Pictures with structure that must agree; fewer prove nothing."""
    min_luma_std: float = 6.0
    """Clips of less contrast are not compared: the hashes of dark or flat pictures are noise, or a watermark."""
    base_bits: float = 3.0
    """Mean distance, in bits of 64, that encoding alone may cause."""
    motion_share: float = 1 / 3
    """… plus this share of the distance between the clip's own pictures, for sampling instants that differ."""
    prefer: tuple[str, ...] = ("pixels", "bit_rate", "sharpness", "duration_s")
    """Measures that choose the surviving copy, most important first; a minus in front means that less is better."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two clips that show the same footage; time in `a` = time in `b` + `offset_s`."""

    distance: float
    limit: float
    offset_s: float
    overlap_s: float
    inner: str
    """`a` or `b` where that clip is an excerpt of the other, empty for two copies of about the same length."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One dropped clip and the one that stays for it; time in `kept` = time in `dropped` + `offset_s`."""

    dropped: int
    kept: int
    kind: str
    distance: float
    limit: float
    offset_s: float
    overlap_s: float
    via: int | None
    """The copy through which the two were matched, where no direct match is known."""


def informative(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Return which hashes come from pictures with structure: those with about half of their bits set."""
    bits = np.bitwise_count(hashes)
    return (bits >= 24) & (bits <= 40)


def spread(hashes: Hashes) -> float:
    """Return the mean distance in bits between two pictures of a clip; 0 for a still picture."""
    count = len(hashes)
    if count < 2:
        return 0.0
    return float(_distances(hashes, hashes).sum(dtype=np.int64)) / (count * (count - 1))


def shingles(hashes: Hashes) -> set[int]:
    """Return the set of (place, chunk) numbers of some hashes, which MinHash compares."""
    places = np.arange(0, 64, CHUNK_BITS, dtype=np.uint64)
    chunks = (hashes[:, None] >> places) & np.uint64(2**CHUNK_BITS - 1)
    return set((chunks | np.arange(len(places), dtype=np.uint64) << np.uint64(CHUNK_BITS)).ravel().tolist())


def _distances(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    return np.bitwise_count(a[:, None] ^ b[None, :])


class Index:
    """Proposes pairs of clips that share a window, without comparing all with all."""

    def __init__(self) -> None:
        self._seed = MinHash(num_perm=PERMUTATIONS)
        self._signatures = bytearray()  # one row of PERMUTATIONS uint32 per window
        self._hashes = array("Q")
        self._starts = array("q")
        self._lengths = array("b")
        self._owners = array("i")

    def add(self, clip: int, hashes: Hashes) -> None:
        """Add a clip by its number; pictures without structure are left out."""
        hashes = hashes[informative(hashes)]
        offset = len(self._hashes)
        self._hashes.frombytes(np.ascontiguousarray(hashes, np.uint64).tobytes())
        for start in _window_starts(len(hashes)):
            window = hashes[start : start + WINDOW]
            self._signatures += self._sign(window)
            self._starts.append(offset + start)
            self._lengths.append(len(window))
            self._owners.append(clip)

    def _sign(self, window: Hashes) -> bytes:
        seed = self._seed
        sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=int, permutations=seed.permutations, scheme=seed.scheme)
        sketch.update_batch(shingles(window))
        return sketch.digest().astype("<u4").tobytes()

    def candidates(self) -> npt.NDArray[np.int64]:
        """Return the proposed pairs [n, 2], each once and sorted; the order of adding makes no difference."""
        owners = np.frombuffer(self._owners, np.int32)
        if not len(owners):
            return np.empty((0, 2), np.int64)
        bands = np.frombuffer(self._signatures, "<u8").reshape(len(owners), PERMUTATIONS // 2)
        # Windows stand in the order of clip and time, whatever the order in which clips were added.
        order = np.lexsort((np.frombuffer(self._starts, np.int64), owners))
        found = np.empty(0, np.int64)
        for band in range(bands.shape[1]):
            here = [found]
            for left, right in _collisions(bands[order, band], order):
                apart = owners[left] != owners[right]
                left, right = left[apart], right[apart]
                near = self._near(left, right)
                here.append((owners[left[near]].astype(np.int64) << 32) | owners[right[near]])
            found = np.unique(np.concatenate(here))
        return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1)

    def _near(self, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        a, b = self._gather(left), self._gather(right)
        nearest = np.full(a.shape, 64, np.uint8)
        for tick in range(WINDOW):
            np.minimum(nearest, np.bitwise_count(a ^ b[:, tick : tick + 1]), out=nearest)
        return (nearest <= NEAR_BITS).mean(axis=1) >= 0.5

    def _gather(self, windows: npt.NDArray[np.int64]) -> Hashes:
        starts = np.frombuffer(self._starts, np.int64)[windows]
        last = np.frombuffer(self._lengths, np.int8)[windows].astype(np.int64) - 1
        steps = np.minimum(np.arange(WINDOW)[None, :], last[:, None])  # a short window repeats its last picture
        return np.frombuffer(self._hashes, np.uint64)[starts[:, None] + steps]


def _window_starts(count: int) -> list[int]:
    if count < 1:
        return []
    last = max(count - WINDOW, 0)
    return [*range(0, last, HOP), last]


def _collisions(
    values: npt.NDArray[np.uint64], windows: npt.NDArray[np.int64], block: int = 200_000
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield blocks of pairs of windows with equal values: all pairs of a small bucket, star and chain of a crowd."""
    by_value = np.argsort(values, kind="stable")
    values, windows = values[by_value], windows[by_value]
    edges = np.flatnonzero(np.r_[True, values[1:] != values[:-1], True])
    first, size = np.repeat(edges[:-1], np.diff(edges)), np.repeat(np.diff(edges), np.diff(edges))
    place = np.arange(len(values))
    for gap in range(1, CROWD):  # the partner that stands `gap` places before, if it shares the bucket
        wanted = (place - gap >= first) & ((size <= CROWD) | (gap == 1))
        yield from _blocks(windows[place[wanted] - gap], windows[place[wanted]], block)
    star = (size > CROWD) & (place > first + 1)
    yield from _blocks(windows[first[star]], windows[place[star]], block)


def _blocks(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], block: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    for start in range(0, len(left), block):
        yield left[start : start + block], right[start : start + block]


def verify(
    a_hashes: Hashes,
    a_times: npt.NDArray[np.floating],
    b_hashes: Hashes,
    b_times: npt.NDArray[np.floating],
    rules: DuplicateRules,
    *,
    same_source: bool = False,
    tick_s: float = 1 / 6,
) -> Match | None:
    """Return how two clips match at the best temporal offset, or None where they do not show the same footage.

    The limit grows with the motion of the overlap: half a tick of delay moves a fast shot by many bits, but no two
    different fast shots come near each other, while still pictures that differ in a word lie within a few bits.

    Args:
        a_hashes: [n] hashes of one clip, with `a_times` in seconds from its start.
        b_hashes: [m] hashes of the other, with `b_times`.
        rules: limits.
        same_source: the clips come from one source, where look-alikes are the rule; then only motion counts.
        tick_s: time between hashes.
    """
    a_use, b_use = informative(a_hashes), informative(b_hashes)
    a_hashes, a_times, b_hashes, b_times = a_hashes[a_use], a_times[a_use], b_hashes[b_use], b_times[b_use]
    shorter, longer = sorted((len(a_hashes), len(b_hashes)))
    need = max(rules.min_ticks, rules.min_overlap * shorter)
    if shorter < need:
        return None
    distances = _distances(a_hashes, b_hashes)
    delays = np.asarray(a_times, np.float64)[:, None] - np.asarray(b_times, np.float64)[None, :]
    here = _best_lag(distances, _ticks(a_times, tick_s)[:, None] - _ticks(b_times, tick_s)[None, :], need)
    if here is None:
        return None
    in_a, in_b = here.any(axis=1), here.any(axis=0)
    own = min(spread(a_hashes[in_a]), spread(b_hashes[in_b]))
    limit = rules.motion_share * own if same_source else min(1 + own, rules.base_bits + rules.motion_share * own)
    distance = float(distances[here].mean())
    if distance >= limit:
        return None
    copies = min(in_a.sum(), in_b.sum()) >= rules.min_overlap * longer
    return Match(
        distance=distance,
        limit=limit,
        offset_s=float(np.median(delays[here])) + 0.0,
        overlap_s=float(np.ptp(a_times[in_a])) + tick_s,
        inner="" if copies else "a" if len(a_hashes) < len(b_hashes) else "b",
    )


def _ticks(times: npt.NDArray[np.floating], tick_s: float) -> npt.NDArray[np.int64]:
    """Return the numbers of ticks, robust against frames that come a little after their tick."""
    turns = np.asarray(times, np.float64) / tick_s
    phase = np.angle(np.exp(2j * np.pi * turns).mean()) / (2 * np.pi)
    return np.rint(turns - phase).astype(np.int64)


def _best_lag(
    distances: npt.NDArray[np.uint8], lags: npt.NDArray[np.int64], need: float
) -> npt.NDArray[np.bool_] | None:
    """Return the cells of the best diagonal: the longest of those within half a bit of the smallest mean distance."""
    low = int(lags.min())
    shifted = (lags - low).ravel()
    count = np.bincount(shifted)
    mean = np.bincount(shifted, weights=distances.ravel()) / np.maximum(count, 1)
    allowed = np.flatnonzero(count >= need)
    if not len(allowed):
        return None
    close = allowed[mean[allowed] <= mean[allowed].min() + 0.5]
    best = close[np.lexsort((np.abs(close + low), mean[close], -count[close]))[0]]
    return lags == best + low


def resolve(
    order: Sequence[int], durations: Mapping[int, float], matches: Mapping[tuple[int, int], Match]
) -> list[Pair]:
    """Return which clips are dropped for which: of several copies the first in `order` stays, and what contains them.

    A clip is dropped only for a kept clip that shows it, directly or through one copy. The result depends on the set of
    matches alone, not on the order in which they were found.

    Args:
        order: clips, best first.
        durations: seconds of each clip.
        matches: by (a, b); offsets as in `Match`.
    """
    links = _links(matches)
    rank = {clip: place for place, clip in enumerate(order)}
    towards: dict[int, Pair] = {}
    for best in order:  # copies of a shot: a star round the best one
        if best not in towards:
            for pair in sorted((p for p in links.get(best, []) if p.kind == "same"), key=lambda p: rank[p.dropped]):
                if rank[pair.dropped] > rank[best]:
                    towards.setdefault(pair.dropped, pair)
    containers = _containers(links, rank, durations)
    for clip in sorted((c for c in containers if c not in towards), key=lambda c: (-durations[c], rank[c])):
        for pair in containers[clip]:
            step = _follow(pair, towards, matches)
            if step.kept != clip and _inside(step, durations):
                towards[clip] = step
                break
    return [_follow(towards[clip], towards, matches) for clip in order if clip in towards]


def _links(matches: Mapping[tuple[int, int], Match]) -> dict[int, list[Pair]]:
    """Return, for each clip, the pairs in which it could stay."""
    links: dict[int, list[Pair]] = {}
    for a, b in sorted(matches):
        for dropped, kept in ((a, b), (b, a)):
            pair = _direct(matches, dropped, kept)
            if pair is not None:
                links.setdefault(kept, []).append(pair)
    return links


def _direct(matches: Mapping[tuple[int, int], Match], dropped: int, kept: int) -> Pair | None:
    """Return the pair that a match allows; None if there is no match, or if the kept clip would be the excerpt."""
    match, sign = matches.get((kept, dropped)), 1.0
    if match is None:
        match, sign = matches.get((dropped, kept)), -1.0
    if match is None:
        return None
    kept_is = "a" if sign > 0 else "b"
    if match.inner == kept_is:
        return None
    return Pair(
        dropped=dropped,
        kept=kept,
        kind="excerpt" if match.inner else "same",
        distance=match.distance,
        limit=match.limit,
        offset_s=sign * match.offset_s + 0.0,
        overlap_s=match.overlap_s,
        via=None,
    )


def _containers(
    links: Mapping[int, Iterable[Pair]], rank: Mapping[int, int], durations: Mapping[int, float]
) -> dict[int, list[Pair]]:
    """Return, for each excerpt, the pairs with what contains it, longest container first."""
    found: dict[int, list[Pair]] = {}
    for pairs in links.values():
        for pair in pairs:
            if pair.kind == "excerpt":
                found.setdefault(pair.dropped, []).append(pair)
    for some in found.values():
        some.sort(key=lambda pair: (-durations[pair.kept], rank[pair.kept]))
    return found


def _follow(pair: Pair, towards: Mapping[int, Pair], matches: Mapping[tuple[int, int], Match]) -> Pair:
    """Return the pair with the clip that stays in the end; the distance of a way of several steps is their sum."""
    seen = {pair.dropped}
    while pair.kept in towards and pair.kept not in seen:
        seen.add(pair.kept)
        step = towards[pair.kept]
        direct = _direct(matches, pair.dropped, step.kept)
        pair = direct or replace(
            pair,
            kept=step.kept,
            kind="excerpt" if "excerpt" in (pair.kind, step.kind) else "same",
            distance=pair.distance + step.distance,
            limit=pair.limit + step.limit,
            offset_s=pair.offset_s + step.offset_s,
            via=pair.kept if pair.via is None else pair.via,
        )
    return pair


def _inside(pair: Pair, durations: Mapping[int, float], slack_s: float = 0.5) -> bool:
    """Whether the dropped clip lies within the kept one, but for the slack that ticks and differing cuts need."""
    missing = max(0.0, -pair.offset_s) + max(0.0, pair.offset_s + durations[pair.dropped] - durations[pair.kept])
    return missing <= max(slack_s, 0.25 * durations[pair.dropped])
