"""The ledger: parts whole or not at all, told by their names, open to anybody's reader."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import (
    OUTDATED,
    SCHEMA_VERSION,
    DamagedPart,
    Ledger,
    SchemaMismatch,
    fingerprint,
    to_table,
)
from rushes.pipelines.store.tables import TABLES


def done(ledger: Ledger, table: str, print_: str) -> set[str]:
    """Units that have their part of a table under a fingerprint."""
    return {part.unit for part in ledger.parts(table) if part.fingerprint == print_}


@pytest.fixture(params=["local", "s3"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    run = str(tmp_path / "run") if request.param == "local" else f"{request.getfixturevalue('s3')}/run"
    made = Ledger(run)
    made.create()
    return made


def trim(source_id: str, start_s: float = 0.0) -> dict[str, Any]:
    return {"source_id": source_id, "uri": "a.mp4", "start_s": start_s, "end_s": start_s + 1, "reason": "too_short"}


def test_rows_come_back_in_the_order_of_units(ledger: Ledger) -> None:
    ledger.write("trims", "w0-u1", [trim("b"), trim("c", 2.5)], "aaa")
    ledger.write("trims", "w0-u0", [trim("a")], "aaa")
    table = ledger.read("trims")
    assert table.schema.equals(TABLES["trims"]) and table["source_id"].to_pylist() == ["a", "b", "c"]
    assert ledger.read("trims", columns=["start_s"], where=pc.field("source_id") == "c").to_pylist() == [
        {"start_s": 2.5}
    ]
    assert ledger.read_unit("trims", "w0-u1")["source_id"].to_pylist() == ["b", "c"]
    assert sum(batch.num_rows for batch in ledger.batches("trims", ["source_id"])) == 3


def test_an_empty_table_has_its_columns(ledger: Ledger) -> None:
    assert ledger.read("clips").schema.equals(TABLES["clips"])
    assert ledger.read("clips", columns=["key"]).column_names == ["key"]
    assert ledger.read_unit("clips", "w0").num_rows == 0
    assert ledger.dataset("clips") is None and list(ledger.batches("clips")) == []


def test_a_unit_without_rows_is_done_all_the_same(ledger: Ledger) -> None:
    ledger.write("errors", "w0-u0", [], "aaa")
    assert done(ledger, "errors", "aaa") == {"w0-u0"}
    assert ledger.read("errors").num_rows == 0


def test_done_is_told_by_fingerprint_and_a_new_one_replaces_the_old(ledger: Ledger) -> None:
    ledger.write("trims", "u1", [trim("old")], "aaa")
    ledger.write("trims", "u10", [trim("other")], "aaa")
    ledger.write("trims", "u1", [trim("new")], "bbb")
    assert done(ledger, "trims", "aaa") == {"u10"} and done(ledger, "trims", "bbb") == {"u1"}
    assert ledger.read("trims")["source_id"].to_pylist() == ["new", "other"]


def test_a_unit_name_with_dots_is_kept_apart_from_its_neighbour(ledger: Ledger) -> None:
    ledger.write("trims", "u1", [trim("a")], "aaa")
    ledger.write("trims", "u1.5", [trim("b")], "aaa")
    ledger.write("trims", "u1", [trim("c")], "bbb")
    assert [(part.unit, part.fingerprint) for part in ledger.parts("trims")] == [("u1", "bbb"), ("u1.5", "aaa")]
    assert ledger.read_unit("trims", "u1")["source_id"].to_pylist() == ["c"]


def test_removing_a_unit_leaves_the_others(ledger: Ledger) -> None:
    for unit in ("u1", "u2"):
        ledger.write("trims", unit, [trim(unit)], "aaa")
    ledger.remove("trims", "u1")
    assert done(ledger, "trims", "aaa") == {"u2"}


@contextmanager
def nothing_listed() -> Iterator[None]:
    """Fail the test if anything in the block lists a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_files", lambda *_, **__: pytest.fail("something was listed"))
        yield


