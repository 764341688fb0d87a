"""Running the units of stages here, one after another, instead of in workers of Ray.

What a worker process costs (it starts, imports, loads its models) is many times what the small footage of the tests
costs. So tests of what a run does with its ledger and its files run here; tests of what workers do, or of a run that
is killed, have Ray. Both give the same bytes: `test_curate.py` holds them against each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rushes.pipelines.config import RayConfig
from rushes.pipelines.engine import cluster
from rushes.pipelines.engine.cluster import Row


def _start(config: RayConfig) -> None:
    """Start nothing: there is this process."""


def _stream(
    tasks: Sequence[Row], segments: Sequence[cluster.Segment], *, in_flight: int = 0, watch: Any = None
) -> Iterator[Row]:
    lines = [segment.make() for segment in segments]
    tallies: cluster.Tallies = {}
    for task in tasks:
        done = json.loads(json.dumps(task))  # as it comes out of Ray
        for line in lines:
            done = line(done)
        for did in done.get("did", []):
            units, items, seconds, errors = tallies.get(did["step"], (0, 0, 0.0, 0))
            tallies[did["step"]] = (
                units + 1, items + did["items"], seconds + did["seconds"], errors + did["errors"],
            )  # fmt: skip
        if watch:
            watch(tallies)
        yield done


@contextmanager
def in_one_process() -> Iterator[None]:
    """Run stages as a machine with one core would, without Ray."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray does for its workers: other sums, other bytes
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "start", _start)
            patch.setattr(cluster, "cpus", lambda: 1)
            patch.setattr(cluster, "gpus", lambda: 0)
            patch.setattr(cluster, "stream", _stream)
            yield
    finally:
        torch.set_num_threads(threads)
