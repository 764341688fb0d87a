"""One clip cut out of a source: exact to the picture, upright, square pixels, bars cropped, equal bytes every time.

Where nothing is to be changed and the borders allow it, the stream is copied (`media.remux`); else encoded once.
Every picture keeps its own timestamp, so a variable frame rate stays what it was. Encoders run on one thread: their
output depends on the number of threads, and the clips of a run are encoded side by side anyway.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
from av.container import OutputContainer
from av.video.stream import VideoStream

from rushes.pipelines.colour import tags
from rushes.pipelines.colour.picture import Screen, tag, whole_format
from rushes.pipelines.colour.tags import Colour
from rushes.pipelines.config import PackConfig
from rushes.pipelines.media import decode, remux
from rushes.pipelines.media.decode import Picture
from rushes.pipelines.media.remux import BORDER_S, Cut
from rushes.pipelines.media.sound import Sound

KEY_FRAME_S = 2.0
FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: pictures bring their durations along
# On AVX-512 x264 gave other bytes for equal pictures in about one run of six; with AVX2 it never did. The same cap for
# SVT-AV1 keeps its bytes equal on older machines.
_AVX2 = cv2.checkHardwareSupport(11)  # cv::CPU_AVX2
# Without B-frames and without partitions of predicted blocks, x264 takes 0.6 of the time for equal PSNR at equal size
# (`tests/bench/test_copy.py`), and whoever reads a clip finds a frame sooner.
_X264 = "partitions=i8x8,i4x4:cpu-independent=1"
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "veryfast", "bf": "0", "x264-params": _X264 + (":asm=avx2" if _AVX2 else "")}),
    "hevc": ("libx265", {"preset": "fast", "x265-params": "pools=1:frame-threads=1:log-level=error:info=0"}),
    "av1": ("libsvtav1", {"preset": "8", "svtav1-params": "lp=1" + (":asm=avx2" if _AVX2 else "")}),
}

COPIED_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})  # what the encoders here would write as well
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
        The mp4, and {width, height, fps, frames, duration_s, codec, copied, has_audio, color_space, color_range, hdr}.

    Raises:
        EncodeError: If the range holds no picture.
        DecodeError: If a picture in it is broken.
    """
    shape = shape_of(source, pack, crop)
    audio = pack.audio and bool(source.get("audio_codec"))
    if _may_copy(source, shape, pack):
        copied = remux.copy(uri, source, start_s, end_s, audio)
        if copied is not None:
            return copied.data, _facts(source, shape, pack, copied)
    cut_ = _encoded(uri, source, start_s, end_s, shape, pack, audio)
    return cut_.data, _facts(source, shape, pack, cut_)


def _facts(source: Mapping[str, Any], shape: Shape, pack: PackConfig, cut_: Cut) -> dict[str, Any]:
    kept = _own_colour(source, pack)
    return {
        "width": shape.width,
        "height": shape.height,
        "fps": cut_.frames / cut_.duration_s if source["variable_fps"] else source["fps"],
        "frames": cut_.frames,
        "duration_s": cut_.duration_s,
        "codec": source["video_codec"] if cut_.copied else pack.codec,
        "copied": cut_.copied,
        "has_audio": cut_.has_audio,
        "color_space": tags.SPACES[tags.numbers(source)["matrix"]] if kept else "bt709",
        "color_range": _range(kept) if kept else "tv",
        "hdr": kept is not None and kept.hdr,
    }


def _may_copy(source: Mapping[str, Any], shape: Shape, pack: PackConfig) -> bool:
    """Whether what stands in the source could stand in a shard as it is: nothing to turn, crop, scale or convert."""
    size = source["coded_width"], source["coded_height"]
    return (
        pack.copy == "keyframes"
        and source["video_codec"] in {pack.codec, *pack.copy_codecs}
        and source["pixel_format"] in COPIED_FORMATS
        and _own_colour(source, pack) is not None
        and source["sample_aspect"] == 1
        and not shape.turn
        and shape.crop == (0, 0, *size)
        and (shape.width, shape.height) == size
    )


def _encoded(
    uri: str, source: Mapping[str, Any], start_s: float, end_s: float, shape: Shape, pack: PackConfig, audio: bool
) -> Cut:
    """Return the pictures of a range, decoded and encoded once."""
    pictures = _shown(uri, source, start_s - BORDER_S, end_s - BORDER_S)
    first = next(pictures, None)
    if first is None:
        raise EncodeError(f"{uri} shows no picture from {start_s} s to {end_s} s; scan the source again")
    sound = Sound(uri, source, first.time_s, end_s) if audio else None
    return written(itertools.chain((first,), pictures), source, shape, pack, sound)


def written(
    pictures: Iterator[Picture], source: Mapping[str, Any], shape: Shape, pack: PackConfig, sound: Sound | None
) -> Cut:
    """Return pictures, one at least, encoded once, and the sound beside them, which is closed."""
    with ExitStack() as stack:
        if sound is not None:
            stack.enter_context(closing(sound))
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rushes-"))) / "clip.mp4"
        with remux.mp4(path) as out:
            first = next(pictures)
            frames, duration_s = _write(out, first, pictures, _Film(out, first, source, shape, pack), sound)
        heard = sound is not None and sound.heard
        return Cut(path.read_bytes(), frames, duration_s, has_audio=heard, copied=False)


