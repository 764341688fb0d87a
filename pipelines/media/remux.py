"""A clip copied out of its source, packet by packet: the very pictures of the source, and no encoder at work.

Only where it is exact. The clip must begin at a key frame that nothing before is needed for, and end where no packet
that is to be shown later stands among those of the clip. The result is decoded and compared with what the source's
packets promise; whatever differs is left to the encoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from rushes.pipelines.colour import tags
from rushes.pipelines.media import clocks, decode, footage
from rushes.pipelines.media.sound import Sound

BORDER_S = 0.0006  # borders may have been rounded to the millisecond
SAME_S = 1e-4  # time bases differ by less than this
_H264_IDR = 5
# Filters that write matrix, primaries and transfer into a stream.
_H26X = "_metadata=matrix_coefficients={matrix}:colour_primaries={primaries}:transfer_characteristics={transfer}"
_TAGGING = {
    "h264": f"h264{_H26X}",
    "hevc": f"hevc{_H26X}",
    "av1": f"av1{_H26X}".replace("colour", "color"),
    "vp9": "vp9_metadata=color_space={name}",
}
_MP4_TAGS = {"h264": "avc1", "hevc": "hvc1", "av1": "av01", "vp9": "vp09"}
_HEVC_IRAP = range(16, 22)  # ITU-T H.265, table 7-1


@dataclass(frozen=True)
class Cut:
    """A clip on its own."""

    data: bytes
    """The mp4."""
    frames: int
    """Its pictures."""
    duration_s: float
    """From its first picture to the one that follows its last."""
    has_audio: bool
    """Whether there is sound beside them."""
    copied: bool
    """Whether the pictures are the source's own packets."""


class _Inexact(Exception):
    """The range cannot be copied exactly."""


def mp4(path: Path) -> OutputContainer:
    """Return an mp4 to be written without a clock, its index in front.

    It is a file, since the muxer moves the index by reading it again.
    """
    return av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})


def copy(uri: str, source: Mapping[str, Any], start_s: float, end_s: float, audio: bool) -> Cut | None:
    """Return the pictures with `start_s <= time < end_s` as they stand in the source, or None where that is inexact.

    Args:
        uri: The file or object.
        source: Its row of the table `sources`.
        start_s: Time of the first picture, which must be a key frame.
        end_s: Half-open end.
        audio: Whether the sound goes along, decoded and encoded so that it begins and ends with the pictures.
    """
    found = clocks.between(source, start_s + BORDER_S, end_s - BORDER_S)
    if len(found) != 1:
        return None  # the clock starts again within the clip
    (piece,) = found
    with ExitStack() as stack:
        container = stack.enter_context(footage.open_container(uri, piece.within))
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rushes-"))) / "clip.mp4"
        reader = _Packets(container, piece.of(source), start_s - piece.offset_s, end_s - piece.offset_s)
        try:
            first = next(reader.packets)
            begin_s = piece.offset_s + reader.start_s
            sound = stack.enter_context(closing(Sound(uri, source, begin_s, end_s))) if audio else None
            with mp4(path) as out:
                _write(out, first, reader, sound)
            if not _as_promised(path, reader):
                return None
        except (_Inexact, av.error.FFmpegError, decode.DecodeError):
            return None
        heard = sound is not None and sound.heard
        return Cut(path.read_bytes(), len(reader.times_s), reader.duration_s, has_audio=heard, copied=True)


class _Packets:
    """The packets of a range in the order in which they are decoded, for as long as they can be copied exactly."""

    def __init__(self, container: InputContainer, source: Mapping[str, Any], start_s: float, end_s: float):
        self.container, self.source = container, source
        self.stream: VideoStream = footage.video_stream(container)
        self.tick_s = float(self.stream.time_base or 0)
        self.since_s, self.opened_s, self.until_s = start_s - BORDER_S, start_s + BORDER_S, end_s - BORDER_S
        self.start_s = 0.0
        self.times_s: list[float] = []
        self.after_s: float | None = None  # when the next picture of the source is shown, where there is one
        self.packets = self._copied()

    @property
    def duration_s(self) -> float:
        """From the first picture to the one after the last."""
        return self._end_s - min(self.times_s)

    @property
    def _end_s(self) -> float:
        return self.after_s if self.after_s is not None else max(self.times_s) + self.nominal_s

    def _copied(self) -> Iterator[av.Packet]:
        """Yield the packets, the last with the time until the next picture as its duration if it is shown last."""
        held: av.Packet | None = None
        for packet in self._exact():
            if held is not None:
                yield held
            held = packet
        if held is None or not self._complete():
            raise _Inexact
        last_s = self._time_s(held)
        if last_s >= max(self.times_s):
            held.duration = max(1, round((self._end_s - last_s) / self.tick_s))
        yield held

    def _exact(self) -> Iterator[av.Packet]:
        """Yield the packets from the key frame on; raise where one too many or too few would be shown."""
        for packet in self._demuxed():
            time_s, is_in = self._time_s(packet), self.since_s <= self._time_s(packet) < self.until_s
            if not self.times_s and not (is_in and self._opens(packet, time_s)):
                if is_in or self._decoded_s(packet) > self.opened_s:
                    raise _Inexact  # a picture of the range is decoded before any key frame of it
                continue
            if time_s >= self.until_s:
                self.after_s = min(time_s, self.after_s if self.after_s is not None else time_s)
            elif time_s < self.since_s or self.after_s is not None or packet.has_sidedata("new_extradata"):
                raise _Inexact  # a leading picture, or one that needs what is shown after the end
            if self.after_s is None:
                self.start_s = time_s if not self.times_s else self.start_s
                self.times_s.append(time_s)
                self.nominal_s = float(packet.duration or 0) * self.tick_s or 1 / self.source["fps"]
                yield packet
            elif self._decoded_s(packet) >= self.until_s:
                return  # whatever follows is decoded, and so shown, after the end

    def _demuxed(self) -> Iterator[av.Packet]:
        """Yield sound packets with both timestamps, decoding times rising, from a key frame before the range on."""
        wanted_s = self.opened_s + self.source["start_s"]
        self.container.seek(round(wanted_s / self.tick_s), stream=self.stream, backward=True)
        before: int | None = None
        for packet in self.container.demux(self.stream):
            if not packet.size:
                return
            rises = packet.dts is not None and (before is None or packet.dts > before)
            if packet.pts is None or not rises or packet.is_corrupt or packet.is_discard:
                raise _Inexact
            before = packet.dts
            yield packet

    def _time_s(self, packet: av.Packet) -> float:
        return float(cast(int, packet.pts) * packet.time_base) - self.source["start_s"]

    def _decoded_s(self, packet: av.Packet) -> float:
        return float(cast(int, packet.dts) * packet.time_base) - self.source["start_s"]

    def _opens(self, packet: av.Packet, time_s: float) -> bool:
        if not packet.is_keyframe or time_s > self.opened_s:
            return False
        kinds = self.source["video_codec"], bytes(self.stream.codec_context.extradata or b"")
        return _refreshes(bytes(packet), *kinds)

    def _complete(self) -> bool:
        """Whether the stream goes on past the range, or ends where the source says that it does."""
        if self.after_s is not None:
            return True
        return min(self.until_s, self.source["duration_s"]) - self._end_s < 1.5 / self.source["fps"]


