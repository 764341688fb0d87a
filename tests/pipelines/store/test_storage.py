"""A file is written whole or not at all, on disk, on a full disk, on a read-only one and in an object store."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import s3fs

from rushes.pipelines.store import objects, storage
from tests.bench.requests import Log, counted

PART_BYTES = 6 * 2**20  # above the smallest part of a multipart upload


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3')}/deep/er"


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_bytes_come_back_as_they_were_written(root: str) -> None:
    uri = f"{root}/a/b.bin"
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first, longer")
    storage.write_bytes(uri, b"second")
    assert storage.exists(uri) and storage.size(uri) == 6
    assert storage.read_bytes(uri) == b"second"
    with storage.open_read(uri) as file:
        file.seek(2)
        assert file.read(3) == b"con"


def test_an_empty_file_exists_with_no_bytes(root: str) -> None:
    storage.write_bytes(f"{root}/empty", b"")
    assert storage.exists(f"{root}/empty") and storage.read_bytes(f"{root}/empty") == b""


def test_a_streamed_file_without_a_byte_exists_too(root: str) -> None:
    with storage.open_write(f"{root}/empty"):
        pass
    assert storage.exists(f"{root}/empty") and storage.size(f"{root}/empty") == 0


def test_a_range_is_read_alone(root: str) -> None:
    storage.write_bytes(f"{root}/r", bytes(range(100)))
    assert storage.read_range(f"{root}/r", 10, 5) == bytes(range(10, 15))
    assert storage.read_range(f"{root}/r", 10, 0) == b""
    assert storage.read_range(f"{root}/r", 98, 5) == bytes([98, 99])
    buffer = bytearray(5)
    assert storage.read_into(f"{root}/r", 98, memoryview(buffer)) == 2 and buffer == bytes([98, 99, 0, 0, 0])


def test_a_large_file_is_streamed_and_comes_back_whole(root: str) -> None:
    block = os.urandom(2**20)
    with storage.open_write(f"{root}/large") as file:
        for _ in range(3 * PART_BYTES // 2**20):
            file.write(block)
    with storage.open_read(f"{root}/large") as file:
        assert all(file.read(2**20) == block for _ in range(3 * PART_BYTES // 2**20))
        assert file.read() == b""


@pytest.mark.parametrize("size_bytes", [10, 3 * PART_BYTES], ids=["small", "multipart"])
def test_a_failed_write_leaves_nothing_and_keeps_the_old_content(root: str, size_bytes: int) -> None:
    storage.write_bytes(f"{root}/f/kept", b"old")
    for name in ("kept", "new"):
        with pytest.raises(KeyError), storage.open_write(f"{root}/f/{name}") as file:
            file.write(bytes(size_bytes))
            raise KeyError
    assert storage.read_bytes(f"{root}/f/kept") == b"old"
    assert storage.list_files(f"{root}/f", recursive=True) == [f"{root}/f/kept"]


def test_a_discarded_upload_leaves_no_parts_behind(s3: str) -> None:
    with pytest.raises(KeyError), storage.open_write(f"{s3}/big") as file:
        file.write(bytes(3 * PART_BYTES))
        raise KeyError
    answer = s3fs.S3FileSystem().call_s3("list_multipart_uploads", Bucket=s3.removeprefix("s3://"))
    assert "Uploads" not in answer


def test_listing_sorts_filters_and_survives_a_missing_folder(root: str) -> None:
    assert storage.list_files(f"{root}/nothing") == []
    for name in ("b.txt", "a.txt", "ab.txt", "deep/a.txt"):
        storage.write_bytes(f"{root}/l/{name}", b".")
    assert storage.list_files(f"{root}/l") == [f"{root}/l/{name}" for name in ("a.txt", "ab.txt", "b.txt")]
    assert storage.list_files(f"{root}/l", prefix="a") == [f"{root}/l/a.txt", f"{root}/l/ab.txt"]
    assert f"{root}/l/deep/a.txt" in storage.list_files(f"{root}/l", recursive=True)
    assert storage.list_files(f"{root}/l", prefix="x") == []


def test_removing_twice_is_no_error(root: str) -> None:
    storage.write_bytes(f"{root}/gone", b".")
    storage.remove(f"{root}/gone")
    storage.remove(f"{root}/gone")
    assert not storage.exists(f"{root}/gone")


def test_arrow_reads_what_storage_wrote(root: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1, 2]}), sink)
    storage.write_bytes(f"{root}/t.parquet", sink.getvalue().to_pybytes())
    filesystem, paths = storage.arrow([f"{root}/t.parquet"])
    assert ds.dataset(paths, filesystem=filesystem, format="parquet").to_table()["x"].to_pylist() == [1, 2]


def test_a_missing_object_and_a_missing_bucket_are_file_not_found(root: str, s3: str) -> None:
    for uri in (f"{root}/missing", f"{s3}-other/missing"):
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(uri)


def test_writing_to_a_missing_bucket_names_the_target(s3: str) -> None:
    with pytest.raises(storage.StorageError, match=f"cannot write {s3}-other/x"):
        storage.write_bytes(f"{s3}-other/x", b".")


def test_a_store_that_does_not_answer_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    for act in (storage.read_bytes, storage.exists, storage.list_files, lambda uri: storage.write_bytes(uri, b".")):
        with pytest.raises(storage.StorageError, match=f"cannot reach {s3}/x.*AWS_ENDPOINT_URL"):
            act(f"{s3}/x")


def test_an_input_that_fails_inside_a_write_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input"), storage.open_write(str(tmp_path / "out")) as file:
        file.write((tmp_path / "input").read_bytes())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_with_the_remedy_and_loses_nothing(tmpfs: Path) -> None:
    storage.write_bytes(str(tmpfs / "kept"), bytes(500_000))
    with pytest.raises(storage.StorageError, match=rf"cannot write {tmpfs}/more: no space left.*run the same command"):
        storage.write_bytes(str(tmpfs / "more"), bytes(800_000))
    assert [path.name for path in tmpfs.iterdir()] == ["kept"]
    assert (tmpfs / "kept").stat().st_size == 500_000
    storage.write_bytes(str(tmpfs / "fits"), bytes(100_000))


def test_a_read_only_target_is_named_with_the_remedy(tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    with pytest.raises(storage.StorageError, match=rf"cannot write {tmpfs}/x/y: the target is read-only"):
        storage.write_bytes(str(tmpfs / "x" / "y"), b".")


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(storage.StorageError, match=r"cannot write .*file/x: a file stands where a folder"):
        storage.write_bytes(str(tmp_path / "file" / "x"), b".")


def _write_slowly(uri: str) -> None:
    with storage.open_write(uri) as file:
        file.write(bytes(1000))
        file.flush()
        time.sleep(60)


def test_a_killed_writer_leaves_no_file_and_sweep_clears_its_remains(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_write_slowly, args=(str(tmp_path / "x.tar"),))
    process.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert storage.list_files(str(tmp_path), recursive=True) == []
    assert list(tmp_path.iterdir()) != []
    storage.sweep(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def _read(uri: str) -> bytes:
    return storage.read_bytes(uri)


def test_a_forked_child_reads_the_object_store_that_its_parent_used(s3: str) -> None:
    storage.write_bytes(f"{s3}/x", b"shared")
    assert storage.read_bytes(f"{s3}/x") == b"shared"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_read, [f"{s3}/x"] * 4).get(timeout=30) == [b"shared"] * 4


@pytest.mark.parametrize("form", ["{}", "./{}", "{}/", "../{here}/{}", "file://{cwd}/{}"])
def test_a_listing_begins_as_the_folder_was_given(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = form.format("run", here=tmp_path.name, cwd=tmp_path)
    storage.write_bytes(f"{folder.rstrip('/')}/a/b.tar", b".")
    assert storage.list_files(folder, recursive=True) == [f"{folder.rstrip('/')}/a/b.tar"]


@pytest.fixture
def told(s3: str, s3_log: Log) -> Callable[..., dict[str, int]]:
    """Do something and return the requests that it made, by kind."""

    def requests(act: Callable[[], object]) -> dict[str, int]:
        with s3_log.during() as asked:
            act()
        return dict(counted(asked))

    storage.exists(f"{s3}/nothing")  # the client is made
    return requests


def _stream(uri: str, *pieces: bytes) -> None:
    with storage.open_write(uri) as file:
        for piece in pieces:
            file.write(piece)


def test_writing_is_one_request_up_to_put_bytes(
    s3: str, told: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PUT_BYTES", PART_BYTES)
    assert told(lambda: storage.write_bytes(f"{s3}/a", bytes(1000))) == {"PUT": 1}
    assert told(lambda: storage.write_bytes(f"{s3}/a", bytes(PART_BYTES))) == {"PUT": 1}
    assert told(lambda: _stream(f"{s3}/a")) == {"PUT": 1}
    assert told(lambda: _stream(f"{s3}/a", b"x", bytes(PART_BYTES - 1))) == {"PUT": 1}
    assert storage.size(f"{s3}/a") == PART_BYTES
    parts = {"CREATE": 1, "PART": 2, "COMPLETE": 1}
    assert told(lambda: _stream(f"{s3}/a", *[bytes(PART_BYTES // 2)] * 3, b"end")) == parts
    assert storage.size(f"{s3}/a") == PART_BYTES // 2 * 3 + 3


def test_a_discarded_object_costs_no_request_unless_it_was_large(s3: str, told: Callable[..., dict[str, int]]) -> None:
    def fail() -> None:
        with pytest.raises(KeyError), storage.open_write(f"{s3}/x") as file:
            file.write(bytes(1000))
            raise KeyError

    assert told(fail) == {}
    gc.collect()
    assert told(lambda: storage.exists(f"{s3}/x")) == {"HEAD": 1}
    assert not storage.exists(f"{s3}/x")


def test_reading_asks_for_the_bytes_alone(s3: str, told: Callable[..., dict[str, int]]) -> None:
    storage.write_bytes(f"{s3}/x", b"abcdef")

    def sought() -> None:
        with storage.open_read(f"{s3}/x") as file:
            assert file.seek(0, os.SEEK_END) == 6
            assert (file.seek(-2, os.SEEK_CUR), file.read()) == (4, b"ef")
            assert (file.seek(1), file.read(2)) == (1, b"bc")

    for act in (
        lambda: storage.read_bytes(f"{s3}/x"),
        lambda: storage.read_range(f"{s3}/x", 2, 3),
        lambda: storage.read_range(f"{s3}/x", 4, 30),
        sought,
    ):
        assert told(act) == {"GET": 1}
    assert told(lambda: storage.size(f"{s3}/x")) == {"HEAD": 1}


def test_a_large_object_is_read_on_in_growing_pieces(s3: str, told: Callable[..., dict[str, int]]) -> None:
    data = os.urandom(5 * objects.PIECE_BYTES + 3)
    storage.write_bytes(f"{s3}/x", data)

    def streamed() -> None:
        with storage.open_read(f"{s3}/x") as file:
            assert b"".join(iter(lambda: file.read(100_000), b"")) == data

    def whole() -> None:
        with storage.open_read(f"{s3}/x") as file:
            assert file.read() == data

    assert told(streamed) == {"GET": 6}
    assert told(whole) == {"GET": 2}


def test_pieces_of_an_object_are_its_bytes_wherever_they_are_read(s3: str) -> None:
    data = os.urandom(3 * objects.PIECE_BYTES)
    storage.write_bytes(f"{s3}/x", data)
    pieces, dice = storage.pieces(f"{s3}/x", 2 * objects.PIECE_BYTES), random.Random(0)
    for read in (pieces.read, pieces.sample) * 60:
        at, count = dice.randrange(len(data) + 10), dice.choice([0, 1, 1000, 3_000_000, 10 * 2**20])
        assert read(at, count) == data[at : at + count]
        assert sum(map(len, pieces._held.values())) <= 2 * objects.PIECE_BYTES


def test_what_is_read_beyond_the_end_is_nothing(root: str) -> None:
    storage.write_bytes(f"{root}/x", b"abc")
    assert storage.read_range(f"{root}/x", 3, 5) == storage.read_range(f"{root}/x", 30, 5) == b""
    with storage.open_read(f"{root}/x") as file:
        file.seek(30)
        assert file.read(5) == b"" and file.seek(1) == 1 and file.read() == b"bc"


@pytest.mark.parametrize("from_its_end", [False, True])
def test_an_empty_object_is_read_as_nothing(from_its_end: bool, root: str) -> None:
    storage.write_bytes(f"{root}/x", b"")
    with storage.open_read(f"{root}/x") as file:
        assert file.seek(0, os.SEEK_END if from_its_end else os.SEEK_SET) == 0
        assert file.read() == b""


def test_an_object_that_is_replaced_amid_reading_is_an_error(s3: str) -> None:
    storage.write_bytes(f"{s3}/x", bytes(objects.PIECE_BYTES + 1))
    with storage.open_read(f"{s3}/x") as file:
        file.read(10)
        storage.write_bytes(f"{s3}/x", b"1" * (objects.PIECE_BYTES + 1))
        with pytest.raises(OSError, match=f"{s3}/x was replaced while it was read"):
            file.read()


def test_asking_for_an_object_is_one_request(s3: str, told: Callable[..., dict[str, int]]) -> None:
    storage.write_bytes(f"{s3}/x", b".")
    assert told(lambda: storage.exists(f"{s3}/x")) == {"HEAD": 1}
    assert told(lambda: storage.exists(f"{s3}/y")) == {"HEAD": 1}
    assert told(lambda: storage.remove(f"{s3}/x")) == {"DELETE": 1}
    assert told(lambda: storage.remove(f"{s3}/x")) == {"DELETE": 1}


def test_many_objects_are_listed_and_removed_page_by_page(
    s3: str, told: Callable[..., dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert objects.MANY == 1000  # what S3 takes; moto lists as many as that by itself
    monkeypatch.setattr(objects, "MANY", 5)
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
    uris = [f"{s3}/many/{number:02d}" for number in range(13)]
    s3fs.S3FileSystem().pipe(dict.fromkeys(uris, b"."))
    assert told(lambda: storage.list_files(f"{s3}/many")) == {"LIST": 3}
    assert storage.list_files(f"{s3}/many") == uris
    assert told(lambda: storage.remove_many(uris[1:])) == {"DELETE": 3}
    assert storage.list_files(f"{s3}/many", recursive=True) == uris[:1]
    assert told(lambda: storage.remove_many([])) == {}


def test_removing_many_forgives_what_is_gone(root: str) -> None:
    for name in ("a", "b", "kept"):
        storage.write_bytes(f"{root}/{name}", b".")
    storage.remove_many([f"{root}/a", f"{root}/never", f"{root}/b"])
    assert storage.list_files(root) == [f"{root}/kept"]


def test_listing_is_one_request_and_tells_sizes(s3: str, told: Callable[..., dict[str, int]]) -> None:
    for number, name in enumerate(("a.txt", "ab.txt", "b/c.txt", "b/d/e.txt")):
        storage.write_bytes(f"{s3}/l/{name}", bytes(number))
    for asked in ({}, {"prefix": "a"}, {"recursive": True}, {"prefix": "b/", "recursive": True}, {"prefix": "none"}):
        assert told(lambda asked=asked: storage.list_files(f"{s3}/l", **asked)) == {"LIST": 1}
    assert told(lambda: storage.list_files(f"{s3}/nothing")) == {"LIST": 1}
    assert told(lambda: storage.list_folders(f"{s3}/l")) == {"LIST": 1}
    assert storage.list_folders(f"{s3}/l") == ["b"]
    found = {entry.uri: entry.size_bytes for entry in storage.list_entries(f"{s3}/l", recursive=True)}
    assert found == {f"{s3}/l/a.txt": 0, f"{s3}/l/ab.txt": 1, f"{s3}/l/b/c.txt": 2, f"{s3}/l/b/d/e.txt": 3}


def test_a_listing_tells_another_content_by_its_version(root: str) -> None:
    storage.write_bytes(f"{root}/x", b"one")
    (first,) = storage.list_entries(root)
    storage.write_bytes(f"{root}/x", b"two")
    (second,) = storage.list_entries(root)
    assert first.version and second.version and first.version != second.version
    assert (first.uri, first.size_bytes) == (second.uri, second.size_bytes) == (f"{root}/x", 3)
