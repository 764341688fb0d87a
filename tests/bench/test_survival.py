"""A whole run killed at random moments, Ray and all, again and again: it ends in the bytes of one left alone.

A moment is told by how many files the run has, not by the clock, so that kills fall on all stages on any machine.

`RUSHES_KILLS=100 pytest -m bench tests/bench/test_survival.py` for more of them; each takes a small run at most.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rushes.pipelines.engine import curate
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.small_run import ALL, FLAGS, content, gather

KILLS = int(os.environ.get("RUSHES_KILLS", "12"))
SEED = 20
TABLES = (
    "sources", "signals", "witness", "clips", "scores", "matches", "selection", "captions", "encoded", "packed",
)  # fmt: skip


def start(inputs: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rushes.pipelines.cli.main", "curate", str(inputs), "--out", str(run), *FLAGS]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, env=environment)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the driver and all that it started: its Ray and the workers."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=10)


def files(run: Path) -> int:
    return sum(path.is_file() and path.suffix != ".part" for part in ALL for path in (run / part).rglob("*"))


def wait(process: subprocess.Popen[bytes], run: Path, count: int) -> bool:
    """Whether the run has so many files before it ends."""
    while process.poll() is None:
        if files(run) >= count:
            return True
        time.sleep(0.002)
    return False


def under_way(run: Path) -> str:
    """The stage that was at work, by what the ledger holds: the last one with a part."""
    there = [stage for stage, table in zip(curate.STAGES, TABLES, strict=True) if Ledger(str(run)).parts(table)]
    return there[-1] if there else "before sources"


@pytest.mark.bench
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(bikes: Path, tmp_path: Path, show: Any) -> None:
    inputs, alone = tmp_path / "footage", tmp_path / "alone"
    gather(bikes, inputs)
    assert start(inputs, alone).wait() == 3
    expected, total, draw = content(alone, *ALL), files(alone), random.Random(SEED)
    rows: list[list[str]] = []
    equal, run = 0, tmp_path / "run0"
    while len(rows) < KILLS or run.exists():
        now, process = files(run), start(inputs, run)
        count = draw.randint(now + 1, total) if len(rows) < KILLS and now < total else total + 1
        if wait(process, run, count):
            time.sleep(draw.uniform(0.0, 0.5))  # into whatever comes next
        if process.poll() is None:
            kill(process)
            left = len(list(run.rglob(".*.part")))
            rows.append([f"{len(rows) + 1}", run.name, f"{files(run)} of {total}", under_way(run), f"{left}"])
        else:
            assert process.wait() == 3 and content(run, *ALL) == expected
            equal, run = equal + 1, tmp_path / f"run{equal + 1}"
    head = ["kill", "run", "files then", "last stage with a part", "files half written"]
    show(f"Runs killed at random: {equal} of {equal} ended in equal bytes", head, rows, {"seed": SEED})
