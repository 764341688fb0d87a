"""Verification: a sound run has no problem; whatever is changed, lost or added is named."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import caption, pack, shards, storage
from pipelines.clip import clip_key
from pipelines.config import PackConfig
from pipelines.ledger import Ledger, to_table
from pipelines.shards import Sample, ShardInfo
from pipelines.verify import verify, verify_shards

PACK = PackConfig(shard_mb=0.03)
UNIT = "w0-u0"


def key(number: int) -> str:
    return clip_key("0123456789abcdef", number)


def mp4(number: int, frames: int = 4) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=24)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for shade in range(frames):
            picture = np.full((32, 32, 3), 20 * shade + number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
    return stream.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of five clips in several shards."""
    folder, ledger = tmp_path / "run", Ledger(str(tmp_path / "run"))
    ledger.create()
    info = {"width": 32, "height": 32, "fps": 24.0, "frames": 4, "duration_s": 4 / 24, "codec": "mpeg4"}
    rows = pack.write_encoded(str(folder), UNIT, "eee", ((key(n), mp4(n), info) for n in range(5)))
    ledger.write("encoded", UNIT, rows, "eee")
    clips = [{"key": key(n), "unit": UNIT, "start_s": n / 7, "end_s": 1 + n / 7, "phash": [n, 2]} for n in range(5)]
    ledger.write("clips", UNIT, clips, "ccc")
    captions = [caption.row_of(clip, "endpoint", "m", {"long": f"Clip {n}."}) for n, clip in enumerate(clips)]
    ledger.write("captions", UNIT, captions, "ppp")
    kept = [{"key": key(n), "policy": "default", "kept": n < 5} for n in range(6)]
    ledger.write("selection", f"{UNIT}-default", kept, "fff")
    plans = pack.shard_plan(ledger.read("encoded"), to_table("selection", kept), PACK)
    joined = pack.join(ledger, [key(n) for n in range(5)])
    infos = [pack.assemble(str(folder), plan, PACK, "default") for plan in plans]
    packed = [pack.packed_rows(plan, one, joined, "default") for plan, one in zip(plans, infos, strict=True)]
    ledger.write("packed", "all", [row for shard in packed for row in shard], "kkk")
    shards.write_manifest(f"{folder}/shards/default", infos, kind="clips", fingerprint="abc")
    assert len(infos) > 1
    return folder


def first(run: Path) -> ShardInfo:
    return shards.read_manifest(f"{run}/shards/default").shards[0]


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_run_has_no_problem(run: Path, full: bool) -> None:
    assert verify(str(run), full) == []


def flip(run: Path, position: int = 3000) -> None:
    path = run / "shards" / "default" / first(run).path
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def truncate(run: Path) -> None:
    path = run / "shards" / "default" / first(run).path
    path.write_bytes(path.read_bytes()[:1500])


def drop_shard(run: Path) -> None:
    (run / "shards" / "default" / first(run).path).unlink()


def drop_sidecar(run: Path) -> None:
    (run / "shards" / "default" / first(run).sidecar).unlink()


def swap_sidecar(run: Path) -> None:
    one, other = shards.read_manifest(f"{run}/shards/default").shards[:2]
    (run / "shards" / "default" / one.sidecar).write_bytes((run / "shards" / "default" / other.sidecar).read_bytes())


def add_shard(run: Path) -> None:
    path = run / "shards" / "default" / first(run).path
    path.with_name("clips-000777.tar").write_bytes(path.read_bytes())


def change_manifest(run: Path) -> None:
    path = run / "shards" / "default" / "manifest.json"
    record = json.loads(path.read_text())
    record["shards"][0]["samples"] += 1
    path.write_text(json.dumps(record))


def drop_manifest(run: Path) -> None:
    (run / "shards" / "default" / "manifest.json").unlink()


def change_index(run: Path) -> None:
    path = run / "shards" / "default" / f"{first(run).path}.idx"
    path.write_bytes(path.read_bytes()[:-8])


def keep_another(run: Path) -> None:
    rows = [{"key": key(n), "policy": "default", "kept": True} for n in range(6)]
    Ledger(str(run)).write("selection", f"{UNIT}-default", rows, "new")


