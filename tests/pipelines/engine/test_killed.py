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

from rushes.pipelines.engine import curate
from tests.pipelines import held
from tests.pipelines.small_run import ALL, FLAGS, content


@pytest.fixture(scope="module")
def hold(undisturbed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[held.Hold]:
    with held.ray(tmp_path_factory.mktemp("hold")) as found:
        yield found


def driver(inputs: Path, run: Path) -> subprocess.Popen[bytes]:
    """The command, on the Ray that is held; what it prints and logs stands beside the run."""
    command = [
        sys.executable,
        "-m",
        "rushes.pipelines.cli.main",
        "curate",
        str(inputs),
        "--out",
        str(run),
        "--json",
        *FLAGS,
    ]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with run.with_suffix(".log").open("ab") as log, run.with_suffix(".json").open("wb") as out:
        return subprocess.Popen(command, stderr=log, stdout=out, start_new_session=True, env=environment)


# What is about to be written when each stage is killed. One such file is there already, so that of its units (five, of
# the scan three) one is done and one half written: of the scan, say, its pictures are there and its signals are not.
MOMENTS = {
    "sources": "ledger/sources",
    "scan": "ledger/windows",
    "witness": "ledger/witness",
    "shots": "ledger/sketches",
    "score": "ledger/scores",
    "match": "ledger/matches",
    "select": "ledger/selection",
    "caption": "ledger/captions",
    "encode": "encoded",
    "pack": "ledger/packed",
}
WHOLE = {"match", "select"}
"""Steps that look at all clips at once, and write one file."""


def test_a_run_killed_in_every_stage_ends_in_the_same_bytes(
    undisturbed: str, inputs: Path, hold: held.Hold, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    assert list(MOMENTS) == list(curate.STAGES)
    for stage, table in MOMENTS.items():
        hold.set(f"{run}/{table}/*", passing=stage not in WHOLE)
        process = driver(inputs, run)
        hold.wait(process)
        held.kill(process)
        hold.release()
        names = [file.name for file in (run / table).iterdir()]
        assert any(name.endswith(".part") for name in names), f"{stage} was killed while it wrote"
        if stage not in WHOLE:
            assert any(not name.endswith(".part") for name in names), f"{stage} had done a part of its work"
    done = driver(inputs, run)
    assert done.wait() == 3, run.with_suffix(".log").read_text()
    assert content(run, *ALL) == content(undisturbed, *ALL)


def test_a_worker_killed_in_mid_stage_is_replaced_and_the_bytes_are_the_same(
    undisturbed: str, inputs: Path, hold: held.Hold, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    for table in ("frames", "windows", "signals", "encoded"):  # what the stages below have to do again
        shutil.rmtree(run / "ledger" / table)
    shutil.rmtree(run / "encoded")
    hold.set(f"{run}/{MOMENTS['scan']}/*")
    process = driver(inputs, run)
    for stage, later in (("scan", "encode"), ("encode", "")):
        worker = psutil.Process(hold.wait(process))
        assert worker in held.workers(), f"{stage} is at work in a worker of Ray"
        worker.kill()
        if later:
            hold.set(f"{run}/{MOMENTS[later]}/*")
        else:
            hold.release()
    assert process.wait() == 3, run.with_suffix(".log").read_text()
    assert content(run, *ALL) == content(undisturbed, *ALL)
    told = json.loads(run.with_suffix(".json").read_text())  # what Ray says of dead workers is not among it
    assert told["shards"]["samples"] == 6 and "A worker died" in run.with_suffix(".log").read_text()
