"""One piece of a clip: its sample's bytes where nothing changes, packets copied where that is exact, else one encode.

Frames at another rate are picked by time: frame k is the picture of the clip that is shown nearest to k/fps, of two as
near the earlier. Nothing is blended. They are written at a constant rate whose time base holds every frame exactly, so
that a reader which counts frames, one which multiplies seconds by the rate, and one which believes the header all find
the same number.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.export.rules import Piece, Rules
from rushes.pipelines.media import decode, footage
from rushes.pipelines.media.decode import Picture
from rushes.pipelines.media.remux import Cut
from rushes.pipelines.media.sound import Sound
from rushes.pipelines.stages.encode import encode

How = Literal["as it is", "copied", "encoded"]
WARM_S = 2.0
"""Pictures are decoded from so long before a piece on: its first frame may show an earlier one."""


class PieceError(ValueError):
    """A piece did not come out as it was planned.

    Attributes:
        code: not_as_planned.
        reason: What was found and what was expected.
        remedy: What to do.
    """

    code = "not_as_planned"
    remedy = "run `rushes verify --full` on the run: its shard may be damaged; else please report it with the clip"

    def __init__(self, reason: str):
        super().__init__(f"{reason}; {self.remedy}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Film:
    """What the header and the packets of a video say."""

    frames: int
    """Packets with a picture."""
    width: int
    height: int
    rate: Fraction | None
    """The rate where every frame is shown as long as any other and the header says so too, else None."""
    has_audio: bool


def film_of(video: str | io.BytesIO) -> Film:
    """Return what a video says of itself, all its packets read and none decoded. Raises FFmpegError."""
    with av.open(video, "r", metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        times = sorted(p.pts for p in container.demux(stream) if p.size and p.pts is not None)
        steps = {later - sooner for sooner, later in itertools.pairwise(times)}
        told = stream.average_rate
        even = len(steps) == 1 and stream.time_base is not None and 1 / (steps.pop() * stream.time_base) == told
        context = stream.codec_context
        return Film(
            frames=len(times), width=context.width, height=context.height, rate=told if even else None,
            has_audio=bool(container.streams.audio),
        )  # fmt: skip


def frames_in(video: io.BytesIO) -> int:
    """Return how many pictures a decoder gives of a video. Raises FFmpegError where one is broken."""
    with av.open(video, "r", metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(not frame.is_corrupt for frame in container.decode(video=0))


def pieces(mp4: bytes, plan: list[Piece], rules: Rules, crf: int) -> Iterator[tuple[Piece, bytes, How]]:
    """Yield the planned pieces of a clip with their bytes and how these were made.

    Args:
        mp4: The clip as it stands in its sample.
        plan: Its pieces; see `rules.plan`.
        rules: What they obey.
        crf: Quality of what is encoded.

    Raises:
        PieceError: If a piece does not hold the frames that were planned.
        DecodeError: If a picture of the clip is broken.
    """
    film = film_of(io.BytesIO(mp4))
    sounds = film.has_audio and rules.audio
    if plan[0].whole and film.has_audio == sounds and _is_whole(film, plan[0], rules):
        yield plan[0], mp4, "as it is"
        return
    with tempfile.TemporaryDirectory(prefix="rushes-") as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(mp4)
        source = footage.probe(str(path), ScanConfig())
        pack = PackConfig(crf=crf, audio=sounds, copy_codecs=["hevc", "av1", "vp9"])
        for piece in plan:
            made = _cut(str(path), source, piece, pack) if film.rate == piece.fps else None
            if made is None or not _holds(made.data, piece):
                made = _timed(str(path), source, piece, pack)
            if not _holds(made.data, piece):
                raise PieceError(f"{piece.frames} frames were planned, {_told(made.data)} came out")
            yield piece, made.data, "copied" if made.copied else "encoded"


def _is_whole(film: Film, piece: Piece, rules: Rules) -> bool:
    """Whether a clip, as it is, is what was planned; without a rule on time its frames may come when they will."""
    if (film.frames, film.width, film.height) != (piece.frames, piece.width, piece.height):
        return False
    return film.rate == piece.fps or (rules.fps is None and rules.frames.step == 1 and not rules.max_frames)


def _holds(data: bytes, piece: Piece) -> bool:
    """Whether a video is what was planned, by its packets and by its decoder."""
    film = film_of(io.BytesIO(data))
    same = (film.frames, film.width, film.height) == (piece.frames, piece.width, piece.height)
    return (
        same
        and film.rate in (piece.fps, *([None] if piece.frames == 1 else []))
        and frames_in(io.BytesIO(data)) == piece.frames
    )


def _told(data: bytes) -> str:
    film = film_of(io.BytesIO(data))
    rate = f"{float(film.rate):g} fps" if film.rate else "uneven times"
    return f"{frames_in(io.BytesIO(data))} of {film.width}×{film.height} at {rate}"


def _crop(piece: Piece, source: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return what goes at left, top, right and bottom, as shares of the picture."""
    (left, top), (width, height) = piece.crop, (source["width"], source["height"])
    return left / width, top / height, (width - piece.width - left) / width, (height - piece.height - top) / height


def _cut(uri: str, source: Mapping[str, Any], piece: Piece, pack: PackConfig) -> Cut | None:
    """Return a piece whose frames are those of the clip, packets copied where that is exact."""
    start_s = piece.start_s
    data, facts = encode.cut(uri, source, start_s, start_s + piece.seconds, pack, _crop(piece, source))
    return Cut(data, facts["frames"], facts["duration_s"], has_audio=facts["has_audio"], copied=facts["copied"])


def _timed(uri: str, source: Mapping[str, Any], piece: Piece, pack: PackConfig) -> Cut:
    """Return a piece whose frames are picked by time."""
    start_s, end_s = piece.start_s, piece.start_s + piece.seconds
    taken = decode.pictures(uri, source, start_s, end_s + WARM_S, warm_s=WARM_S)
    as_if = {**source, "fps": float(piece.fps), "variable_fps": False}
    sound = Sound(uri, source, start_s, end_s) if pack.audio else None
    return encode.written(
        at_rate(taken, start_s, piece.fps, piece.frames), as_if, encode.shape_of(source, pack, _crop(piece, source)),
        pack, sound,
    )  # fmt: skip


def at_rate(pictures: Iterator[Picture], start_s: float, fps: Fraction, count: int) -> Iterator[Picture]:
    """Yield `count` pictures at a constant rate from `start_s` on, each the one whose time is nearest.

    Args:
        pictures: Pictures with rising times, from some before `start_s` on.
        start_s: When the first is shown.
        fps: Frames a second.
        count: How many at most. The last picture is shown to its end and half a frame beyond, which is rounding.
    """
    made, held = 0, None
    for picture in pictures:
        while held is not None and made < count:
            at_s = start_s + float(made / fps)
            if at_s - held.time_s > picture.time_s - at_s:
                break
            yield _shown(held, at_s, fps)
            made += 1
        if made == count:
            return
        held = picture
    while held is not None and made < count:
        at_s = start_s + float(made / fps)
        if at_s > held.time_s + held.duration_s + float(1 / fps) / 2:
            return  # more was promised than there is
        yield _shown(held, at_s, fps)
        made += 1


def _shown(picture: Picture, at_s: float, fps: Fraction) -> Picture:
    picture.frame.time_base = Fraction(1, fps.numerator)  # in which every frame of this rate has a whole number
    return replace(picture, time_s=at_s, duration_s=float(1 / fps))
