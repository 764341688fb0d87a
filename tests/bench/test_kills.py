"""A whole run killed at random moments, Ray and all, again and again: it ends in the bytes of one left alone.

`RUSHES_KILLS=100 pytest -m bench tests/bench/test_kills.py` for more of them; each takes a small run at most.
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

from pipelines import curate
from pipelines.ledger import Ledger
from tests.pipelines.small_run import ALL, FLAGS, content, gather

KILLS = int(os.environ.get("RUSHES_KILLS", "12"))
SEED = 20
TABLES = ("sources", "signals", "witness", "clips", "scores", "selection", "captions", "encoded", "packed")


def start(inputs: Path, run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(inputs), "--out", str(run), *FLAGS]
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


def under_way(run: Path) -> str:
    """The stage that was at work, by what the ledger holds: the last one with a part."""
    there = [stage for stage, table in zip(curate.STAGES, TABLES, strict=True) if Ledger(str(run)).parts(table)]
    return there[-1] if there else "before sources"


@pytest.mark.bench
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(bikes: Path, tmp_path: Path, show: Any) -> None:
    inputs, alone = tmp_path / "footage", tmp_path / "alone"
    gather(bikes, inputs)
    began = time.monotonic()
    assert start(inputs, alone).wait() == 3
    whole_s = time.monotonic() - began
    expected, draw = content(alone, *ALL), random.Random(SEED)
    rows: list[list[str]] = []
    equal, number = 0, 0
    while len(rows) < KILLS or equal == 0:
        run = tmp_path / f"run{number}"
        process = start(inputs, run)
        at_s = draw.uniform(0.1, 1.0) * whole_s if len(rows) < KILLS else 3600.0
        try:
            assert process.wait(at_s) == 3
        except subprocess.TimeoutExpired:
            kill(process)
            left = len(list(run.rglob(".*.part"))) if run.exists() else 0
            rows.append([f"{len(rows) + 1}", f"{number}", f"{at_s:.1f}", under_way(run), f"{left}"])
        else:
            assert content(run, *ALL) == expected
            equal, number = equal + 1, number + 1
    head = ["kill", "run", "after, s", "last stage with a part", "files half written"]
    show(f"Runs killed at random: {equal} of {equal} ended in equal bytes", head, rows, {"seed": SEED, "s": whole_s})