def test_a_snapshot_tells_what_the_ledger_tells_and_lists_nothing_any_more(ledger: Ledger) -> None:
    for unit in ("w0-u10", "w0-u1", "w0-u1-000", "w1-u0"):
        ledger.write("trims", unit, [trim(unit)], "aaa")
    ledger.write("errors", "w0-u1", [], "bbb")
    named = [("trims", None), ("trims", "w0-u1"), ("trims", "w0*"), ("errors", None), ("clips", None)]
    told = [ledger.parts(table, unit) for table, unit in named]
    assert [len(parts) for parts in told] == [4, 1, 3, 1, 0]
    rows = ledger.read("trims"), ledger.read_unit("trims", "w0-u1")
    snapshot = ledger.snapshot()
    with nothing_listed():
        assert [snapshot.parts(table, unit) for table, unit in named] == told
        assert (snapshot.read("trims"), snapshot.read_unit("trims", "w0-u1")) == rows
        assert done(snapshot, "trims", "aaa") == {"w0-u10", "w0-u1", "w0-u1-000", "w1-u0"}
        assert sum(batch.num_rows for batch in snapshot.batches("trims")) == 4
        assert snapshot.dataset("clips") is None and snapshot.read("clips").num_rows == 0


def test_a_snapshot_knows_what_it_writes_and_removes_itself(ledger: Ledger) -> None:
    for unit in ("u1", "u2", "u3", "u4"):
        ledger.write("trims", unit, [trim(unit)], "aaa")
    snapshot = ledger.snapshot()
    with nothing_listed():
        snapshot.write("trims", "u1", [trim("new")], "bbb")
        snapshot.write("trims", "u5", [trim("u5")], "aaa")
        snapshot.write("trims", "u5", [trim("u5")], "aaa")
        snapshot.remove("trims", "u2")
        snapshot.outdate("trims", snapshot.parts("trims", "u3")[0])
        snapshot.tidy("trims", {"u1": "bbb", "u3": OUTDATED, "u5": "aaa"})
        told = snapshot.parts("trims")
        rows = snapshot.read("trims")
    assert [(part.unit, part.fingerprint) for part in told] == [("u1", "bbb"), ("u3", OUTDATED), ("u5", "aaa")]
    assert ledger.parts("trims") == told and ledger.read("trims") == rows
    assert rows["source_id"].to_pylist() == ["new", "u3", "u5"]


def test_a_snapshot_knows_nothing_of_what_others_write_after_it(ledger: Ledger) -> None:
    ledger.write("trims", "u1", [trim("a")], "aaa")
    snapshot = ledger.snapshot()
    ledger.write("trims", "u2", [trim("b")], "aaa")
    assert [part.unit for part in snapshot.parts("trims")] == ["u1"]
    assert [part.unit for part in snapshot.snapshot().parts("trims")] == ["u1", "u2"]


def test_who_is_told_what_is_stale_removes_just_that_and_lists_nothing(ledger: Ledger) -> None:
    for unit in ("u1", "u2"):
        ledger.write("trims", unit, [trim("old")], "aaa")
    stale = ledger.parts("trims", "u1")
    with nothing_listed():
        uri = ledger.write("trims", "u1", [trim("new")], "bbb", stale)
        ledger.write("trims", "u2", [trim("new")], "bbb", [])
        assert ledger.part("trims", "u1", "bbb").uri == uri
        assert ledger.read_whole("trims", ledger.part("trims", "u1", "bbb"))["source_id"].to_pylist() == ["new"]
    left = [(part.unit, part.fingerprint) for part in ledger.parts("trims")]
    assert left == [("u1", "bbb"), ("u2", "aaa"), ("u2", "bbb")]


def test_what_stands_under_its_own_name_is_never_taken_for_stale(ledger: Ledger) -> None:
    ledger.write("trims", "u1", [trim("old")], "aaa")
    ledger.write("trims", "u1", [trim("new")], "aaa", ledger.parts("trims", "u1"))
    assert ledger.read("trims")["source_id"].to_pylist() == ["new"]


def test_a_part_that_is_not_there_is_an_error_not_an_empty_table(ledger: Ledger) -> None:
    with pytest.raises(DamagedPart, match=r"trims/part-u1\.aaa\.parquet cannot be read .* makes it anew"):
        ledger.read_whole("trims", ledger.part("trims", "u1", "aaa"))


def test_an_unknown_column_is_an_error_that_names_the_columns(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"trims has no column colour; it has source_id, uri"):
        ledger.write("trims", "u1", [{"colour": "red"}], "aaa")
    assert ledger.parts("trims") == []


