"""Which copy stands for which duplicate, over the tables of a run. Pure: tables in, pairs out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters import policy as policies
from filters.duplicates import DuplicateRules, Index, Match, Pair, resolve, verify
from filters.policy import Policy, Rule
from pipelines.ledger import TABLES
from pipelines.measures import flat, known, measure, numbers


def duplicates(
    clips: pa.Table, scores: pa.Table, survivors: npt.NDArray[np.int64], rules: DuplicateRules
) -> list[Pair]:
    """Return which of the surviving clips are dropped for which others; numbers are rows of `clips`."""
    contrast = numbers(flat(clips["luma_std"]))[survivors]
    comparable = survivors[~(contrast < rules.min_luma_std)]
    sequences = _Sequences(clips)
    index = Index()
    for clip in comparable.tolist():
        index.add(clip, sequences.hashes(clip))
    order = _best_first(clips, scores, comparable, rules)
    rank = np.empty(len(clips), np.int64)
    rank[order] = np.arange(len(order))
    seconds = numbers(flat(clips["duration_s"]))
    matches: dict[tuple[int, int], Match] = {}
    for a, b in index.candidates().tolist():
        if match := sequences.match(a, b, rules):
            matches[a, b] = match
    for a, b in list(_closure(matches, rank, seconds)):
        if (a, b) not in matches and (match := sequences.match(a, b, rules)):
            matches[a, b] = match
    linked = sorted({clip for pair in matches for clip in pair}, key=lambda clip: int(rank[clip]))
    return resolve(linked, {clip: float(seconds[clip]) for clip in linked}, matches)


class _Sequences:
    """The hashes of clips, read straight from the Arrow buffers."""

    def __init__(self, clips: pa.Table):
        hashes, times = flat(clips["phash"]), flat(clips["phash_s"])
        self._sources = flat(clips["source_id"]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        self._offsets = [column.offsets.to_numpy() for column in (hashes, times)]
        self._values = [column.values.to_numpy(zero_copy_only=False) for column in (hashes, times)]

    def hashes(self, clip: int) -> npt.NDArray[np.uint64]:
        return self._row(0, clip)

    def _row(self, column: int, clip: int) -> npt.NDArray[Any]:
        offsets = self._offsets[column]
        return self._values[column][offsets[clip] : offsets[clip + 1]]

    def match(self, a: int, b: int, rules: DuplicateRules) -> Match | None:
        same = bool(self._sources[a] == self._sources[b])
        return verify(self._row(0, a), self._row(1, a), self._row(0, b), self._row(1, b), rules, same_source=same)


def _best_first(
    clips: pa.Table, scores: pa.Table, chosen: npt.NDArray[np.int64], rules: DuplicateRules
) -> npt.NDArray[np.int64]:
    """Return clips in the order of `rules.prefer`; the key decides between equals. What is not measured comes last."""
    columns = []
    there = known(clips, scores)
    for name in rules.prefer:
        bare = name.removeprefix("-")
        if bare not in there:
            raise policies.missing(Rule(name="dedup.prefer", measure=bare), there)
        values = numbers(measure(bare, clips, scores))[chosen]
        signed = values if name.startswith("-") else -values
        columns.append(np.where(np.isnan(signed), np.inf, signed))
    return chosen[np.lexsort((chosen, *reversed(columns)))]


def _closure(
    matches: dict[tuple[int, int], Match], rank: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Yield, for each group of linked clips, the pairs with its best and its longest clip; LSH may have missed one."""
    root: dict[int, int] = {}

    def find(clip: int) -> int:
        while root.setdefault(clip, clip) != clip:
            root[clip] = root[root[clip]]
            clip = root[clip]
        return clip

    for a, b in sorted(matches):
        low, high = sorted((find(a), find(b)))
        root[high] = low
    groups: dict[int, list[int]] = {}
    for clip in sorted(root):
        groups.setdefault(find(clip), []).append(clip)
    for group in groups.values():
        best = min(group, key=lambda clip: rank[clip])
        longest = min(group, key=lambda clip: (-seconds[clip], rank[clip]))
        for chief in {best, longest}:
            yield from ((min(chief, clip), max(chief, clip)) for clip in group if clip != chief)


def pair_rows(clips: pa.Table, policy: Policy, pairs: list[Pair]) -> pa.Table:
    """Return the rows of the table `pairs`, sorted by the key of the dropped clip."""
    keys = clips["key"]
    rows = [
        {
            "policy": policy.name,
            "key": keys[pair.dropped].as_py(),
            "kept_key": keys[pair.kept].as_py(),
            "kind": pair.kind,
            "distance": pair.distance,
            "offset_s": pair.offset_s,
            "overlap_s": pair.overlap_s,
            "why": _why(clips, pair),
        }
        for pair in pairs
    ]
    rows.sort(key=lambda row: str(row["key"]))
    return pa.Table.from_pylist(rows, schema=TABLES["pairs"])


def _why(clips: pa.Table, pair: Pair) -> str:
    def facts(clip: int) -> str:
        width, height, rate, seconds = (
            clips[name][clip].as_py() for name in ("width", "height", "bit_rate", "duration_s")
        )
        return f"{width}×{height}, {'?' if rate is None else round(rate / 1000)} kbit/s, {seconds:.2f} s"

    way = "" if pair.via is None else f", through {clips['key'][pair.via].as_py()}"
    verb = "contains it" if pair.kind == "excerpt" else "is preferred"
    return f"{facts(pair.kept)} {verb} over {facts(pair.dropped)}{way}"
