"""Odd and broken files, made in code: each gives a correct result or one clear error, and the seconds add up."""

import io
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig, ShotsConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import joined, shots_of
from rushes.pipelines.stages.witness.witness import asked

SCAN = ScanConfig()
SCENE = cv2.resize(np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8), (960, 540))


def pan(count: int, width: int = 320, height: int = 180) -> list[np.ndarray]:
    wide = cv2.resize(SCENE, (2 * width, height))
    return [np.ascontiguousarray(wide[:, 2 * k : 2 * k + width]) for k in range(count)]


def write(path: Path, film: Sequence[np.ndarray], codec: str = "libx264", fmt: str = "yuv420p", **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = film[0].shape[:2]
        stream.pix_fmt = fmt
        for pixels in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "bgr24").reformat(format=fmt)))
        container.mux(stream.encode(None))
    return path


def copied(path: Path, out: Path, skipped_groups: int = 0, **options: str) -> Path:
    """Copy packets, from a later key frame on if asked for, with its leading pictures."""
    with av.open(str(path)) as container, av.open(str(out), "w", options=options) as sink:
        source = container.streams.video[0]
        stream = sink.add_stream_from_template(source)
        keys, first = 0, None
        for packet in container.demux(source):
            keys += packet.is_keyframe and packet.size > 0
            if packet.size and packet.dts is not None and packet.pts is not None and keys > skipped_groups:
                first = packet.dts if first is None else first
                if skipped_groups:
                    packet.pts, packet.dts = packet.pts - first, packet.dts - first
                packet.stream = stream
                sink.mux(packet)
    return out


