"""What duplicates are found by, made once of each clip: table `sketches`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rushes.filters import matching, sketches, stills
from rushes.filters.duplicates import STILL_BITS
from rushes.pipelines.store.columns import CROP, flat, hash_sequences, window_counts
from rushes.pipelines.store.tables import TABLES


def sketch(clips: pa.Table, jpegs: Mapping[str, bytes]) -> pa.Table:
    """Return the rows of the table `sketches` for rows of the table `clips`; they depend on nothing else.

    Args:
        clips: table `clips`.
        jpegs: by key, one of the clip's representative frames.
    """
    seq = hash_sequences(clips, np.ones(len(clips), np.bool_))
    found = sketches.bands(seq.hashes, seq.counts)
    ends = np.r_[0, np.cumsum(window_counts(seq))] * sketches.BANDS
    still = matching.spread(seq) < 2 * STILL_BITS  # a part of a clip may be stiller than the whole
    bars = [clips[name].to_pylist() for name in CROP]
    pictures = [
        _picture(jpegs[key], sides) if is_still and key in jpegs else None
        for key, is_still, *sides in zip(clips["key"].to_pylist(), still.tolist(), *bars, strict=True)
    ]
    bands = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(found.ravel()))
    columns = {"key": flat(clips["key"]), "bands": bands, "picture": pa.array(pictures, pa.binary())}
    return pa.table(columns).cast(TABLES["sketches"])


def _picture(jpeg: bytes, bars: Sequence[float | None]) -> bytes | None:
    """Return the grid of a still clip's picture; None where the JPEG is damaged, so that nothing is proved by it."""
    import cv2

    luma = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    left, top, right, bottom = (side or 0.0 for side in bars)
    return None if luma is None else stills.grid(luma.astype(np.uint8), (left, top, right, bottom)).tobytes()
