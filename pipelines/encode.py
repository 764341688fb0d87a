"""One clip cut out of a source: exact to the picture, upright, square pixels, bars cropped, equal bytes every time.

Every picture keeps its own timestamp, so a variable frame rate stays what it was. Encoders run on one thread: their
output depends on the number of threads, and the clips of a run are encoded side by side anyway.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines import decode, footage
from pipelines.config import PackConfig
from pipelines.decode import Picture

BORDER_S = 0.0006  # borders may have been rounded to the millisecond
KEY_FRAME_S = 2.0
FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: pictures bring their durations along
AUDIO_WARM_S = 0.5  # audio decoders need a moment before a seek's result is exact
JITTER_S = 0.03  # timestamps of audio this near to where it should be are rounding
SILENCE_SAMPLES = 48_000  # silence is written in pieces of at most this
AUDIO_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
AUDIO_BIT_RATE = 128_000
# On AVX-512 x264 gave other bytes for equal pictures in about one run of six; with AVX2 it never did. The same cap for
# SVT-AV1 keeps its bytes equal on older machines.
_AVX2 = cv2.checkHardwareSupport(11)  # cv::CPU_AVX2
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "veryfast", "x264-params": "cpu-independent=1" + (":asm=avx2" if _AVX2 else "")}),
    "hevc": ("libx265", {"preset": "fast", "x265-params": "pools=1:frame-threads=1:log-level=error:info=0"}),
    "av1": ("libsvtav1", {"preset": "8", "svtav1-params": "lp=1" + (":asm=avx2" if _AVX2 else "")}),
}
_RGB_TAGS = {"color_range": 1, "colorspace": 1, "color_trc": 1, "color_primaries": 1}

Crop = tuple[float, float, float, float]


class EncodeError(ValueError):
    """A range of a source holds nothing that could be encoded."""


@dataclass(frozen=True)
class Shape:
    """What happens to the pixels of a picture, in this order."""

    turn: str
    """FFmpeg filters that put it upright, each with a comma after it."""
    crop: tuple[int, int, int, int]
    """x, y, width and height of what stays of the upright picture."""
    width: int
    """Width of the result, even."""
    height: int
    """Height of the result, even."""


def cut(
    uri: str, source: Mapping[str, Any], start_s: float, end_s: float, pack: PackConfig, crop: Crop
) -> tuple[bytes, dict[str, Any]]:
    """Return the pictures with `start_s <= time < end_s`, and the sound beside them, as the bytes of an mp4.

    Args:
        uri: The file or object.
        source: Its row of the table `sources`.
        start_s: Time of the first picture.
        end_s: Half-open end.
        pack: Codec, quality, size.
        crop: Fractions of the upright picture to cut off at left, top, right and bottom.

    Returns:
        The mp4, and {width, height, fps, frames, duration_s, codec, copied, has_audio}.

    Raises:
        EncodeError: If the range holds no picture.
        DecodeError: If a picture in it is broken.
    """
    pictures = decode.pictures(uri, source, start_s - BORDER_S, end_s - BORDER_S, warm_s=0.0)
    first = next(pictures, None)
    if first is None:
        raise EncodeError(f"{uri} shows no picture from {start_s} s to {end_s} s; scan the source again")
    shape = shape_of(source, pack, crop)
    sound = _Sound(uri, source, first.time_s, end_s) if pack.audio and source.get("audio_codec") else None
    with tempfile.TemporaryDirectory(prefix="rushes-") as folder:
        path = Path(folder) / "clip.mp4"  # a file, since the muxer moves the index to the front by reading it again
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        try:
            with av.open(str(path), "w", format="mp4", options=options) as out:
                frames, duration_s = _write(out, first, pictures, _Film(out, first, source, shape, pack), sound)
        finally:
            if sound is not None:
                sound.close()
        data = path.read_bytes()
    return data, {
        "width": shape.width,
        "height": shape.height,
        "fps": frames / duration_s if source["variable_fps"] else source["fps"],
        "frames": frames,
        "duration_s": duration_s,
        "codec": pack.codec,
        "copied": False,
        "has_audio": sound is not None and sound.heard,
    }


def shape_of(source: Mapping[str, Any], pack: PackConfig, crop: Crop) -> Shape:
    """Return how the pictures of a source are turned, cropped and shrunk."""
    turn = {0: "", 90: "transpose=clock,", 180: "hflip,vflip,", 270: "transpose=cclock,"}[source["rotation_deg"]]
    coded = source["coded_width"], source["coded_height"]
    wide, high = coded[::-1] if source["rotation_deg"] in {90, 270} else coded
    left, top, right, bottom = crop if pack.crop_bars else (0.0, 0.0, 0.0, 0.0)
    x, width = _kept(wide, left, right)
    y, height = _kept(high, top, bottom)
    shown = width * source["width"] / wide, height * source["height"] / high
    scale = min(1.0, pack.max_side_px / min(shown)) if pack.max_side_px else 1.0
    return Shape(turn, (x, y, width, height), _even(shown[0] * scale), _even(shown[1] * scale))


def _kept(size: int, before: float, after: float) -> tuple[int, int]:
    """Return offset and extent of what stays, on the grid of the chroma where something is cut off."""
    start = math.ceil(size * before / 2 - 1e-6) * 2
    end = size - math.ceil(size * after / 2 - 1e-6) * 2
    if end - start < 2:
        return 0, size
    return start, end - start


def _even(size: float) -> int:
    return max(2, int(size / 2 + 0.25) * 2)


def _write(
    out: OutputContainer, first: Picture, rest: Iterator[Picture], film: _Film, sound: _Sound | None
) -> tuple[int, float]:
    """Write pictures and the sound beside them; return how many and how long."""
    if sound is not None and not sound.attach(out):
        sound = None
    frames, end_s, picture = 0, 0.0, cast("Picture | None", first)
    while picture is not None:
        out.mux(film.encode(picture))
        frames, end_s = frames + 1, picture.time_s + picture.duration_s
        if sound is not None:
            sound.write(out, picture.time_s - first.time_s)
        picture = next(rest, None)
    out.mux(film.stream.encode(None))
    if sound is not None:
        sound.write(out, end_s - first.time_s)
        sound.finish(out)
    return frames, end_s - first.time_s


class _Film:
    """The video stream of a clip."""

    def __init__(self, out: OutputContainer, first: Picture, source: Mapping[str, Any], shape: Shape, pack: PackConfig):
        encoder, options = ENCODERS[pack.codec]
        rate = Fraction(source["fps"]).limit_denominator(1001)
        self.stream: VideoStream = cast(VideoStream, out.add_stream(encoder, rate=rate))
        self.first, self.shape = first, shape
        self.time_base = _time_base(first.frame.time_base)
        self.pixel_format = "yuv420p10le" if source["bit_depth"] > 8 and pack.codec != "h264" else "yuv420p"
        self.layout: tuple[int, int, str] | None = None
        context = self.stream.codec_context
        context.width, context.height, context.pix_fmt = shape.width, shape.height, self.pixel_format
        context.time_base, context.thread_count = self.time_base, 1
        context.gop_size = max(1, round(KEY_FRAME_S * source["fps"]))
        context.options = {**options, "crf": str(pack.crf)}
        context.flags |= FRAME_DURATION
        if pack.codec == "av1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 writes to stderr by itself
        if source["variable_fps"]:
            context.max_b_frames = 0  # an mp4 tells the last picture's duration only where none is re-ordered
        if pack.codec == "hevc":
            context.codec_tag = "hvc1"
        self._tag(first.frame)

    def _tag(self, frame: av.VideoFrame) -> None:
        """Carry the colour over, so that players and decoders read the values as those of the source."""
        tags = {name: int(getattr(frame, name)) for name in _RGB_TAGS}
        if frame.format.is_rgb:
            tags = _RGB_TAGS
        elif frame.format.name.startswith("yuvj"):
            tags["color_range"] = 2
        for name, value in tags.items():
            setattr(self.stream.codec_context, name, value)
        self.range = "pc" if tags["color_range"] == 2 else "tv"

    def encode(self, picture: Picture) -> list[av.Packet]:
        """Return the packets that one more picture brings out of the encoder."""
        frame = self._shaped(picture.frame)
        frame.time_base = self.time_base
        frame.pts = round((picture.time_s - self.first.time_s) / self.time_base)
        frame.duration = max(1, round(picture.duration_s / self.time_base))
        frame.pict_type = 0
        return self.stream.encode(frame)

    def _shaped(self, frame: av.VideoFrame) -> av.VideoFrame:
        layout = frame.width, frame.height, frame.format.name
        if layout != self.layout:
            self.layout, self.graph = layout, self._graph(frame)
        self.graph.push(frame)
        return cast(av.VideoFrame, self.graph.pull())

    def _graph(self, frame: av.VideoFrame) -> av.filter.Graph:
        """Return the filters for pictures of this size and format."""
        x, y, width, height = self.shape.crop
        scale = (
            f"w={self.shape.width}:h={self.shape.height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
            f":out_range={self.range}"
            + (":out_color_matrix=bt709" if frame.format.is_rgb else f":in_range={self.range}")
        )
        graph = av.filter.Graph()
        graph.threads = 1
        steps = [("crop", f"{width}:{height}:{x}:{y}"), ("scale", scale), ("format", self.pixel_format)]
        for turn in reversed(self.shape.turn.rstrip(",").split(",") if self.shape.turn else []):
            name, _, value = turn.partition("=")
            steps.insert(0, (name, value))
        nodes = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base)
        ]
        nodes += [graph.add(name, value or None) for name, value in [*steps, ("setsar", "1"), ("buffersink", "")]]
        graph.link_nodes(*nodes).configure()
        return graph


def _time_base(source: Fraction | None) -> Fraction:
    """Return the source's own time base where an mp4 can hold it."""
    if source is not None and source.numerator == 1 and source.denominator <= 1_000_000:
        return source
    return Fraction(1, 90_000)


