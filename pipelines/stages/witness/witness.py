"""The witness of shots: TransNetV2, asked where its word can change a boundary. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rushes.filters import transnet
from rushes.filters.boundary import Rules
from rushes.filters.changes import KEEP_FRAMES
from rushes.filters.shots import questions
from rushes.pipelines.media.signals import Arrays, joined
from rushes.pipelines.models import weights
from rushes.pipelines.models.eyes import device, halves_are_fast

AROUND = 25
"""Frames that the network sees before and after those that it is asked about, as its authors show it."""
LONGEST = 100
"""Frames that it is asked about at once, at most: memory must not grow with the length of a question."""
NAMES = (
    "time_s", "duration_s", "content", "hue", "saturation", "luma", "histogram", "doubt", "key", "change",
    "luma_mean", "luma_std", "corners", "cell_light",
)  # fmt: skip
"""Columns of `signals` that say where there is doubt."""

Row = dict[str, Any]


class Witness:
    """The network, loaded once, on the GPU where there is one."""

    def __init__(self, rules: Rules) -> None:
        """Take the limits under which it is decided: they say where its word counts."""
        self.rules = rules
        self.model = transnet.load(weights.transnet(), device(), half=halves_are_fast())

    def __call__(self, signals: Sequence[Mapping[str, Any]], pictures: Mapping[float, bytes]) -> list[Row]:
        """Return the rows of `witness` of one source, a row for each frame that it was asked about.

        Args:
            signals: the rows of its spans, in order.
            pictures: the small pictures (JPEG) that the scan kept of it, by time.
        """
        if not signals:
            return []
        whole = joined(signals, NAMES)
        rows: list[Row] = []
        for first, end in sequences(self.ranges(whole)):
            frames = _frames(whole["time_s"], pictures, first - AROUND, end + AROUND)
            said = transnet.look(self.model, frames)[AROUND:-AROUND]
            rows += _rows(signals[0]["source_id"], whole["time_s"][first:end], said)
        return rows

    def ranges(self, whole: Arrays) -> list[tuple[int, int]]:
        """Return the ranges of frames, half-open and apart, that it is asked about."""
        return asked(whole, self.rules)


def asked(whole: Arrays, rules: Rules) -> list[tuple[int, int]]:
    """Return the ranges of frames, half-open and apart, that the witness is asked: the `questions` it can answer."""
    return told(whole, questions(whole, rules))


def told(whole: Arrays, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of frames as far as the scan kept the pictures of them and of `AROUND` frames on either side."""
    wanted = np.zeros(len(whole["time_s"]), np.bool_)
    for first, end in ranges:
        wanted[first:end] = True
    edges = np.flatnonzero(np.diff(wanted & _kept(whole["doubt"] > 0), prepend=False, append=False))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _kept(doubtful: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return of which frames so much is kept: those within reach of a doubtful one."""
    reach, frames = KEEP_FRAMES - 1 - AROUND, len(doubtful)  # the scan counts the doubtful one itself
    total, at = np.concatenate([[0], np.cumsum(doubtful)]), np.arange(frames)
    return np.asarray(total[np.minimum(at + reach + 1, frames)] > total[np.maximum(at - reach, 0)])


def sequences(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges as the network looks at them: those near each other in one, those that are long in parts."""
    found: list[tuple[int, int]] = []
    for first, end in ranges:
        if found and first - found[-1][1] < 2 * AROUND and end - found[-1][0] <= LONGEST:
            found[-1] = (found[-1][0], end)
        else:
            found += [(at, min(at + LONGEST, end)) for at in range(first, end, LONGEST)]
    return found


def _frames(time_s: npt.NDArray[np.float64], pictures: Mapping[float, bytes], first: int, end: int) -> transnet.Frames:
    """Return the pictures of a range of frames; beyond the ends of a source its first and its last frame go on."""
    at = np.clip(np.arange(first, end), 0, len(time_s) - 1)
    return np.stack([_rgb(pictures[time]) for time in time_s[at].tolist()])


def _rgb(jpeg: bytes) -> npt.NDArray[np.uint8]:
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(
            "a picture in the table windows is no JPEG; remove ledger/windows and run the same command again"
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _rows(source_id: str, time_s: npt.NDArray[np.float64], said: npt.NDArray[np.float32]) -> Iterator[Row]:
    for time, (cut, part) in zip(time_s.tolist(), said.tolist(), strict=True):
        yield {"source_id": source_id, "time_s": time, "cut": cut, "part": part}
