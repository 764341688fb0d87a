"""A whole run on three nodes, of which workers, nodes and the driver are killed at random moments: the same bytes.

A moment is told by how many files the run has, not by the clock, so that kills fall on all legs on any machine. Between
two deaths of workers the driver dies, too: what takes its worker down twice in one run of the command is left out, and
that is another test's claim.

`RUSHES_KILLS=100 pytest -m bench tests/bench/test_survival.py` for more of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from rushes.pipelines.engine import cluster
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.small_run import ALL, FLAGS, content, films

KILLS = int(os.environ.get("RUSHES_KILLS", "10"))
SEED, NODES = 20, 3
TABLES = {
    "sources": "sources", "signals": "scan", "witness": "witness", "clips": "shots", "scores": "score",
    "matches": "match", "selection": "select", "encoded": "encode", "captions": "caption", "packed": "pack",
}  # fmt: skip
VICTIMS = ("worker", "driver", "node", "driver")
LAST = 8
"""Files of the end, at which nobody is at work any more."""


class Nodes:
    """Three nodes of a core each, beside a head without one."""

    def __init__(self) -> None:
        self.made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20})
        self.nodes = [self._another() for _ in range(NODES)]
        self.made.wait_for_nodes()

    def _another(self) -> Any:
        return self.made.add_node(num_cpus=1, object_store_memory=80 * 2**20)

    def lose(self, draw: random.Random) -> None:
        """Kill a node with all its processes, and let another one join."""
        gone = self.nodes.pop(draw.randrange(len(self.nodes)))
        self.made.remove_node(gone, allow_graceful=False)
        self.nodes.append(self._another())


@contextmanager
def nodes() -> Iterator[Nodes]:
    cluster.stop()
    found = Nodes()
    try:
        yield found
    finally:
        ray.shutdown()
        found.made.shutdown()


def start(inputs: Path, run: Path, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rushes.pipelines.cli.main", "curate", str(inputs), "--out", str(run), *FLAGS]
    with run.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            env=os.environ | {"RAY_ADDRESS": address},
        )  # fmt: skip


def at_work() -> list[psutil.Process]:
    """The workers of Ray that are at a task."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0]
        except (psutil.Error, IndexError):
            continue
        if title.startswith("ray::") and "Map" in title:
            found.append(process)
    return found


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
    """What was at work, by what the ledger holds: the last stage with a part."""
    there = [stage for table, stage in TABLES.items() if Ledger(str(run)).parts(table)]
    return there[-1] if there else "before sources"


def kill(victim: str, process: subprocess.Popen[bytes], found: Nodes, draw: random.Random) -> bool:
    """Kill somebody; whether there was somebody to be killed before the run ended."""
    if victim == "node":
        found.lose(draw)
        return process.poll() is None
    if victim == "driver":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    while process.poll() is None:
        if workers := at_work():
            draw.choice(workers).kill()
            return True
        time.sleep(0.01)
    return False


@pytest.mark.bench
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(bikes: Path, tmp_path: Path, show: Any) -> None:
    inputs, alone, draw = tmp_path / "footage", tmp_path / "alone", random.Random(SEED)
    films(bikes, inputs)
    rows: list[list[str]] = []
    victims, equal = cycle(VICTIMS), 0
    with nodes() as found:
        assert start(inputs, alone, found.made.address).wait() == 3
        expected, total = content(alone, *ALL), files(alone)
        while len(rows) < KILLS:
            run, victim = tmp_path / f"run{equal}", next(victims)
            process = start(inputs, run, found.made.address)
            for count in sorted(draw.sample(range(1, total - LAST), 2)):
                if wait(process, run, count):
                    time.sleep(draw.uniform(0.0, 0.5))  # into whatever comes next
                there, stage = files(run), under_way(run)
                if process.poll() is not None or not kill(victim, process, found, draw):
                    break
                left = len(list(run.rglob(".*.part")))
                rows.append([f"{len(rows) + 1}", victim, run.name, f"{there} of {total}", stage, f"{left}"])
                process = start(inputs, run, found.made.address) if victim == "driver" else process
                victim = next(victims)
            assert process.wait() == 3, run.with_suffix(".log").read_text()
            assert content(run, *ALL) == expected
            equal += 1
    head = ["kill", "of", "run", "files then", "last stage with a part", "files half written"]
    show(f"Killed at random on {NODES} nodes: {equal} of {equal} runs ended in equal bytes", head, rows, {"seed": SEED})
