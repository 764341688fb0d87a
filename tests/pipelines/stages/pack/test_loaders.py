"""The same shards in everybody's loader: each key once, in webdataset, datasets, Energon, PyTorch and from S3."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import webdataset as wds
from torch.utils.data import DataLoader, IterableDataset

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.store import encoded, shards, storage
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.shards import Sample

KEYS = [clip_key("fedcba9876543210", number) for number in range(17)]


def make(root: str, counts: Iterable[int]) -> str:
    numbers = iter(range(len(KEYS)))
    infos = []
    for index, count in enumerate(counts):
        samples = []
        for number in itertools.islice(numbers, count):
            facts = {"key": KEYS[number], "duration_s": float(number), "camera": "pan", "hdr": False, "frames": number}
            if number % 3 == 0:
                facts["quality"] = 0.5  # what was not measured is absent
            members = [
                ("mp4", bytes([number]) * 999),
                ("json", json.dumps(facts).encode()),
                ("txt", b"\xc3\xa9t\xc3\xa9"),
            ]
            samples.append(Sample(KEYS[number], members))
        infos.append(shards.write_shard(root, "ab"[index % 2], "clips", index // 2, samples))
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    return root


@pytest.fixture(params=[(6, 6, 4, 1), (10, 7)], ids=["many_shards", "few_shards"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return make(str(tmp_path / "shards"), request.param)


@pytest.fixture
def tars(tmp_path: Path) -> list[str]:
    return sorted(map(str, Path(make(str(tmp_path / "tars"), (6, 6, 4, 1))).glob("*/*.tar")))


def bare(batch: list[dict[str, Any]]) -> dict[str, Any]:
    return batch[0]


def over_nodes(monkeypatch: pytest.MonkeyPatch, dataset: Callable[[], IterableDataset], nodes: int = 2) -> list[str]:
    found: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", str(nodes))
    for rank in range(nodes):
        monkeypatch.setenv("RANK", str(rank))
        loader = DataLoader(dataset(), batch_size=None, num_workers=2)
        found += [one["__key__"] for one in loader]
    return found


def test_webdataset_reads_them_directly(tars: list[str]) -> None:
    found = list(wds.WebDataset(tars, shardshuffle=False, nodesplitter=wds.split_by_node).decode())
    assert sorted(one["__key__"] for one in found) == KEYS
    for one in found:
        assert one["json"]["key"] == one["__key__"] and one["txt"] == "été"
        assert one["mp4"] == bytes([KEYS.index(one["__key__"])]) * 999


def test_webdataset_in_workers_on_nodes_gives_each_key_once(tars: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset() -> IterableDataset:
        return wds.WebDataset(tars, shardshuffle=False, nodesplitter=wds.split_by_node)

    assert sorted(over_nodes(monkeypatch, dataset)) == KEYS


@pytest.mark.parametrize("shuffle", [0, 5])
def test_our_pipeline_in_workers_on_nodes_gives_each_key_once(
    root: str, monkeypatch: pytest.MonkeyPatch, shuffle: int
) -> None:
    def dataset() -> IterableDataset:
        return shards.pipeline(root, shuffle=shuffle, seed=7)

    first, second = (over_nodes(monkeypatch, dataset) for _ in range(2))
    assert sorted(first) == KEYS
    assert sorted(second) == KEYS


def test_one_worker_sees_the_same_order_every_time(root: str) -> None:
    def keys() -> list[str]:
        loader = DataLoader(shards.pipeline(root, shuffle=5, seed=7), batch_size=1, num_workers=1, collate_fn=bare)
        return [one["__key__"] for one in loader]

    assert keys() == keys()


def test_our_pipeline_composes_with_webdatasets_stages(root: str) -> None:
    frames = wds.map(lambda one: torch.tensor(json.loads(one["json"])["frames"]))
    dataset = shards.pipeline(root, members=("json",)).compose(frames)
    batches = list(DataLoader(dataset, batch_size=4))
    assert sorted(torch.cat(batches).tolist()) == list(range(17))


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_reads_them(tars: list[str], streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found = datasets.load_dataset(
        "webdataset", data_files={"train": tars}, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    ).cast_column("mp4", datasets.Video(decode=False))
    rows = list(found)
    assert sorted(row["__key__"] for row in rows) == KEYS
    for row in rows:
        number = KEYS.index(row["__key__"])
        assert row["json"]["duration_s"] == float(number) and row["txt"] == "été"
        assert row["json"]["quality"] == (0.5 if number % 3 == 0 else None)
        assert row["mp4"]["bytes"] == bytes([number]) * 999


def test_workers_read_an_object_store_that_the_parent_used_before(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(f"{s3}/run/shards", (6, 6, 4, 1))
    assert len(list(shards.pipeline(root))) == 17, "the parent's client is warm when the workers are forked"
    assert sorted(over_nodes(monkeypatch, lambda: shards.pipeline(root, shuffle=4))) == KEYS


def test_workers_that_start_afresh_read_too(s3: str) -> None:
    root = make(f"{s3}/run/shards", (10, 7))
    loader = DataLoader(shards.pipeline(root), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert sorted(one["__key__"] for one in loader) == KEYS


def test_a_sample_can_be_fetched_alone_through_the_side_car(s3: str) -> None:
    root = make(f"{s3}/run/shards", (10, 7))
    info = shards.read_manifest(root).shards[1]
    row = shards.read_sidecar(root, info).to_pylist()[3]
    one = storage.read_range(f"{root}/{info.path}", row["mp4_offset"], row["mp4_bytes"])
    assert one == bytes([KEYS.index(row["key"])]) * 999


ENERGON_WARNS = pytest.mark.filterwarnings("ignore:'pin_memory'", "ignore:The handler kwarg", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def clips(bikes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of five real clips in two buckets."""
    root, row = str(tmp_path_factory.mktemp("clips")), room.probe(str(bikes), ScanConfig())
    samples: dict[str, list[Sample]] = {}
    for start_s, end_s in ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, 7.0)):
        mp4, info = encode.cut(str(bikes), row, start_s, end_s, PackConfig(max_side_px=64), (0.0, 0.0, 0.0, 0.0))
        key = clip_key(row["source_id"], round(start_s * 1000))
        bucket = encoded.bucket_of(info["width"], info["height"], info["fps"], info["duration_s"])
        facts = json.dumps({"key": key, **info}).encode()
        samples.setdefault(bucket, []).append(Sample(key, [("mp4", mp4), ("json", facts), ("txt", key[-9:].encode())]))
    infos = [shards.write_shard(root, bucket, "clips", 0, found) for bucket, found in samples.items()]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    assert len(infos) == 2
    return root