def _shown(uri: str, source: Mapping[str, Any], start_s: float, end_s: float) -> Iterator[Picture]:
    """Yield the pictures of a range; those that have no place in the time of the source are none of the clip's."""
    try:
        yield from decode.pictures(uri, source, start_s, end_s, warm_s=0.0)
    except decode.DecodeError as error:
        if error.lost:
            raise


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
    out: OutputContainer, first: Picture, rest: Iterator[Picture], film: _Film, sound: Sound | None
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
    """The video stream of a clip.

    Pictures in the usual colours (`tags.Colour.usual`) keep their samples and are tagged as what they are; readers take
    the matrix and the range from the tags. What is anything else becomes RGB as the models see it, and BT.709 of 8 bits
    from there; HDR that is to be kept stays as it is.
    """

    def __init__(self, out: OutputContainer, first: Picture, source: Mapping[str, Any], shape: Shape, pack: PackConfig):
        encoder, options = ENCODERS[pack.codec]
        rate = Fraction(source["fps"]).limit_denominator(1001)
        self.stream: VideoStream = cast(VideoStream, out.add_stream(encoder, rate=rate))
        self.first, self.shape = first, shape
        self.coded = source["coded_width"], source["coded_height"]
        self.time_base = _time_base(first.frame.time_base)
        self.kept, self.keeps_hdr = _own_colour(source, pack), pack.hdr == "keep"
        deep = self.kept and source["bit_depth"] > 8 and pack.codec != "h264"
        self.pixel_format = "yuv420p10le" if deep else "yuv420p"
        self.screen, self.layout = Screen(), cast("tuple[Any, ...] | None", None)
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
        tag(context)
        if self.kept is not None:
            told = tags.numbers(source)
            context.colorspace, context.color_primaries = told["matrix"], told["primaries"]
            context.color_trc, context.color_range = told["transfer"], 2 if self.kept.full else 1

    def encode(self, picture: Picture) -> list[av.Packet]:
        """Return the packets that one more picture brings out of the encoder."""
        frame = self._shaped(picture.frame)
        frame.time_base = self.time_base
        frame.pts = round((picture.time_s - self.first.time_s) / self.time_base)
        frame.duration = max(1, round(picture.duration_s / self.time_base))
        frame.pict_type = 0
        return self.stream.encode(frame)

    def _shaped(self, frame: av.VideoFrame) -> av.VideoFrame:
        colour = tags.of(frame)
        layout = frame.width, frame.height, frame.format.name, colour
        if layout != self.layout:
            self.layout, self.graph = layout, self._graph(frame, colour)
        self.graph.push(frame)
        shaped = cast(av.VideoFrame, self.graph.pull())
        if self.kept is not None and _keeps(colour, self.keeps_hdr):
            return shaped
        rgb = self.screen.rgb(shaped, shaped.width, shaped.height, colour=colour)
        return self.screen.frame(rgb, self.pixel_format)

    def _graph(self, frame: av.VideoFrame, colour: Colour) -> av.filter.Graph:
        """Return the filters for pictures of this size, format and colour."""
        x, y, width, height = self.shape.crop
        meant, kind = colour, whole_format(frame.format, colour)
        if self.kept is not None and _keeps(colour, self.keeps_hdr):
            meant, kind = self.kept, self.pixel_format
        graph = av.filter.Graph()
        graph.threads = 1
        steps = [
            ("crop", f"{width}:{height}:{x}:{y}"),
            ("scale", _scale((self.shape.width, self.shape.height), colour, meant)),
            ("format", kind),
        ]
        if (frame.width, frame.height) != self.coded:  # a stream may change its size in the middle
            steps.insert(0, ("scale", _scale(self.coded, colour, colour)))
        for turn in reversed(self.shape.turn.rstrip(",").split(",") if self.shape.turn else []):
            name, _, value = turn.partition("=")
            steps.insert(0, (name, value))
        nodes = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base)
        ]
        nodes += [graph.add(name, value or None) for name, value in [*steps, ("setsar", "1"), ("buffersink", "")]]
        graph.link_nodes(*nodes).configure()
        return graph


def _keeps(colour: Colour, hdr: bool) -> bool:
    """Whether samples of some colour stand in clips as they are, rather than made anew from RGB."""
    return colour.usual or (hdr and colour.hdr and colour.matrix in tags.NUMBERS)


def _own_colour(source: Mapping[str, Any], pack: PackConfig) -> Colour | None:
    """Return the colour of a source whose samples stay as they are; None where clips of it are BT.709 made anew."""
    colour = tags.of_source(source)
    return colour if _keeps(colour, pack.hdr == "keep") else None


def _scale(size: tuple[int, int], colour: Colour, meant: Colour) -> str:
    """Return the settings of FFmpeg's scaler from one colour to another.

    It must be told all of it: of BT.709 it makes BT.601 where it is not told what comes out.
    """
    settings = f"w={size[0]}:h={size[1]}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
    if colour.matrix == "rgb":
        return settings
    settings += f":in_range={_range(colour)}:out_range={_range(meant)}"
    return f"{settings}:in_color_matrix={_matrix(colour)}:out_color_matrix={_matrix(meant)}"


def _matrix(colour: Colour) -> str:
    """Return the name of a matrix; where FFmpeg does not know it, any will do, since it is not to change."""
    return colour.matrix if colour.matrix in tags.NUMBERS else "bt601"


def _range(colour: Colour) -> str:
    return "pc" if colour.full else "tv"


def _time_base(source: Fraction | None) -> Fraction:
    """Return the source's own time base where an mp4 can hold it."""
    if source is not None and source.numerator == 1 and source.denominator <= 1_000_000:
        return source
    return Fraction(1, 90_000)
