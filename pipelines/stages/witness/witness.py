"""The witness of shots: TransNetV2 on the windows that the scan's own numbers leave in doubt. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rushes.filters import cuts, transnet
from rushes.filters.blends import dissolves
from rushes.pipelines.media.signals import joined
from rushes.pipelines.models import weights
from rushes.pipelines.models.eyes import device

AT_ONCE = 4
"""Windows that the network sees in one batch."""
NAMES = (
    "time_s", "duration_s", "content", "hue", "saturation", "luma", "histogram", "doubt", "key", "change",
    "luma_mean", "luma_std", "tick_s", "phash", "cell_light",
)  # fmt: skip
"""Columns of `signals` that say where there is doubt."""

Row = dict[str, Any]


class Witness:
    """The network, loaded once, on the GPU where there is one."""

    def __init__(self) -> None:
        self.model = transnet.load(weights.transnet(), device())

    def __call__(self, signals: Sequence[Mapping[str, Any]], pictures: Mapping[float, bytes]) -> list[Row]:
        """Return the rows of `witness` of one source, a row for each frame that was looked at.

        Args:
            signals: the rows of its spans, in order.
            pictures: the small pictures (JPEG) that the scan kept of it, by time.
        """
        if not signals:
            return []
        whole = joined(signals, NAMES)
        times = whole["time_s"]
        starts = windows(doubts(whole), len(times))
        rows: list[Row] = []
        todo = iter(starts)
        while batch := list(islice(todo, AT_ONCE)):
            found = transnet.look(self.model, [_window(times, pictures, start) for start in batch])
            for start, said in zip(batch, found, strict=True):
                rows += _rows(signals[0]["source_id"], times, start, said)
        return rows


def doubts(whole: Mapping[str, npt.NDArray]) -> list[int]:
    """Return the frames, rising, that the witness shall be asked about."""
    if len(whole["time_s"]) < 2:  # a single picture cuts to nothing
        return []
    asked = set(cuts.doubts(whole).tolist())
    for blend in dissolves(whole["cell_light"], whole["luma_std"], whole["time_s"]):
        asked |= set(range(blend.first, blend.last + 1))
    return sorted(at for at in asked if whole["doubt"][at])


def windows(doubtful: Sequence[int], frames: int) -> list[int]:
    """Return the first middle frame of each window, so that every doubtful frame stands well inside a middle."""
    starts: list[int] = []
    middle = transnet.MIDDLE.stop - transnet.MIDDLE.start
    for at in doubtful:
        if not starts or at >= starts[-1] + middle - MARGIN:
            starts.append(max(0, at - MARGIN if not starts else max(at - MARGIN, starts[-1] + middle)))
    return starts


MARGIN = 10
"""Frames that a doubtful one keeps from the ends of a middle."""


def _window(times: npt.NDArray[np.float64], pictures: Mapping[float, bytes], start: int) -> transnet.Window:
    """Return the frames of a window; beyond the ends of a source its first and its last frame go on."""
    first = start - transnet.MIDDLE.start
    at = np.clip(np.arange(first, first + transnet.WINDOW), 0, len(times) - 1)
    return np.stack([_rgb(pictures[time]) for time in times[at].tolist()])


def _rgb(jpeg: bytes) -> npt.NDArray[np.uint8]:
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(
            "a picture in the table windows is no JPEG; remove ledger/windows and run the same command again"
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _rows(source_id: str, times: npt.NDArray[np.float64], start: int, said: npt.NDArray[np.float32]) -> Iterator[Row]:
    for time, (cut, part) in zip(times[start : start + len(said)].tolist(), said.tolist(), strict=False):
        yield {"source_id": source_id, "time_s": time, "cut": cut, "part": part}
