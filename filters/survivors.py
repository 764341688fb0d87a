"""Which clips stay: of several copies the best one, of a film and its excerpts the film, of look-alikes the best one.

The result follows from the set of matches and the order of preference alone, not from the order of finding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rushes.filters.duplicates import Match, Matches

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64] | float
Flags = npt.NDArray[np.bool_]
SMALL = 24
"""Clips of a group whose couples are all looked at."""
CHIEFS = 3
"""Best and longest clips of a larger group that are looked at with all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One dropped clip and the one that stays for it."""

    dropped: int
    kept: int
    level: str
    """`copy`, `excerpt` or `semantic`."""
    distance: float
    """Bits of 64; of a semantic pair 1 − cosine."""
    limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown(Pair):
    """A pair of clips that show the same; time in `kept` = `speed` × time in `dropped` + `offset_s`."""

    speed: float
    offset_s: float
    overlap_s: float
    via: int | None
    """The copy through which the two were matched, where no direct match is known."""


def settle(couples: Ints, matches: Matches, rank: Ints, seconds: npt.NDArray[np.float64]) -> list[Shown]:
    """Return which clips are dropped for which, as `resolve` tells it; most matches are of two clips with no other.

    Args:
        couples: [n, 2] clips of all couples that were measured.
        matches: which of them show the same.
        rank: [clips] place in the order of preference of each clip that is matched.
        seconds: [clips] how long each clip is.
    """
    _, place, often = np.unique(couples[matches.couples], return_inverse=True, return_counts=True)
    alone = (often[place.reshape(-1, 2)] == 1).all(axis=1)
    found = _settled_alone(couples, matches.at(alone), rank, seconds)
    linked = np.unique(couples[matches.couples[~alone]])
    order = linked[np.argsort(rank[linked])].tolist()
    lengths = dict(zip(linked.tolist(), seconds[linked].tolist(), strict=True))
    return found + resolve(order, lengths, matches.at(~alone).by_clips(couples))


def _settled_alone(couples: Ints, found: Matches, rank: Ints, seconds: npt.NDArray[np.float64]) -> list[Shown]:
    a, b = couples[found.couples].T
    excerpt = found.inner != ""
    drops_a = np.where(excerpt, found.inner == "a", rank[a] > rank[b])
    dropped, kept = np.where(drops_a, (a, b), (b, a))
    speed = np.where(drops_a, 1 / found.speed, found.speed)
    offset_s = np.where(drops_a, -found.offset_s / found.speed, found.offset_s) + 0.0
    goes = ~excerpt | _inside(speed, offset_s, seconds[dropped], seconds[kept])
    level = np.where(excerpt, "excerpt", "copy")
    columns = {"dropped": dropped, "kept": kept, "level": level, "distance": found.distance, "limit": found.limit,
               "speed": speed, "offset_s": offset_s, "overlap_s": found.overlap_s}  # fmt: skip
    rows = zip(*(column[goes].tolist() for column in columns.values()), strict=True)
    return [Shown(**dict(zip(columns, row, strict=True)), via=None) for row in rows]


def resolve(
    order: Sequence[int], durations: Mapping[int, float], matches: Mapping[tuple[int, int], Match]
) -> list[Shown]:
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
    towards: dict[int, Shown] = {}
    for best in order:  # copies of a shot: a star round the best one
        if best not in towards:
            for pair in sorted((p for p in links.get(best, []) if p.level == "copy"), key=lambda p: rank[p.dropped]):
                if rank[pair.dropped] > rank[best]:
                    towards.setdefault(pair.dropped, pair)
    containers = _containers(links, rank, durations)
    for clip in sorted((c for c in containers if c not in towards), key=lambda c: (-durations[c], rank[c])):
        for pair in containers[clip]:
            step = _follow(pair, towards, matches)
            if step.kept != clip and _inside(step.speed, step.offset_s, durations[clip], durations[step.kept]):
                towards[clip] = step
                break
    return [_follow(towards[clip], towards, matches) for clip in order if clip in towards]


def _links(matches: Mapping[tuple[int, int], Match]) -> dict[int, list[Shown]]:
    """Return, for each clip, the pairs in which it could stay."""
    links: dict[int, list[Shown]] = {}
    for a, b in sorted(matches):
        for dropped, kept in ((a, b), (b, a)):
            pair = _direct(matches, dropped, kept)
            if pair is not None:
                links.setdefault(kept, []).append(pair)
    return links


def _direct(matches: Mapping[tuple[int, int], Match], dropped: int, kept: int) -> Shown | None:
    """Return the pair that a match allows; None if there is no match, or if the kept clip would be the excerpt."""
    match, kept_is_a = matches.get((kept, dropped)), True
    if match is None:
        match, kept_is_a = matches.get((dropped, kept)), False
    if match is None:
        return None
    if match.inner == ("a" if kept_is_a else "b"):
        return None
    speed, offset_s = match.speed, match.offset_s
    if not kept_is_a:
        speed, offset_s = 1 / speed, -offset_s / speed
    return Shown(
        dropped=dropped,
        kept=kept,
        level="excerpt" if match.inner else "copy",
        distance=match.distance,
        limit=match.limit,
        speed=speed,
        offset_s=offset_s + 0.0,
        overlap_s=match.overlap_s,
        via=None,
    )


def _containers(
    links: Mapping[int, Iterable[Shown]], rank: Mapping[int, int], durations: Mapping[int, float]
) -> dict[int, list[Shown]]:
    """Return, for each excerpt, the pairs with what contains it, longest container first."""
    found: dict[int, list[Shown]] = {}
    for pairs in links.values():
        for pair in pairs:
            if pair.level == "excerpt":
                found.setdefault(pair.dropped, []).append(pair)
    for some in found.values():
        some.sort(key=lambda pair: (-durations[pair.kept], rank[pair.kept]))
    return found


def _follow(pair: Shown, towards: Mapping[int, Shown], matches: Mapping[tuple[int, int], Match]) -> Shown:
    """Return the pair with the clip that stays in the end; the distance of a way of several steps is their sum."""
    seen = {pair.dropped}
    while pair.kept in towards and pair.kept not in seen:
        seen.add(pair.kept)
        step = towards[pair.kept]
        direct = _direct(matches, pair.dropped, step.kept)
        pair = direct or replace(
            pair,
            kept=step.kept,
            level="excerpt" if "excerpt" in (pair.level, step.level) else "copy",
            distance=pair.distance + step.distance,
            limit=pair.limit + step.limit,
            speed=step.speed * pair.speed,
            offset_s=step.speed * pair.offset_s + step.offset_s,
            via=pair.kept if pair.via is None else pair.via,
        )
    return pair


def _inside(speed: Floats, offset_s: Floats, dropped_s: Floats, kept_s: Floats, slack_s: float = 0.5) -> Flags:
    """Whether dropped clips lie within kept ones, but for the slack that ticks and differing cuts need."""
    shown_s = speed * dropped_s
    missing = np.maximum(0.0, -offset_s) + np.maximum(0.0, offset_s + shown_s - kept_s)
    return missing <= np.maximum(slack_s, 0.25 * shown_s)


def closure(pairs: Ints, rank: Ints, seconds: npt.NDArray[np.float64]) -> Ints:
    """Return the couples [m, 2] that groups of linked clips lack, the lower clip first, sorted: LSH may miss some.

    A group of up to `SMALL` clips gets all its couples. A larger one gets those with its `CHIEFS` best and its longest
    clips: one of them is what stays, whatever a policy drops before, but for what drops them all.

    Args:
        pairs: [n, 2] clips that are linked.
        rank: [clips] place of each clip in an order of preference.
        seconds: [clips] how long each clip is.
    """
    from scipy.sparse import coo_array  # a selection calls none of this, and answers sooner without it
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return np.empty((0, 2), np.int64)
    clips, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(clips), len(clips)))
    group = connected_components(links, directed=False)[1].astype(np.int64)
    sizes = np.bincount(group)
    found = [*_all_couples(clips, group, sizes)]
    large = sizes[group] > SMALL
    for order in (rank[clips], -seconds[clips]):
        found += _with_chiefs(clips[large], group[large], order[large], rank[clips][large])
    codes = np.unique(np.concatenate([np.empty(0, np.int64), *(low << 32 | high for low, high in found)]))
    codes = codes[~np.isin(codes, pairs[:, 0] << 32 | pairs[:, 1])]
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)


def _all_couples(clips: Ints, group: Ints, sizes: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the couples of clips of all small groups."""
    own = np.flatnonzero(sizes[group] <= SMALL)
    own = own[np.lexsort((clips[own], group[own]))]
    for gap in range(1, min(SMALL, len(own))):
        both = np.flatnonzero(group[own[gap:]] == group[own[: len(own) - gap]])
        yield clips[own[both]], clips[own[both + gap]]