class _Sound:
    """The sound beside the pictures, sample by sample, read only as far as the pictures have come."""

    def __init__(self, uri: str, source: Mapping[str, Any], start_s: float, end_s: float):
        self.opened = footage.open_container(uri)
        self.container = self.opened.__enter__()
        rate = source["audio_rate_hz"]
        self.rate = rate if rate in AUDIO_RATES else AUDIO_RATES[0]
        self.layout = "mono" if source["audio_channels"] == 1 else "stereo"
        self.origin_s = source["start_s"] + start_s
        self.samples = round((end_s - start_s) * self.rate) if math.isfinite(end_s) else None
        self.written = 0
        self.heard = False
        self.chunks = self._chunks()

    def close(self) -> None:
        """Close the source."""
        self.opened.__exit__(None, None, None)

    def attach(self, out: OutputContainer) -> bool:
        """Add the stream if there is a sample to be heard; return whether."""
        chunk = next(self.chunks, None)
        if chunk is None:
            return False
        self.heard, self.next = True, cast("NDArray[np.float32] | None", chunk)
        self.stream: AudioStream = cast(AudioStream, out.add_stream("aac", rate=self.rate, layout=self.layout))
        self.stream.codec_context.bit_rate = AUDIO_BIT_RATE
        self.stream.codec_context.thread_count = 1
        return True

    def write(self, out: OutputContainer, until_s: float) -> None:
        """Encode samples until the sound has come as far as the pictures."""
        while self.next is not None and self.written < until_s * self.rate:
            frame = av.AudioFrame.from_ndarray(self.next, format="fltp", layout=self.layout)
            frame.rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), self.written
            self.written += self.next.shape[1]
            out.mux(self.stream.encode(frame))
            self.next = next(self.chunks, None)

    def finish(self, out: OutputContainer) -> None:
        """Write what the encoder still holds."""
        out.mux(self.stream.encode(None))

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples without gap or overlap: missing ones are silence, and none lies outside the clip."""
        done = 0
        for offset, samples in self._decoded():
            if abs(offset - done) < JITTER_S * self.rate and done:
                offset = done
            while offset > done and (self.samples is None or done < self.samples):
                silence = min(offset - done, SILENCE_SAMPLES, *([] if self.samples is None else [self.samples - done]))
                yield np.zeros((samples.shape[0], silence), np.float32)
                done += silence
            kept = samples[:, max(0, done - offset) : None if self.samples is None else max(0, self.samples - offset)]
            if kept.shape[1]:
                yield np.ascontiguousarray(kept)
                done += kept.shape[1]
            if self.samples is not None and done >= self.samples:
                return

    def _decoded(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield decoded sound with its offset in samples from the clip's start."""
        stream = self.container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        seek_s = max(0.0, self.origin_s - AUDIO_WARM_S)
        self.container.seek(round(seek_s / float(stream.time_base or 1)), stream=stream)
        offset: int | None = None
        for frame in self._frames(stream):
            if frame.time is not None:
                at = round((frame.time - self.origin_s) * self.rate)
                offset = at if offset is None or abs(at - offset) > JITTER_S * self.rate else offset
            if offset is not None:
                frame.pts = None
                for part in resampler.resample(frame):
                    samples = cast("NDArray[np.float32]", part.to_ndarray())
                    yield offset, samples
                    offset += samples.shape[1]

    def _frames(self, stream: AudioStream) -> Iterator[av.AudioFrame]:
        packets = self.container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from cast("list[av.AudioFrame]", packet.decode())
            except (av.error.InvalidDataError, av.error.EOFError):
                continue  # a broken packet of sound is a moment of silence
            except (av.error.FFmpegError, OSError):
                return
