"""A run as a whole: it resumes, grows, forgets nothing and doubles nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from rushes.pipelines.cli.main import main
from rushes.pipelines.config import LatentsConfig, ScanConfig, ScoreConfig, SelectConfig, ShotsConfig
from rushes.pipelines.engine import cluster, curate, encode_latents
from rushes.pipelines.engine.cluster import Row
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import accounting, summary
from rushes.pipelines.stages.pack import verify
from rushes.pipelines.stages.select import selections
from rushes.pipelines.stages.unit import Unit
from rushes.pipelines.store import shards
from rushes.pipelines.store.ledger import Ledger
from rushes.tokenizer import model
from rushes.tokenizer.config import TokenizerConfig
from tests.pipelines.small_run import ALL, CONFIG, content


@pytest.fixture(scope="module", autouse=True)
def ray_stops():
    yield
    cluster.stop()


@pytest.fixture(scope="module")
def run(undisturbed: str) -> str:
    return undisturbed


def test_every_second_ends_in_one_place(run: str):
    account = accounting.account(run)
    account.check()
    total = sum(entry.seconds for entry in account.entries)
    # bikes.mp4 is 250 frames of 25 a second, the two carphone clips 120 of 30000/1001.
    assert total == pytest.approx(10.0 + 10.0 + 2 * 120 * 1001 / 30000, abs=0.05)
    reasons = {(entry.fate, entry.reason) for entry in account.entries}
    assert {("kept", "kept"), ("dropped", "exact_duplicate"), ("dropped", "duplicate")} <= reasons
    assert ("failed", "not_video") in reasons


def test_the_failure_names_file_reason_and_remedy(run: str):
    (failure,) = summary.of(run)["failures"]
    assert failure["uri"].endswith("notes.mp4")
    assert "text" in failure["reason"] and "remove it" in failure["remedy"]


def test_the_better_copy_survives_and_the_pair_table_says_so(run: str):
    uris = {row["key"]: Path(row["uri"]).name for row in Ledger(run).read("clips", ["key", "uri"]).to_pylist()}
    rows = Ledger(run).read("pairs").to_pylist()
    pairs = [(uris[row["key"]], uris[row["kept_key"]]) for row in rows if row["level"] == "copy"]
    assert pairs == [("car_distorted.mp4", "car.mp4")]
    same = [(Path(row["uri"]).name, Path(row["kept_uri"]).name) for row in rows if row["level"] == "bytes"]
    assert same == [("same_bytes.mp4", "bikes.mp4")] and len(rows) == 2


def test_the_shards_agree_with_manifest_and_ledger(run: str):
    assert verify.verify(run, full=True) == []


def test_the_same_command_again_does_nothing(run: str, inputs: Path, one_process: None):
    files = [file for file in Path(run).rglob("*") if file.suffix in (".parquet", ".tar")]
    before = {file: file.stat().st_mtime_ns for file in files}
    curate.curate([str(inputs)], run, CONFIG, reporter=Reporter(live=False))
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_two_runs_of_one_input_are_equal_to_the_byte_by_one_process_and_by_workers_of_ray(
    run: str, inputs: Path, tmp_path: Path
):
    again = str(tmp_path / "again")
    listed = [str(file) for file in sorted(inputs.iterdir(), reverse=True)]  # another order of the same inputs
    curate.curate(listed, again, CONFIG, reporter=Reporter(live=False))
    assert content(again, *ALL) == content(run, *ALL)


def test_adding_inputs_does_only_the_new_ones(run: str, inputs: Path, bunny: Path, tmp_path: Path, one_process: None):
    grown = str(tmp_path / "grown")
    shutil.copytree(run, grown)
    before = content(grown, "ledger/scan", "ledger/signals", "ledger/clips", "ledger/scores", "encoded", "shards")
    new = tmp_path / "a_new_one.mp4"  # sorts before all the others
    shutil.copy(bunny, new)
    curate.curate([str(new), str(inputs)], grown, CONFIG, reporter=Reporter(live=False))
    after = content(grown, "ledger/signals", "ledger/clips", "ledger/scores", "encoded", "shards")
    lists = ("manifest", ".nv-meta", "_stats")
    assert {name: after.get(name) for name in before if not any(word in name for word in lists)} == {
        name: value for name, value in before.items() if not any(word in name for word in lists)
    }
    account = accounting.account(grown)
    account.check()
    assert account.inputs == 6
    assert verify.verify(grown) == []


def test_another_policy_stands_beside_the_first_and_reads_no_video_again(
    run: str, inputs: Path, tmp_path: Path, one_process: None
):
    both = str(tmp_path / "both")
    shutil.copytree(run, both)
    policy = tmp_path / "a_file_of_another_name.yaml"
    policy.write_text("name: strict\nrules:\n  - {name: long_enough, measure: duration_s, min: 2.5}\n")
    untouched = ("ledger/sources", "ledger/signals", "ledger/frames", "ledger/clips", "ledger/scores", "shards/default",
                 "ledger/captions", "ledger/encoded", "encoded")  # fmt: skip
    before = content(both, *untouched)
    own = content(both, "ledger/selection", "ledger/packed", "ledger/pairs")
    strict = replace(CONFIG, select=SelectConfig(policy=str(policy)))
    curate.curate([str(inputs)], both, strict, reporter=Reporter(live=False))
    assert content(both, *untouched) == before
    after = content(both, "ledger/selection", "ledger/packed", "ledger/pairs")
    assert own.items() <= after.items()

    assert selections.names(Ledger(both)) == ["default", "strict"] and selections.current(both) == "strict"
    assert selections.stale(Ledger(both)) == []
    rows = Ledger(both).read("selection").to_pylist()
    kept = {name: {r["key"] for r in rows if r["kept"] and r["policy"] == name} for name in ("default", "strict")}
    long = {row["key"] for row in Ledger(both).read("clips").to_pylist() if row["duration_s"] >= 2.5}
    assert kept["strict"] == kept["default"] & long and kept["strict"] < kept["default"]
    for name, keys in kept.items():
        assert verify.verify(both, full=True, selection=name) == []
        assert {one["__key__"] for one in shards.pipeline(f"{both}/shards/{name}")} == keys
        accounting.account(both, name).check()
    with pytest.raises(shards.ShardError, match=r"several selections: default, strict.*--selection default"):
        shards.shard_uris(f"{both}/shards")
    assert summary.of(both)["policy"] == "strict" and accounting.account(both).policy == "strict"

    torch.manual_seed(0)
    model.save(model.Tokenizer(TokenizerConfig()), str(tmp_path / "tokenizer"))
    row = {"selection": "default", "shard": "b/clips-000000.tar", "samples": 1}
    kept_part = Ledger(both).write("latents", "default.b-clips-000000", [row], "a" * 12)
    small = LatentsConfig(side_px=32, share=0.0)
    made = encode_latents.run(both, str(tmp_path / "tokenizer"), small, CONFIG.ray, Reporter(live=False))
    assert (made.extra["selection"], made.samples) == ("strict", len(kept["strict"]))
    assert Path(kept_part).exists() and selections.folder(both, "latents") == f"{both}/latents/strict"
    assert verify.verify(both, full=True) == []
    for tar in Path(both, "latents", "strict").rglob("*.tar"):
        tar.unlink()
    assert {p.remedy for p in verify.verify(both)} == {f"run `rushes latents {both} --selection strict`"}
    encode_latents.run(both, str(tmp_path / "tokenizer"), small, CONFIG.ray, Reporter(live=False))
    assert verify.verify(both) == []

    extra = tmp_path / "more.mp4"
    shutil.copy(inputs / "car.mp4", extra)
    extra.write_bytes(extra.read_bytes() + b"\0" * 8)  # other bytes, the same pictures
    curate.curate([str(extra)], both, strict, through="select", reporter=Reporter(live=False))
    assert selections.stale(Ledger(both)) == ["default"], "what was left alone is said to be older than the ledger"
    accounting.account(both, "default").check()
    pending = {e.reason: e.clips for e in accounting.account(both, "default").entries if e.fate == "pending"}
    assert pending == {"select": 1}

    (shard, *_) = sorted(Path(both, "shards", "default").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    problems = verify.verify(both, selection="default")
    assert problems and {problem.where for problem in problems} == {str(shard)}
    shard.unlink()  # the remedy, word for word, though the other selection is current and this one is stale
    command = re.fullmatch("remove this file and run `rushes (.*)`", problems[0].remedy)
    assert command is not None and main(command[1].split()) == 3  # the broken input is still one
    assert verify.verify(both, full=True, selection="default") == [] and selections.stale(Ledger(both)) == []


def test_going_back_to_a_policy_takes_its_clips_over_and_gives_the_same_shards(
    run: str, inputs: Path, tmp_path: Path, one_process: None
):
    changed = str(tmp_path / "changed")
    shutil.copytree(run, changed)
    before = content(changed, "encoded", "shards", "ledger/encoded", "ledger/packed")
    kept = Ledger(changed).read("encoded", ["duration_s"])["duration_s"].to_pylist()
    policy = tmp_path / "long.yaml"
    longest = max(kept) - 0.01
    policy.write_text(f"name: long\nrules:\n  - {{name: long, measure: duration_s, min: {longest}}}\n")
    strict = replace(CONFIG, select=SelectConfig(policy=str(policy)))
    curate.curate([str(inputs)], changed, strict, reporter=Reporter(live=False))
    assert Ledger(changed).read("encoded").num_rows == len(kept), "cut for the first selection, used by both"
    curate.curate([str(inputs)], changed, CONFIG, reporter=Reporter(live=False))
    after = content(changed, "encoded", "shards", "ledger/encoded", "ledger/packed")
    assert {name: after.get(name) for name in before} == before
    assert {name.split("/")[1] for name in after if name.startswith("shards")} == {"default", "long"}


def test_a_file_in_many_spans_gives_the_clips_of_one(bikes: Path, tmp_path: Path, one_process: None):
    found = []
    for span_s in (2.0, 600.0):
        out = str(tmp_path / f"span{span_s:.0f}")
        config = replace(CONFIG, scan=ScanConfig(span_s=span_s), shots=ShotsConfig(min_clip_s=0.5))
        curate.curate([str(bikes)], out, config, through="shots", reporter=Reporter(live=False))
        spans = Ledger(out).read("signals", ["span"]).num_rows
        found.append((spans, Ledger(out).read("clips").to_pylist(), Ledger(out).read("trims").to_pylist()))
    assert (found[0][0], found[1][0]) == (5, 1)
    assert found[0][1:] == found[1][1:]


def test_a_mended_file_is_retried_to_the_shards_and_nothing_is_doubled(bikes: Path, tmp_path: Path, one_process: None):
    folder, mended, fresh = tmp_path / "in", str(tmp_path / "mended"), str(tmp_path / "fresh")
    folder.mkdir()
    shutil.copy(bikes.parent / "carphone_pristine.mp4", folder / "b.mp4")
    (folder / "a.mp4").write_text("broken\n" * 50)
    (folder / "c.mp4").write_text("broken\n" * 50)
    curate.curate([str(folder)], mended, CONFIG, reporter=Reporter(live=False))
    assert len(summary.of(mended)["failures"]) == 2
    shutil.copy(bikes, folder / "a.mp4")
    shutil.copy(folder / "b.mp4", folder / "c.mp4")
    curate.curate([str(folder)], mended, CONFIG, retry_failed=True, reporter=Reporter(live=False))
    curate.curate([str(folder)], fresh, CONFIG, reporter=Reporter(live=False))
    assert summary.of(mended)["failures"] == [] and verify.verify(mended, full=True) == []
    plans = {name for name in content(fresh, "ledger") if name.startswith("ledger/plan")}  # sizes and times were others
    once, twice = content(fresh, *ALL), content(mended, *ALL)
    assert {name: twice.get(name) for name in once if name not in plans} == {
        name: value for name, value in once.items() if name not in plans
    }
    assert once.keys() == twice.keys()


def test_a_damaged_part_ends_the_run_in_a_sentence_and_is_made_anew(
    run: str, inputs: Path, tmp_path: Path, one_process: None
):
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (part, *_) = sorted((damaged / "ledger" / "signals").iterdir())
    shutil.rmtree(damaged / "ledger" / "clips")  # so that the signals are asked for
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(
        curate.RunFailed,
        match=f"{part.name} cannot be read .*remove the file, if it is there, and run the same command",
    ):
        curate.curate([str(inputs)], str(damaged), CONFIG, reporter=Reporter(live=False))
    part.unlink()
    curate.curate([str(inputs)], str(damaged), CONFIG, reporter=Reporter(live=False))
    assert content(damaged, *ALL) == content(run, *ALL)


@pytest.mark.parametrize("table", ["frames", "windows", "strips", "trims", "sketches", "matches", "captions", "units"])
def test_a_part_that_was_removed_is_made_anew(run: str, inputs: Path, tmp_path: Path, one_process: None, table: str):
    lacking = tmp_path / "lacking"
    shutil.copytree(run, lacking)
    sorted((lacking / "ledger" / table).iterdir())[0].unlink()
    curate.curate([str(inputs)], str(lacking), CONFIG, reporter=Reporter(live=False))
    assert content(lacking, *ALL) == content(run, *ALL)


def test_shards_are_packed_again_where_their_clips_were_made_again_under_the_same_names(
    run: str, inputs: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
):
    spoilt = tmp_path / "spoilt"

    def broken(*_: object) -> None:
        raise OSError("the share is away")

    with monkeypatch.context() as away:
        away.setattr("rushes.pipelines.stages.encode.encode.cut", broken)
        curate.curate([str(inputs)], str(spoilt), CONFIG, reporter=Reporter(live=False))
    assert shards.read_manifest(str(spoilt / "shards" / "default")).samples == 0
    curate.curate([], str(spoilt), CONFIG, through="encode", retry_failed=True, reporter=Reporter(live=False))
    curate.curate([], str(spoilt), CONFIG, reporter=Reporter(live=False))
    assert verify.verify(str(spoilt)) == [] and content(spoilt, *ALL) == content(run, *ALL)


def test_settings_that_were_changed_killed_and_changed_back_leave_what_was_there(
    run: str, inputs: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
):
    back = tmp_path / "back"
    shutil.copytree(run, back)
    other = replace(CONFIG, scan=ScanConfig(tick_hz=5.0))

    class Killed(BaseException):
        """Stands for a kill."""

    write = Unit.write

    def killed(unit: Unit, table: str, rows: object) -> None:
        if table == "windows":
            raise Killed
        write(unit, table, rows)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Unit, "write", killed)
        curate.curate([str(inputs)], str(back), other, reporter=Reporter(live=False))
    curate.curate([str(inputs)], str(back), CONFIG, reporter=Reporter(live=False))
    assert content(back, *ALL) == content(run, *ALL)


def test_what_changed_after_probing_is_an_error_and_no_clip_of_other_footage(
    bikes: Path, tmp_path: Path, one_process: None
):
    folder, out = tmp_path / "in", str(tmp_path / "run")
    folder.mkdir()
    early, late = folder / "early.mp4", folder / "late.mp4"
    shutil.copy(bikes, early)
    shutil.copy(bikes.parent / "carphone_pristine.mp4", late)
    curate.curate([str(folder)], out, CONFIG, through="sources", reporter=Reporter(live=False))
    shutil.copy(bikes.parent / "carphone_distorted.mp4", early)
    curate.curate([], out, CONFIG, through="caption", reporter=Reporter(live=False))
    shutil.copy(bikes.parent / "carphone_distorted.mp4", late)
    curate.curate([], out, CONFIG, reporter=Reporter(live=False))
    failed = {(Path(row["uri"]).name, row["stage"], row["code"]) for row in summary.of(out)["failures"]}
    assert failed == {("early.mp4", "scan", "changed"), ("late.mp4", "encode", "changed")}
    assert verify.verify(out) == [] and summary.of(out)["shards"]["samples"] == 0


def test_a_missing_model_is_named_before_anything_runs(inputs: Path, tmp_path: Path):
    config = replace(CONFIG, score=ScoreConfig(scorers=["quality", "aesthetic"]))
    with pytest.raises(ValueError, match=r"--score\.aesthetic_head"):
        curate.curate([str(inputs)], str(tmp_path / "none"), config, reporter=Reporter(live=False))
    assert not (tmp_path / "none").exists()


def test_a_policy_without_its_scorer_is_refused_before_anything_runs(inputs: Path, tmp_path: Path):
    config = replace(CONFIG, select=SelectConfig(policy="svd-pretrain"))
    with pytest.raises(ValueError, match=r"measure 'text'.*score\.scorers"):
        curate.curate([str(inputs)], str(tmp_path / "none"), config, reporter=Reporter(live=False))
    assert not (tmp_path / "none").exists()


def _dies_on_the_third(task: Row, crashes: cluster.Attempts, threads: int) -> Row:
    row = {**task, "refused": False}
    if not crashes.begin(task["unit"]):
        row["refused"] = True
    elif task["unit"] == "third":
        os._exit(139)
    crashes.end(task["unit"])
    return row


def _one_that_dies() -> Callable[..., Row]:
    """Make a worker that dies of the third unit, whenever it is asked for it."""
    return _dies_on_the_third


def _marked(task: Row, crashes: cluster.Attempts, threads: int) -> Row:
    crashes.tell("marking", 1, 2.0, 0)
    return {**task, "came": [*task.get("came", []), os.getpid()]}


def _one_that_marks() -> Callable[..., Row]:
    """Make a worker that says who it is."""
    return _marked


UNITS = [{"unit": name} for name in ("first", "second", "third", "fourth")]


@pytest.mark.slow
def test_what_kills_its_worker_twice_is_refused_and_stops_nothing_else(run: str):
    cluster.start(CONFIG.ray)
    tasks = cluster.Segment(place="cpu", make=_one_that_dies)
    rows = {row["unit"]: row["refused"] for row in cluster.stream(UNITS, [tasks])}
    assert rows == {"first": False, "second": False, "third": True, "fourth": False}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["gpu", "wait"])
def test_what_kills_its_actor_twice_is_refused_and_stops_nothing_else(run: str, place: Literal["gpu", "wait"]):
    cluster.start(CONFIG.ray)
    actors = cluster.Segment(place=place, make=_one_that_dies)
    rows = {row["unit"]: row["refused"] for row in cluster.stream(UNITS, [actors])}
    assert rows == {"first": False, "second": False, "third": True, "fourth": False}


def test_a_task_goes_through_all_segments_also_where_one_kills_its_worker_and_is_told_of(run: str):
    cluster.start(CONFIG.ray)
    places: list[tuple[Literal["cpu", "gpu", "wait"], Callable[[], Callable[..., Row]]]] = [
        ("cpu", _one_that_marks), ("wait", _one_that_dies), ("gpu", _one_that_marks),
    ]  # fmt: skip
    segments = [cluster.Segment(place=place, make=make) for place, make in places]
    told: list[cluster.Tallies] = []
    rows = list(cluster.stream(UNITS, segments, watch=told.append))
    assert sorted(row["unit"] for row in rows) == sorted(unit["unit"] for unit in UNITS), "none lost, none doubled"
    assert {row["unit"] for row in rows if row["refused"]} == {"third"}
    assert all(len(row["came"]) == 2 for row in rows), "each was in the first segment and in the last"
    assert len({row["came"][1] for row in rows}) == 1, "an actor keeps what it has loaded"
    assert told[-1]["marking"] == (8, 8, 16.0, 0)


def test_one_process_counts_the_attempts_of_all_stages_and_tells_them_apart():
    for _ in range(2):  # with Ray started anew, too
        cluster.start(CONFIG.ray)
        scan, encode = cluster.Attempts(), cluster.Attempts()
        assert scan._actor is encode._actor
        assert [scan.begin("film") for _ in range(3)] == [True, True, False]
        assert encode.begin("film")
        cluster.stop()
