"""The measures of clips as columns: those of the table `clips`, those derived of several, and the scorers' values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DERIVED = ("pixels", "min_side_px", "aspect")
"""Measures made of several columns: what is left of the picture inside its bars."""
NOT_MEASURES = {"phash", "phash_s", "frame_s"}
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


def known(clips: pa.Table, scores: pa.Table) -> set[str]:
    """Return the names of all measures that some clip may have."""
    scorers = {name for name in pc.unique(scores["scorer"]).to_pylist() if name is not None}
    return scorers | set(DERIVED) | (set(clips.column_names) - NOT_MEASURES)


def embeddings(scores: pa.Table, scorer: str, keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Return the vectors [n, d] of clips from one scorer, in the order of `keys`; a row of NaN for a clip without one.

    Raises ValueError where the vectors come of several models or have several lengths: they cannot be compared.
    """
    rows = scores.filter(
        pc.and_(pc.equal(scores["scorer"], scorer), pc.greater(pc.list_value_length(scores["vector"]), 0))
    )
    made = pc.unique(pc.list_value_length(rows["vector"])).to_pylist(), pc.unique(rows["model"]).to_pylist()
    if max(map(len, made)) > 1:
        raise ValueError(
            f"scorer {scorer} has vectors of {', '.join(map(str, sorted(made[0])))} numbers by the models "
            f"{', '.join(sorted(map(str, made[1])))}, which cannot be compared; score all clips with one model"
        )
    if not len(rows):
        return np.full((len(keys), 1), np.nan, np.float32)
    vectors = flat(rows["vector"]).flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    place = pc.index_in(flat(keys), value_set=flat(rows["key"])).fill_null(-1).to_numpy(zero_copy_only=False)
    found = vectors.astype(np.float32, copy=False)[place]
    found[place < 0] = np.nan
    return found


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
