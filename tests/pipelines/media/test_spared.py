"""Pictures that no other refers to may come without their loop filter; all others are the same to the bit."""

import math
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import decode, footage
from rushes.pipelines.stages.scan import scan

SCAN = ScanConfig()
X265 = "log-level=error:bframes=4:keyint=40:pools=none"
CODINGS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("film.mp4", "libx264", {"bf": "3", "g": "40", "crf": "32", "threads": "1"}),
    "h264, a pyramid": ("film.mkv", "libx264", {"bf": "7", "g": "40", "crf": "32", "x264-params": "b-pyramid=2"}),
    "hevc": ("film.mp4", "libx265", {"crf": "34", "preset": "ultrafast", "x265-params": X265}),
    "hevc, layers": ("film.mp4", "libx265", {"crf": "34", "x265-params": f"{X265}:temporal-layers=2"}),
}
PLAIN: dict[str, tuple[str, str, dict[str, str]]] = {
    "a start code": ("film.ts", "libx264", {"bf": "3"}),
    "another codec": ("film.mp4", "mpeg4", {}),
}


def written(path: Path, codec: str, options: dict[str, str], count: int = 90) -> dict[str, Any]:
    big = cv2.resize(np.random.default_rng(0).integers(0, 255, (18, 60, 3), np.uint8), (960, 288))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 288, "yuv420p"
        for at in range(count):
            noise = np.random.default_rng(at).normal(0, 6, (288, 320, 3))
            pixels = np.clip(big[:, 3 * at : 3 * at + 320] + noise, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "bgr24")))
        container.mux(stream.encode(None))
    return {**footage.probe(str(path), SCAN), "wave": 0, "unit": "u0"}


def pixels(
    row: dict[str, Any], spares: bool, threads: int = 1, start_s: float = 0.0
) -> list[tuple[float, bool, bytes]]:
    found = decode.pictures(row["uri"], row, start_s, math.inf, 0.0, threads, spares)
    return [(p.time_s, p.whole, p.frame.to_ndarray().tobytes()) for p in found]


@pytest.mark.parametrize("name", CODINGS)
def test_whole_pictures_are_the_same_to_the_bit_and_others_are_not(name: str, tmp_path: Path) -> None:
    file, codec, options = CODINGS[name]
    row = written(tmp_path / file, codec, options)
    plain, spared = pixels(row, False), pixels(row, True)
    assert [at for at, _, _ in plain] == [at for at, _, _ in spared] and all(whole for _, whole, _ in plain)
    assert [a for (_, _, a), (_, whole, b) in zip(plain, spared, strict=True) if whole and a != b] == []
    assert 0.2 * len(plain) < sum(a != b for (_, _, a), (_, _, b) in zip(plain, spared, strict=True))
    assert sum(whole for _, whole, _ in spared) > 0.1 * len(plain)
    assert pixels(row, True, threads=2) == spared
    assert pixels(row, True, start_s=1.9) == [found for found in spared if found[0] >= 1.9]


@pytest.mark.parametrize("name", PLAIN)
def test_what_cannot_be_told_is_decoded_whole(name: str, tmp_path: Path) -> None:
    file, codec, options = PLAIN[name]
    row = written(tmp_path / file, codec, options)
    assert pixels(row, True) == pixels(row, False)


@pytest.mark.parametrize("name", CODINGS)
def test_models_see_whole_pictures_alone_and_spans_are_one_pass(name: str, tmp_path: Path) -> None:
    file, codec, options = CODINGS[name]
    row = written(tmp_path / file, codec, options)
    whole = {at for at, is_whole, _ in pixels(row, True) if is_whole}
    one = scan.scan_span(row, 0, 0.0, math.inf, SCAN)
    shown = [frame["time_s"] for frame in one[1]]
    assert len(shown) == 8 and set(shown) <= whole
    assert all(0 <= at - k / SCAN.candidate_hz <= scan.WAIT_S + 0.04 for k, at in enumerate(shown))
    parts = [scan.scan_span(row, k, 0.7 * k, 0.7 * (k + 1) if k < 5 else math.inf, SCAN) for k in range(6)]
    assert [frame for part in parts for frame in part[1]] == one[1]
    assert np.array_equal(np.concatenate([part[0]["sharpness"] for part in parts]), one[0]["sharpness"], equal_nan=True)


def test_where_no_picture_is_whole_for_long_one_that_is_not_is_shown(tmp_path: Path) -> None:
    """A candidate must come, or a clip could not be scored."""
    options = {"bf": "16", "g": "250", "crf": "32", "x264-params": "b-adapt=0:b-pyramid=0:scenecut=0"}
    row = written(tmp_path / "film.mp4", "libx264", options)
    whole = {at for at, is_whole, _ in pixels(row, True) if is_whole}
    shown = [frame["time_s"] for frame in scan.scan_span(row, 0, 0.0, math.inf, SCAN)[1]]
    assert len(shown) == 8 and len(set(shown) - whole) > 0
    assert all(at in whole or at - k / SCAN.candidate_hz >= scan.WAIT_S for k, at in enumerate(shown))
