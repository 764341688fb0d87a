"""The measures of clips as columns: those of the table `clips`, those derived of several, and the scorers' values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.policy import MissingMeasure, Rule, missing
from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.store.columns import flat, inner_size, pixels
from rushes.pipelines.store.tables import TABLES

DERIVED = ("pixels", "min_side_px", "aspect")
"""Measures made of several columns: what is left of the picture inside its bars."""
NOT_MEASURES = {"key", "extra"}
"""What tells clips apart or has no shape to be limited; lists are no measures either."""


def measure(name: str, clips: pa.Table) -> pa.Array:
    """Return one measure of every clip: a column, also of a scorer's values, or a derived measure; null for none.

    Args:
        name: the measure.
        clips: table `clips`, with the values of scorers as `with_scores` adds them.
    """
    return flat(clips[name]) if name in clips.column_names else pa.array(_derived(name, clips))


def with_scores(clips: pa.Table, scores: pa.Table, wanted: Iterable[str]) -> pa.Table:
    """Return clips with a column of values for each wanted scorer, null for none; of several models the first counts.

    Args:
        clips: table `clips`; a column of it has its name before any scorer.
        scores: the table `scores`, with the columns key, scorer, model and value at least.
        wanted: names of measures; those of columns and derived ones are passed over.
    """
    for name in sorted(set(wanted) - set(clips.column_names) - set(DERIVED)):
        rows = scores.filter(pc.equal(scores["scorer"], name)).select(["key", "model", "value"])
        if pc.count_distinct(rows["model"], mode="all").as_py() > 1:
            rows = rows.take(pc.sort_indices(rows, [("key", "ascending"), ("model", "ascending")]))
        if not rows["key"].equals(clips["key"]):  # a scorer writes its rows in the order of the clips
            rows = rows.take(pc.index_in(clips["key"], value_set=flat(rows["key"])))
        clips = clips.append_column(name, rows["value"])
    return clips


def embeddings(scores: pa.Table, scorer: str, keys: pa.Array) -> npt.NDArray[np.float32]:
    """Return the vectors of a scorer, `[n, d]`: a row per key in their order, NaN where a clip has none.

    Args:
        scores: the table `scores`, with the columns key, scorer, model and vector at least.
        scorer: embedding or clip.
        keys: the clips.

    Raises ValueError where the table holds vectors of more than one model or dimension, whose distances mean nothing.
    """
    known, found = keys.dictionary_encode(), None
    seen: set[tuple[str, int]] = set()
    for batch in scores.select(["key", "scorer", "model", "vector"]).to_batches():  # no copy of them all in memory
        width = pc.fill_null(pc.list_value_length(batch["vector"]), 0)
        batch = batch.filter(pc.and_(pc.equal(batch["scorer"], scorer), pc.greater(width, 0)))
        if not len(batch):
            continue
        sorts = pa.table({"model": batch["model"], "width": pc.list_value_length(batch["vector"])})
        seen |= {(row["model"], row["width"]) for row in sorts.group_by(["model", "width"]).aggregate([]).to_pylist()}
        _check_one_kind(scorer, seen)
        vectors = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
        if found is None:
            found = np.full((len(known.dictionary), vectors.shape[1]), np.nan, np.float32)
        at = pc.index_in(batch["key"], value_set=known.dictionary)
        asked = pc.is_valid(at).to_numpy(zero_copy_only=False)
        found[at.drop_null().to_numpy()] = vectors[asked]
    if found is None:
        return np.empty((len(keys), 0), np.float32)
    return found if len(found) == len(keys) else found[known.indices.to_numpy()]


def _check_one_kind(scorer: str, seen: set[tuple[str, int]]) -> None:
    if len(seen) > 1:
        kinds = " and ".join(f"{width} numbers of {model}" for model, width in sorted(seen))
        raise ValueError(
            f"the scorer {scorer} has vectors of several kinds in this run: {kinds}; their distances mean nothing. "
            f"Remove ledger/scores of the run and score it with one model: rushes score --out RUN"
        )


def measurable(scorers: Iterable[str]) -> set[str]:
    """Return the names of all measures that a clip may have when these scorers have looked at it."""
    columns = {field.name for field in TABLES["clips"] if not pa.types.is_list(field.type)}
    return (columns - NOT_MEASURES) | set(DERIVED) | set(scorers)


def known(clips: pa.Table, scores: pa.Table) -> set[str]:
    """Return the names of all measures that some clip may have."""
    return measurable(name for name in pc.unique(scores["scorer"]).to_pylist() if name is not None)


def absent(rule: Rule, there: Iterable[str]) -> MissingMeasure:
    """Return the error for a rule whose measure is nowhere; it names the model and the command, or what there is."""
    there = list(there)
    return missing(rule, there, remedy(rule, there))


def remedy(rule: Rule, there: Iterable[str]) -> str:
    """Return what gives clips the measure of a rule."""
    from rushes.pipelines.models import score, weights

    if rule.measure not in score.SCORERS:
        said = f"measures here are {', '.join(sorted(there))}; scorers are {', '.join(score.SCORERS)}"
        return f"there is no such measure: {said}"
    command = f"add {rule.measure} to score.scorers: `rushes curate --out RUN --score.scorers '[…, {rule.measure}]'`"
    try:
        weights.require(rule.measure, ScoreConfig())  # without what the user gave: asking must fetch nothing
    except weights.MissingModel as error:
        command += f" ({error})"
    return f"{command}; or set missing: keep in the rule to pass clips without it"


def _derived(name: str, clips: pa.Table) -> npt.NDArray[np.float64]:
    if name == "pixels":
        return pixels(clips)
    width, height = inner_size(clips)
    return np.rint(np.minimum(width, height)) if name == "min_side_px" else width / height
