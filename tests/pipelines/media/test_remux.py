"""Claims about copied clips: the source's own pictures at their own times, or none where that would be inexact."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import decode, remux
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode

WHOLE = (0.0, 0.0, 0.0, 0.0)
PACK = PackConfig(copy_codecs=["h264", "hevc", "av1", "vp9"])
CLOSED = "keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0:open-gop=0"


def film(path: Path, params: str = CLOSED, frames: int = 96, size: tuple[int, int] = (96, 64)) -> dict[str, Any]:
    """Write a moving pattern at 24 fps with a key frame each second; return the source's row."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0] + frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=24, options={"preset": "ultrafast", "x264-params": params})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            shown = np.ascontiguousarray(noise[:, number : number + size[0]])
            out.mux(video.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        out.mux(video.encode(None))
    return room.probe(str(path), ScanConfig())


def pixels(pictures: Iterator[decode.Picture]) -> list[bytes]:
    return [picture.frame.to_ndarray().tobytes() for picture in pictures]


def of_source(row: dict[str, Any], start_s: float, end_s: float) -> list[bytes]:
    return pixels(decode.pictures(row["uri"], row, start_s - 0.0006, end_s - 0.0006, warm_s=0.0))


def of_clip(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data)) as clip:
        return [frame.to_ndarray().tobytes() for frame in clip.decode(video=0)]


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (1.0, 3.0), (2.0, math.inf)])
def test_between_key_frames_the_pictures_are_the_sources_to_the_bit(
    tmp_path: Path, start_s: float, end_s: float
) -> None:
    row = film(tmp_path / "a.mp4")
    data, info = encode.cut(row["uri"], row, start_s, end_s, PACK, WHOLE)
    assert info["copied"] and info["frames"] == round((min(end_s, 4.0) - start_s) * 24)
    assert info["duration_s"] == pytest.approx(min(end_s, 4.0) - start_s)
    assert of_clip(data) == of_source(row, start_s, end_s)
    with av.open(io.BytesIO(data)) as clip:
        assert [round((frame.time or 0) * 24) for frame in clip.decode(video=0)] == list(range(info["frames"]))
        assert not {"creation_time", "encoder"} & (set(clip.metadata) | set(clip.streams.video[0].metadata))
    assert data.index(b"moov") < data.index(b"mdat")
    assert data == encode.cut(row["uri"], row, start_s, end_s, PACK, WHOLE)[0]


@pytest.mark.parametrize(
    ("params", "start_s", "end_s"),
    [
        (CLOSED, 0.5, 2.0),  # begins between key frames
        (CLOSED, 0.0, 1.25 + 2 / 24),  # the last B-frames refer to a picture after the end
        (CLOSED.replace("open-gop=0", "open-gop=1"), 1.0, 2.0),  # leading pictures refer back
        ("keyint=24:min-keyint=24:scenecut=0:intra-refresh=1:bframes=0", 1.0, 2.0),  # no picture refreshes all
    ],
)
def test_what_cannot_be_copied_exactly_is_encoded(tmp_path: Path, params: str, start_s: float, end_s: float) -> None:
    row = film(tmp_path / "a.mp4", params)
    assert remux.copy(row["uri"], row, start_s, end_s, audio=False) is None
    data, info = encode.cut(row["uri"], row, start_s, end_s, PACK, WHOLE)
    assert not info["copied"] and len(of_clip(data)) == info["frames"] == round((end_s - start_s) * 24)


def test_a_copy_may_end_wherever_no_later_picture_is_needed(tmp_path: Path) -> None:
    row = film(tmp_path / "a.mp4", CLOSED.replace("bframes=3", "bframes=0"))
    for frames in (1, 13, 31):
        copied = remux.copy(row["uri"], row, 1.0, 1.0 + frames / 24, audio=False)
        assert copied is not None and (copied.frames, copied.duration_s) == (frames, pytest.approx(frames / 24))
        assert of_clip(copied.data) == of_source(row, 1.0, 1.0 + frames / 24)


@pytest.mark.parametrize(
    ("pack", "crop", "change"),
    [
        (PackConfig(copy="never"), WHOLE, {}),
        (PackConfig(codec="hevc"), WHOLE, {}),
        (PackConfig(max_side_px=32), WHOLE, {}),
        (PackConfig(), (0.0, 0.25, 0.0, 0.25), {}),
        (PackConfig(), WHOLE, {"rotation_deg": 90, "width": 64, "height": 96}),
        (PackConfig(), WHOLE, {"sample_aspect": 1.333, "width": 128}),
        (PackConfig(), WHOLE, {"pixel_format": "yuv444p"}),
    ],
)
def test_whatever_must_be_changed_is_encoded(
    tmp_path: Path, pack: PackConfig, crop: encode.Crop, change: dict[str, Any]
) -> None:
    row = film(tmp_path / "a.mp4")
    assert encode.cut(row["uri"], row, 0.0, 1.0, PackConfig(), WHOLE)[1]["copied"]
    assert not encode.cut(row["uri"], row | change, 0.0, 1.0, pack, crop)[1]["copied"]


def test_a_codec_other_than_the_shards_own_is_copied_only_where_it_is_listed(footage: Path) -> None:
    path = str(footage / "mediabunny__frames.webm")
    row = room.probe(path, ScanConfig())
    assert encode.cut(path, row, 0.0, 1.0, PACK, WHOLE)[1] | {"fps": 0} == {
        "width": row["width"], "height": row["height"], "fps": 0, "frames": 30, "duration_s": 1.0, "codec": "vp9",
        "copied": True, "has_audio": False, "color_space": "bt709", "color_range": "tv", "hdr": False,
    }  # fmt: skip
    assert not encode.cut(path, row, 0.0, 1.0, PackConfig(), WHOLE)[1]["copied"]


FILMS = [
    "PySceneDetect__testvideo.mp4", "media__hdr10-av1.mp4", "moviepy__smpte-2997.mp4",
    "shared-assets__flower-fragmented.mp4", "mediabunny__frames.webm", "sample-videos__help.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_real_footage_is_copied_exactly_or_not_at_all(footage: Path, name: str) -> None:
    path = str(footage / name)
    row = room.probe(path, ScanConfig())
    with av.open(path) as container:
        packets = container.demux(room.video_stream(container))
        starts = [float(p.pts * p.time_base) - row["start_s"] for p in packets if p.is_keyframe and p.pts is not None]
    starts = sorted(start for start in starts if start < 6)[:3]
    for start_s, end_s in pairwise([*starts, starts[-1] + 1]):
        copied = remux.copy(path, row, start_s, end_s, audio=False)
        assert copied is None or of_clip(copied.data) == of_source(row, start_s, end_s), (start_s, end_s)


def test_a_damaged_stretch_is_not_copied(footage: Path) -> None:
    for name in ("decord__corrupted.mp4", "media__sample_with_invalid_nalu.mp4"):
        path = str(footage / name)
        assert remux.copy(path, room.probe(path, ScanConfig()), 0.0, math.inf, audio=False) is None
