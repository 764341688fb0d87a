"""Verification: a sound run has no problem; whatever is changed, lost or added is named."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig
from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.caption import caption
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.pack.verify import verify, verify_shards
from rushes.pipelines.store import archive, encoded, shards, storage
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.ledger import Ledger, to_table
from rushes.pipelines.store.shards import Sample, ShardInfo

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
    rows = encoded.write_encoded(str(folder), UNIT, "eee", ((key(n), mp4(n), info) for n in range(5)))
    ledger.write("encoded", UNIT, rows, "eee")
    clips = [{"key": key(n), "unit": UNIT, "start_s": n / 7, "end_s": 1 + n / 7, "phash": [n, 2]} for n in range(5)]
    ledger.write("clips", UNIT, clips, "ccc")
    captions = [caption.row_of(clip, "endpoint", "m", {"long": f"Clip {n}."}) for n, clip in enumerate(clips)]
    ledger.write("captions", UNIT, captions, "ppp")
    kept = [{"key": key(n), "policy": "default", "kept": n < 5} for n in range(6)]
    ledger.write("selection", "default", kept, "fff")
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
    Ledger(str(run)).write("selection", "default", rows, "new")


def keep_fewer(run: Path) -> None:
    rows = [{"key": key(n), "policy": "default", "kept": n > 0} for n in range(5)]
    Ledger(str(run)).write("selection", "default", rows, "new")


def forget_packed(run: Path) -> None:
    rows = Ledger(str(run)).read("packed").to_pylist()
    Ledger(str(run)).write("packed", "all", rows[1:], "new")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "its bytes changed"),
        (truncate, "the manifest says"),
        (drop_shard, "listed in the manifest but missing"),
        (drop_sidecar, "side-car cannot be read"),
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


Members = list[tuple[str, bytes]]


def rewrite(run: Path, change: Callable[[Members], Members]) -> None:
    """Change what the first shard holds, and make its manifest entry and index true again, as a forger would."""
    info = first(run)
    path = run / "shards" / "default" / info.path
    with tarfile.open(path) as old:
        members = [(one.name, old.extractfile(one).read()) for one in old.getmembers()]  # type: ignore[union-attr]
    with path.open("wb") as file:
        tar, starts = archive.Writer(file), {}
        for name, data in change(members):
            starts.setdefault(name.split(".")[0], tar.offset)
            tar.add(name, data)
        starts["end"] = tar.offset
        tar.end()
    (path.with_name(f"{path.name}.idx")).write_bytes(struct.pack(f"<{len(starts)}Q", *starts.values()))
    record = json.loads((run / "shards" / "default" / "manifest.json").read_text())
    record["shards"][0] |= {"sha256": tar.sha256, "size_bytes": tar.offset, "samples": len(starts) - 1}
    (run / "shards" / "default" / "manifest.json").write_text(json.dumps(record))


def swap_videos(members: Members) -> Members:
    return [(one[0], two[1]) if one[0].endswith("mp4") else one
            for one, two in zip(members, members[3:] + members[:3], strict=True)]  # fmt: skip


def swap_facts(members: Members) -> Members:
    return [(one[0], two[1]) if one[0].endswith("json") else one
            for one, two in zip(members, members[3:] + members[:3], strict=True)]  # fmt: skip


def forge_videos(members: Members) -> Members:
    """Swap the videos of two clips and make their facts true again: only the ledger can tell."""
    videos = [data for name, data in swap_videos(members) if name.endswith("mp4")]
    digests = iter([hashlib.sha256(data).hexdigest() for data in videos])
    changed = [
        (name, json.dumps(json.loads(data) | {"sha256": next(digests)}).encode())
        if name.endswith("json")
        else (name, data)
        for name, data in swap_videos(members)
    ]
    assert {len(data) for data in videos} == {len(data) for name, data in members if name.endswith("mp4")}
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forge_videos, "is not the video that the ledger packed"),
        (swap_videos, "is not the video that its json describes"),
        (swap_facts, "json is of another clip: its key is"),
        (lambda members: [members[1], members[0], *members[2:]], "a sample has mp4 json txt"),
        (lambda members: members + members[:3], "stands in it twice"),
        (lambda members: [*members, ("notes.txt", b"hello")], "'notes.txt' is no clip key with an extension"),
        (lambda members: [*members, ("../../evil.mp4", b"")], "'../../evil.mp4' is no clip key with an extension"),
        (lambda members: [*members, ("/etc/passwd", b"")], "'/etc/passwd' is no clip key with an extension"),
        (lambda members: [*members[:2], (members[2][0], b"Another."), *members[3:]], "txt is not the caption"),
        (lambda members: [members[0], (members[1][0], b"{]"), *members[2:]], "json cannot be read"),
        (lambda members: [members[0], (members[1][0], b"[1]"), *members[2:]], "json cannot be read"),
        (lambda members: [*members[:2], *members[3:]], "has the members mp4 json, a sample has mp4 json txt"),
    ],
)
def test_a_forged_shard_whose_manifest_agrees_is_found(
    run: Path, change: Callable[[Members], Members], message: str
) -> None:
    rewrite(run, lambda members: members)
    assert verify(str(run)) == [], "the forger's tools do no harm by themselves"
    rewrite(run, change)
    found = [str(problem) for problem in verify(str(run))]
    assert [one for one in found if message in one and "; remove this file and run `rushes pack --out" in one], found


def test_a_link_in_a_shard_is_found_and_not_followed(run: Path) -> None:
    path = run / "shards" / "default" / first(run).path
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        link = tarfile.TarInfo(f"{key(0)}.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert ["is no regular file" in str(problem) for problem in verify(str(run))].count(True) == 1


def test_a_foreign_file_among_the_shards_is_found_and_energons_own_are_not(run: Path) -> None:
    (run / "shards" / "default" / ".nv-meta" / "index.sqlite").write_bytes(b"")
    assert verify(str(run)) == []
    (run / "shards" / "default" / "b").mkdir(exist_ok=True)
    (run / "shards" / "default" / "b" / "clips-000000.tar.bak").write_bytes(b"")
    assert ["a file that the manifest does not list" in str(problem) for problem in verify(str(run))] == [True]


def test_each_problem_is_one_line_and_progress_goes_to_the_log(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(run)
    with caplog.at_level("INFO", "rushes"):
        problems = verify(str(run), reporter=Reporter(live=False))
    assert problems and all("\n" not in str(problem) and "; " in str(problem) for problem in problems)
    assert [line for line in caplog.messages if line.startswith("verify")]


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
    members = [("mp4", mp4(1)), ("json", f'{{"key": "{key(1)}"}}'.encode()), ("txt", b"")]
    sample = Sample(key(1), members)
    infos = [shards.write_shard(root, bucket, "clips", 0, [sample]) for bucket in "ab"]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    assert ["also stands in" in str(problem) for problem in verify_shards(root)] == [True]


def _set(root: str, members: list[tuple[str, bytes]]) -> str:
    samples = []
    for number in range(2):
        own = [(name, data.replace(b"{", f'{{"key": "{key(number)}", '.encode()) if name == "json" else data)
               for name, data in members]  # fmt: skip
        samples.append(Sample(key(number), [*own, ("txt", b"")]))
    infos = [shards.write_shard(root, "b", "clips", 0, samples)]
    kind = "latents" if members[0][0] == "npy" else "clips"
    shards.write_manifest(root, infos, kind=kind, fingerprint="abc")
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
        ([("mp4", mp4(0)), ("json", b'{"width": 64}')], "is 32×32, its facts say 64×32"),
        ([("mp4", mp4(0)), ("json", b'{"fps": 24.0, "duration_s": 1.0}')], "0.000 to 0.125 s, its facts say 1.000 s"),
        ([("mp4", mp4(0)), ("json", b'{"has_audio": true}')], "has no sound, its facts say otherwise"),
        ([("mp4", mp4(0)), ("json", b'{"codec": "h264"}')], "is mpeg4, its facts say h264"),
        ([("mp4", mp4(0)), ("json", b'{"sha256": "00"}')], "is not the video that its json describes"),
        ([("mp4", mp4(0)), ("json", b'{"caption": "A dog."}')], "txt is not the caption that its json holds"),
        ([("json", b'{"frames": 4}'), ("mp4", mp4(0))], "has the members json mp4 txt, a sample has mp4 json txt"),
        (
            [("npy", _npy(np.zeros((3, 4, 2, 2)))), ("json", b'{"times_s": [0.0, 0.5]}')],
            "decodes to 3 latents, its facts have 2",
        ),
        ([("npy", _npy(np.array([{"evil": 1}]), True)), ("json", b'{"times_s": [0.0]}')], "npy cannot be read"),
    ],
)
def test_content_that_does_not_decode_as_it_says_is_found(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    root = _set(str(tmp_path), members)
    assert [message in str(problem) for problem in verify_shards(root)] == [True, True], "first and last of the shard"
    assert [message in str(problem) for problem in verify_shards(root, full=True)] == [True, True]


def test_of_a_large_shard_first_last_and_a_few_are_decoded_and_with_full_all(tmp_path: Path) -> None:
    members = [[("mp4", b"no video"), ("json", f'{{"key": "{key(n)}"}}'.encode()), ("txt", b"")] for n in range(20)]
    infos = [shards.write_shard(str(tmp_path), "b", "clips", 0, map(Sample, map(key, range(20)), members))]
    shards.write_manifest(str(tmp_path), infos, kind="clips", fingerprint="abc")
    found = [str(problem) for problem in verify_shards(str(tmp_path))]
    assert 3 <= len(found) <= 5 and key(0) in found[0] and key(19) in found[-1]
    assert found == [str(problem) for problem in verify_shards(str(tmp_path))]
    assert len(list(verify_shards(str(tmp_path), full=True))) == 20


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


def test_what_is_selected_but_not_packed_is_named_with_the_command_that_packs_it(run: Path) -> None:
    rows = [{"key": key(0), "policy": "mine", "kept": True}]
    Ledger(str(run)).write("selection", "mine", rows, "fff")
    (problem,) = verify(str(run), selection="mine")
    assert str(problem) == (
        f"{run}/shards/mine: its manifest.json is missing: nothing was packed yet, or packing has not finished; "
        f"run `rushes pack --out {run} --select.policy mine`"
    )


def test_the_command_named_is_of_the_selection_checked_whichever_is_current(run: Path) -> None:
    (run / "config.yaml").write_text("select: {policy: svd-pretrain}\n")
    flip(run)
    (problem,) = verify(str(run), selection="default")
    assert problem.remedy == f"remove this file and run `rushes pack --out {run} --select.policy default`"