def test_equal_rows_give_equal_bytes(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(str(tmp_path / "other"))
    rows = [trim(f"{i:016x}", i / 3) for i in range(100)]
    first, second = (one.write("trims", "u1", rows, "aaa") for one in (ledger, other))
    assert storage.read_bytes(first) == storage.read_bytes(second)


def test_a_part_names_its_table_schema_and_fingerprint(ledger: Ledger) -> None:
    uri = ledger.write("trims", "u1", [trim("a")], "aaa")
    with storage.open_read(uri) as file:
        metadata = pq.read_schema(file).metadata
    assert metadata[b"rushes.schema"] == str(SCHEMA_VERSION).encode()
    assert (metadata[b"rushes.table"], metadata[b"rushes.fingerprint"]) == (b"trims", b"aaa")


def test_another_schema_version_is_refused_and_nothing_changed(ledger: Ledger) -> None:
    marker = f"{ledger.root}/version.json"
    storage.write_bytes(marker, b'{"rushes_schema": 999}')
    for act in (ledger.create, ledger.check):
        with pytest.raises(SchemaMismatch, match=r"schema 999, this version writes .* another --out"):
            act()
    assert storage.read_bytes(marker) == b'{"rushes_schema": 999}'


def test_a_damaged_version_file_is_refused_in_one_sentence(ledger: Ledger) -> None:
    for content in (b"", b"{", b"[]"):
        storage.write_bytes(f"{ledger.root}/version.json", content)
        with pytest.raises(SchemaMismatch, match=r"version\.json.*another --out"):
            ledger.check()


def test_a_folder_that_is_no_run_is_told_from_one(tmp_path: Path) -> None:
    assert not Ledger(str(tmp_path)).check()


def test_the_ledger_opens_in_duckdb_with_one_line(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "run"))
    ledger.write("trims", "u1", [trim("a"), trim("b")], "aaa")
    ledger.write("trims", "u2", [trim("c")], "aaa")
    query = f"select count(*), sum(end_s - start_s) from '{tmp_path}/run/ledger/trims/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(3, 3.0)]


def test_a_full_disk_leaves_the_old_part_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        ledger = Ledger(str(folder))
        ledger.write("frames", "u1", [{"source_id": "a", "time_s": 0.0, "jpeg": b"small"}], "aaa")
        with pytest.raises(storage.StorageError, match="no space left"):
            ledger.write("frames", "u1", [{"source_id": "a", "time_s": 0.0, "jpeg": os.urandom(400_000)}], "bbb")
        assert done(ledger, "frames", "aaa") == {"u1"} and done(ledger, "frames", "bbb") == set()
        assert ledger.read("frames")["jpeg"].to_pylist() == [b"small"]
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # Arrow closes files in threads of its own


def _write_for_ever(run: str) -> None:
    table = to_table("trims", [trim(f"{i:016x}") for i in range(20_000)])
    for unit in range(10_000):
        Ledger(run).write("trims", f"u{unit:05d}", table, "aaa")


@pytest.mark.parametrize("delay_s", [0.05, 0.13, 0.21])
def test_a_killed_writer_leaves_whole_parts_only(tmp_path: Path, delay_s: float) -> None:
    ledger = Ledger(str(tmp_path / "run"))
    process = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(ledger.run,))
    process.start()
    while not ledger.parts("trims"):
        time.sleep(0.01)
    time.sleep(delay_s)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert ledger.read("trims").num_rows == 20_000 * len(ledger.parts("trims"))


@given(st.lists(st.floats(allow_nan=False), max_size=5), st.text(max_size=5), st.binary(max_size=5))
@settings(max_examples=30, deadline=None)
def test_values_survive_the_schema(times: list[float], text: str, data: bytes) -> None:
    frame = {"source_id": text, "time_s": 1.5, "jpeg": data}
    assert to_table("frames", [frame]).to_pylist() == [frame]
    assert to_table("clips", [{"key": text, "frame_s": times}])["frame_s"].to_pylist() == [times]


def test_the_fingerprint_changes_with_any_setting_and_only_then() -> None:
    assert fingerprint(ScanConfig(), 1) == fingerprint(ScanConfig(), 1)
    assert len({fingerprint(ScanConfig()), fingerprint(ScanConfig(tick_hz=7.0)), fingerprint(PackConfig())}) == 3
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_every_column_of_every_table_can_be_null_and_comes_back() -> None:
    for name, schema in TABLES.items():
        assert to_table(name, [{}]).to_pylist() == [dict.fromkeys(schema.names)]
        assert pa.types.is_nested(schema.field(0).type) is False
