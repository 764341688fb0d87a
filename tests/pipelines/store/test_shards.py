"""The contract of shards: equal to the byte, sized, whole or not there, described, and each key read exactly once."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.store import archive, shards, storage
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.shards import Sample, ShardError, ShardInfo

BUCKET = "16x9-480p-24fps-04s"


def key(number: int) -> str:
    return clip_key("0123456789abcdef", number)


def sample(number: int, size_bytes: int = 700, **facts: Any) -> Sample:
    facts = {"key": key(number), "duration_s": number / 2, "camera": "pan", **facts}
    mp4 = number.to_bytes(4, "big") * (size_bytes // 4)
    return Sample(key(number), [("mp4", mp4), ("json", json.dumps(facts).encode()), ("txt", b"a clip")])


def make(root: str, counts: tuple[int, ...] = (5, 3, 4), bucket: str = BUCKET) -> list[ShardInfo]:
    infos, start = [], 0
    for index, count in enumerate(counts):
        infos.append(shards.write_shard(root, bucket, "clips", index, map(sample, range(start, start + count))))
        start += count
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc", extra={"policy": "default"})
    return infos


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shards") if request.param == "local" else f"{request.getfixturevalue('s3')}/run/shards"


def test_equal_samples_give_equal_bytes_whenever_they_are_written(tmp_path: Path, root: str) -> None:
    make(root)
    time.sleep(1.1)  # a clock in a header would show
    make(str(tmp_path / "again"))
    for path in (
        f"{BUCKET}/clips-000000.tar",
        f"{BUCKET}/clips-000000.parquet",
        "manifest.json",
        ".nv-meta/.info.yaml",
    ):
        assert storage.read_bytes(f"{root}/{path}") == storage.read_bytes(f"{tmp_path}/again/{path}"), path


def test_the_manifest_comes_back_as_written_and_tells_sizes_and_digests(root: str) -> None:
    infos = make(root)
    manifest = shards.read_manifest(root)
    assert manifest.shards == infos and (manifest.kind, manifest.fingerprint, manifest.samples) == ("clips", "abc", 12)
    assert manifest.extra == {"policy": "default"}
    for info in infos:
        data = storage.read_bytes(f"{root}/{info.path}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (info.size_bytes, info.sha256)
        assert shards.read_info(root, info.path) == info


def test_the_sidecar_places_each_member_and_carries_the_facts(root: str) -> None:
    info = make(root)[1]
    tar = storage.read_bytes(f"{root}/{info.path}")
    rows = shards.read_sidecar(root, info).to_pylist()
    assert [row["key"] for row in rows] == [key(n) for n in (5, 6, 7)]
    for row in rows:
        facts = json.loads(tar[row["json_offset"] : row["json_offset"] + row["json_bytes"]])
        assert facts == {"key": row["key"], "duration_s": row["duration_s"], "camera": row["camera"]}
        alone = tar[row["offset"] : row["offset"] + row["size_bytes"]] + archive.END
        with tarfile.open(fileobj=io.BytesIO(alone)) as one:
            assert one.getnames() == [f"{row['key']}.{extension}" for extension in ("mp4", "json", "txt")]


def test_bucket_statistics_add_up(root: str) -> None:
    make(root)
    stats = json.loads(storage.read_bytes(f"{root}/{BUCKET}/clips_stats.json"))
    assert (stats["shards"], stats["samples"]) == (3, 12)
    assert stats["facts"]["duration_s"] == {"count": 12, "max": 5.5, "mean": 2.75, "min": 0.0, "sum": 33.0}


def test_energon_finds_its_description(root: str) -> None:
    info = make(root)[0]
    described = json.loads(storage.read_bytes(f"{root}/.nv-meta/.info.yaml"))  # JSON is YAML
    split = json.loads(storage.read_bytes(f"{root}/.nv-meta/split.yaml"))
    assert list(described["shard_counts"].values()) == [5, 3, 4]
    assert split["split_parts"]["train"] == list(described["shard_counts"])
    index = storage.read_bytes(f"{root}/{info.path}.idx")
    places = [int.from_bytes(index[at : at + 8], "little") for at in range(0, len(index), 8)]
    assert places == [*shards.read_sidecar(root, info)["offset"].to_pylist(), info.size_bytes - len(archive.END)]


def test_a_writer_that_fails_leaves_no_shard_nor_sidecar_of_an_older_one(root: str) -> None:
    make(root, (2,))

    def failing() -> Iterator[Sample]:
        yield sample(9)
        raise KeyError

    with pytest.raises(KeyError):
        shards.write_shard(root, BUCKET, "clips", 1, failing())
    with pytest.raises(KeyError):
        shards.write_shard(root, BUCKET, "clips", 0, failing())
    names = [uri.rsplit("/", 1)[-1] for uri in storage.list_files(f"{root}/{BUCKET}", prefix="clips-")]
    assert names == ["clips-000000.tar", "clips-000000.tar.idx"]
    with pytest.raises(ShardError, match="not finished"):
        shards.read_info(root, f"{BUCKET}/clips-000000.tar")


def _write_slowly(root: str) -> None:
    def slow() -> Iterator[Sample]:
        for number in range(1000):
            yield sample(number, 20_000)
            time.sleep(0.01)

    shards.write_shard(root, BUCKET, "clips", 0, slow())


def test_a_kill_in_the_middle_leaves_no_shard(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_write_slowly, args=(str(tmp_path),))
    process.start()
    while not any(path.stat().st_size for path in tmp_path.rglob("*.part")):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert storage.list_files(str(tmp_path), recursive=True) == []
    storage.sweep(str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_the_shards_before_and_no_part_of_the_next(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        info = shards.write_shard(str(tmp_path), BUCKET, "clips", 0, [sample(0, 10_000)])
        with pytest.raises(storage.StorageError, match=r"clips-000001\.tar: no space left"):
            shards.write_shard(str(tmp_path), BUCKET, "clips", 1, (sample(n, 200_000) for n in range(20)))
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
            f"clips-000000.{end}" for end in ("tar", "tar.idx", "parquet")
        }
        assert len(list(shards.read_shard(f"{tmp_path}/{info.path}", ("mp4", "json", "txt")))) == 1
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_memory_is_bounded_by_a_sample_in_writing_and_reading(tmp_path: Path) -> None:
    root, size_bytes = str(tmp_path), 2 * 2**20
    warm = shards.write_shard(f"{root}/warm", BUCKET, "clips", 0, [sample(0, 10)])  # modules are loaded on first use
    shards.write_manifest(f"{root}/warm", [warm], kind="clips", fingerprint="abc")
    assert sum(1 for _ in shards.pipeline(f"{root}/warm")) == 1
    tracemalloc.start()
    try:
        info = shards.write_shard(root, BUCKET, "clips", 0, (sample(n, size_bytes) for n in range(30)))
        shards.write_manifest(root, [info], kind="clips", fingerprint="abc")
        assert sum(1 for _ in shards.pipeline(root)) == 30
        assert tracemalloc.get_traced_memory()[1] < 5 * size_bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "without samples"),
        ([Sample("../../etc/passwd", [("txt", b"")])], "no clip key"),
        ([Sample("a.b", [("txt", b"")])], "no clip key"),
        ([sample(1), sample(1)], "comes twice"),
        ([Sample(key(1), [])], "must be distinct"),
        ([Sample(key(1), [("tar.gz", b"")])], "without a dot"),
        ([Sample(key(1), [("txt", b""), ("txt", b"")])], "must be distinct"),
    ],
)
def test_what_the_contract_forbids_is_refused(tmp_path: Path, samples: list[Sample], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        shards.write_shard(str(tmp_path), BUCKET, "clips", 0, samples)
    assert storage.list_files(str(tmp_path), recursive=True) == []


@pytest.mark.parametrize(("bucket", "name", "index"), [("../up", "clips", 0), ("b", "a.b", 0), ("b", "clips", 10**6)])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, bucket: str, name: str, index: int) -> None:
    with pytest.raises(ShardError, match="are made of"):
        shards.write_shard(str(tmp_path), bucket, name, index, [sample(1)])


def test_prune_removes_what_the_manifest_does_not_list_and_nothing_else(root: str) -> None:
    infos = make(root)
    storage.write_bytes(f"{root}/{BUCKET}/notes.txt", b"mine")
    manifest = shards.write_manifest(root, infos[:2], kind="clips", fingerprint="abc")
    removed = shards.prune(root, manifest)
    assert sorted(removed) == [f"{BUCKET}/clips-000002.{end}" for end in ("parquet", "tar", "tar.idx")]
    left = [uri.rsplit("/", 1)[-1] for uri in storage.list_files(f"{root}/{BUCKET}")]
    assert "notes.txt" in left and "clips_stats.json" in left and not [name for name in left if "000002" in name]
    assert shards.prune(root, manifest) == []
    nothing = shards.write_manifest(root, [], kind="clips", fingerprint="abc")
    assert f"{BUCKET}/clips_stats.json" in shards.prune(root, nothing)
    assert [uri.rsplit("/", 1)[-1] for uri in storage.list_files(f"{root}/{BUCKET}")] == ["notes.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged"),
        (b'{"rushes_shards": 1}', "is damaged"),
        (b'{"rushes_shards": 9, "shards": [], "kind": "x", "fingerprint": "", "extra": {}}', "has shard version 9"),
    ],
)
def test_a_manifest_that_is_not_ours_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ShardError, match="is missing"):
        shards.read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ShardError, match=message):
        shards.read_manifest(str(tmp_path))


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    make(str(tmp_path))
    record = json.loads((tmp_path / "manifest.json").read_text())
    for path in ("../../etc/passwd", "/etc/passwd", "b/../../x-000000.tar", f"{BUCKET}/clips-000000.tar\n"):
        record["shards"][0]["path"] = path
        (tmp_path / "manifest.json").write_text(json.dumps(record))
        with pytest.raises(ShardError, match="which is no"):
            shards.read_manifest(str(tmp_path))


def test_the_uris_of_some_buckets_can_be_had_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    root = str(tmp_path)
    infos = [shards.write_shard(root, bucket, "clips", 0, [sample(i)]) for i, bucket in enumerate("ab")]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    assert shards.shard_uris(root) == [f"{root}/a/clips-000000.tar", f"{root}/b/clips-000000.tar"]
    assert shards.shard_uris(root, ["b"]) == [f"{root}/b/clips-000000.tar"]
    assert [one["__key__"] for one in shards.pipeline(root, buckets=["b"])] == [key(1)]
    with pytest.raises(ShardError, match="has no bucket c; it has a, b"):
        shards.shard_uris(root, ["c"])


def test_a_folder_of_sets_is_the_only_one_in_it_or_the_one_that_is_asked_for(root: str) -> None:
    for name in ("one", "two"):
        info = shards.write_shard(f"{root}/{name}", "b", "clips", 0, [sample(0 if name == "one" else 1)])
        if name == "two":
            assert shards.find(root) == f"{root}/one" and shards.read_manifest(root).extra == {"of": "one"}
            assert [one["__key__"] for one in shards.pipeline(root)] == [key(0)]
            assert shards.shard_uris(root) == [f"{root}/one/b/clips-000000.tar"]
        shards.write_manifest(f"{root}/{name}", [info], kind="clips", fingerprint="abc", extra={"of": name})
    assert shards.sets(root) == ["one", "two"]
    assert shards.find(root, "two") == shards.find(root, "", "two") == shards.find(f"{root}/two") == f"{root}/two"
    with pytest.raises(ShardError, match=r"several selections: one, two; give .*/one, or --selection one"):
        shards.pipeline(root)
    with pytest.raises(ShardError, match=r"no selection 'three': one, two"):
        shards.find(root, "three")
    with pytest.raises(ShardError, match="no selection one to choose"):
        shards.find(f"{root}/two", "one")
    with pytest.raises(ShardError, match="no folder of shards, or packing has not finished"):
        shards.find(f"{root}/none")


@given(st.lists(st.integers(0, 5000), max_size=40), st.integers(4000, 20_000))
@settings(max_examples=60, deadline=None)
def test_planned_shards_keep_the_order_and_never_exceed_the_limit(sizes: list[int], limit_bytes: int) -> None:
    in_tar = {str(n): archive.member_bytes(size_bytes) for n, size_bytes in enumerate(sizes)}
    plan = shards.plan_shards(list(in_tar.items()), limit_bytes)
    assert [one for shard in plan for one in shard] == list(in_tar)
    for shard in plan:
        assert sum(in_tar[one] for one in shard) + len(archive.END) <= limit_bytes or len(shard) == 1


def test_the_planned_size_is_the_size_written(tmp_path: Path) -> None:
    samples = [sample(n, size_bytes) for n, size_bytes in enumerate((0, 4, 512, 516, 3000))]
    planned = sum(archive.member_bytes(len(data)) for one in samples for _, data in one.members) + len(archive.END)
    assert shards.write_shard(str(tmp_path), BUCKET, "clips", 0, samples).size_bytes == planned


def test_samples_come_back_byte_for_byte_in_order(root: str) -> None:
    make(root)
    found = list(shards.pipeline(root))
    assert [one["__key__"] for one in found] == [key(n) for n in range(12)]
    for number, one in enumerate(found):
        assert {extension: one[extension] for extension in ("mp4", "json", "txt")} == dict(sample(number).members)


def test_only_the_members_asked_for_are_read_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    make(str(tmp_path))
    assert set(next(iter(shards.pipeline(str(tmp_path), members=("json",))))) == {"__key__", "__url__", "json"}
    with pytest.raises(ShardError, match=r"has \['json'\] of the members \['json', 'npy'\]"):
        list(shards.pipeline(str(tmp_path), members=("json", "npy")))
    with pytest.raises(ShardError, match=r"5 samples have none of the members \['npy'\]"):
        list(shards.pipeline(str(tmp_path), members=("npy",)))


def keys_of(root: str, **how: Any) -> list[str]:
    return [one["__key__"] for one in shards.pipeline(root, members=("txt",), **how)]


def test_the_shuffled_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    root = str(tmp_path)
    make(root, (20, 20, 20))
    first = keys_of(root, shuffle=16, seed=1, epoch=0)
    assert first == keys_of(root, shuffle=16, seed=1, epoch=0)
    others = [first, keys_of(root, shuffle=16, seed=1, epoch=1), keys_of(root, shuffle=16, seed=2), keys_of(root)]
    assert len({tuple(one) for one in others}) == 4
    assert all(sorted(one) == sorted(first) for one in others)


def test_a_repeated_pipeline_is_its_epochs_one_after_another(tmp_path: Path) -> None:
    root = str(tmp_path)
    make(root)
    stream = iter(shards.pipeline(root, shuffle=8, seed=3, epoch=5, repeat=True, members=("txt",)))
    assert [next(stream)["__key__"] for _ in range(24)] == [
        *keys_of(root, shuffle=8, seed=3, epoch=5),
        *keys_of(root, shuffle=8, seed=3, epoch=6),
    ]


@pytest.mark.parametrize("readers", [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("shuffle", [0, 8])
def test_every_key_comes_exactly_once_over_nodes_and_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: tuple[int, int], shuffle: int
) -> None:
    root = str(tmp_path)
    make(root)
    world, workers = readers
    found = []
    for rank in range(world):
        for worker in range(workers):
            for name, value in (("RANK", rank), ("WORLD_SIZE", world), ("WORKER", worker), ("NUM_WORKERS", workers)):
                monkeypatch.setenv(name, str(value))
            found.append(keys_of(root, shuffle=shuffle, seed=1))
    assert sorted(one for share in found for one in share) == [key(n) for n in range(12)]
    if world * workers <= 12:
        assert all(found), "no reader starves while there is a sample for each"


def test_with_nodes_off_every_node_sees_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(keys_of(str(tmp_path), nodes=False)) == 12


def test_readers_that_could_never_get_a_sample_are_told_rather_than_left_to_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(str(tmp_path), (2,))
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert keys_of(str(tmp_path)) == []
    with pytest.raises(ShardError, match="2 samples cannot feed 3 readers"):
        keys_of(str(tmp_path), repeat=True)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    info = make(str(tmp_path))[1]
    path = tmp_path / info.path
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ShardError, match=rf"{info.path} ends at byte 2000.*rushes verify"):
        list(shards.pipeline(str(tmp_path)))


@pytest.mark.parametrize("name", ["../../up.txt", "plain.txt", "0123456789abcdef-000000001.py/x", ".bashrc"])
def test_a_foreign_name_in_a_shard_is_refused(tmp_path: Path, name: str) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        writer = archive.Writer(file)
        writer.add(name, b"")
        writer.end()
    with pytest.raises(ShardError, match="is no clip key with an extension"):
        list(shards.read_shard(str(tmp_path / "x.tar"), ("txt",)))
