"""The one decode of a span: every measure that needs each frame, and the few frames that the models will look at.

What is measured of a frame depends on this frame and the one before, and ticks (motion, bars, hashes) and candidate
frames on times alone. So the spans of a long source, joined, are the same numbers as one pass over the whole file.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np

from rushes.filters import changes, coding, frames, hashes, motion
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import decode
from rushes.pipelines.media.footage import FootageError
from rushes.pipelines.media.signals import SLACK_S, stretches

PER_CANDIDATE = ("sharpness", "parity", "blockiness")
"""Measured of candidate frames alone, NaN of all others."""
PER_FRAME = (
    "time_s", "duration_s", *changes.PER_FRAME, "change", "luma_mean", "luma_std", *PER_CANDIDATE,
)  # fmt: skip
PER_TICK = (
    "tick_s", *motion.Motion._fields, *(f"bar_{side}" for side in frames.Bars._fields), "dark", "bright",
)  # fmt: skip
HELD = 16
"""Decoded frames that are held before these are shrunk: the processor's caches then hold one thing at a time …"""
HELD_PX = 7_000_000
"""… and fewer where they have more pixels than this together, which leave the caches again."""
MEASURED = 64
"""Frames that are shrunk before they are measured together, for the same reason."""
MAX_THREADS = 4
"""More give little to films of common sizes and hold more frames in memory."""
WARM_S = (1.0, 8.0, math.inf)
"""How much before a span is decoded to know the tick before it; more only where a picture is shown that long."""
WAIT_S = 0.25
"""How long a candidate frame may be waited for that the decoder did all of its work on."""
NO_DETAIL = dict.fromkeys(PER_CANDIDATE, math.nan)

Row = dict[str, Any]


def scan_span(
    source: Mapping[str, Any], span: int, start_s: float, end_s: float, scan: ScanConfig, threads: int = 1
) -> tuple[Row, list[Row], list[Row], list[Row]]:
    """Decode one span once; return its row of `signals`, its rows of `frames`, `errors` (of damage) and `windows`.

    A damaged span gives what is sound, and an error row that says how many seconds are lost. Memory holds a few small
    pictures, the numbers and the candidate JPEGs. Sets OpenCV to one thread: the pictures are small.

    Args:
        source: row of the table `sources`.
        span: number of the span in its source.
        start_s: first second of the span.
        end_s: half-open end of it; infinity for the last one.
        scan: the settings.
        threads: CPUs to use; with more than one, frames are measured while the next ones are decoded. The numbers
            are the same with any.
    """
    cv2.setNumThreads(1)
    threads = min(threads, MAX_THREADS, os.cpu_count() or 1)
    try:
        return _scanned(source, span, start_s, end_s, scan, threads)
    except decode.Unsound:
        return _scanned(source, span, start_s, end_s, scan, 1)


def _scanned(
    source: Mapping[str, Any], span: int, start_s: float, end_s: float, scan: ScanConfig, threads: int
) -> tuple[Row, list[Row], list[Row], list[Row]]:
    meter, errors = _Meter(scan, source, start_s), list[Row]()
    try:
        for warm_s in WARM_S:
            with _Meter(scan, source, start_s, beside=threads > 1) as meter:
                if _read(meter, source, start_s, end_s, warm_s, threads):
                    break
    except decode.DecodeError as error:
        errors.append(_error(source, error.at_s, error.lost_s, error.code, error.reason, error.remedy))
    except FootageError as error:
        lost_s = max(0.0, min(end_s, source["duration_s"]) - start_s)
        errors.append(_error(source, start_s, lost_s, error.code, error.reason, error.remedy))
    return meter.row(source["source_id"], span, end_s), meter.candidates, errors, meter.windows()


def _read(meter: _Meter, source: Mapping[str, Any], start_s: float, end_s: float, warm_s: float, threads: int) -> bool:
    """Measure the pictures of a span; return False where it must be read again from further back."""
    found = decode.pictures(source["uri"], source, start_s, end_s, warm_s, threads, True)
    with closing(cast("Generator[decode.Picture, None, None]", found)) as pictures:
        for picture in pictures:
            if picture.time_s >= start_s and not meter.settled and math.isfinite(warm_s):
                return False
            meter.push(picture)
    return True


def _error(source: Mapping[str, Any], start_s: float, seconds: float, code: str, reason: str, remedy: str) -> Row:
    return {
        "stage": "scan", "unit": source.get("unit"), "uri": source["uri"], "source_id": source["source_id"],
        "key": None, "start_s": start_s, "seconds": seconds, "code": code, "reason": reason, "remedy": remedy,
    }  # fmt: skip