def keys_of(root: str) -> list[str]:
    manifest = shards.read_manifest(root)
    return sorted(one for info in manifest.shards for one in shards.read_sidecar(root, info)["key"].to_pylist())


@ENERGON_WARNS
def test_energon_reads_crude_samples_with_a_cooker(clips: str) -> None:
    energon = pytest.importorskip("megatron.energon")

    class Encoder(energon.DefaultTaskEncoder):
        decoder = None
        cookers = (energon.Cooker(energon.stateless(lambda sample: sample)),)

        def __init__(self) -> None:
            super().__init__(raw_batch_type=dict, encoded_sample_type=dict)

    workers = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = energon.get_train_dataset(
        clips, worker_config=workers, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None,
        repeat=False, task_encoder=Encoder(),
    )  # fmt: skip
    found = list(energon.get_loader(dataset))
    assert sorted(one["__key__"].rsplit("/", 1)[-1] for one in found) == keys_of(clips)
    for one in found:
        assert json.loads(one["json"])["key"] == one["__key__"].rsplit("/", 1)[-1]


@ENERGON_WARNS
def test_energon_decodes_them_without_a_cooker(clips: str) -> None:
    energon = pytest.importorskip("megatron.energon")
    workers = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = energon.get_train_dataset(
        clips, dataset_config="video.yaml", worker_config=workers, batch_size=1, shuffle_buffer_size=None,
        max_samples_per_sequence=None, repeat=False,
    )  # fmt: skip
    found = list(energon.get_loader(dataset))
    assert sorted(one.context[0] for one in found) == [key[-9:] for key in keys_of(clips)]
    for one in found:
        frames = one.video[0].get_video_clips([(0, 1000)], video_unit="frames")[0][0]
        assert frames.shape[0] in {25, 50} and frames.shape[1:] == (3, 64, 150), frames.shape


@ENERGON_WARNS
@pytest.mark.parametrize("tool", ["info", "lint"])
def test_energons_own_tools_accept_them(clips: str, tool: str) -> None:
    pytest.importorskip("megatron.energon")
    from click.testing import CliRunner

    command = importlib.import_module(f"megatron.energon.tools.{tool}").command
    done = CliRunner().invoke(command, ["--dataset-config", "video.yaml", clips])
    assert done.exit_code == 0, done.output
    assert "5 samples" in done.output or tool == "lint"
