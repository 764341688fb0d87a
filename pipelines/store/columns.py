"""Columns of the ledger's tables as arrays. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rushes.filters import matching, sketches

Ints = npt.NDArray[np.int64]
CROP = ("crop_left", "crop_top", "crop_right", "crop_bottom")
BLOCK = 1 << 16
"""Clips whose times are turned into ticks at once."""


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column in one piece; what is one piece already is not copied."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def numbers(values: pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers; null becomes NaN. Of doubles without null no copy is made: not to be written to."""
    found = values.cast(pa.float64())
    return (found.fill_null(float("nan")) if found.null_count else found).to_numpy(zero_copy_only=False)


def pixels(clips: pa.Table) -> npt.NDArray[np.float64]:
    """Return what is left of each clip's picture inside its bars, in pixels."""
    width, height = inner_size(clips)
    return np.rint(width * height)


def inner_size(clips: pa.Table) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return width and height of each clip's picture inside its bars, not rounded."""
    left, top, right, bottom = (np.nan_to_num(numbers(flat(clips[name]))) for name in CROP)
    return numbers(flat(clips["width"])) * (1 - left - right), numbers(flat(clips["height"])) * (1 - top - bottom)


def hash_sequences(clips: pa.Table, use: npt.NDArray[np.bool_]) -> matching.Sequences:
    """Return the hashes of clips, read from the Arrow buffers; a clip that is not used has none."""
    hashes, times = flat(clips["phash"]), flat(clips["phash_s"])
    starts, of_times = (column.offsets.to_numpy().astype(np.int64) for column in (hashes, times))
    values, seconds = (column.values.to_numpy(zero_copy_only=False) for column in (hashes, times))
    parts = []
    for first in range(0, max(len(clips), 1), BLOCK):
        rows = slice(first, first + BLOCK)
        own = starts[first : first + BLOCK + 1]
        of_time = slice(of_times[first], of_times[first + len(own) - 1])
        parts.append(matching.sequences(values[own[0] : own[-1]], seconds[of_time], own - own[0], use[rows]))
    return matching.joined(parts)


def window_counts(seq: matching.Sequences) -> Ints:
    """Return the number of windows of each clip."""
    return np.bincount(sketches.windows(seq.counts)[0], minlength=len(seq.counts))
