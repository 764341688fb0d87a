"""A folder of bad files beside a good one: each fails by its name, or is read, and none stops another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rushes.pipelines.config import CurateConfig, ShotsConfig
from rushes.pipelines.engine import cluster, curate
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import accounting, summary
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.engine.test_bad_input import copied, pan, write

CONFIG = CurateConfig(shots=ShotsConfig(witness="none"))
NOTHING = {"empty", "not_video", "no_index", "no_video_stream"}
"""Codes of what is no footage at all; whatever fails otherwise is read as far as it is sound."""
BROKEN = {
    "decord__corrupted.mp4": "damaged",
    "decord__unordered.mov": "",
    "derived__text_named.mp4": "not_video",
    "derived__truncated_40pct.webm": "truncated",
    "derived__truncated_60pct.mp4": "damaged",
    "derived__webm_named.mp4": "",
    "media__sample_audio_only.mp4": "no_video_stream",
    "media__sample_with_invalid_nalu.mp4": "damaged",
    "mediabunny__edts.mp4": "",
    "mediabunny__multiple-aac-tracks.mp4": "no_video_stream",
    "moviepy__-video-with-dash-.mp4": "",
    "moviepy__result.webm": "empty",
    "shaka-player__s1.mp4": "no_index",
    "streamio-ffmpeg__broken.mp4": "no_index",
}
"""How each odd file of the labelled footage fails; empty where it can be read."""


@pytest.fixture(scope="module", autouse=True)
def ray_stops() -> Iterator[None]:
    yield
    cluster.stop()


def made(folder: Path, spare: Path) -> dict[str, str]:
    """Write bad files of every kind that code can make; return how each fails, empty where it can be read."""
    film, random = write(spare / "film.mp4", pan(100), bf="0", g="10"), np.random.default_rng(0)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 50)
    (folder / "noise.mkv").write_bytes(random.bytes(5000))
    (folder / "headless.mp4").write_bytes(film.read_bytes().split(b"moov")[0][:-4])
    whole = write(spare / "cut.mkv", pan(100), bf="0", g="10").read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "twice.ts").write_bytes(copied(film, spare / "once.ts").read_bytes() * 2)
    copied(film, folder / "wrap.ts", output_ts_offset=str((2**33 - 180_000) / 90_000))
    small, large = write(spare / "s.h264", pan(40)), write(spare / "l.h264", pan(40, 640, 360))
    (folder / "grows.h264").write_bytes(small.read_bytes() + large.read_bytes())
    write(folder / "two.mp4", pan(2))
    write(folder / "pixel.mkv", [np.full((1, 1, 3), k, np.uint8) for k in range(30)], "ffv1", "bgr0")
    write(folder / "plain.mp4", [np.full((180, 320, 3), 90, np.uint8)] * 50)
    late = write(spare / "open.mkv", pan(120), bf="3", g="30", **{"x264-params": "open-gop=1:scenecut=0"})
    copied(late, folder / "leading.mkv", skipped_groups=1)
    fails = {"empty.mp4": "empty", "text.mp4": "not_video", "noise.mkv": "not_video", "headless.mp4": "no_index",
             "cut.mkv": "truncated"}  # fmt: skip
    return {path.name: fails.get(path.name, "") for path in folder.iterdir()}


def check(folder: Path, run: str, expected: dict[str, str]) -> None:
    """Curate a folder and its good file, and look for every file in the ledger."""
    curate.curate([str(folder)], run, CONFIG, through="shots", reporter=Reporter(live=False))
    failures = summary.of(run)["failures"]
    assert {Path(row["uri"]).name: row["code"] for row in failures} == {n: code for n, code in expected.items() if code}
    for row in failures:
        assert row["reason"] and row["remedy"] and "unexpected" not in row["remedy"], row
    account = accounting.account(run)
    account.check()
    assert account.inputs == len(expected) + 1
    sources = {row["source_id"]: Path(row["uri"]).name for row in Ledger(run).read("sources").to_pylist()}
    scanned = set(Ledger(run).read("signals", ["source_id"])["source_id"].to_pylist())
    assert {sources[one] for one in scanned} == {n for n in expected if expected[n] not in NOTHING} | {"good.mp4"}


def test_bad_files_fail_by_name_and_stop_nothing_else(bikes: Path, tmp_path: Path) -> None:
    folder, spare = tmp_path / "in", tmp_path / "spare"
    folder.mkdir(), spare.mkdir()
    expected = made(folder, spare)
    shutil.copy(bikes, folder / "good.mp4")
    check(folder, str(tmp_path / "run"), expected)


def test_the_broken_files_of_the_footage_fail_by_name_and_stop_nothing_else(
    footage: Path, bikes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in BROKEN:
        shutil.copy(footage / name, folder / name)
    shutil.copy(bikes, folder / "good.mp4")
    check(folder, str(tmp_path / "run"), BROKEN)
