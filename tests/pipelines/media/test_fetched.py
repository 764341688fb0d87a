"""A source in a bucket gives the pictures and the sound that it gives on disk, and is asked for as little as can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import decode, fetched, footage
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.store import clip, objects, storage
from tests.bench.requests import Log, counted

SCAN, WHOLE = ScanConfig(), (0.0, 0.0, 0.0, 0.0)
CUTS = ((0.0, 1.2), (1.2, 2.04), (2.04, 3.4), (3.4, 5.0))
PIECE, JUMP = 150_000, 40_000
"""So small that a film of a megabyte and a half counts as large."""


@pytest.fixture(scope="module")
def film(bunny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds with sound and a key frame every 0.4 s."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "KEY_FRAME_S", 0.4)
        row = footage.probe(str(bunny), SCAN)
        path.write_bytes(encode.cut(str(bunny), row, 0.0, 9.0, PackConfig(max_side_px=480), WHOLE)[0])
    return path


@pytest.fixture(params=["small", "large"])
def far(request: pytest.FixtureRequest, s3: str, film: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the row of the film in a bucket, that is fetched whole or by pieces."""
    if request.param == "large":
        monkeypatch.setattr(objects, "PIECE_BYTES", PIECE)
        monkeypatch.setattr(objects, "JUMP_BYTES", JUMP)
        monkeypatch.setattr(fetched, "HOLD_BYTES", 5 * PIECE)
    uri = f"{s3}/{request.param}.mp4"
    storage.write_bytes(uri, film.read_bytes())
    return footage.probe(uri, SCAN)


def shown(uri: str, row: dict[str, Any]) -> list[tuple[float, bytes]]:
    """Return times and small pictures of the first second of a source."""
    return [(p.time_s, decode.small(p.frame, 64, row)[0].tobytes()) for p in decode.pictures(uri, row, 0.0, 1.0)]


@pytest.mark.parametrize("copy", ["never", "keyframes"])
def test_clips_of_an_object_are_those_of_the_file(far: dict[str, Any], film: Path, copy: str) -> None:
    pack, near = PackConfig(max_side_px=144 if copy == "never" else None, copy=copy), footage.probe(str(film), SCAN)
    for start_s, end_s in CUTS[:2]:
        ours, facts = encode.cut(far["uri"], far, start_s, end_s, pack, WHOLE)
        theirs, wanted = encode.cut(near["uri"], near, start_s, end_s, pack, WHOLE)
        assert ours == theirs and facts == wanted and facts["has_audio"]


def test_the_scan_of_an_object_is_that_of_the_file(far: dict[str, Any], film: Path) -> None:
    near = footage.probe(str(film), SCAN)
    assert repr(scan_span(far, 0, 0.0, math.inf, SCAN)) == repr(scan_span(near, 0, 0.0, math.inf, SCAN))


@pytest.mark.parametrize("blocks", [0, clip.SAMPLED_BLOCKS], ids=["as the process that probed", "as another process"])
def test_a_scan_reads_an_object_once(far: dict[str, Any], blocks: int, s3_log: Log) -> None:
    if blocks:
        footage._digest_of_version.cache_clear()
    with s3_log.during() as asked:
        footage.check_unchanged(far)
        scan_span(far, 0, 0.0, math.inf, SCAN)
    assert set(counted(asked)) == {"GET"}
    small = far["size_bytes"] <= objects.PIECE_BYTES
    assert len(asked) == 1 if small else len(asked) <= 2 + blocks + far["size_bytes"] / PIECE, len(asked)


def test_all_cuts_of_an_object_share_what_was_fetched(far: dict[str, Any], s3_log: Log) -> None:
    pack = PackConfig(max_side_px=144)
    with s3_log.during() as asked:
        footage.check_unchanged(far)
        for start_s, end_s in CUTS:
            encode.cut(far["uri"], far, start_s, end_s, pack, WHOLE)
    small = far["size_bytes"] <= objects.PIECE_BYTES
    assert set(counted(asked)) == {"GET"}
    assert len(asked) == 1 if small else len(asked) <= 2 + len(CUTS) + far["size_bytes"] / PIECE, len(asked)


def test_what_is_held_of_a_source_is_bounded(far: dict[str, Any], s3: str, film: Path) -> None:
    pieces = fetched.afresh(far["uri"])
    for _ in decode.pictures(far["uri"], far):
        assert sum(map(len, pieces._held.values())) <= fetched.HOLD_BYTES
    storage.write_bytes(f"{s3}/other.mp4", film.read_bytes())
    footage.probe(f"{s3}/other.mp4", SCAN)
    assert fetched.of(far["uri"]) is not pieces  # of one source only


def test_another_source_under_the_same_name_is_not_mixed_with_the_one_before(far: dict[str, Any], bikes: Path) -> None:
    next(decode.pictures(far["uri"], far))
    storage.write_bytes(far["uri"], bikes.read_bytes())
    row, near = footage.probe(far["uri"], SCAN), footage.probe(str(bikes), SCAN)
    assert {**row, "uri": ""} == {**near, "uri": ""} != {**far, "uri": ""}
    assert shown(far["uri"], row) == shown(near["uri"], near)


def test_an_object_that_is_replaced_while_it_is_decoded_is_told(far: dict[str, Any], bikes: Path) -> None:
    fetched.afresh(far["uri"])
    pictures = decode.pictures(far["uri"], far)
    next(pictures)
    storage.write_bytes(far["uri"], bikes.read_bytes())
    if far["size_bytes"] <= objects.PIECE_BYTES:
        assert len(list(pictures)) > 100  # it was here already
        return
    with pytest.raises(decode.DecodeError, match="was replaced while it was read"):
        list(pictures)


@pytest.mark.parametrize("act", [footage.probe, lambda uri, scan: footage.check_unchanged({"uri": uri, "digest": ""})])
def test_an_object_that_may_not_be_read_is_unreadable(
    act: Callable[..., Any], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(objects, "get", refuse)
    with pytest.raises(footage.FootageError, match="cannot be read") as found:
        act(f"{s3}/a.mp4", SCAN)
    assert found.value.code == "unreadable"
