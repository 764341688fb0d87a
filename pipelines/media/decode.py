"""Pictures of a source in the order in which they are shown: what the scan, the strips and the cutter read.

Times are seconds from the first picture that the source shows. Which pictures a range of time yields, and what is in
them, does not depend on where the range begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rushes.pipelines.colour import light, picture, space, tags
from rushes.pipelines.media import clocks, footage, spared, streams

MAX_BAD_PACKETS = 25
PREROLLS_S = (0.0, 2.0, 10.0, 60.0)  # how much further back to seek, try after try, before decoding from the beginning
LARGE = 4  # times the height of the small picture: from there on, its rows are picked rather than scaled by FFmpeg
LATE_FRAMES = 10  # pictures left out for their times that are more than a decoder's slip
SHORT_S = 0.5  # a stream that ends this much before its header says is cut short

Pixels = NDArray[np.uint8]
Lost = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Picture:
    """One picture of a source."""

    time_s: float
    """When it is shown, from the first picture of the source."""
    duration_s: float
    """Until the next one is shown."""
    frame: av.VideoFrame
    """As the decoder gave it: not yet rotated, in the decoder's own pixel format."""
    whole: bool = True
    """Whether the decoder did all of its work on it."""


class Unsound(Exception):
    """A stream broke while several threads decoded it; decode it with one."""


class DecodeError(ValueError):
    """A stream broke; every sound picture was yielded before this was raised.

    Attributes:
        code: damaged (parts are lost), truncated (the end is missing), unreadable (nothing more could be read),
            timestamps (pictures were left out, since their times were shown already).
        at_s: Where the first loss begins.
        reason: What was found.
        remedy: What to do.
        lost: The ranges of time, half-open, for which there is no picture.
        left_out_s: Seconds of pictures that have no place in the time of the source.
    """

    def __init__(self, code: str, at_s: float, reason: str, remedy: str, lost: Lost = (), left_out_s: float = 0.0):
        super().__init__(f"{reason}; {remedy}")
        self.code, self.at_s, self.reason, self.remedy = code, at_s, reason, remedy
        self.lost, self.left_out_s = lost, left_out_s

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodeError, (self.code, self.at_s, self.reason, self.remedy, self.lost, self.left_out_s)

    @property
    def lost_s(self) -> float:
        """Seconds that were not yielded."""
        return sum(end - start for start, end in self.lost) + self.left_out_s


def pictures(
    uri: str,
    source: Mapping[str, Any],
    start_s: float = 0.0,
    end_s: float = math.inf,
    warm_s: float = 1.0,
    threads: int = 1,
    spares: bool = False,
) -> Iterator[Picture]:
    """Yield the pictures with `start_s - warm_s <= time < end_s` in the order in which they are shown.

    Decoding begins at a key frame early enough that no picture depends on where the range begins. Pictures that the
    decoder could not decode soundly are left out, up to the next key frame.

    Args:
        uri: The file or object.
        source: Its row of the table `sources`.
        start_s: First second wanted.
        end_s: Half-open end; infinity reads to the end of the source.
        warm_s: Seconds before `start_s` that are yielded as well.
        threads: Of the decoder. What a broken packet spoils depends on their number, so several give up there.
        spares: Whether pictures that no other refers to may come without their loop filter, which saves a tenth of the
            time (`media/spared.py`); such a picture is not `whole`.

    Raises:
        Unsound: If several threads met a broken packet; what was yielded may differ from what one thread yields.
        DecodeError: After the last sound picture, if any was lost.
        FootageError: If the file cannot be opened any more.
    """
    since_s = max(0.0, start_s - warm_s)
    errors = list[DecodeError]()
    for piece in clocks.between(source, since_s, end_s):
        try:
            yield from _of_piece(uri, source, piece, (since_s, start_s, end_s), threads, spares)
        except DecodeError as error:
            errors.append(error)
        except footage.FootageError as error:
            if piece.within is None:
                raise
            lost = piece.part(start_s, end_s)
            errors.append(DecodeError("damaged", piece.offset_s, error.reason, error.remedy, lost))
    if errors := [error for error in errors if error.lost_s]:
        raise _together(errors)


