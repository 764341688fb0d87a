"""Steps that sleep instead of looking, on nodes that are processes: how a leg is run, apart from what it does.

All else is real: units are planned from a table of sources, workers go through `engine.line`, parts are written to a
ledger, and the last chunk of a long film goes on with all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster

from rushes.pipelines.config import CurateConfig, RayConfig
from rushes.pipelines.engine import cluster, job, plan
from rushes.pipelines.engine.line import Line
from rushes.pipelines.stages.unit import Tally, Unit
from rushes.pipelines.store.ledger import Ledger

Row = dict[str, Any]
CONFIG = CurateConfig()
PACE = {"scan": 25 / 116, "witness": 63 / 116, "shots": 0.0, "score": 28 / 116}
"""What each step takes of a second of work; as measured on the labelled footage."""


class Sleeping:
    """A step that takes so long for each second of footage, and writes parts without rows."""

    def __init__(self, config: Any, name: str, writes: Sequence[str], pace: float):
        self.name, self.writes, self.pace = name, writes, pace

    def __call__(self, unit: Unit) -> Tally:
        seconds = unit.task["seconds"] / (unit.task["chunks"] if self.name == "scan" else 1)
        time.sleep(self.pace * seconds)
        for table in self.writes:
            unit.write(table, [])
        return Tally(items=1, seconds=seconds)


class SleepyLine(Line):
    """A line whose steps sleep."""

    def __init__(self, run: str, steps: Sequence[str], pace: Mapping[str, float]):
        super().__init__(run, CONFIG, steps)
        self.stages = [
            replace(stage, worker=partial(Sleeping, name=stage.name, writes=stage.writes, pace=pace[stage.name]))
            for stage in self.stages
        ]


@contextmanager
def nodes(*each: Mapping[str, float]) -> Iterator[None]:
    """Run so many nodes beside a head without cores, and join them."""
    cluster.stop()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20})
    try:
        for given in each:
            made.add_node(object_store_memory=80 * 2**20, **given)
        made.wait_for_nodes()
        cluster.start(RayConfig(address=made.address))
        yield
    finally:
        cluster.stop()
        made.shutdown()


def ledger_of(folder: Path, lengths_s: Sequence[float]) -> Ledger:
    """Return the ledger of a run whose sources have these lengths, as probing leaves it."""
    found = Ledger(str(folder / "run"))
    found.create()
    for first in range(0, len(lengths_s), 64):
        unit = f"w0000-{first // 64:05d}"
        rows = [
            {"source_id": f"{n:016x}", "uri": f"{n:07d}.mp4", "wave": 0, "unit": unit, "duration_s": float(length)}
            for n, length in enumerate(lengths_s[first : first + 64], first)
        ]
        found.write("sources", unit, rows, "s" * 12)
    return found


def mixed(count: int, longest_s: float, seed: int = 0) -> list[float]:
    """Return lengths of films from seconds to an hour, a minute on average, and one that is much longer."""
    lengths = np.minimum(np.random.default_rng(seed).lognormal(3.4, 1.2, count - 1), 3600.0)
    return [*lengths.tolist(), longest_s]


def leg(ledger: Ledger, pace: Mapping[str, float], steps: Sequence[str] = job.FOUND, gpus: int = 0) -> list[Row]:
    """Run a leg of steps that sleep; return its tasks as they came out."""
    units = plan.work_units(ledger, CONFIG.scan, "s" * 12)
    prints = {unit.name: {**dict.fromkeys(job.FOUND, "f" * 12), "sources": "s" * 12} for unit in units}
    more = {unit.name: {"seconds": unit.seconds} for unit in units}
    tasks = job.tasks(steps, units, job.Index(ledger.snapshot()), prints, more)
    segments = [
        cluster.Segment(place=place, make=partial(SleepyLine, ledger.run, names, pace))
        for place, names, _ in job.segments(steps, CONFIG, gpus)
    ]
    return list(cluster.stream(tasks, segments))


def warm(cores: int) -> None:
    """Have as many workers started as there are cores: how long that takes is this machine's affair."""
    seen: set[str] = set()
    while len(seen) < cores:
        tasks = [{"unit": f"{n}", "todo": ["scan"]} for n in range(cores)]
        seen |= {row["worker"] for row in cluster.stream(tasks, [cluster.Segment(place="cpu", make=_idler)])}


def _idler() -> Callable[..., Row]:
    return _idle


def _idle(task: Row, *_: Any) -> Row:
    import os

    time.sleep(3.0)
    return {"worker": str(os.getpid())}