def _with_chiefs(clips: Ints, group: Ints, order: npt.NDArray[np.generic], rank: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the couples of all clips with the first ones of their group in an order."""
    own = np.lexsort((rank, order, group))
    clips, group = clips[own], group[own]
    heads = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[heads, len(group)])
    for place in range(CHIEFS):  # a large group has more clips than that
        chief = np.repeat(clips[heads + place], sizes)
        others = chief != clips
        yield np.minimum(chief, clips)[others], np.maximum(chief, clips)[others]


def nearest(pairs: Ints, cosine: npt.NDArray[np.float64], rank: Ints, limit: float) -> list[Pair]:
    """Return the pairs of clips that are dropped for a better one near in meaning; what stays is near no better one.

    Args:
        pairs: [n, 2] clips that are near enough.
        cosine: [n] how near.
        rank: [clips] place of each clip in the order of preference.
        limit: least cosine that counts as near.
    """
    better, worse = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs.T, pairs.T[::-1])
    gone: dict[int, Pair] = {}
    for at in np.lexsort((rank[better], -cosine, rank[worse])).tolist():  # the better ones are settled first
        kept, dropped = int(better[at]), int(worse[at])
        if kept not in gone and dropped not in gone:
            gone[dropped] = Pair(
                dropped=dropped, kept=kept, level="semantic", distance=float(1 - cosine[at]), limit=1 - limit
            )
    return list(gone.values())
