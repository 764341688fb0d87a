"""What the footage of a container is: the best of its streams, when that ends and how fast its pictures follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

PROBED_PACKETS = 100  # timestamps looked at to tell a variable frame rate
_GUESSING = {"h264", "hevc", "m4v", "mpegvideo", "av1", "obu"}  # raw streams, which hold no times
_FROM_ZERO = {"matroska,webm", "flv"}  # their duration counts from zero, others' from the first packet
_ASIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_PICTURES = frozenset({"mjpeg", "png", "apng", "bmp", "gif", "webp", "tiff", "jpegls", "jpeg2000", "targa"})
"""Codecs in which covers and thumbnails are kept; and now and then a film."""
COUNTED_PACKETS = 1000  # of all streams, among which a film has more than one picture


def best(container: InputContainer) -> VideoStream | None:
    """Return the video stream that is the footage, None where all there is are pictures beside it.

    It is the one with the default flag, of several (or none) the one with the largest picture, of equal ones the
    longest, else the first. MP4 and QuickTime have no such flag: theirs means that a track is enabled, and whoever
    writes them gives it to the first. A stream that no decoder knows comes last.
    """
    films = [stream for stream in container.streams.video if not is_picture(container, stream)]
    flags = not container.format.name.startswith("mov")
    return max(films, key=lambda stream: _worth(stream, flags), default=None)


def is_picture(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a stream is a cover or a thumbnail: by its flag, or as a single picture beside other streams."""
    flagged = bool(int(stream.disposition) & int(_ASIDE))
    return flagged or (_may_be_picture(container, stream) and stream.frames == 1)


def doubtful(container: InputContainer) -> list[VideoStream]:
    """Return the streams that may be thumbnails without a flag, of which the header does not tell how long they are."""
    return [
        stream for stream in container.streams.video
        if not stream.frames and not is_picture(container, stream) and _may_be_picture(container, stream)
    ]  # fmt: skip


def flag_single(stream: VideoStream, again: InputContainer) -> None:
    """Flag a doubtful stream as a picture if it has no second packet among the first ones.

    Args:
        stream: One of `doubtful`.
        again: The same file opened once more, to be read from its beginning.
    """
    seen = 0
    for packet in islice(again.demux(), COUNTED_PACKETS):
        seen += packet.stream_index == stream.index and packet.size > 0
        if seen > 1:
            return
    stream.disposition = Disposition(int(stream.disposition) | int(Disposition.still_image))


def _may_be_picture(container: InputContainer, stream: VideoStream) -> bool:
    context = stream.codec_context
    return len(container.streams) > 1 and context is not None and context.codec.canonical_name in _PICTURES


def _worth(stream: VideoStream, flags: bool) -> tuple[bool, bool, int, float, int]:
    context = stream.codec_context
    size = 0 if context is None else context.width * context.height
    is_default = flags and bool(int(stream.disposition) & int(Disposition.default))
    return context is not None, is_default, size, _length_s(stream), -stream.index


def _length_s(stream: VideoStream) -> float:
    """Return how long a stream is as its header says; of Matroska a tag says it."""
    if stream.duration:
        return float(stream.duration * (stream.time_base or 0))
    try:
        hours, minutes, seconds_ = stream.metadata.get("DURATION", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds_)
    except ValueError:
        return 0.0


def decoded(container: InputContainer, stream: VideoStream, packet: av.Packet) -> list[av.VideoFrame]:
    """Return what a packet brings out of the decoder, each picture with the time at which it is shown.

    AVI holds no such times. What FFmpeg derives is wrong where DivX or XviD packed two pictures into one packet and an
    empty one after it; but their decoder gives a picture for each packet, in the order in which they are shown.
    """
    frames = cast("list[av.VideoFrame]", packet.decode())
    if container.format.name == "avi" and stream.codec_context.name == "mpeg4":
        for frame in frames:
            frame.pts = frame.dts  # of the packet with which it came
    return frames


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The time of a source."""

    fps: float
    """Pictures per second, nominal."""
    variable: bool
    """Whether the time between pictures differs by more than rounding."""
    end_s: float
    """Where it ends: from its first picture, or on its own clock."""
    absolute: bool
    """Whether `end_s` is a time of its clock."""


def timing(
    container: InputContainer, stream: VideoStream, times: Sequence[float], packets: int, guessed: bool
) -> Timing:
    """Return the timing of a stream: by its header, the container's, or its packets.

    Args:
        container: From which the first packets were read.
        stream: Its footage.
        times: Timestamps of these packets.
        packets: Their number.
        guessed: Whether the header's duration is a guess.
    """
    whole = len(times) < PROBED_PACKETS
    # Where packets follow, the last few may still miss the pictures that are shown between them.
    steps = np.diff(np.sort(times)[: None if whole else -16])
    steps = steps[steps > 0]
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    fps = float(rate) if rate and 0 < rate < 1000 else 0.0
    if not fps:
        fps = 1 / float(np.median(steps)) if len(steps) else 25.0
    absolute = False
    if stream.duration and stream.time_base and not guessed:
        end_s = float(stream.duration * stream.time_base)
    elif container.duration and not guessed:
        end_s = container.duration / av.time_base
        absolute = container.format.name in _FROM_ZERO
    else:
        frames, end_s = _rest(container, stream)
        absolute = bool(times)
        end_s = max([end_s, *times]) + 1 / fps if times else (packets + frames) / fps
    return Timing(fps=fps, variable=_varies(steps, float(stream.time_base or 0)), end_s=end_s, absolute=absolute)


def is_guessed(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the duration of what was just opened is FFmpeg's guess by size: of raw streams, of an AVI cut short."""
    name = container.format.name
    return name in _GUESSING or (name == "avi" and len(stream.index_entries) <= 1)


def _varies(steps: np.ndarray, tick_s: float) -> bool:
    """Whether the time between pictures differs by more than rounding; the longest may be a gap at an edit."""
    if len(steps) <= 2:
        return False
    usual = np.sort(steps)[: -1 if len(steps) > 4 else None]
    return bool(np.ptp(usual) > max(2.5 * tick_s, 0.1 * float(np.median(steps))))


def _rest(container: InputContainer, stream: VideoStream) -> tuple[int, float]:
    """Return number and last timestamp of the packets to come; only for files that name no duration."""
    number, last = 0, 0.0
    for packet in container.demux(stream):
        number += packet.size > 0
        last = max(last, seconds(packet.pts, packet.time_base) or 0.0)
    return number, last


def seconds(pts: int | None, time_base: Any) -> float | None:
    """Return a timestamp in seconds, None where there is none."""
    return None if pts is None else float(pts * time_base)
