"""Running the units of stages here, one after another, instead of in workers of Ray.

What a worker process costs (it starts, imports, loads its models) is many times what the small footage of the tests
costs. So tests of what a run does with its ledger and its files run here; tests of what workers do, or of a run that
is killed, have Ray. Both give the same bytes: `test_curate.py` holds them against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rushes.pipelines.config import RayConfig
from rushes.pipelines.engine import cluster
from rushes.pipelines.engine.cluster import Row


def _start(config: RayConfig) -> None:
    """Start nothing: there is this process."""


def _run_units(units: Sequence[Row], work: Callable[..., Row], arguments: Row, *, in_flight: int = 0) -> Iterator[Row]:
    return (work(dict(unit), **arguments) for unit in units)


def _run_actors(
    units: Sequence[Row], actor: Callable[..., Any], arguments: Row, *, actors: int = 0, use_gpu: bool = True
) -> Iterator[Row]:
    built = actor(**arguments)
    return (built(dict(unit)) for unit in units)


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
            patch.setattr(cluster, "run_units", _run_units)
            patch.setattr(cluster, "run_actors", _run_actors)
            yield
    finally:
        torch.set_num_threads(threads)