def keep_fewer(run: Path) -> None:
    rows = [{"key": key(n), "policy": "default", "kept": n > 0} for n in range(5)]
    Ledger(str(run)).write("selection", f"{UNIT}-default", rows, "new")


def forget_packed(run: Path) -> None:
    rows = Ledger(str(run)).read("packed").to_pylist()
    Ledger(str(run)).write("packed", "all", rows[1:], "new")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "its bytes changed"),
        (truncate, "the manifest says"),
        (drop_shard, "listed in the manifest but missing"),
        (drop_sidecar, "side-car or index cannot be read"),
        (swap_sidecar, "side-car does not match"),
        (add_shard, "the manifest does not list"),
        (change_manifest, "samples, the manifest says"),
        (drop_manifest, "manifest.json is missing"),
        (change_index, ".idx does not match"),
        (keep_another, f"{key(5)}: kept by the selection but in no shard"),
        (keep_fewer, f"{key(0)}: in a shard but not kept"),
        (forget_packed, "the ledger says nowhere"),
    ],
)
def test_whatever_changes_is_named(run: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(run)
    assert [str(problem) for problem in verify(str(run)) if message in str(problem)], verify(str(run))


@pytest.mark.parametrize("position", [0, 100, 600, -600, -1])
def test_a_flipped_byte_is_found_wherever_it_is(run: Path, position: int) -> None:
    flip(run, position)
    assert verify(str(run))


def test_a_clip_that_failed_to_encode_is_not_missed(run: Path) -> None:
    keep_another(run)
    Ledger(str(run)).write("errors", UNIT, [{"key": key(5), "stage": "encode", "code": "broken"}], "eee")
    assert verify(str(run)) == []


def test_a_repeated_key_is_found(tmp_path: Path) -> None:
    root = str(tmp_path)
    sample = Sample(key(1), [("json", b'{"frames": 4}')])
    infos = [shards.write_shard(root, bucket, "clips", 0, [sample]) for bucket in "ab"]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    assert ["also stands in" in str(problem) for problem in verify_shards(root)] == [True]


def _set(root: str, members: list[tuple[str, bytes]]) -> str:
    samples = [Sample(key(0), members), Sample(key(1), members)]
    infos = [shards.write_shard(root, "b", "clips", 0, samples)]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    return root


def _npy(array: Any, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("mp4", b"not a video"), ("json", b'{"frames": 4}')], "mp4 cannot be read"),
        ([("mp4", mp4(0, 3)), ("json", b'{"frames": 4}')], "decodes to 3 frames, its facts say 4"),
        ([("mp4", mp4(0)), ("json", b"{}")], "json cannot be read"),
        ([("npy", _npy(np.zeros((3, 4, 2, 2)))), ("json", b'{"times_s": [0.0, 0.5]}')], "decodes to 3 frames"),
        ([("npy", _npy(np.array([{"evil": 1}]), True)), ("json", b'{"times_s": [0.0]}')], "npy cannot be read"),
    ],
)
def test_content_that_does_not_decode_as_it_says_is_found(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    root = _set(str(tmp_path), members)
    assert [message in str(problem) for problem in verify_shards(root)] == [True], "the first of the shard"
    assert [message in str(problem) for problem in verify_shards(root, full=True)] == [True, True], "all of it"


def test_sound_latents_have_no_problem(tmp_path: Path) -> None:
    latents = _npy(np.zeros((2, 4, 2, 2), np.float16))
    assert (
        list(verify_shards(_set(str(tmp_path), [("npy", latents), ("json", b'{"times_s": [0.0, 0.5]}')]), True)) == []
    )


def test_a_run_in_an_object_store_is_verified_there(s3: str) -> None:
    root = _set(f"{s3}/run/shards", [("mp4", mp4(0)), ("json", b'{"frames": 4}')])
    assert list(verify_shards(root, full=True)) == []
    info = shards.read_manifest(root).shards[0]
    data = storage.read_bytes(f"{root}/{info.path}")
    storage.write_bytes(f"{root}/{info.path}", data[:-1] + b"\1")
    assert hashlib.sha256(data).hexdigest() == info.sha256
    assert [problem.reason for problem in verify_shards(root)] == [
        "its bytes changed: the SHA-256 is not the manifest's"
    ]
