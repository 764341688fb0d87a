"""Claims about decoding: whatever the borders of a span, its pictures are those of the whole; losses are named."""

from __future__ import annotations

import io
import math
import pickle
import zlib
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import decode
from rushes.pipelines.media import footage as room

SCAN = ScanConfig()
Shown = list[tuple[float, float, int]]


def film(path: Path, times: list[int], codec: str = "libx264", gop: int = 12, **options: str) -> Path:
    """Write pictures of a moving square at the given timestamps in milliseconds."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options={"preset": "veryfast", "threads": "1"} | options)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.gop_size = gop
        video.codec_context.time_base = Fraction(1, 1000) if codec == "libx264" else Fraction(1, 25)
        for number, time in enumerate(times):
            pixels = np.full((64, 96, 3), 40 + number % 7, np.uint8)
            pixels[10:30, (number * 5) % 70 : (number * 5) % 70 + 20] = 200
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = (time, Fraction(1, 1000)) if codec == "libx264" else (number, Fraction(1, 25))
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def shown(path: Path, row: Mapping[str, Any], *span: float, warm_s: float = 0.0) -> Shown:
    found = decode.pictures(str(path), row, *span, warm_s=warm_s)
    return [(p.time_s, p.duration_s, zlib.adler32(p.frame.to_ndarray())) for p in found]


STEADY = list(range(0, 6000, 40))
UNSTEADY = [0, 10, 50, 400, 410, 1500, 1540, 1580, 2900, 2910, 3000, 3700, 3900, 4000, 4040, 4800, 5000]


@pytest.mark.parametrize(
    ("suffix", "times", "how"),
    [
        ("mp4", STEADY, {"x264-params": "bframes=3:b-adapt=0:open-gop=1"}),
        ("mp4", STEADY, {"gop": 1000}),
        ("mkv", STEADY, {"x264-params": "bframes=3:open-gop=1"}),
        ("mkv", UNSTEADY, {}),
        ("ts", STEADY, {"x264-params": "bframes=2"}),
        ("mp4", STEADY, {"x264-params": "intra-refresh=1:bframes=0"}),
        ("avi", STEADY, {"codec": "mpeg4"}),
        ("mpg", STEADY, {"codec": "mpeg2video", "bf": "2", "b": "900000"}),
        ("h264", STEADY, {"x264-params": "bframes=0"}),
    ],
    ids=[
        "open-gop",
        "one-key-frame",
        "matroska",
        "variable-rate",
        "transport-stream",
        "intra-refresh",
        "avi",
        "mpeg2",
        "raw",
    ],
)
def test_spans_joined_are_the_whole_whatever_their_borders(
    tmp_path: Path, suffix: str, times: list[int], how: dict[str, Any]
) -> None:
    path = film(tmp_path / f"a.{suffix}", times, **how)
    row = room.probe(str(path), SCAN)
    whole = shown(path, row)
    assert len(whole) == len(times) and whole[0][0] == 0
    for borders in ([0, 1.3, 2.9, 4.1, math.inf], [0, 0.04, 2.88, 3.0, 3.0004, math.inf]):
        joined = [picture for start, end in pairwise(borders) for picture in shown(path, row, start, end)]
        assert joined == whole


def test_warm_up_yields_the_second_before(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", STEADY)
    times = [p[0] for p in shown(path, room.probe(str(path), SCAN), 3.0, 3.2, warm_s=1.0)]
    assert times[0] == pytest.approx(2.0) and times[-1] == pytest.approx(3.16)


def test_real_files_of_every_container_tile_exactly(footage: Path) -> None:
    names = [
        "shared-assets__flower-fragmented.mp4",
        "mediabunny__edts.mp4",
        "p5.js-website__small.ogv",
        "sample-videos__yes.mkv",
        "learning-area__rabbit320.webm",
        "torchcodec__nasa_13013.mp4",
    ]
    for name in names:
        row = room.probe(str(footage / name), SCAN)
        whole = shown(footage / name, row)
        parts = [p for span in pairwise([0.0, 1.1, 2.0, math.inf]) for p in shown(footage / name, row, *span)]
        assert parts == whole, name
        assert sum(p[1] for p in whole) == pytest.approx(row["duration_s"], abs=0.05), name


def test_a_cut_file_yields_what_is_sound_and_names_the_rest(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", STEADY)
    row = room.probe(str(path), SCAN)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    good: Shown = []
    with pytest.raises(decode.DecodeError) as caught:
        for p in decode.pictures(str(path), row):
            good.append((p.time_s, p.duration_s, 0))
    error = caught.value
    assert error.code == "truncated" and 1 < len(good) < len(STEADY) and error.remedy
    assert error.at_s == pytest.approx(sum(p[1] for p in good)) and error.at_s + error.lost_s == pytest.approx(
        row["duration_s"]
    )
    assert pickle.loads(pickle.dumps(error)).lost == error.lost
    with pytest.raises(decode.DecodeError) as later:
        list(decode.pictures(str(path), row, 5.0, math.inf))
    assert later.value.lost == ((5.0, row["duration_s"]),), "a span beyond the end counts its own seconds only"


def test_a_broken_packet_costs_its_group_of_pictures_and_no_more(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", STEADY, gop=25, **{"x264-params": "bframes=0:scenecut=0"})
    row, whole = room.probe(str(path), SCAN), []
    whole = shown(path, row)
    with av.open(str(path)) as container:
        bad = next(p for p in container.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 2.2)
        at, size, time_s = bad.pos, bad.size, float(bad.pts * bad.time_base)
    data = bytearray(path.read_bytes())
    data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    good = []
    with pytest.raises(decode.DecodeError) as caught:
        for p in decode.pictures(str(path), row):
            good.append((p.time_s, p.duration_s, zlib.adler32(p.frame.to_ndarray())))
    (lost,) = caught.value.lost
    assert caught.value.code == "damaged" and lost[0] <= time_s and lost[1] == pytest.approx(3.0)
    assert {(p[0], p[2]) for p in good} <= {(p[0], p[2]) for p in whole}, "no smeared picture is passed on"
    assert sum(p[1] for p in good) + caught.value.lost_s == pytest.approx(row["duration_s"])


@pytest.mark.parametrize(
    ("name", "pictures"),
    [
        ("decord__corrupted.mp4", 28),
        ("media__sample_with_invalid_nalu.mp4", 26),
        ("derived__truncated_60pct.mp4", 175),
        ("derived__truncated_40pct.webm", 138),
    ],
)
def test_the_labelled_broken_files_give_their_good_part(footage: Path, name: str, pictures: int) -> None:
    row, count = room.probe(str(footage / name), SCAN), 0
    with pytest.raises(decode.DecodeError) as caught:
        for _ in decode.pictures(str(footage / name), row):
            count += 1
    assert count == pictures and caught.value.lost


def grey(value: int, fmt: str) -> av.VideoFrame:
    deep = 4 if fmt.endswith("10le") else 1
    frame = av.VideoFrame(64, 48, fmt)
    for number, plane in enumerate(frame.planes):
        level = (128 if number else value) * deep
        plane.update(np.full(plane.buffer_size // (2 if deep > 1 else 1), level, "<u2" if deep > 1 else "u1").tobytes())
    return frame


SQUARE = {"width": 64, "height": 48, "rotation_deg": 0, "hdr": False}


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "nv12"])
def test_studio_black_and_white_become_0_and_255_in_every_format(fmt: str) -> None:
    for value, wanted in ((16, 0), (235, 255), (126, 128)):
        luma, bgr = decode.small(grey(value, fmt), 32, SQUARE)
        assert luma.shape == (24, 32) and bgr.shape == (12, 16, 3)
        assert (
            abs(int(luma.mean()) - wanted) <= 1 and np.abs(bgr.astype(int) - wanted).max() <= 3
        )  # deep formats are dithered


def test_full_range_is_left_as_it_is() -> None:
    assert decode.small(grey(200, "yuvj420p"), 32, SQUARE)[0].mean() == 200


def test_small_colours_are_those_of_a_full_conversion(bunny: Path) -> None:
    row = room.probe(str(bunny), SCAN)
    frame = next(decode.pictures(str(bunny), row, 2.0)).frame
    luma, bgr = decode.small(frame, 128, row)
    full = cv2.resize(frame.to_ndarray(format="bgr24"), (128, 72), interpolation=cv2.INTER_AREA)
    half = cv2.resize(full, (64, 36), interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - bgr).mean() < 4
    assert np.abs(cv2.cvtColor(full, cv2.COLOR_BGR2GRAY).astype(int) - luma).mean() < 4


def test_pictures_are_turned_upright() -> None:
    frame = grey(16, "yuv420p")
    pixels = np.full((48, 64), 16, np.uint8)
    pixels[:24, :32] = 235  # top left before turning
    frame.planes[0].update(np.pad(pixels, ((0, 0), (0, frame.planes[0].line_size - 64))).tobytes())
    for turn, corner in ((0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))):
        wide, high = (48, 64) if turn in {90, 270} else (64, 48)
        row = {"width": wide, "height": high, "rotation_deg": turn, "hdr": False}
        luma, bgr = decode.small(frame, 32, row)
        assert luma[corner] == 255 and (luma == 255).mean() == pytest.approx(0.25, abs=0.06)
        image = decode.rgb(frame, row, 48)
        assert image.shape[:2] == ((48, 36) if turn in {90, 270} else (36, 48)) and image[corner].min() > 250
        assert bgr.shape[:2] == (luma.shape[0] // 2, luma.shape[1] // 2)


@pytest.mark.parametrize(
    ("fmt", "size"), [("yuv420p", (640, 480)), ("yuv420p10le", (720, 1280)), ("yuv444p", (1366, 768))]
)
def test_a_large_picture_is_shrunk_to_its_area_averages(fmt: str, size: tuple[int, int]) -> None:
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 60 * np.sin(x / width * 40) + 40 * np.sin(y / height * 30)
    frame = av.VideoFrame.from_ndarray(np.repeat(waves[..., None], 3, axis=2).astype(np.uint8), "rgb24").reformat(
        format=fmt
    )
    row = {"width": width, "height": height, "rotation_deg": 0, "hdr": False}
    luma, bgr = decode.small(frame, 128, row)
    wanted = cv2.resize(waves, luma.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(luma - wanted).mean() < 1.5 and np.abs(luma - wanted).max() < 12
    assert np.abs(bgr - cv2.resize(wanted, bgr.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None]).mean() < 2


def test_an_odd_width_is_as_good_as_any(bunny: Path) -> None:
    row = room.probe(str(bunny), SCAN)
    frame = next(decode.pictures(str(bunny), row, 2.0)).frame
    for width in (17, 33):
        luma, bgr = decode.small(frame, width, row)
        assert bgr.shape[:2] == (luma.shape[0] // 2, width // 2)


def test_hdr_is_brought_to_the_range_of_a_screen(footage: Path) -> None:
    path = str(footage / "media__hdr10-av1.mp4")
    row = room.probe(path, SCAN)
    assert row["hdr"] and row["bit_depth"] == 10
    frame = next(decode.pictures(path, row)).frame
    coded = frame.reformat(90, 160, "rgb24").to_ndarray()
    assert decode.rgb(frame, row, 160).std() > 1.3 * coded.std(), "code values alone look washed out"
    luma, _ = decode.small(frame, 64, row)
    grey = cv2.cvtColor(
        cv2.resize(decode.rgb(frame, row, 160), luma.shape[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    )
    assert np.abs(luma.astype(int) - grey).mean() < 6, "the scan sees about what models see"


def test_stills_decode_again_and_equal_pixels_give_equal_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    data = decode.jpeg(pixels)
    assert data == decode.jpeg(pixels.copy()) and Image.open(io.BytesIO(data)).format == "JPEG"
