"""Streams whose clock starts again: the pieces between, each a film by itself with a clock that rises.

Recordings joined byte by byte, a clock that overflows for the second time, a sender that was started again: transport
and program streams hold what players show one after another. A jump of the clock breaks every search by time, so the
pieces are found once, when the source is probed, stand in its row, and are opened as if each were a file of its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO, cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from rushes.pipelines.store.objects import Seekable

DISCONTINUOUS = frozenset({"mpegts", "mpeg"})
"""Formats whose clock may start again in the middle, and of which each piece can be opened by itself."""
AHEAD_S = 10.0  # a jump ahead of more is no time that passed: the limit of FFmpeg's players for these formats
BACK_S = 0.1  # decoding times never go back; less is a slip of whoever wrote them
REORDERED = 32  # packets among which the one that is shown first must be
BELIEVED = 4  # packets that must follow a new clock; fewer are strays with a broken time

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a source in which the clock rises."""

    within: Range | None
    """First and end byte in the file, half-open; None where the whole file is one piece."""
    start_s: float
    """Timestamp of its first picture."""
    duration_s: float
    """How long it is."""
    offset_s: float
    """When it begins, in the time of the source."""
    last: bool
    """Whether none follows."""

    @property
    def end_s(self) -> float:
        """When the next one begins, in the time of the source; infinity for the last, as durations may err."""
        return math.inf if self.last else self.offset_s + self.duration_s

    def part(self, start_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
        """Return what a range has of this piece, as one range or none."""
        begin_s, stop_s = max(start_s, self.offset_s), min(end_s, self.offset_s + self.duration_s)
        return ((begin_s, stop_s),) if begin_s < stop_s else ()

    def of(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a source as if this piece were the whole of it."""
        row = {**source, "start_s": self.start_s, "duration_s": self.duration_s}
        return row | dict.fromkeys(COLUMNS)


COLUMNS = ("piece_bytes", "piece_start_s", "piece_duration_s")
"""Columns of `sources`: first byte, first timestamp and length of each piece; null where the clock never jumps."""


def pieces(source: Mapping[str, Any]) -> list[Piece]:
    """Return the pieces of a source in the order in which they are shown; mostly one."""
    first = source.get("piece_bytes")
    if not first:
        whole = {"start_s": source["start_s"], "duration_s": source["duration_s"] or 0.0}
        return [Piece(within=None, offset_s=0.0, last=True, **whole)]
    found, offset_s = list[Piece](), 0.0
    for begin, end, start_s, duration_s in zip(
        first, [*first[1:], source["size_bytes"]], source["piece_start_s"], source["piece_duration_s"], strict=True
    ):
        last = len(found) == len(first) - 1
        found.append(Piece(within=(begin, end), start_s=start_s, duration_s=duration_s, offset_s=offset_s, last=last))
        offset_s += duration_s
    return found


def between(source: Mapping[str, Any], start_s: float, end_s: float) -> list[Piece]:
    """Return the pieces that have a part in `start_s <= time < end_s`."""
    return [piece for piece in pieces(source) if piece.offset_s < end_s and start_s < piece.end_s]


def columns(found: Sequence[Piece]) -> dict[str, Any]:
    """Return the columns of `sources` that tell the pieces, and when they begin and how long they are together."""
    return {
        "piece_bytes": [piece.within[0] if piece.within else 0 for piece in found],
        "piece_start_s": [piece.start_s for piece in found],
        "piece_duration_s": [piece.duration_s for piece in found],
        "start_s": found[0].start_s,
        "duration_s": sum(piece.duration_s for piece in found),
    }


class _Clock:
    """A piece under way."""

    def __init__(self, first_byte: int):
        self.first_byte = first_byte
        self.decoded_s = math.nan
        self.start_s, self.end_s = math.inf, -math.inf
        self.packets = 0

    def takes(self, decoded_s: float) -> bool:
        """Whether a decoding time can be the next one of this clock."""
        return not self.packets or -BACK_S <= decoded_s - self.decoded_s <= AHEAD_S

    def add(self, packet: av.Packet, frame_s: float) -> None:
        tick_s = float(packet.time_base)
        shown_s = float(packet.pts if packet.pts is not None else packet.dts or 0) * tick_s
        self.decoded_s = float(packet.dts or 0) * tick_s
        self.start_s = min(self.start_s, shown_s)
        self.end_s = max(self.end_s, shown_s + (float(packet.duration or 0) * tick_s or frame_s))
        self.packets += 1


def find(container: InputContainer, stream: VideoStream, size_bytes: int) -> list[Piece]:
    """Return the pieces of a stream, the whole file if its clock never jumps; all packets are read, none is decoded.

    Args:
        container: Just opened.
        stream: Its footage.
        size_bytes: Of the file.
    """
    rate = stream.average_rate or stream.guessed_rate
    frame_s = 1 / float(rate) if rate else 0.04
    known, new = [_Clock(0)], _Clock(0)
    for packet in _timed(container, stream):
        decoded_s = float(cast(int, packet.dts) * packet.time_base)
        if known[-1].takes(decoded_s):
            known[-1].add(packet, frame_s)
            new.packets = 0
            continue
        if not new.packets or not new.takes(decoded_s):
            if packet.pos is None:
                continue  # a clock begins with a packet that has a place in the file
            new = _Clock(packet.pos)
        new.add(packet, frame_s)
        if new.packets == BELIEVED:
            if known[-1].packets < BELIEVED:  # what a recorder had left of something else
                known.pop()
            known.append(new)
            new = _Clock(0)
    return _joined(known, size_bytes)


def by_itself(piece: Piece, container: InputContainer, stream: VideoStream) -> Piece:
    """Return a piece with the time at which it begins when it is opened by itself.

    Times are counted from about where a file begins, as they overflow every 26.5 hours: in the whole file, a clock that
    was set back to zero may read as one that went on by so much.
    """
    first = [float(packet.pts * packet.time_base) for packet in islice(_timed(container, stream), REORDERED)
             if packet.pts is not None]  # fmt: skip
    return replace(piece, start_s=min(first, default=piece.start_s))


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Yield the packets that tell their time; a stream that breaks off ends here."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError):
            return  # the decoder will meet it as well, and tell
        if packet is None:
            return
        if packet.size and packet.dts is not None:
            yield packet


def _joined(known: Sequence[_Clock], size_bytes: int) -> list[Piece]:
    found, offset_s = list[Piece](), 0.0
    whole = len(known) == 1 and not known[0].first_byte
    ends = [*(clock.first_byte for clock in known[1:]), size_bytes]
    for clock, end in zip(known, ends, strict=True):
        if clock.packets:
            found.append(
                Piece(
                    within=None if whole else (clock.first_byte, end),
                    start_s=clock.start_s, duration_s=clock.end_s - clock.start_s,
                    offset_s=offset_s, last=clock is known[-1],
                )
            )  # fmt: skip
            offset_s += clock.end_s - clock.start_s
    return found


class Window(Seekable):
    """A stretch of a file as a file of its own."""

    def __init__(self, file: BinaryIO | io.RawIOBase, within: Range):
        super().__init__()
        self._file, self._within = file, within

    def length(self) -> int:
        """Return how many bytes the stretch has."""
        return self._within[1] - self._within[0]

    def read(self, size: int = -1) -> bytes:
        """Return this many bytes, all that are left for -1; fewer only at the end."""
        left = max(0, self.length() - self._at)
        size = left if size is None or size < 0 else min(size, left)
        if not size:
            return b""
        self._file.seek(self._within[0] + self._at)
        data = self._file.read(size) or b""
        self._at += len(data)
        return data
