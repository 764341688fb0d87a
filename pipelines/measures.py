"""The measures of clips as columns: those of the table `clips`, those derived of several, and the scorers' values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.policy import MissingMeasure, Rule, missing
from pipelines.config import ScoreConfig
from pipelines.ledger import TABLES

DERIVED = ("pixels", "min_side_px", "aspect")
"""Measures made of several columns: what is left of the picture inside its bars."""
NOT_MEASURES = {"key", "extra"}
"""What tells clips apart or has no shape to be limited; lists are no measures either."""
CROP = ("crop_left", "crop_top", "crop_right", "crop_bottom")


def measure(name: str, clips: pa.Table, scores: pa.Table) -> pa.Array:
    """Return one measure of every clip: a column, a derived measure or a scorer's value; null where it has none."""
    if name in DERIVED:
        return pa.array(_derived(name, clips))
    if name in clips.column_names:
        return flat(clips[name])
    rows = scores.filter(pc.equal(scores["scorer"], name)).select(["key", "model", "value"])
    rows = rows.take(pc.sort_indices(rows, [("key", "ascending"), ("model", "ascending")]))
    return flat(rows["value"].take(pc.index_in(clips["key"], value_set=flat(rows["key"]))))


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


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
    from pipelines import score, weights

    if rule.measure not in score.SCORERS:
        said = f"measures here are {', '.join(sorted(there))}; scorers are {', '.join(score.SCORERS)}"
        return f"there is no such measure: {said}"
    command = f"add {rule.measure} to score.scorers: `rushes curate --out RUN --score.scorers '[…, {rule.measure}]'`"
    try:
        weights.require(rule.measure, ScoreConfig())  # without what the user gave: asking must fetch nothing
    except weights.MissingModel as error:
        command += f" ({error})"
    return f"{command}; or set optional: true in the rule to pass clips without it"


def _derived(name: str, clips: pa.Table) -> npt.NDArray[np.float64]:
    column = {c: numbers(flat(clips[c])) for c in ("width", "height")}
    left, top, right, bottom = (np.nan_to_num(numbers(flat(clips[name]))) for name in CROP)
    width, height = column["width"] * (1 - left - right), column["height"] * (1 - top - bottom)
    if name == "pixels":
        return np.rint(width * height)
    return np.rint(np.minimum(width, height)) if name == "min_side_px" else width / height


def numbers(values: pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers; null becomes NaN."""
    return values.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
