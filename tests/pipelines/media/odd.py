"""Odd inputs, made in code: each stands for a kind that people met, with the value that is right for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Shown = Callable[[int, int, int], Pixels]
"""The picture of a number, at a width and a height."""
SIZE = (96, 64)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """One odd input and what must come out of it."""

    name: str
    """Of its file."""
    make: Callable[[Path], None]
    frames: int = 50
    duration_s: float = 2.0
    fps: float = 25.0
    size: tuple[int, int] = SIZE
    """As it is displayed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row in `sources`."""
    shots: int = 1
    code: str = ""
    """Of its failure; nothing of it is read where `frames` is 0."""
    lost_s: float = 0.0
    reads: str = ""
    """Words of the reason."""


@lru_cache(maxsize=8)
def _scene(width: int, height: int, seed: int = 0) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 18, 3), np.uint8)
    return cv2.resize(coarse, (3 * width, height), interpolation=cv2.INTER_CUBIC)


def pan(number: int, width: int, height: int, seed: int = 0) -> Pixels:
    """A view that moves by a pixel a picture."""
    at = number % (2 * width)
    return np.ascontiguousarray(_scene(width, height, seed)[:, at : at + width])


def other(number: int, width: int, height: int) -> Pixels:
    """Another view."""
    return pan(number, width, height, seed=1)


def flashing(number: int, width: int, height: int) -> Pixels:
    """A view with a white picture now and then."""
    return np.full((height, width, 3), 250, np.uint8) if number % 17 == 9 else pan(number, width, height)


def stuttering(number: int, width: int, height: int) -> Pixels:
    """A view of which every picture is held for three, in which the camera goes on."""
    return pan(number // 3 * 3, width, height)


def dissolving(number: int, width: int, height: int) -> Pixels:
    """Two views, one dissolved into the other within a second."""
    share = min(max((number - 50) / 25, 0.0), 1.0)
    mixed = cv2.addWeighted(pan(number, width, height), 1 - share, other(number, width, height), share, 0)
    return np.asarray(mixed, np.uint8)


def film(
    path: Path, count: int = 50, *, codec: str = "libx264", fmt: str = "yuv420p", size: tuple[int, int] = SIZE,
    rate: int | Fraction = 25, shown: Shown = pan, kind: str | None = None, mux: Mapping[str, str] | None = None,
    tune: Callable[[Any], None] | None = None, sound_s: float = 0.0, sound_at_s: float = 0.0, **options: str,
) -> None:  # fmt: skip
    """Write pictures, and beside them silence and a tone where it has a length."""
    with av.open(str(path), "w", format=kind, options=dict(mux or {})) as out:
        video = add(out, codec, fmt, size, rate, tune, **options)
        tone = out.add_stream("aac", rate=16_000, layout="mono") if sound_s else None
        for frame in frames(count, fmt, size, shown):
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if tone is not None:
            for frame in sound(sound_s, sound_at_s):
                out.mux(tone.encode(frame))
            out.mux(tone.encode(None))


def add(
    out: OutputContainer, codec: str, fmt: str, size: tuple[int, int], rate: int | Fraction,
    tune: Callable[[Any], None] | None = None, **options: str,
) -> Any:  # fmt: skip
    """Add a stream of pictures."""
    quick = {"libx264": {"preset": "veryfast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}
    video: Any = out.add_stream(codec, rate=rate, options={**quick.get(codec, {}), "threads": "1", **options})
    video.width, video.height, video.pix_fmt = *size, fmt
    if tune is not None:
        tune(video)
    return video


def frames(count: int, fmt: str, size: tuple[int, int], shown: Shown = pan) -> Iterator[av.VideoFrame]:
    """Yield pictures in a pixel format."""
    for number in range(count):
        yield av.VideoFrame.from_ndarray(shown(number, *size), "rgb24").reformat(format=fmt)


def sound(seconds: float, at_s: float = 0.0, rate: int = 16_000) -> Iterator[av.AudioFrame]:
    """Yield silence up to a time, and then a tone."""
    times = np.arange(round((at_s + seconds) * rate))
    whole = np.where(times >= at_s * rate, np.sin(times / 3), 0).astype(np.float32)
    for at in range(0, len(whole), 1024):
        wave = whole[None, at : at + 1024]
        frame = av.AudioFrame.from_ndarray(0.5 * wave, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        yield frame


def of(count: int = 50, **how: Any) -> Callable[[Path], None]:
    """Return what makes a film in one way."""
    return lambda path: film(path, count, **how)


def joined(*parts: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return what makes files and joins their bytes."""

    def make(path: Path) -> None:
        data = b""
        for part in parts:
            part(path)
            data += path.read_bytes()
        path.write_bytes(data)

    return make


