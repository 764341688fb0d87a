"""The table `signals` as arrays: the spans of a source joined, and the stretches of time that its frames cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rushes.filters import changes

Arrays = dict[str, npt.NDArray]

GAP_S = 1e-3
"""Frames further apart than they last (by more than rounding) have a hole between them."""
SLACK_S = 1.1e-3
"""Matroska rounds times to milliseconds: a frame at 1/3 s must be a tick of 6 Hz there as well."""
_OF_SPAN = {"source_id", "span", "start_s", "end_s", "frames", "covered_s"}


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames that follow each other without a hole."""

    first: int
    end: int
    """Half-open range of frames."""
    start_s: float
    end_s: float


def stretches(time_s: npt.NDArray[np.float64], duration_s: npt.NDArray[np.floating]) -> list[Stretch]:
    """Return the stretches of time that frames cover; there is a hole where a damaged stream lost frames."""
    if not len(time_s):
        return []
    ends_s = time_s + np.asarray(duration_s, np.float64)
    breaks = np.flatnonzero(time_s[1:] - ends_s[:-1] > GAP_S) + 1
    edges = [0, *breaks.tolist(), len(time_s)]
    return [
        Stretch(first=first, end=end, start_s=float(time_s[first]), end_s=float(ends_s[end - 1]))
        for first, end in pairwise(edges)
    ]


def joined(signals: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Arrays:
    """Return the signals of the spans of a source as one array each; cells as `[n, 9, 16]` of levels."""
    names = names or [name for name in signals[0] if name not in _OF_SPAN]
    return {name: np.concatenate([_array(name, row[name]) for row in signals]) for name in names}


def _array(name: str, values: Any) -> npt.NDArray:
    if name == "cell_light":
        return np.frombuffer(values, np.uint8).reshape(-1, *changes.CELLS)
    kinds = {"phash": np.uint64, "time_s": np.float64, "tick_s": np.float64}
    return np.asarray(values, kinds.get(name, np.float32))