def _refreshes(data: bytes, codec: str, extradata: bytes) -> bool:
    """Whether a decoder can begin here: an IDR picture in H.264, any random access point in HEVC.

    Other pictures of H.264 that are called key frames may let later ones refer to what stands before them.
    """
    if codec not in ("h264", "hevc"):
        return True
    for head in _nal_heads(data, codec, extradata):
        kind = head & 31 if codec == "h264" else head >> 1 & 63
        if kind == _H264_IDR if codec == "h264" else kind in _HEVC_IRAP:
            return True
    return False


def _nal_heads(data: bytes, codec: str, extradata: bytes) -> Iterator[int]:
    """Yield the first byte of each NAL unit, with lengths before them (mp4, Matroska) or start codes (annex B)."""
    if extradata[:1] != b"\1":
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            yield data[at + 3]
            at = data.find(b"\0\0\1", at + 3)
        return
    size = (extradata[4 if codec == "h264" else 21] & 3) + 1  # ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1
    at = 0
    while at + size < len(data):
        yield data[at + size]
        at += size + int.from_bytes(data[at : at + size], "big")


def _write(out: OutputContainer, first: av.Packet, reader: _Packets, sound: Sound | None) -> None:
    """Write the packets, and the sound beside them."""
    codec = reader.source["video_codec"]
    # For AV1, whose decoder PyAV knows by another name than its encoders, no encoder must be looked for.
    stream = cast(VideoStream, out.add_stream_from_template(reader.stream, opaque=codec == "av1"))
    stream.time_base = reader.stream.time_base
    tagged = _tagged(reader, stream)
    if codec == "hevc" or tagged is not None:
        stream.codec_context.codec_tag = _MP4_TAGS[codec]
    if sound is not None and not sound.attach(out):
        sound = None
    origin, packet = cast(int, first.pts), cast("av.Packet | None", first)
    while packet is not None:
        shown_s = float((cast(int, packet.pts) - origin) * packet.time_base)
        packet.pts, packet.dts = cast(int, packet.pts) - origin, cast(int, packet.dts) - origin
        ticks = packet.time_base
        for ready in [packet] if tagged is None else tagged.filter(packet):  # which empties the packet
            ready.stream, ready.time_base = stream, ticks
            out.mux(ready)
        if sound is not None:
            sound.write(out, shown_s)
        packet = next(reader.packets, None)
    if sound is not None:
        sound.write(out, reader.duration_s)
        sound.finish(out)


def _tagged(reader: _Packets, stream: VideoStream) -> BitStreamFilterContext | None:
    """Return what tags the copy of an untagged stream as what it is taken for; None where there is nothing to do.

    Readers guess differently, by size or not at all. Not one picture changes.
    """
    source = reader.source
    filters, colour = _TAGGING.get(source["video_codec"]), tags.of_source(source)
    if source["color_space"] is not None or filters is None or colour.matrix not in tags.NUMBERS:
        return None
    return BitStreamFilterContext(filters.format(name=colour.matrix, **tags.numbers(source)), reader.stream, stream)


def _as_promised(path: Path, reader: _Packets) -> bool:
    """Whether a copied clip decodes without fault to a picture for each packet, at its time, in the source's shape."""
    source = reader.source
    row = {**source, "start_s": 0.0, "duration_s": reader.duration_s}
    shape = source["coded_width"], source["coded_height"], source["pixel_format"]
    promised = sorted(time_s - reader.start_s for time_s in reader.times_s)
    count = 0
    for picture in decode.pictures(str(path), row):
        frame = picture.frame
        if (frame.width, frame.height, frame.format.name) != shape or count >= len(promised):
            return False
        if abs(picture.time_s - promised[count]) > SAME_S:
            return False
        count += 1
    return count == len(promised)
