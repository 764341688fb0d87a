import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from rushes.filters.shots import boundaries
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.media import decode, footage
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import joined, shots_of
from rushes.pipelines.store import ledger

SCAN, SHOTS = ScanConfig(), ShotsConfig()


def source_of(path: Path, scan: ScanConfig = SCAN) -> dict[str, Any]:
    return {**footage.probe(str(path), scan), "wave": 0, "unit": "u0"}


def scanned(source: dict[str, Any], edges: list[float], scan: ScanConfig = SCAN) -> list[tuple[dict, list, list]]:
    ends = [*edges[1:], math.inf]
    return [scan_span(source, k, a, b, scan)[:3] for k, (a, b) in enumerate(zip(edges, ends, strict=True))]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds with B-frames, long GOPs, uneven frame times and cuts at 2 s and 4.4 s."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    big = [cv2.resize(np.random.default_rng(k).integers(0, 255, (9, 40, 3), np.uint8), (640, 144)) for k in range(3)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "60", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        time_ms = 0
        for at in range(150):
            shot = 0 if time_ms < 2000 else 1 if time_ms < 4400 else 2
            pixels = np.ascontiguousarray(big[shot][:, 2 * at : 2 * at + 256])
            frame = av.VideoFrame.from_ndarray(pixels, "bgr24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
            time_ms += 40 if at % 7 else 80
        container.mux(stream.encode(None))
    return path


def same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@pytest.mark.parametrize("length_s", [0.7, 3.0])
def test_spans_joined_are_one_pass_exactly(film: Path, bikes: Path, length_s: float) -> None:
    for path in (film, bikes) if length_s == 3.0 else (film,):
        source = source_of(path)
        whole = scanned(source, [0.0])
        parts = scanned(source, list(np.arange(0, source["duration_s"], length_s)))
        one, many = joined([whole[0][0]]), joined([row for row, _, _ in parts])
        assert one.keys() == many.keys()
        assert [name for name in one if not same(one[name], many[name])] == []
        assert whole[0][1] == [frame for _, frames, _ in parts for frame in frames]
        assert sum(row["covered_s"] for row, _, _ in parts) == pytest.approx(whole[0][0]["covered_s"], abs=1e-6)
        assert shots_of(source, [row for row, _, _ in parts], SHOTS, SCAN) == shots_of(
            source, [whole[0][0]], SHOTS, SCAN
        )


def test_cuts_of_a_film_with_uneven_frame_times_are_times_not_frame_numbers(film: Path) -> None:
    ((row, _, errors),) = scanned(source_of(film), [0.0])
    cuts = [b.start_s for b in boundaries(joined([row]), SHOTS)]
    assert not errors
    assert cuts == pytest.approx([2.0, 4.4], abs=0.081)
    assert all(cut in row["time_s"] for cut in cuts)


def test_a_span_is_decoded_once(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    pictures: Callable[..., Any] = decode.pictures
    monkeypatch.setattr(decode, "pictures", lambda *args: calls.append(args) or pictures(*args))
    scan_span(source_of(film), 0, 0.0, math.inf, SCAN)
    scan_span(source_of(film), 1, 3.0, math.inf, SCAN)
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["derived__truncated_60pct.mp4", "media__sample_with_invalid_nalu.mp4"])
def test_threads_change_no_number_even_of_a_damaged_file(footage: Path, name: str) -> None:
    source = source_of(footage / name)
    one, two = (scan_span(source, 0, 0.0, math.inf, SCAN, threads) for threads in (1, 2))
    assert [key for key in one[0] if not same(one[0][key], two[0][key])] == []
    assert one[1:] == two[1:]


def test_a_picture_shown_for_long_before_a_span_is_looked_for_further_back(tmp_path: Path) -> None:
    path = tmp_path / "slides.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 72, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for at, time_ms in enumerate([0, 3000, 6000, 9000]):
            frame = av.VideoFrame.from_ndarray(np.full((72, 128, 3), 60 * at, np.uint8), "bgr24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = source_of(path)
    one = joined([row for row, _, _ in scanned(source, [0.0])])
    many = joined([row for row, _, _ in scanned(source, [0.0, 5.0, 8.0])])
    assert [name for name in one if not same(one[name], many[name])] == []


def test_ticks_and_candidates_do_not_depend_on_the_frame_rate(bunny: Path) -> None:
    ((row, frames, _),) = scanned(source_of(bunny), [0.0])
    assert len(row["tick_s"]) == pytest.approx(6 * row["covered_s"], abs=1)
    assert len(frames) == pytest.approx(2 * row["covered_s"], abs=1)
    assert all(frame["jpeg"][:3] == b"\xff\xd8\xff" for frame in frames)
    assert row["frames"] == 132 == len(row["content"])


def test_rows_fit_the_ledger(film: Path) -> None:
    source = source_of(film)
    ((row, frames, errors),) = scanned(source, [0.0])
    clips, trims = shots_of(source, [row], SHOTS, SCAN)
    for table, rows in {"signals": [row], "frames": frames, "errors": errors, "clips": clips, "trims": trims}.items():
        assert ledger.to_table(table, rows).num_rows == len(rows)
    stored = ledger.to_table("signals", [row]).to_pylist()
    assert shots_of(source, stored, SHOTS, SCAN) == (clips, trims)


def test_a_damaged_file_gives_what_is_sound_and_says_what_is_lost(footage: Path) -> None:
    source = source_of(footage / "derived__truncated_60pct.mp4")
    ((row, _, (error,)),) = scanned(source, [0.0])
    assert row["covered_s"] > 5 and error["seconds"] > 3
    assert row["covered_s"] + error["seconds"] == pytest.approx(source["duration_s"], abs=0.1)
    assert error["code"] and error["reason"] and error["remedy"] and error["stage"] == "scan"


def test_a_file_that_went_away_is_an_error_row(film: Path, tmp_path: Path) -> None:
    source = {**source_of(film), "uri": str(tmp_path / "gone.mp4")}
    ((row, frames, (error,)),) = scanned(source, [0.0])
    assert row["frames"] == 0 and row["covered_s"] == 0 and not frames
    assert error["code"] == "missing" and error["seconds"] == pytest.approx(source["duration_s"])


def test_cuts_of_edited_films_are_found(footage: Path) -> None:
    labels = json.loads((footage / "labels.json").read_text())["files"]
    right = wrong = missed = 0
    for name in ("cosmos-curate__test_video_30s.mp4", "PySceneDetect__counter.mp4", "torchcodec__nasa_13013.mp4"):
        ((row, _, _),) = scanned(source_of(footage / name), [0.0])
        rate = float(Fraction(labels[name]["probe"]["avg"]))  # of its first stream, which need not be the footage
        truth = [cut["frame"] / rate for cut in labels[name]["cuts"]]
        ranges = [[frame / rate for frame in t["frames"]] for t in labels[name].get("transitions", [])]
        cuts = [b.start_s for b in boundaries(joined([row]), SHOTS) if b.kind == "cut"]
        hits = [cut for cut in cuts if any(abs(cut - t) <= 2.1 / rate for t in truth)]
        right += len(hits)
        wrong += sum(1 for c in cuts if c not in hits and not any(a <= c <= b for a, b in ranges))
        missed += len(truth) - len(hits)
    assert 2 * right / (2 * right + wrong + missed) >= 0.92
