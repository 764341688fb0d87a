"""A run whose processes are killed ends in the bytes of one that nobody disturbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from rushes.pipelines.config import LatentsConfig
from rushes.pipelines.engine import curate, encode_latents, job
from rushes.pipelines.progress import Reporter
from tests.pipelines import held, small_run
from tests.pipelines.one_process import in_one_process
from tests.pipelines.small_run import ALL, CONFIG, FLAGS, content


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> Path:
    folder = tmp_path_factory.mktemp("films") / "footage"
    small_run.films(bikes, folder)
    return folder


@pytest.fixture(scope="module")
def alone(films: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Their run, by one process that nobody disturbed."""
    run = str(tmp_path_factory.mktemp("alone") / "run")
    with in_one_process():
        curate.curate([str(films)], run, CONFIG, reporter=Reporter(live=False))
    return run


@pytest.fixture(scope="module")
def hold(alone: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[held.Hold]:
    with held.ray(tmp_path_factory.mktemp("hold")) as found:
        yield found


def driver(inputs: Path, run: Path) -> subprocess.Popen[bytes]:
    """The command, on the Ray that is held; what it prints and logs stands beside the run."""
    return begun(["curate", str(inputs), "--out", str(run), "--json", *FLAGS], run)


def begun(words: list[str], run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rushes.pipelines.cli.main", *words]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with run.with_suffix(".log").open("ab") as log, run.with_suffix(".json").open("wb") as out:
        return subprocess.Popen(command, stderr=log, stdout=out, start_new_session=True, env=environment)


# What is about to be written when each stage is killed. Of what is written for each unit one such file is there
# already, so that of the units one is done and one half written: of the scan, say, its pictures are there and its
# signals are not.
FINDING = {
    "sources": "ledger/sources",
    "scan": "ledger/windows",
    "witness": "ledger/witness",
    "shots": "ledger/sketches",
    "score": "ledger/scores",
}
KEEPING = {
    "match": "ledger/matches",
    "select": "ledger/selection",
    "encode": "encoded",
    "caption": "ledger/captions",
    "pack": "ledger/packed",
}
AT_ONCE = ("match", "select")


def test_every_stage_is_killed_once():
    assert {*FINDING, *KEEPING} == set(job.STAGES)


def killed_at(moments: dict[str, str], films: Path, run: Path, hold: held.Hold) -> None:
    """Begin the run again and again, and kill it at each moment."""
    for stage, table in moments.items():
        hold.set(f"{run}/{table}/*", passing=stage not in AT_ONCE)
        process = driver(films, run)
        hold.wait(process)
        held.kill(process)
        hold.release()
        names = [file.name for file in (run / table).iterdir()]
        assert any(name.endswith(".part") for name in names), f"{stage} was killed while it wrote"
        done = [name for name in names if not name.endswith(".part")]
        assert bool(done) != (stage in AT_ONCE), f"{stage} had done a part of its work, if it has parts"
    last = driver(films, run)
    assert last.wait() == 3, run.with_suffix(".log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stages", [tuple(FINDING)[:2], tuple(FINDING)[2:]])
def test_a_run_killed_in_every_stage_that_finds_clips_ends_in_the_same_bytes(
    alone: str, films: Path, hold: held.Hold, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    run = tmp_path / "killed"
    killed_at({stage: FINDING[stage] for stage in stages}, films, run, hold)
    assert content(run, *ALL) == content(alone, *ALL)


@pytest.mark.slow
def test_a_run_killed_in_every_stage_that_makes_shards_ends_in_the_same_bytes(
    alone: str, films: Path, hold: held.Hold, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    shutil.copytree(alone, run)
    for table in ("matches", "selection", "pairs", "encoded", "captions", "packed"):
        shutil.rmtree(run / "ledger" / table)
    for folder in ("encoded", "shards"):
        shutil.rmtree(run / folder)
    killed_at(KEEPING, films, run, hold)
    assert content(run, *ALL) == content(alone, *ALL)


@pytest.mark.slow
def test_latents_killed_in_either_pass_end_in_the_bytes_of_one_worker_that_nobody_disturbed(
    alone: str, hold: held.Hold, tmp_path: Path
) -> None:
    run, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for copy in (run, undisturbed):
        shutil.copytree(alone, copy)
    with in_one_process():
        config = LatentsConfig(side_px=32, share=0.5)
        encode_latents.run(str(undisturbed), "shipped", config, CONFIG.ray, Reporter(live=False))
    command = ["latents", str(run), "--tokenizer", "shipped", "--side_px", "32", "--share", "0.5"]
    for table in ("rates", "latents"):
        hold.set(f"{run}/ledger/{table}/*", passing=True)
        process = begun(command, run)
        hold.wait(process)
        held.kill(process)
        hold.release()
        names = [file.name for file in (run / "ledger" / table).iterdir()]
        assert any(name.endswith(".part") for name in names) and not all(name.endswith(".part") for name in names)
    assert begun(command, run).wait() == 0, run.with_suffix(".log").read_text()
    made = ("latents", "ledger/rates", "ledger/latents", "ledger/errors")
    assert content(run, *made) == content(undisturbed, *made)


def test_a_worker_killed_in_mid_leg_is_replaced_and_the_bytes_are_the_same(
    alone: str, films: Path, hold: held.Hold, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(alone, run)
    for table in ("frames", "windows", "signals", "encoded"):  # what the legs below have to do again
        shutil.rmtree(run / "ledger" / table)
    shutil.rmtree(run / "encoded")
    hold.set(f"{run}/{FINDING['scan']}/*")
    process = driver(films, run)
    for stage, later in (("scan", "encode"), ("encode", "")):
        worker = psutil.Process(hold.wait(process))
        assert worker in held.workers(), f"{stage} is at work in a worker of Ray"
        worker.kill()
        if later:
            hold.set(f"{run}/{KEEPING[later]}/*")
        else:
            hold.release()
    assert process.wait() == 3, run.with_suffix(".log").read_text()
    assert content(run, *ALL) == content(alone, *ALL)
    told = json.loads(run.with_suffix(".json").read_text())  # what Ray says of dead workers is not among it
    assert told["shards"]["samples"] > 2 and "A worker died" in run.with_suffix(".log").read_text()