def looked_at(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return source, signals and errors, after making sure that the seconds of clips and trims add up.

    The witness is asked of whatever was scanned, so its question must not fail either.
    """
    source = {**footage.probe(str(path), SCAN), "wave": 0, "unit": "u"}
    row, _, errors, _ = scan_span(source, 0, 0.0, math.inf, SCAN)
    assert all(0 <= first < end <= row["frames"] for first, end in asked(joined([row]), ShotsConfig()))
    clips, trims = shots_of(source, [row], ShotsConfig(), SCAN)
    total = sum(part["end_s"] - part["start_s"] for part in [*clips, *trims])
    assert total == pytest.approx(row["covered_s"], abs=1e-6)
    assert row["covered_s"] + sum(e["seconds"] for e in errors) == pytest.approx(source["duration_s"], abs=0.05)
    return source, row, errors


def test_an_empty_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(footage.FootageError, match="the file is empty; fetch it again"):
        footage.probe(str(tmp_path / "empty.mp4"), SCAN)


def test_one_and_two_frames_a_single_pixel_and_a_single_colour_are_measured(tmp_path: Path) -> None:
    plain = [np.full((180, 320, 3), 90, np.uint8)] * 50
    pixel = [np.full((1, 1, 3), k, np.uint8) for k in range(30)]
    for path, frames in (
        (write(tmp_path / "one.mp4", pan(1)), 1),
        (write(tmp_path / "two.mp4", pan(2)), 2),
        (write(tmp_path / "pixel.mkv", pixel, "ffv1", "bgr0"), 30),
        (write(tmp_path / "plain.mp4", plain), 50),
    ):
        _, row, errors = looked_at(path)
        assert row["frames"] == frames and not errors


def test_a_single_colour_could_not_be_measured_for_what_needs_a_picture(tmp_path: Path) -> None:
    source, row, _ = looked_at(write(tmp_path / "plain.mp4", [np.full((180, 320, 3), 90, np.uint8)] * 50))
    (clip,), _ = shots_of(source, [row], ShotsConfig(), SCAN)
    assert clip["interlaced"] is None and clip["blockiness"] is None and clip["cadence"] is None
    assert clip["frozen"] == 1.0 and clip["phash"] == []


def test_8k_is_measured_and_more_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "8k.mp4", [np.full((4320, 7680, 3), 90, np.uint8)], preset="ultrafast")
    source, row, errors = looked_at(path)
    assert (source["width"], source["height"], row["frames"]) == (7680, 4320, 1) and not errors
    with pytest.raises(footage.FootageError, match=r"7680×4320, the limit is 4096 a side; raise scan\.max_side_px"):
        footage.probe(str(path), ScanConfig(max_side_px=4096))


def test_size_and_format_may_change_in_the_middle(tmp_path: Path) -> None:
    small = write(tmp_path / "a.h264", pan(40)).read_bytes()
    for name, other in (("b.h264", pan(40, 640, 360)), ("c.h264", pan(40))):
        fmt = "yuv444p" if name == "c.h264" else "yuv420p"
        (tmp_path / f"both{name}").write_bytes(small + write(tmp_path / name, other, fmt=fmt).read_bytes())
        _, row, errors = looked_at(tmp_path / f"both{name}")
        assert row["frames"] == 80 and not errors


@pytest.mark.parametrize("grows", [True, False])
def test_a_clip_behind_a_change_of_size_shows_the_whole_picture(tmp_path: Path, grows: bool) -> None:
    small, large = pan(30), pan(30, 640, 360)
    first, then = (small, large) if grows else (large, small)
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(write(tmp_path / f"{n}.h264", film).read_bytes() for n, film in enumerate((first, then))))
    source, _, _ = looked_at(path)
    data, facts = encode.cut(str(path), source, 0.8, 2.4, PackConfig(), (0.0, 0.0, 0.0, 0.0))
    assert (facts["width"], facts["height"], facts["frames"]) == (*first[0].shape[1::-1], 40)
    with av.open(io.BytesIO(data)) as container:
        shown = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for at, picture in ((0, first[20]), (10, then[0]), (39, then[29])):
        whole = cv2.resize(picture, (160, 90), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(cv2.resize(shown[at], (160, 90), interpolation=cv2.INTER_AREA) - whole).mean() < 10


def test_missing_and_wrapping_timestamps_are_read_whole(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", pan(100), bf="0", g="10")
    wrapped = copied(film, tmp_path / "wrap.ts", output_ts_offset=str((2**33 - 180_000) / 90_000))
    for path, frames in ((write(tmp_path / "none.h264", pan(60)), 60), (wrapped, 100)):
        _, row, errors = looked_at(path)
        assert row["frames"] == frames and not errors
        assert np.diff(row["time_s"]) == pytest.approx(np.full(frames - 1, 0.04), abs=1e-3)


def test_a_clock_that_starts_again_goes_on_and_nothing_is_left_out(tmp_path: Path) -> None:
    once = copied(write(tmp_path / "film.mp4", pan(100), bf="0", g="10"), tmp_path / "once.ts")
    (tmp_path / "twice.ts").write_bytes(once.read_bytes() * 2)
    source, row, errors = looked_at(tmp_path / "twice.ts")
    assert row["frames"] == 200 and not errors and source["duration_s"] == pytest.approx(8.0)
    assert np.diff(row["time_s"]) == pytest.approx(np.full(199, 0.04))


def test_pictures_that_cannot_be_placed_count_as_lost(tmp_path: Path) -> None:
    once = copied(write(tmp_path / "film.mp4", pan(100), bf="0", g="10"), tmp_path / "once.mkv")
    (tmp_path / "twice.mkv").write_bytes(once.read_bytes() * 2)
    source = {**footage.probe(str(tmp_path / "twice.mkv"), SCAN), "wave": 0, "unit": "u"}
    row, _, (error,), _ = scan_span(source, 0, 0.0, math.inf, SCAN)
    assert row["frames"] == 100 and error["code"] == "timestamps" and "at 3.960 s: 100 pictures" in error["reason"]
    assert error["seconds"] == pytest.approx(4.0) and "remux" in error["remedy"]


def test_leading_pictures_of_a_lost_group_are_left_out(tmp_path: Path) -> None:
    options = {"bf": "3", "g": "30", "x264-params": "open-gop=1:scenecut=0"}
    film = write(tmp_path / "open.mkv", pan(120), **options)
    source, row, errors = looked_at(copied(film, tmp_path / "leading.mkv", skipped_groups=1))
    assert Fraction(row["frames"], 25) == pytest.approx(row["covered_s"], abs=1e-3)
    assert row["time_s"][0] == 0 and not errors and source["duration_s"] == pytest.approx(3.6, abs=0.1)
