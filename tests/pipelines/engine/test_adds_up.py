"""Broken films, made in code: what is decoded and what is named as lost add up to the film, whatever is broken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.media import footage
from rushes.pipelines.report.accounting import account
from rushes.pipelines.stages.scan.scan import scan_span
from tests.pipelines.engine.test_bad_input import SCAN, looked_at, pan, write

FRAMES = 100


def packets(path: Path) -> list[tuple[int, int]]:
    """Return place and size in the file of each video packet, in the order of the file."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]


def broken(path: Path, which: Sequence[tuple[int, int]]) -> Path:
    """Overwrite the middle of some packets with noise."""
    data, dice = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place, size in which:
        data[place + size // 4 : place + size // 2] = dice.bytes(size // 2 - size // 4)
    path.write_bytes(bytes(data))
    return path


def with_sound(path: Path, out: Path, seconds: float) -> Path:
    """Copy a film beside a tone of so many seconds."""
    with av.open(str(path)) as container, av.open(str(out), "w") as sink:
        source = container.streams.video[0]
        video, audio = sink.add_stream_from_template(source), sink.add_stream("aac", rate=16_000, layout="mono")
        for packet in container.demux(source):
            if packet.size:
                packet.stream = video
                sink.mux(packet)
        for at in range(0, int(seconds * 16_000), 1024):
            tone = np.sin(np.arange(at, at + 1024) / 9).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, at
            sink.mux(audio.encode(frame))
        sink.mux(audio.encode(None))
    return out


def test_pictures_that_are_spoilt_at_the_very_end_are_lost_though_their_packets_are_there(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", pan(FRAMES), g="12", bf="0")
    _, row, errors = looked_at(broken(film, packets(film)[-16:]))
    assert row["frames"] < FRAMES and [error["code"] for error in errors] == ["damaged"]


def test_a_broken_film_that_ends_before_its_header_says_lost_its_end_even_if_its_sound_goes_on(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", pan(FRAMES), g="12", bf="0")
    film = with_sound(silent, tmp_path / "film.mp4", 6.0)
    source = {**footage.probe(str(broken(film, packets(film)[40:42])), SCAN), "wave": 0, "unit": "u", "duration_s": 6.0}
    row, _, (error,), _ = scan_span(source, 0, 0.0, math.inf, SCAN)
    assert row["covered_s"] < 4.0 and error["seconds"] > 2.0
    assert row["covered_s"] + error["seconds"] == pytest.approx(6.0, abs=1e-3)


def test_a_stretch_that_stands_twice_in_the_file_is_neither_counted_twice_nor_missing(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mkv", pan(FRAMES), g="12", bf="0")
    data, found = film.read_bytes(), packets(film)
    for first, last in ((5, 10), (23, 28), (41, 61)):
        begin, end = found[first][0] + 7, found[last][0] + 11
        film.write_bytes(data[:end] + data[begin:end] + data[end : found[-8][0]])  # and its end is missing
        _, row, errors = looked_at(film)
        assert 80 < row["frames"] < FRAMES and [error["code"] for error in errors] == ["damaged"]


def test_the_odd_files_are_used_as_far_as_they_are_sound_and_the_run_ends_well(
    tmp_path: Path, one_process: None, request: pytest.FixtureRequest
) -> None:
    odd = Path(__file__).parents[3].parent / "shared" / "odd"
    films = sorted(path for path in odd.glob("*") if path.suffix in (".mp4", ".mkv"))
    if not films:
        pytest.skip("the odd files are not here")
    run = str(tmp_path / "run")
    assert main(["curate", *map(str, films), "--out", run, "--through", "shots"]) == 3
    found = account(run)
    found.check()
    assert found.input_s == pytest.approx(3.0 + 9.0 + 2.167, abs=1e-3)
    assert {entry.reason for entry in found.entries if entry.fate == "failed"} == {"damaged"}