def _of_piece(
    uri: str,
    source: Mapping[str, Any],
    piece: clocks.Piece,
    times: tuple[float, float, float],
    threads: int,
    spares: bool,
) -> Iterator[Picture]:
    """Yield the pictures of one piece."""
    since_s, start_s, end_s = max(times[0], piece.offset_s), *times[1:]
    for preroll_s in (*PREROLLS_S, math.inf) if since_s > piece.offset_s else (math.inf,):
        with footage.open_container(uri, piece.within) as container:
            reader = _Reader(container, piece, source["fps"], threads, spares)
            if reader.start(since_s, preroll_s):
                yield from reader.read(since_s, end_s)
                reader.report(start_s, end_s)
                return


def _together(errors: Sequence[DecodeError]) -> DecodeError:
    """Return what is wrong with several pieces as one error."""
    if len(errors) == 1:
        return errors[0]
    first, lost = errors[0], tuple(stretch for error in errors for stretch in error.lost)
    reason = f"{first.reason}; and {len(errors) - 1} more such, {sum(error.lost_s for error in errors):.3f} s together"
    left_out_s = sum(error.left_out_s for error in errors)
    return DecodeError(first.code, first.at_s, reason, first.remedy, lost, left_out_s)


class _Reader:
    """One pass over an open container."""

    def __init__(self, container: InputContainer, piece: clocks.Piece, fps: float, threads: int, spares: bool):
        self.container, self.threads, self.is_last = container, threads, piece.last
        self.stream: VideoStream = footage.video_stream(container)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = threads
        self.spared = spared.spared(container, self.stream) if spares else None
        if self.spared is not None:
            self.stream.codec_context.options = {**self.stream.codec_context.options, **spared.OPTIONS}
        self.begin_s, self.end_s = piece.offset_s, piece.offset_s + piece.duration_s
        self.origin_s = piece.start_s - piece.offset_s  # what is 0 s of the source on the clock of this piece
        self.tick_s = float(self.stream.time_base or 0)
        self.frame_s = 1 / fps
        self.bad_packets = 0
        self.reason = ""  # of the first loss
        self.fatal = False  # nothing more can be read
        self.dropped = False  # pictures were lost since the last sound one
        self.sound_after: float | None = None  # where set: broken until a key frame at or after this timestamp
        self.lost: list[tuple[float, float]] = []
        self.late: list[float] = []  # where pictures came whose times are no later than those of pictures already shown
        self.reached_s: float | None = None  # where the stream ended, once it has
        self.head: tuple[float, av.VideoFrame] | None = None
        self.frames = self._timed()

    def start(self, since_s: float, preroll_s: float) -> bool:
        """Decode up to the first sound picture; return whether the range can be read exactly from here."""
        seeks = since_s - preroll_s > self.begin_s
        if seeks and not self._seek(since_s - preroll_s):
            return False
        self.head = next(self.frames, None)
        if self.head is None:  # nothing sound to the very end: going further back than this would not find it
            return not seeks or preroll_s == PREROLLS_S[-1]
        return not seeks or self.head[0] <= since_s

    def _seek(self, time_s: float) -> bool:
        """Go to the key frame at or before a time; False where the container cannot, or only roughly."""
        offset = round((time_s + self.origin_s) / self.tick_s)
        try:
            self.container.seek(offset, stream=self.stream, backward=True)
            packet = next(self.container.demux(self.stream), None)
            at_end = packet is None or (packet.pts is None and packet.size == 0)
            # A key frame shown later would begin among pictures that depend on the key frame before it.
            exact = packet is not None and packet.pts is not None and packet.is_keyframe and packet.pts <= offset
            self.container.seek(offset, stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        return at_end or exact

    def read(self, since_s: float, end_s: float) -> Iterator[Picture]:
        """Yield pictures, each with the time until the next."""
        if self.head is None:
            self.reached_s = self.begin_s
            return
        held, self.head = self.head, None
        if held[0] > since_s + 0.5 * self.frame_s:
            self.lost.append((since_s, held[0]))
        self.dropped = False
        for time_s, frame in self.frames:
            gap, self.dropped = self.dropped and self._lost_between(held, time_s), False
            if since_s <= held[0] < end_s:
                yield self._picture(held, self._nominal_s(held[1]) if gap else time_s - held[0])
            held = time_s, frame
            if time_s >= end_s:
                return
        if since_s <= held[0] < end_s:
            yield self._picture(held, self._last_s(held))
        self.reached_s = held[0] + self._last_s(held)

    def _picture(self, held: tuple[float, av.VideoFrame], duration_s: float) -> Picture:
        return Picture(held[0], duration_s, held[1], self.spared is None or self.spared.is_whole(held[1]))

    def _last_s(self, held: tuple[float, av.VideoFrame]) -> float:
        """Return how long the last picture is shown: where another piece follows, until it begins."""
        nominal_s, left_s = self._nominal_s(held[1]), self.end_s - held[0]
        return left_s if not self.is_last and 0 < left_s < nominal_s + self.frame_s else nominal_s

    def _lost_between(self, held: tuple[float, av.VideoFrame], time_s: float) -> bool:
        """Note the range between two pictures if some are missing there."""
        end_s = held[0] + self._nominal_s(held[1])
        missing = time_s - end_s > 0.5 * self.frame_s
        if missing:
            self.lost.append((end_s, time_s))
        return missing

    def _nominal_s(self, frame: av.VideoFrame) -> float:
        return float(frame.duration or 0) * self.tick_s or self.frame_s

    def _timed(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield sound pictures with rising times; one without a timestamp follows the one before."""
        last_s: float | None = None
        for frame in self._sound():
            if frame.time is not None:
                time_s = frame.time - self.origin_s
            else:
                time_s = self.begin_s if last_s is None else last_s + self.frame_s
            if time_s > self.begin_s - 0.5 * self.tick_s and (last_s is None or time_s > last_s):
                last_s = time_s
                yield max(time_s, self.begin_s), frame
            elif last_s is not None:
                self.late.append(last_s)

    def _sound(self) -> Iterator[av.VideoFrame]:
        """Yield decoded pictures but for those that a broken packet may have spoilt."""
        for frame in self._decoded():
            if self.sound_after is not None and frame.key_frame and (frame.time or 0.0) >= self.sound_after:
                self.sound_after = None
            if self.sound_after is None and not frame.is_corrupt:
                yield frame
            else:
                self._give_up()
                self.dropped = True

    def _give_up(self) -> None:
        if self.threads > 1:
            raise Unsound

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yield what the decoder gives, going on after up to `MAX_BAD_PACKETS` broken packets."""
        packets = self.container.demux(self.stream)
        before_s = 0.0
        while not self.fatal:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                self._give_up()
                self.fatal, self.reason = True, self.reason or _text(error)
                return
            if self.spared is not None:
                self.spared.note(packet)
            now_s = before_s if packet.pts is None else float(packet.pts * packet.time_base)
            try:
                yield from streams.decoded(self.container, self.stream, packet)
            except av.error.FFmpegError as error:
                self._give_up()
                self._broken(max(before_s, now_s), error)  # the decoder may have held the packet before back
            before_s = now_s

    def _broken(self, timestamp_s: float, error: av.error.FFmpegError) -> None:
        self.bad_packets += 1
        self.dropped = True
        self.reason = self.reason or _text(error)
        self.sound_after = max(timestamp_s, self.sound_after or 0.0)
        self.fatal = self.bad_packets > MAX_BAD_PACKETS

    def report(self, start_s: float, end_s: float) -> None:
        """Raise DecodeError if the range lacks pictures."""
        code, last_s = "unreadable" if self.fatal else "damaged", min(end_s, self.end_s)
        if self.reached_s is not None and last_s > self.reached_s:
            missing_s = last_s - self.reached_s
            # Where pictures were lost already, an early end is one more loss, however short and whatever sound goes on.
            broken = bool(self.reason or self.lost or self.dropped)
            if broken and missing_s > 0.5 * self.frame_s:
                self.lost.append((self.reached_s, last_s))
            elif missing_s > max(SHORT_S, 1.5 * self.frame_s) and not self._sound_goes_on():
                self.lost.append((self.reached_s, last_s))
                code, self.reason = "truncated", "the file ends before its header says"
        lost = [(max(a, start_s), min(b, end_s)) for a, b in self.lost if b > start_s and a < end_s]
        if lost:
            total_s = sum(b - a for a, b in lost)
            reason = f"no sound picture for {total_s:.3f} s from {lost[0][0]:.3f} s on ({self.reason or 'damaged'})"
            remedy = "what is sound was used; fetch the file again or re-encode it from the original to get the rest"
            raise DecodeError(code, lost[0][0], reason, remedy, tuple(lost))
        late = [at_s for at_s in self.late if start_s <= at_s < end_s]
        if len(late) >= LATE_FRAMES:
            reason = (
                f"time goes back or stands at {late[0]:.3f} s: {len(late)} pictures bear times that were shown already"
            )
            remedy = "they were left out; remux the file to get them as well"
            raise DecodeError("timestamps", late[0], reason, remedy, left_out_s=len(late) * self.frame_s)

    def _sound_goes_on(self) -> bool:
        """Whether audio or subtitles reach the end that the header gives, so that only the pictures end early."""
        others = [s for s in self.container.streams if s.type in {"audio", "subtitle"}]
        if not others:  # to demux no stream is to demux them all
            return False
        ends_s = self.end_s + self.origin_s - SHORT_S
        try:
            self.container.seek(max(0, int(ends_s * av.time_base)))
            return any((p.pts or 0) * p.time_base >= ends_s for p in self.container.demux(others) if p.pts is not None)
        except (av.error.FFmpegError, OSError, ValueError):
            return False


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def small(frame: av.VideoFrame, width_px: int, source: Mapping[str, Any]) -> tuple[Pixels, Pixels]:
    """Return a picture's luma `[h, w]` and its colour `[h/2, w/2, 3]` (BGR), shrunk from the decoder's own planes.

    Both are 8 bit, full range and upright; the luma is `width_px` wide at the display aspect with an even height. HDR
    is brought to the greys of a screen, value by value; primaries stay. No full-size colour conversion takes place.
    """
    height_px = max(2, round(width_px * min(source["height"] / source["width"], 8.0) / 2) * 2)
    turned = source["rotation_deg"] in {90, 270}
    size = (height_px, width_px) if turned else (width_px, height_px)
    told = tags.of(frame)
    (luma, *chroma), matrix, full = _own(frame, size, told) or _converted(frame, size, told)
    colour = cv2.transform(cv2.merge([_halved(luma), *chroma]), _to_bgr(matrix, full))
    luma = luma if full else cast(Pixels, cv2.LUT(luma, _full_range()))
    if told.hdr:
        luma, colour = (cast(Pixels, cv2.LUT(values, light.greys(told.transfer))) for values in (luma, colour))
    return _upright(luma, source), _upright(cast(Pixels, colour), source)


def _own(frame: av.VideoFrame, size: tuple[int, int], told: tags.Colour) -> tuple[list[Pixels], str, bool] | None:
    """Return Y and, half as wide and high, U and V of a picture, the matrix that makes RGB of them, whether full range.

    Shrinks a large picture without FFmpeg's scaler. None where the picture is small, or not three planes of bytes or
    little-endian words.
    """
    bits = _planar_bits(frame.format.name)
    if bits is None or frame.height < LARGE * size[1]:
        return None
    half = (size[0] // 2, size[1] // 2)
    luma, *chroma = (picture.view(plane, bits) for plane in frame.planes)
    found = [_shrunk(luma, size, bits, 2), *(_shrunk(plane, half, bits, 1) for plane in chroma)]
    return found, told.matrix, told.full


def _converted(frame: av.VideoFrame, size: tuple[int, int], told: tags.Colour) -> tuple[list[Pixels], str, bool]:
    """Return what `_own` does, of a picture of any size and format."""
    if told.matrix == "grey":  # to YUV, it would change its range
        kind, matrix = "gray", "bt709"
    elif told.matrix == "rgb":
        kind, matrix = "yuv420p", "bt601"
    else:
        kind, matrix = "yuvj420p" if frame.format.name.startswith("yuvj") else "yuv420p", told.matrix
    space_ = None if told.matrix == "rgb" else Colorspace.ITU601  # from YUV to YUV any will do: nothing changes
    scaled = _scaler().reformat(
        frame, width=size[0], height=size[1], format=kind, interpolation=Interpolation.AREA, threads=1,
        src_colorspace=space_, dst_colorspace=Colorspace.ITU601,
    )  # fmt: skip
    luma, *chroma = (_pixels(plane) for plane in scaled.planes)
    found = [luma, *(plane[: size[1] // 2, : size[0] // 2] for plane in chroma)]  # of an odd width, half is less
    found += [np.full((size[1] // 2, size[0] // 2), 128, np.uint8)] * (3 - len(found))
    return found, matrix, told.full and told.matrix != "rgb"


@lru_cache(maxsize=64)
def _planar_bits(name: str) -> int | None:
    """Return the bits of a sample of a format of three planes Y, U, V (little-endian); None for all other formats."""
    form = av.VideoFormat(name)
    parts = form.components
    planar = len(parts) == 3 == len({part.plane for part in parts}) and name.startswith("yuv")
    return parts[0].bits if planar and not form.is_big_endian else None


def luma_plane(frame: av.VideoFrame) -> NDArray[Any] | None:
    """Return the luma of a picture as it was decoded, not turned, without a copy; None where it has no plane of it."""
    bits = _planar_bits(frame.format.name)
    return None if bits is None else picture.view(frame.planes[0], bits)


def _shrunk(samples: NDArray[Any], size: tuple[int, int], bits: int, halvings: int) -> Pixels:
    """Return a large plane at another size (width, height) in 8 bits, near its area averages.

    Reading memory is what takes the time, so every row that can be spared is passed over, without a copy: 2 or 4 are
    left for each of the result, and not twice as many, as often as they are halved. Halving is what processors do
    fastest; linear steps, none to less than a half, do the rest.
    """
    width, height = size
    found: Any = samples[:: max(1, len(samples) // (height << halvings))]
    if bits > 8:
        found = cv2.convertScaleAbs(found, alpha=2.0 ** (8 - bits))
    for _ in range(halvings):
        found = _halved(found)
    for wide in (4 * width, 2 * width):
        if wide < found.shape[1]:
            found = cv2.resize(found, (wide, len(found)), interpolation=cv2.INTER_LINEAR)
    return cast(Pixels, cv2.resize(found, size, interpolation=cv2.INTER_LINEAR))


def _halved(samples: NDArray[Any]) -> NDArray[Any]:
    height, width = samples.shape[0] // 2, samples.shape[1] // 2
    return cv2.resize(samples[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=1)
def _scaler() -> VideoReformatter:
    """Return one scaler for the small pictures of a process: it keeps its tables while sizes and formats stay."""
    return VideoReformatter()


@lru_cache(maxsize=1)
def _screen() -> picture.Screen:
    """Return what shows the larger pictures of a process."""
    return picture.Screen()


def _pixels(plane: av.video.plane.VideoPlane) -> Pixels:
    rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)
    return np.ascontiguousarray(rows[: plane.height, : plane.width])


@lru_cache(maxsize=1)
def _full_range() -> Pixels:
    """Return the table from studio range luma (16–235) to full range."""
    return np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _to_bgr(matrix: str, full: bool) -> NDArray[np.float32]:
    """Return the 3×4 matrix from 8-bit YCbCr to BGR."""
    return np.ascontiguousarray(space.from_yuv(matrix, full)[::-1]).astype(np.float32)


def _upright(pixels: Pixels, source: Mapping[str, Any]) -> Pixels:
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    turn = turns.get(source["rotation_deg"])
    return pixels if turn is None else cast(Pixels, cv2.rotate(pixels, turn))


def rgb(frame: av.VideoFrame, source: Mapping[str, Any], max_side_px: int) -> Pixels:
    """Return a picture as `[h, w, 3]` RGB, upright, with square pixels, shrunk so that no side exceeds the limit.

    Its colours are those of an ordinary screen, HDR tone-mapped (`colour.picture`): models and people see it naturally.
    """
    width, height = source["width"], source["height"]
    scale = min(1.0, max_side_px / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if source["rotation_deg"] in {90, 270}:
        size = size[::-1]
    return _upright(_screen().rgb(frame, *size, Interpolation.AREA), source)


def jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """Return RGB pixels as JPEG; equal pixels give equal bytes."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
