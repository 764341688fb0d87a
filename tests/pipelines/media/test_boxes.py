"""Claims about what stands behind an mp4: another film is found, and nothing else is taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from rushes.pipelines.media import boxes
from rushes.pipelines.media import footage as room
from tests.pipelines.media.odd import of, other

QUICK = of(5)


def found(data: bytes) -> int | None:
    return boxes.second_film(io.BytesIO(data), len(data))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    QUICK(path)
    return path.read_bytes()


def test_another_film_behind_the_first_is_found_where_it_begins(film: bytes, tmp_path: Path) -> None:
    of(5, mux={"movflags": "faststart"}, shown=other)(tmp_path / "b.mp4")
    for second in (film, (tmp_path / "b.mp4").read_bytes()):
        assert found(film + second) == len(film) and found(second + film) == len(second)


def test_films_of_a_time_before_their_kind_was_written_in_front_are_found_as_well(film: bytes) -> None:
    old = film[int.from_bytes(film[:4], "big") :]
    assert found(old) is None and found(old + old) == len(old)


@pytest.mark.parametrize(
    "more",
    [b"", b"\0" * 100, b"x" * 50, b"\0\0\0\x10free" + b"\0" * 8, b"\0\0\0\0mdat" + b"y" * 30, b"\0\0\0\7uuid"],
    ids=["nothing", "zeros", "text", "free", "open-ended", "too-short"],
)
def test_nothing_else_is_taken_for_a_film(film: bytes, more: bytes) -> None:
    assert found(film + more) is None


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "dash+frag_keyframe+empty_moov"])
def test_a_film_in_fragments_is_left_alone(tmp_path: Path, flags: str) -> None:
    of(50, mux={"movflags": flags}, g="10")(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count(b"moof") > 2 and found(data) is None


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: data[: len(data) // 2], lambda data: data[4:]])
def test_a_damaged_file_is_no_reason_to_fail(film: bytes, damage: Callable[[bytes], bytes]) -> None:
    assert found(damage(film)) is None


def test_a_source_with_another_film_behind_it_says_how_many_bytes_and_how_to_reach_them(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    QUICK(path)
    first = path.stat().st_size
    path.write_bytes(path.read_bytes() * 2)
    source = {"uri": str(path), "container": "mov"}
    with pytest.raises(room.FootageError) as caught:
        boxes.check_alone(source)
    assert caught.value.code == "joined" and f"another film of {first} bytes" in caught.value.reason
    assert f"tail -c +{first + 1} " in caught.value.remedy
    path.write_bytes(path.read_bytes()[first:])
    boxes.check_alone(source)
