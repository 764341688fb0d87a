"""Claims about clocks that start again: time goes on, nothing is left out, a range is the same wherever it begins."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import clocks, decode
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.store import storage
from tests.pipelines.media.odd import WRAP_S, Pixels, clocked, film, joined, of, other, pan

SCAN = ScanConfig()
WHOLE = (0.0, 0.0, 0.0, 0.0)
GROUPS = {"g": "10", "x264-params": "scenecut=0:bframes=2"}
MPEG = {"codec": "mpeg2video", "g": "10", "bf": "2"}
TWICE = joined(of(**GROUPS), of(shown=other, **GROUPS))


def third(number: int, width: int, height: int) -> Pixels:
    return pan(number, width, height, seed=2)


AHEAD = joined(clocked(40_000.0, **GROUPS), of(15, shown=third, **GROUPS), clocked(70_000.0, shown=other, **GROUPS))
PROGRAM = joined(of(**MPEG), of(shown=other, **MPEG))
TURNS_OVER = clocked(WRAP_S - 1.4 - 1.0, **GROUPS)


def shown(path: Path | str, row: dict[str, Any], *span: float, warm_s: float = 0.0) -> list[tuple[float, float, int]]:
    found = decode.pictures(str(path), row, *span, warm_s=warm_s)
    return [(p.time_s, p.duration_s, zlib.adler32(p.frame.to_ndarray())) for p in found]


@pytest.mark.parametrize(
    ("suffix", "make", "lengths"),
    [("ts", TWICE, [2.0, 2.0]), ("ts", AHEAD, [2.0, 0.6, 2.0]), ("mpg", PROGRAM, [2.0, 2.0]), ("ts", TURNS_OVER, [])],
    ids=["twice", "ahead-and-back", "program-stream", "turns-over-once"],
)
def test_time_goes_on_and_spans_joined_are_the_whole_whatever_their_borders(
    tmp_path: Path, suffix: str, make: Callable[[Path], None], lengths: list[float]
) -> None:
    path = tmp_path / f"a.{suffix}"
    make(path)
    row = room.probe(str(path), SCAN)
    assert (row["piece_duration_s"] or []) == pytest.approx(lengths)
    whole, count = shown(path, row), round(25 * (sum(lengths) or 2.0))
    assert row["duration_s"] == pytest.approx(count / 25) and len({p[2] for p in whole}) == len(whole) == count
    assert [p[0] for p in whole] == pytest.approx(np.arange(count) / 25)
    assert [p[1] for p in whole] == pytest.approx([0.04] * count)
    for borders in ([0, 0.7, 1.3, 1.99, math.inf], [0, 0.04, 2.0, 2.2, 2.6, 3.3, math.inf], [0, 1.96, 2.04, math.inf]):
        assert [p for span in pairwise(borders) for p in shown(path, row, *span)] == whole
    assert shown(path, row, 2.2, 2.4, warm_s=0.5) == [p for p in whole if 1.7 - 1e-9 <= p[0] < 2.4 - 1e-9]


def test_every_piece_shows_the_very_pictures_that_were_joined(tmp_path: Path) -> None:
    parts = [tmp_path / "first.ts", tmp_path / "second.ts"]
    of(**GROUPS)(parts[0]), of(shown=other, **GROUPS)(parts[1])
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    alone = [[p[2] for p in shown(part, room.probe(str(part), SCAN))] for part in parts]
    assert [p[2] for p in shown(tmp_path / "a.ts", room.probe(str(tmp_path / "a.ts"), SCAN))] == [*alone[0], *alone[1]]


def test_a_source_that_is_one_piece_has_no_pieces_in_its_row(tmp_path: Path) -> None:
    of()(tmp_path / "a.ts"), of()(tmp_path / "a.mp4")
    for name in ("a.ts", "a.mp4"):
        row = room.probe(str(tmp_path / name), SCAN)
        assert [row[name] for name in clocks.COLUMNS] == [None] * 3


def test_a_piece_that_begins_amid_a_group_loses_its_beginning_and_says_so(tmp_path: Path) -> None:
    of(**GROUPS)(tmp_path / "a.ts"), of(shown=other, **GROUPS)(tmp_path / "b.ts")
    with av.open(str(tmp_path / "b.ts")) as container:
        places = [p.pos for p in container.demux(video=0) if p.size and p.pos is not None]
    (tmp_path / "a.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()[places[14] :])
    row, good = room.probe(str(tmp_path / "a.ts"), SCAN), []
    with pytest.raises(decode.DecodeError) as caught:
        good.extend(decode.pictures(str(tmp_path / "a.ts"), row))
    assert len(good) == 50 + 30, "two groups of ten before, three after the cut one"
    assert 80 / 25 + caught.value.lost_s == pytest.approx(row["duration_s"]) and caught.value.at_s == pytest.approx(2.0)
    assert [p.time_s for p in good] == sorted(p.time_s for p in good)


def test_a_stray_time_is_no_new_clock(tmp_path: Path) -> None:
    of(**{"g": "10", "x264-params": "scenecut=0:bframes=0"})(tmp_path / "a.ts")
    data = bytearray((tmp_path / "a.ts").read_bytes())
    with av.open(str(tmp_path / "a.ts")) as container:
        bad = [p.pos for p in container.demux(video=0) if p.size][25]
    at = data.index(b"\0\0\1\xe0", bad) + 9
    data[at + 1] ^= 0x40  # a bit of the time of one packet
    (tmp_path / "a.ts").write_bytes(data)
    row = room.probe(str(tmp_path / "a.ts"), SCAN)
    assert row["piece_bytes"] is None and row["duration_s"] == pytest.approx(2.0)


@pytest.mark.parametrize("copy", ["keyframes", "never"])
def test_clips_on_either_side_of_a_jump_and_across_it_are_cut_to_the_picture(tmp_path: Path, copy: Any) -> None:
    path = tmp_path / "a.ts"
    TWICE(path)
    row = room.probe(str(path), SCAN)
    whole = [p.frame.to_ndarray(format="gray") for p in decode.pictures(str(path), row)]
    for start_s, end_s in ((0.4, 1.2), (2.0, 4.0), (2.4, 3.2), (1.6, 2.4)):
        data, facts = encode.cut(str(path), row, start_s, end_s, PackConfig(copy=copy, crf=10), WHOLE)
        assert facts["frames"] == round(25 * (end_s - start_s))
        with av.open(io.BytesIO(data)) as clip:
            cut = [frame.to_ndarray(format="gray") for frame in clip.decode(video=0)]
        wanted = whole[round(25 * start_s) : round(25 * end_s)]
        assert len(cut) == len(wanted)
        assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(cut, wanted, strict=True)) < 4


def _loud(path: Path, at_s: float, **how: Any) -> None:
    """Write a film of two seconds whose tone is heard from a time on."""
    film(path, sound_s=2.0 - at_s, sound_at_s=at_s, **how)


def test_sound_stays_with_the_pictures_on_both_sides_of_a_jump(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    joined(lambda part: _loud(part, 1.0, **GROUPS), lambda part: _loud(part, 0.5, shown=other, **GROUPS))(path)
    row = room.probe(str(path), SCAN)
    for start_s, end_s in ((0.0, 4.0), (1.6, 3.2), (2.0, 4.0)):
        data, facts = encode.cut(str(path), row, start_s, end_s, PackConfig(), WHOLE)
        with av.open(io.BytesIO(data)) as clip:
            wave = np.concatenate([frame.to_ndarray()[0] for frame in clip.decode(audio=0)])
            rate = clip.streams.audio[0].rate
        heard = np.abs(wave[: len(wave) // 160 * 160]).reshape(-1, 160).max(axis=1) > 0.1
        times = start_s + (np.arange(len(heard)) + 0.5) * 160 / rate
        loud = ((times > 1.0) & (times < 2.0)) | ((times > 2.5) & (times < 4.0))
        assert facts["has_audio"] and np.mean(heard[: round((end_s - start_s) * rate / 160)] != loud[
            : round((end_s - start_s) * rate / 160)]) < 0.08, (start_s, end_s)  # fmt: skip


def test_an_object_whose_clock_starts_again_is_read_like_a_file(s3: str, tmp_path: Path) -> None:
    TWICE(tmp_path / "a.ts")
    storage.write_bytes(f"{s3}/a.ts", (tmp_path / "a.ts").read_bytes())
    far, near = room.probe(f"{s3}/a.ts", SCAN), room.probe(str(tmp_path / "a.ts"), SCAN)
    assert {**far, "uri": ""} == {**near, "uri": ""}
    assert shown(f"{s3}/a.ts", far, 1.5, 2.5) == shown(tmp_path / "a.ts", near, 1.5, 2.5)


def test_a_window_reads_as_the_stretch_alone() -> None:
    with clocks.Window(io.BytesIO(bytes(range(100))), (10, 30)) as window:
        assert window.read(5) == bytes(range(10, 15)) and window.tell() == 5
        assert window.seek(-3, io.SEEK_END) == 17 and window.read() == bytes(range(27, 30)) and window.read(1) == b""
        assert window.seek(2) == 2 and window.seek(3, io.SEEK_CUR) == 5 and window.read(100) == bytes(range(15, 30))
        assert window.seek(500) == 500 and window.read(1) == b""


def test_what_a_recorder_had_left_of_something_else_costs_the_film_nothing(tmp_path: Path) -> None:
    clocked(500.0, **GROUPS)(tmp_path / "old.ts"), of(shown=other, **GROUPS)(tmp_path / "film.ts")
    old, film_ = (tmp_path / "old.ts").read_bytes(), (tmp_path / "film.ts").read_bytes()
    with av.open(str(tmp_path / "old.ts")) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    alone = shown(tmp_path / "film.ts", room.probe(str(tmp_path / "film.ts"), SCAN))
    for first, last in ((12, 14), (11, 19)):  # amid a group: fewer packets than are believed, and more
        path = tmp_path / f"{first}.ts"
        path.write_bytes(old[places[first] : places[last]] + film_)
        row, good = room.probe(str(path), SCAN), []
        try:
            good.extend(decode.pictures(str(path), row))
        except decode.DecodeError as error:
            assert first == 11 and error.lost_s == pytest.approx(row["duration_s"] - 2.0)
        assert [zlib.adler32(p.frame.to_ndarray()) for p in good] == [p[2] for p in alone]
        assert row["duration_s"] == pytest.approx(2.0, abs=0.4 if first == 11 else 1e-6)
