"""Which copy stands for which duplicate, over the tables of a run. Pure: tables in, tables and pairs out.

A ladder of four levels, which stand in the column `level` of the table `pairs`:

| level | the dropped one … | distance |
|---|---|---|
| bytes | is a source with the same content as another, and was never read | 0 |
| copy | shows the same: re-encoded, resized, re-timed, with bars, a logo or other light | mean bits of 64 |
| excerpt | shows a part of the same | mean bits of 64 |
| semantic | shows the same kind of thing, if the policy asks for it | 1 − cosine |

Which clips resemble which was measured before, by the step `match`, whatever a policy says of it (table `matches`);
what a policy's rules make of these columns is told here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters import policy as policies
from rushes.filters import survivors
from rushes.filters.duplicates import DuplicateRules, decide
from rushes.filters.policy import Policy, Rule
from rushes.filters.survivors import Pair, Shown
from rushes.pipelines.stages.match.match import measured as measurements
from rushes.pipelines.stages.match.match import unlike
from rushes.pipelines.stages.select.measures import embeddings, known, measure
from rushes.pipelines.store.columns import flat, numbers
from rushes.pipelines.store.tables import TABLES

Ints = npt.NDArray[np.int64]


def duplicates(clips: pa.Table, scores: pa.Table, chosen: Ints, rules: DuplicateRules, matches: pa.Table) -> list[Pair]:
    """Return which of the chosen clips are dropped for which others; numbers are rows of `clips`.

    Args:
        clips: table `clips`, sorted by key, with the values of scorers.
        scores: table `scores`, for its vectors.
        chosen: rows of the clips that passed the limits.
        rules: the policy's rules.
        matches: table `matches`, aligned by these rules.

    Raises MissingMeasure where `prefer` or `semantic` names a scorer that did not run.
    """
    seconds = numbers(flat(clips["duration_s"]))
    clips_of, table = _among(clips, chosen, rules, matches)
    found = decide(measurements(table), rules).proven(unlike(table), rules.max_unlike)
    linked = np.unique(clips_of[found.couples])
    rank = _ranks(clips, chosen if rules.semantic.scorer else linked, rules, known(clips, scores))
    pairs: list[Pair] = list(survivors.settle(clips_of, found, rank, seconds))
    if rules.semantic.scorer:
        gone = {pair.dropped for pair in pairs}
        left = np.array([clip for clip in chosen.tolist() if clip not in gone], np.int64)
        pairs += _semantic(clips, scores, left, rank, rules)
    return pairs


def _among(clips: pa.Table, chosen: Ints, rules: DuplicateRules, matches: pa.Table) -> tuple[Ints, pa.Table]:
    """Return the couples [n, 2] whose clips are both chosen and have contrast enough, and their rows of `matches`."""
    use = np.zeros(len(clips) + 1, np.bool_)  # the last one stands for a clip that is not here
    use[chosen] = ~(numbers(flat(clips["luma_std"]))[chosen] < rules.min_luma_std)
    named = pa.concat_arrays([flat(matches[side]) for side in "ab"])
    rows = pc.fill_null(pc.index_in(named, value_set=flat(clips["key"])), -1).to_numpy().astype(np.int64)
    couples = rows.reshape(2, -1).T
    here = use[couples].all(axis=1)
    return couples[here], matches.filter(pa.array(here))


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


def _ranks(clips: pa.Table, rows: Ints, rules: DuplicateRules, there: set[str]) -> Ints:
    """Return the place of some clips in the order of `rules.prefer`; the key decides between equals.

    What is not measured comes last; a measure with a question mark counts only where its scorer ran.
    """
    columns = []
    for name in rules.prefer:
        bare = measured(name)
        if bare not in there:
            if name.endswith("?"):
                continue
            raise policies.missing(Rule(name="dedup.prefer", measure=bare), there)
        values = numbers(measure(bare, clips))[rows]
        signed = values if name.startswith("-") else -values
        columns.append(np.where(np.isnan(signed), np.inf, signed))
    rank = np.full(len(clips), len(clips), np.int64)
    rank[rows[np.lexsort((rows, *reversed(columns)))]] = np.arange(len(rows))
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
    counts = pc.value_counts(sources["source_id"])
    often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    order = [("source_id", "ascending"), ("wave", "ascending"), ("unit", "ascending"), ("uri", "ascending")]
    rows = sources.filter(pc.is_in(sources["source_id"], value_set=often)).sort_by(order).to_pylist()
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