class _Held(NamedTuple):
    """A frame that waits for being shrunk."""

    picture: decode.Picture
    before: decode.Picture | None
    """The one before, which only candidates need."""
    counts: bool
    """Whether it lies in the span; those before are only remembered."""
    ticks: bool
    shows: bool
    """Whether it is a candidate."""


class _Small(NamedTuple):
    """A frame when it has been shrunk."""

    time_s: float
    duration_s: float
    luma: frames.Luma
    bgr: frames.Luma
    key: bool
    """Whether it is a key frame of the stream."""
    counts: bool
    ticks: bool
    detail: Mapping[str, float]
    """The measures of a candidate frame."""


def _detail(frame: av.VideoFrame, before: decode.Picture | None, luma: frames.Luma) -> dict[str, float]:
    """Return the measures of a candidate; NaN for what formats that hold no luma plane cannot tell."""
    now = decode.luma_plane(frame)
    then = None if before is None else decode.luma_plane(before.frame)
    return {
        "sharpness": frames.sharpness(luma),
        "parity": math.nan if now is None or then is None else coding.parity(then, now),
        "blockiness": math.nan if now is None else coding.blockiness(now),
    }


class _Meter:
    """The measures of one span and the little that they remember of the frames before.

    `push` holds what is decoded, which is shrunk batch by batch; then `_measure` looks at it: in a thread of its own
    where there is a processor for it, so that the decoder need not wait.
    """

    def __init__(self, scan: ScanConfig, source: Mapping[str, Any], start_s: float, beside: bool = False):
        self.scan, self.source, self.start_s = scan, source, start_s
        self._ticked = start_s <= 0
        self.candidates: list[Row] = []
        self._first_s = math.inf
        self._last: decode.Picture | None = None
        self._whole_s = -math.inf
        self._held: list[_Held] = []
        self._batch: list[_Small] = []
        self._pool = ThreadPoolExecutor(1) if beside else None
        self._measured: Future[None] | None = None
        self._numbers = {name: array("d") for name in (*PER_FRAME, *PER_TICK)}
        self._hashes = array("Q")
        self._content = changes.ContentScorer()
        self._cells, self._windows, self._places = changes.Cells(), changes.Windows(), changes.Places()
        self._light = bytearray()
        self._before: frames.Luma | None = None
        self._tick: _Small | None = None

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        """Measure what is left, whatever ended the reading."""
        self._shrink()
        self._send()
        if self._measured is not None:
            self._measured.result()
        if self._pool is not None:
            self._pool.shutdown()

    def push(self, picture: decode.Picture) -> None:
        """Take one picture.

        Pictures are held until there are some: decoding and measuring by turns, frame by frame, each would find the
        processor's caches full of what the other works with.
        """
        counts, ticks = picture.time_s >= self.start_s, self._steps(picture, self.scan.tick_hz)
        shows = counts and self._shows(picture)
        self._held.append(_Held(picture, self._last, counts, ticks, shows))
        self._ticked |= ticks
        self._first_s = min(self._first_s, picture.time_s)
        self._last = picture
        self._whole_s = picture.time_s if picture.whole else self._whole_s
        if len(self._held) == HELD or len(self._held) * picture.frame.width * picture.frame.height >= HELD_PX:
            self._shrink()

    def _shrink(self) -> None:
        """Shrink what is held, and measure it when there is enough."""
        small = [decode.small(held.picture.frame, self.scan.width_px, self.source) for held in self._held]
        for held, (luma, bgr) in zip(self._held, small, strict=True):
            picture, frame = held.picture, held.picture.frame
            detail = self._shown(held, luma) if held.shows else NO_DETAIL
            self._batch.append(
                _Small(picture.time_s, picture.duration_s, luma, bgr, frame.key_frame, held.counts, held.ticks, detail)
            )
        self._held.clear()
        if len(self._batch) >= MEASURED:
            self._send()

    def _shown(self, held: _Held, luma: frames.Luma) -> Mapping[str, float]:
        """Keep a candidate as JPEG and return its measures."""
        picture = held.picture
        jpeg = decode.jpeg(decode.rgb(picture.frame, self.source, self.scan.candidate_side_px))
        self.candidates.append({"source_id": self.source["source_id"], "time_s": picture.time_s, "jpeg": jpeg})
        return _detail(picture.frame, held.before, luma)

    @property
    def settled(self) -> bool:
        """Whether the tick before the span is known, and the last whole picture if it is near enough to matter."""
        known = math.isfinite(self._whole_s) or (self._last is not None and self._first_s <= self._last.time_s - WAIT_S)
        return self._ticked and (known or self.start_s <= 0)

    def _steps(self, picture: decode.Picture, rate_hz: float) -> bool:
        """Whether this is the first frame at or after a multiple of 1/rate."""
        if self._last is None:
            return picture.time_s <= 0  # the first of the source; of any other the frame before is not known
        return is_step(self._last.time_s, picture.time_s, rate_hz)

    def _shows(self, picture: decode.Picture) -> bool:
        """Whether this is a candidate: the first whole frame at or after a multiple of 1/rate.

        Where none comes within `WAIT_S`, it is the first frame after that. Only the frame before, whatever it is, and
        the last whole one need to be known for it.
        """
        if self._last is None:
            return picture.time_s <= 0
        since_s = max(self._whole_s, self._last.time_s - WAIT_S)
        return is_step(since_s, picture.time_s - (0.0 if picture.whole else WAIT_S), self.scan.candidate_hz)

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        if self._pool is None:
            self._measure(batch)
            return
        if self._measured is not None:
            self._measured.result()
        self._measured = self._pool.submit(self._measure, batch)

    def _measure(self, batch: Sequence[_Small]) -> None:
        """Measure some frames, measure by measure: each then finds its code and its tables in the caches."""
        if not batch:
            return
        cells = np.stack([changes.cells(small.luma) for small in batch])
        doubtful = self._cells.push([small.time_s for small in batch], cells).tolist()
        contents = [self._content.push(small.luma, small.bgr) for small in batch]
        corners = [
            self._places.push(small.luma, content["content"]) for small, content in zip(batch, contents, strict=True)
        ]
        lights = [self._frame(small) for small in batch]
        counted = [at for at, small in enumerate(batch) if small.counts]
        for at in counted:
            self._note({**contents[at], "corners": corners[at], "doubt": float(doubtful[at]), **lights[at]})
            self._light += cells[at].tobytes()
        for at in counted:
            self._windows.push(batch[at].time_s, batch[at].bgr, doubtful[at])
        for small in batch:
            if small.ticks:
                self._on_tick(small)

    def _frame(self, small: _Small) -> dict[str, float]:
        mean, std = frames.light(small.luma)
        before, self._before = self._before, small.luma
        return {
            "time_s": small.time_s,
            "duration_s": small.duration_s,
            "key": float(small.key),
            "change": 0.0 if before is None else frames.change(before, small.luma),
            "luma_mean": mean,
            "luma_std": std,
            **small.detail,
        }

    def _on_tick(self, small: _Small) -> None:
        before, self._tick = self._tick, small
        if not small.counts:
            return
        bars = frames.bars(small.luma)
        sides = {f"bar_{side}": share for side, share in bars._asdict().items()}
        dark, bright = frames.clipped(small.luma)
        moved = motion.STILL
        if before is not None:
            moved = motion.between(before.luma, small.luma, small.time_s - before.time_s, bars)
        self._note({"tick_s": small.time_s, **moved._asdict(), **sides, "dark": dark, "bright": bright})
        self._hashes.append(hashes.phash(small.luma, bars))

    def _note(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._numbers[name].append(value)

    def row(self, source_id: str, span: int, end_s: float) -> Row:
        """Return the row of `signals`."""
        times = {name: np.array(self._numbers[name], np.float64) for name in ("time_s", "tick_s")}
        series = {name: np.array(values, np.float32) for name, values in self._numbers.items() if name not in times}
        covered_s = sum(part.end_s - part.start_s for part in stretches(times["time_s"], series["duration_s"]))
        return {
            "source_id": source_id, "span": span, "start_s": self.start_s, "end_s": end_s,
            "frames": len(times["time_s"]), "covered_s": covered_s,
            **times, **series, "phash": np.array(self._hashes, np.uint64),
            "cell_light": bytes(self._light),
        }  # fmt: skip

    def windows(self) -> list[Row]:
        """Return the rows of `windows`."""
        self._windows.keep()
        return [{"source_id": self.source["source_id"], "time_s": at, "jpeg": jpeg} for at, jpeg in self._windows.kept]


def is_step(before_s: float, time_s: float, rate_hz: float) -> bool:
    """Whether a multiple of 1/rate lies after `before_s` and not after `time_s`, rounding of timestamps aside."""
    return math.floor((time_s + SLACK_S) * rate_hz) > math.floor((before_s + SLACK_S) * rate_hz)