def clocked(start_s: float, **how: Any) -> Callable[[Path], None]:
    """Return what makes a film whose clock begins at a time."""
    return of(mux={"output_ts_offset": str(start_s)}, **how)


def shifted(path: Path, seconds: float, out: Path, **options: str) -> None:
    """Copy the packets of a film with other times."""
    with av.open(str(path)) as container, av.open(str(out), "w", options=options) as sink:
        source = container.streams.video[0]
        stream = sink.add_stream_from_template(source)
        for packet in container.demux(source):
            if packet.size and packet.pts is not None and packet.dts is not None:
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, stream
                sink.mux(packet)


def _early(**options: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        whole = path.with_name(f"whole-{path.name}")
        film(whole, bf="0", g="50")
        shifted(whole, -0.48, path, **options)
        whole.unlink()

    return make


def _beside(path: Path, first: str, codec: str = "libx264", large: bool = False) -> None:
    """Write a film behind a picture of another stream: a cover of one packet, or a smaller film."""
    with av.open(str(path), "w") as out:
        small = (48, 32)
        cover = add(out, first, "yuvj420p" if first == "mjpeg" else "yuv420p", (320, 240) if large else small, 25)
        video = add(out, codec, "yuv420p", SIZE, 25)
        covers = 1 if first == "mjpeg" else 50
        for frame in frames(covers, cover.pix_fmt, (cover.width, cover.height), other):
            out.mux(cover.encode(frame))
        out.mux(cover.encode(None))
        for frame in frames(50, "yuv420p", SIZE):
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def _without_index(path: Path) -> None:
    film(path, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"idx1")])


def _subtitled(path: Path) -> None:
    with av.open(str(path), "w") as out:
        words: Any = out.add_mux_stream("subrip")
        words.time_base = Fraction(1, 1000)
        video = add(out, "libx264", "yuv420p", SIZE, 25)
        for number, frame in enumerate(frames(50, "yuv420p", SIZE)):
            if number % 25 == 0:
                said = av.Packet(b"a line")
                said.pts = said.dts = number * 40
                said.duration, said.time_base, said.stream = 900, Fraction(1, 1000), words
                out.mux(said)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def _with_data(path: Path) -> None:
    with av.open(str(path), "w") as out:
        notes: Any = out.add_data_stream("bin_data")
        video = add(out, "libx264", "yuv420p", SIZE, 25)
        for number, frame in enumerate(frames(50, "yuv420p", SIZE)):
            if number % 10 == 0:
                note = av.Packet(b"\1\2\3\4" * 8)
                note.pts = note.dts = number * 3600
                note.time_base, note.stream = Fraction(1, 90_000), notes
                out.mux(note)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def packed(path: Path) -> None:
    """Write MPEG-4 as DivX and XviD put B-frames into AVI: each beside the picture before it, and then an empty one."""
    encoder: Any = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.max_b_frames, encoder.thread_count = Fraction(1, 25), 25, 1, 1
    shown = list(frames(50, "yuv420p", SIZE))
    for number, frame in enumerate(shown):
        frame.pts, frame.time_base = number, Fraction(1, 25)
    parts = [bytes(packet) for frame in [*shown, None] for packet in encoder.encode(frame)]
    whole = list[bytes]()
    for part in parts:
        begins = part.index(VOP)
        if part[begins + 4] >> 6 == 2:  # a B-frame
            whole[-1] += part
            whole.append(EMPTY)
        else:
            whole.append(part[:begins] + (DIVX if b"\0\0\1\0" in part[:begins] else b"") + part[begins:])
    with av.open(str(path), "w") as out:
        video = add(out, "mpeg4", "yuv420p", SIZE, 25)
        for number, part in enumerate(whole):
            packet = av.Packet(part)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), video
            packet.is_keyframe = part[part.index(VOP) + 4] >> 6 == 0
            out.mux(packet)


