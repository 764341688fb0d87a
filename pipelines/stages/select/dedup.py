"""Which copy stands for which duplicate, over the tables of a run. Pure: tables in, tables and pairs out.

A ladder of four levels, which stand in the column `level` of the table `pairs`:

| level | the dropped one … | distance |
|---|---|---|
| bytes | is a source with the same content as another, and was never read | 0 |
| copy | shows the same: re-encoded, resized, re-timed, with bars, a logo or other light | mean bits of 64 |
| excerpt | shows a part of the same | mean bits of 64 |
| semantic | shows the same kind of thing, if the policy asks for it | 1 − cosine |

A new batch is compared with all earlier ones by the sketches that the ledger keeps (table `sketches`); the result is
the one of a single run over everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters import matching, sketches, stills, survivors
from rushes.filters import policy as policies
from rushes.filters.duplicates import DuplicateRules, Match, compare
from rushes.filters.policy import Policy, Rule
from rushes.filters.survivors import Pair, Shown
from rushes.pipelines.stages.select.measures import embeddings, known, measure
from rushes.pipelines.store.columns import flat, hash_sequences, numbers, window_counts
from rushes.pipelines.store.ledger import TABLES

Ints = npt.NDArray[np.int64]

PICTURES = 256
"""Pairs of still clips whose pictures are compared at once."""


def duplicates(
    clips: pa.Table, scores: pa.Table, chosen: Ints, rules: DuplicateRules, kept_sketches: pa.Table | None = None
) -> list[Pair]:
    """Return which of the chosen clips are dropped for which others; numbers are rows of `clips`.

    Args:
        clips: table `clips`, sorted by key.
        scores: table `scores`.
        chosen: rows of the clips that passed the limits.
        rules: the policy's rules.
        kept_sketches: table `sketches`; a clip that is not in it is sketched anew, and if it is still, it is taken for
            nobody's copy, since its picture is there alone.

    Raises MissingMeasure where `prefer` or `semantic` names a scorer that did not run.
    """
    rank = _ranks(clips, scores, chosen, rules)
    seconds = numbers(flat(clips["duration_s"]))
    contrast = numbers(flat(clips["luma_std"]))
    comparable = np.zeros(len(clips), np.bool_)
    comparable[chosen] = ~(contrast[chosen] < rules.min_luma_std)
    seq = hash_sequences(clips, comparable)
    kept = _Kept.of(kept_sketches, clips)
    couples = sketches.candidates(sketches.Sketches(hashes=seq.hashes, counts=seq.counts, bands=kept.bands(seq)))
    sources = flat(clips["source_id"]).dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    matches = kept.proven(compare(seq, couples, sources, rules), rules.max_unlike)
    missed = list(survivors.closure(matches, rank, seconds))
    if missed:
        matches |= kept.proven(compare(seq, np.array(missed, np.int64), sources, rules), rules.max_unlike)
    linked = sorted({clip for pair in matches for clip in pair}, key=lambda clip: int(rank[clip]))
    pairs: list[Pair] = list(survivors.resolve(linked, {clip: float(seconds[clip]) for clip in linked}, matches))
    if rules.semantic.scorer:
        gone = {pair.dropped for pair in pairs}
        pairs += _semantic(
            clips, scores, np.array([c for c in chosen.tolist() if c not in gone], np.int64), rank, rules
        )
    return pairs


def balance(
    clips: pa.Table, scores: pa.Table, kept: Ints, rules: DuplicateRules
) -> tuple[Ints, npt.NDArray[np.float64]] | None:
    """Return cluster and weight of the kept clips (mean 1, in proportion to 1/√size); None where it is not asked for.

    Raises MissingMeasure where the scorer did not run.
    """
    if not rules.balance.scorer:
        return None
    from rushes.filters import semantic

    vectors = _vectors(clips, scores, kept, rules.balance.scorer, "dedup.balance.scorer")
    cluster = semantic.clusters(vectors, rules.balance.clusters)
    return cluster, semantic.weights(cluster)


def _semantic(clips: pa.Table, scores: pa.Table, left: Ints, rank: Ints, rules: DuplicateRules) -> list[Pair]:
    from rushes.filters import semantic

    vectors = _vectors(clips, scores, left, rules.semantic.scorer, "dedup.semantic.scorer")
    found, cosine = semantic.near(vectors, rules.semantic.min_cosine)
    return survivors.nearest(left[found], cosine, rank, rules.semantic.min_cosine)


def _vectors(clips: pa.Table, scores: pa.Table, rows: Ints, scorer: str, where: str) -> npt.NDArray[np.float32]:
    if not pc.any(pc.equal(scores["scorer"], scorer)).as_py():
        raise policies.missing(Rule(name=where, measure=scorer), known(clips, scores))
    return embeddings(scores, scorer, flat(clips["key"].take(pa.array(rows))))


@dataclass(frozen=True)
class _Kept:
    """The sketches that the ledger keeps, found by the rows of the table `clips`."""

    table: pa.Table
    place: Ints
    """[clips] row of each clip's sketch, −1 where there is none."""

    @classmethod
    def of(cls, table: pa.Table | None, clips: pa.Table) -> _Kept:
        table = TABLES["sketches"].empty_table() if table is None else table
        place = pc.index_in(flat(clips["key"]), value_set=flat(table["key"]))
        return cls(table, place.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))

    def bands(self, seq: matching.Sequences) -> npt.NDArray[np.uint32]:
        """Return the bands of all clips; those that the ledger lacks are made."""
        column, number = flat(self.table["bands"]), window_counts(seq)
        offsets = column.offsets.to_numpy().astype(np.int64)
        length = np.where(self.place >= 0, np.r_[np.diff(offsets), 0][self.place], -1)
        lacking = (length != number * sketches.BANDS) & (number > 0)
        owners = np.repeat(np.arange(len(number)), number)
        found = np.empty((len(owners), sketches.BANDS), np.uint32)
        new = lacking[owners]
        found[new] = sketches.bands(seq.hashes[np.repeat(lacking, seq.counts)], seq.counts[lacking])
        if not new.all():
            turn = np.arange(len(owners)) - (np.cumsum(number) - number)[owners]
            rows = offsets[self.place[owners[~new]]] // sketches.BANDS + turn[~new]
            values = column.values.to_numpy(zero_copy_only=False)
            found[~new] = values[: len(values) // sketches.BANDS * sketches.BANDS].reshape(-1, sketches.BANDS)[rows]
        return found

    def proven(self, matches: dict[tuple[int, int], Match], most: float) -> dict[tuple[int, int], Match]:
        """Return the matches without those of still clips whose pictures differ, or are not there to be compared."""
        still = [pair for pair, match in matches.items() if match.still]
        proven = set()
        for first in range(0, len(still), PICTURES):
            block = [pair for pair in still[first : first + PICTURES] if all(map(self._picture, pair))]
            if block:
                a, b = (np.stack([self._grid(pair[side]) for pair in block]) for side in (0, 1))
                proven |= {pair for pair, far in zip(block, stills.unlike(a, b).tolist(), strict=True) if far <= most}
        return {pair: match for pair, match in matches.items() if not match.still or pair in proven}

    def _picture(self, clip: int) -> bytes | None:
        row = int(self.place[clip])
        return None if row < 0 else self.table["picture"][row].as_py()

    def _grid(self, clip: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._picture(clip) or b"", np.uint8).reshape(stills.SIDE, stills.SIDE)


def _ranks(clips: pa.Table, scores: pa.Table, chosen: Ints, rules: DuplicateRules) -> Ints:
    """Return the place of each chosen clip in the order of `rules.prefer`; the key decides between equals.

    What is not measured comes last; a measure with a question mark counts only where its scorer ran.
    """
    columns = []
    there = known(clips, scores)
    for name in rules.prefer:
        bare = measured(name)
        if bare not in there:
            if name.endswith("?"):
                continue
            raise policies.missing(Rule(name="dedup.prefer", measure=bare), there)
        values = numbers(measure(bare, clips, scores))[chosen]
        signed = values if name.startswith("-") else -values
        columns.append(np.where(np.isnan(signed), np.inf, signed))
    rank = np.full(len(clips), len(clips), np.int64)
    rank[chosen[np.lexsort((chosen, *reversed(columns)))]] = np.arange(len(chosen))
    return rank


def measured(name: str) -> str:
    """Return the measure that an entry of `prefer` names."""
    return name.removeprefix("-").removesuffix("?")


def same_bytes(sources: pa.Table, policy: Policy) -> pa.Table:
    """Return rows of the table `pairs` for sources with the content of an earlier one, which are never read.

    Args:
        sources: columns `source_id`, `uri`, `wave`, `unit` and `size_bytes` of the table `sources`.
        policy: whose selection the pairs belong to.
    """
    order = [("source_id", "ascending"), ("wave", "ascending"), ("unit", "ascending"), ("uri", "ascending")]
    rows = sources.sort_by(order).to_pylist()
    first: dict[str, Any] = {}
    pairs = []
    for row in rows:
        kept = first.setdefault(row["source_id"], row)
        if kept is not row:
            why = f"{kept['uri']} came first with the same {row['size_bytes']} bytes"
            pairs.append(
                {"policy": policy.name, "level": "bytes", "uri": row["uri"], "kept_uri": kept["uri"], "distance": 0.0,
                 "limit": 0.0, "unit": "bytes", "why": why}
            )  # fmt: skip
    pairs.sort(key=lambda row: str(row["uri"]))
    return pa.Table.from_pylist(pairs, schema=TABLES["pairs"])


def pair_rows(clips: pa.Table, policy: Policy, pairs: Sequence[Pair]) -> pa.Table:
    """Return the rows of the table `pairs`, sorted by the key of the dropped clip."""
    facts = _facts(clips, pairs)
    rows = [_row(policy.name, facts, pair) for pair in pairs]
    rows.sort(key=lambda row: str(row["key"]))
    return pa.Table.from_pylist(rows, schema=TABLES["pairs"])


def _facts(clips: pa.Table, pairs: Iterable[Pair]) -> dict[int, dict[str, Any]]:
    """Return what a pair says of its clips, by their numbers."""
    named = {number for pair in pairs for number in (pair.dropped, pair.kept)}
    named |= {pair.via for pair in pairs if isinstance(pair, Shown) and pair.via is not None}
    numbers_ = sorted(named)
    wanted = [c for c in ("key", "uri", "width", "height", "bit_rate", "duration_s") if c in clips.column_names]
    rows = clips.select(wanted).take(pa.array(numbers_, pa.int64())).to_pylist()
    return dict(zip(numbers_, rows, strict=True))


def _row(policy: str, facts: dict[int, dict[str, Any]], pair: Pair) -> dict[str, Any]:
    dropped, kept = facts[pair.dropped], facts[pair.kept]
    row = {
        "policy": policy, "level": pair.level, "key": dropped["key"], "kept_key": kept["key"],
        "uri": dropped.get("uri"), "kept_uri": kept.get("uri"), "distance": pair.distance, "limit": pair.limit,
        "unit": "bits" if isinstance(pair, Shown) else "cosine",
    }  # fmt: skip
    verb, way = "is preferred", ""
    if isinstance(pair, Shown):
        row |= {"speed": pair.speed, "offset_s": pair.offset_s, "overlap_s": pair.overlap_s}
        verb = "contains it" if pair.level == "excerpt" else verb
        way = "" if pair.via is None else f", through {facts[pair.via]['key']}"
    return row | {"why": f"{_look(kept)} {verb} over {_look(dropped)}{way}"}


def _look(clip: dict[str, Any]) -> str:
    rate = clip["bit_rate"]
    return (
        f"{clip['width']}×{clip['height']}, {'?' if rate is None else round(rate / 1000)} kbit/s, "
        f"{clip['duration_s']:.2f} s"
    )
