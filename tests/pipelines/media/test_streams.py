"""Claims about streams: the footage is the best one, whatever stands first, and a picture beside it never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import decode
from rushes.pipelines.media import footage as room
from tests.pipelines.media.odd import add, frames, other, sound

SCAN = ScanConfig()
Wanted = tuple[str, tuple[int, int], int, Disposition]
"""Codec, size, pictures and flags of a stream."""
PLAIN, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic


def several(path: Path, *wanted: Wanted, tone: bool = False) -> Path:
    """Write streams of pictures one after another, each of another view."""
    with av.open(str(path), "w") as out:
        made: list[Any] = []
        for codec, size, _, flags in wanted:
            made.append(add(out, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", size, 25))
            made[-1].disposition = flags
        audio = out.add_stream("aac", rate=16_000, layout="mono") if tone else None
        for stream, (_, size, count, _) in zip(made, wanted, strict=True):
            for frame in frames(count, stream.pix_fmt, size, other):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if audio is not None:
            for heard in sound(1.0):
                out.mux(audio.encode(heard))
            out.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    ("streams", "size", "count"),
    [
        ([("mpeg4", (64, 48), 25, PLAIN), ("libx264", (128, 96), 25, PLAIN)], (128, 96), 25),
        ([("mpeg4", (64, 48), 25, DEFAULT), ("libx264", (128, 96), 25, PLAIN)], (64, 48), 25),
        ([("libx264", (128, 96), 25, PLAIN), ("mpeg4", (64, 48), 25, DEFAULT)], (64, 48), 25),
        ([("libx264", (64, 48), 25, PLAIN), ("libx264", (64, 48), 50, PLAIN)], (64, 48), 50),
        ([("mjpeg", (320, 240), 1, PLAIN), ("libx264", (64, 48), 25, PLAIN)], (64, 48), 25),
        ([("mjpeg", (320, 240), 1, DEFAULT), ("libx264", (64, 48), 25, PLAIN)], (64, 48), 25),
        ([("mjpeg", (320, 240), 1, COVER), ("libx264", (64, 48), 25, PLAIN)], (64, 48), 25),
        ([("mjpeg", (320, 240), 25, PLAIN), ("libx264", (64, 48), 25, PLAIN)], (320, 240), 25),
    ],
    ids=["largest", "default", "default-later", "longest", "thumbnail", "default-thumbnail", "cover", "motion-jpeg"],
)
@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_the_best_stream_is_the_footage(
    tmp_path: Path, suffix: str, streams: list[Wanted], size: tuple[int, int], count: int
) -> None:
    path = several(tmp_path / f"a.{suffix}", *streams)
    if suffix == "mov" and DEFAULT in {flags for *_, flags in streams}:
        size = max(wanted[1] for wanted in streams if wanted[2] > 1)  # where the flag means nothing
    row = room.probe(str(path), SCAN)
    assert (row["width"], row["height"]) == size
    shown = [(p.frame.width, p.frame.height) for p in decode.pictures(str(path), row)]
    assert shown == [size] * count


def test_a_cover_beside_sound_is_no_footage(tmp_path: Path) -> None:
    for suffix in ("mkv", "mov"):
        for flags in (PLAIN, COVER):
            path = several(tmp_path / f"a.{suffix}", ("mjpeg", (64, 48), 1, flags), tone=True)
            with pytest.raises(room.FootageError, match=r"holds (a picture beside it, )?audio but no video"):
                room.probe(str(path), SCAN)