def _tagged(**tags: int) -> Callable[[Any], None]:
    def tune(video: Any) -> None:
        for name, value in tags.items():
            setattr(video.codec_context, name, value)

    return tune


def _turned(video: Any) -> None:
    video.set_display_rotation(-90)


def _oblong(video: Any) -> None:
    video.codec_context.sample_aspect_ratio = Fraction(2, 1)


def _said(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n/etc/hostname\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile /etc/hostname\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>/etc/hostname</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
)
VOP, DIVX, EMPTY = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x51\xf4\x9f"
"""How a picture of MPEG-4 begins, what says that B-frames are packed, and a picture that is not coded."""
WRAP_S = 2**33 / 90_000
PQ = {"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9}
TS = {"container": "mpegts", "video_codec": "h264"}

ODD: list[Odd] = [
    Odd(name="plain.ts", make=of(), facts=TS),
    Odd(name="wraps.ts", make=clocked(WRAP_S - 1.4 - 1.0), facts=TS),
    Odd(name="glued.ts", make=joined(of(), of(shown=other)), frames=100, duration_s=4.0, shots=2, facts=TS),
    Odd(name="glued ahead.ts", make=joined(of(), clocked(36_000.0, shown=other)), frames=100, duration_s=4.0, shots=2),
    Odd(name="raw.h264", make=of(bf="0"), facts={"container": "h264"}),
    Odd(name="raw.hevc", make=of(codec="libx265"), facts={"container": "hevc", "video_codec": "hevc"}),
    Odd(name="drawn.gif", make=of(codec="gif", fmt="rgb8"), facts={"container": "gif"}),
    Odd(name="cover.mp4", make=lambda path: _beside(path, "mjpeg"), facts={"video_codec": "h264"}),
    Odd(name="large cover.mkv", make=lambda path: _beside(path, "mjpeg", large=True), facts={"video_codec": "h264"}),
    Odd(name="two streams.mkv", make=lambda path: _beside(path, "mpeg4"), facts={"video_codec": "h264"}),
    Odd(name="422 10 bit.mp4", make=of(fmt="yuv422p10le"), facts={"pixel_format": "yuv422p10le", "bit_depth": 10}),
    Odd(name="444.mp4", make=of(fmt="yuv444p"), facts={"pixel_format": "yuv444p"}),
    Odd(name="alpha.webm", make=of(codec="libvpx-vp9", fmt="yuva420p"), facts={"video_codec": "vp9"}),
    Odd(name="prores 4444.mov", make=of(codec="prores_ks", fmt="yuva444p10le"), facts={"video_codec": "prores"}),
    Odd(name="853.webm", make=of(12, codec="libvpx-vp9", size=(853, 479), deadline="realtime", **{"cpu-used": "8"}),
        frames=12, duration_s=0.48, size=(853, 479), shots=0),
    Odd(name="interlaced.mp4", make=of(flags="+ildct+ilme", **{"x264-params": "tff=1"})),
    Odd(name="1 fps.mp4", make=of(6, rate=1), frames=6, duration_s=6.0, fps=1.0),
    Odd(name="no index.avi", make=_without_index, facts={"container": "avi"}),
    Odd(name="b frames.avi", make=of(codec="mpeg4", bf="2"), facts={"container": "avi", "video_codec": "mpeg4"}),
    Odd(name="packed.avi", make=packed, facts={"container": "avi", "video_codec": "mpeg4"}),
    Odd(name="edit list.mp4", make=_early(), frames=38, duration_s=1.52),
    Odd(name="negative.ts", make=_early(avoid_negative_ts="disabled"), facts={"start_s": -0.48}),
    Odd(name="one key frame.mp4", make=of(480, rate=10, g="10000", **{"x264-params": "scenecut=0"}),
        frames=480, duration_s=48.0, fps=10.0, shots=3),
    Odd(name="rotated.mp4", make=of(tune=_turned), size=(64, 96), facts={"rotation_deg": 90}),
    Odd(name="flashes.mp4", make=of(100, shown=flashing), frames=100, duration_s=4.0),
    Odd(name="stutter.mp4", make=of(100, shown=stuttering), frames=100, duration_s=4.0),
    Odd(name="dissolve.mp4", make=of(125, shown=dissolving), frames=125, duration_s=5.0, shots=2),
    Odd(name="subtitles.mkv", make=_subtitled),
    Odd(name="data.ts", make=_with_data),
    Odd(name="90 kHz.mp4", make=of(mux={"video_track_timescale": "90000"})),
    Odd(name="new\nline.mp4", make=of()),
    Odd(name="it's \"quoted\".mp4", make=of()),
    Odd(name="-dash.mp4", make=of()),
    Odd(name="number #1.mp4", make=of()),
    Odd(name="50%20 %d.mp4", make=of()),
    Odd(name="mpeg2.mpg", make=of(codec="mpeg2video", bf="2"),
        facts={"container": "mpeg", "video_codec": "mpeg2video"}),
    Odd(name="windows.wmv", make=of(codec="wmv2"), facts={"container": "asf", "video_codec": "wmv2"}),
    Odd(name="flash.flv", make=of(codec="flv"), facts={"container": "flv", "video_codec": "flv1"}),
    Odd(name="phone.3gp", make=of(codec="h263", size=(176, 144)), size=(192, 144), facts={"video_codec": "h263"}),
    Odd(name="tape.dv", make=of(30, codec="dvvideo", size=(720, 576)), frames=30, duration_s=1.2, size=(768, 576),
        facts={"container": "dv"}),
    Odd(name="archive.mkv", make=of(codec="ffv1"), facts={"video_codec": "ffv1"}),
    Odd(name="motion jpeg.mov", make=of(codec="mjpeg", fmt="yuvj420p"), facts={"video_codec": "mjpeg"}),
    Odd(name="av1.mp4", make=of(codec="libsvtav1", preset="12"), facts={"video_codec": "av1"}),
    Odd(name="wide pixels.mp4", make=of(tune=_oblong), size=(192, 64), facts={"sample_aspect": 2.0}),
    Odd(name="hdr10.mp4", make=of(codec="libx265", fmt="yuv420p10le", tune=_tagged(**PQ)),
        facts={"hdr": True, "bit_depth": 10, "color_transfer": "smpte2084"}),
    Odd(name="full range.mp4", make=of(tune=_tagged(color_range=2)), facts={"color_range": "pc"}),
    Odd(name="long sound.mp4", make=of(sound_s=4.0), facts={"audio_codec": "aac"}),
    Odd(name="glued.mp4", make=joined(of(), of(shown=other)), code="joined", reads="another film of "),
    Odd(name="glued.mkv", make=joined(of(), of(shown=other)), code="timestamps", lost_s=2.0, reads="50 pictures"),
    Odd(name="hls.mp4", make=_said(HLS), frames=0, code="playlist"),
    Odd(name="concat.mkv", make=_said(CONCAT), frames=0, code="playlist"),
    Odd(name="dash.ts", make=_said(DASH), frames=0, code="playlist"),
]  # fmt: skip
