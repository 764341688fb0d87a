"""How well a leg keeps its machines at work. Targets: a CPU step and a GPU step of t each in 1.25 t, cores 0.9 busy.

    pytest -m bench -s tests/bench/test_legs.py

The steps sleep (`sleepers.py`), the nodes are processes of this machine; how units are planned, handed out and written
is what a real run does.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.bench import sleepers

ROUNDS = 3
UNITS = 40
STEP_S = 1.0
NODES, CORES = 16, 2
FILMS, LONG_S = 10_000, 3 * 3600.0
LEG_S = 180.0


@pytest.mark.bench
def test_a_step_on_cores_and_one_on_a_gpu_work_at_the_same_time(tmp_path: Path, show: Any) -> None:
    pace = {"scan": STEP_S / 600, "witness": 0.0, "shots": 0.0, "score": STEP_S / 600}
    t, rows, ratios = UNITS * STEP_S, [], []
    with sleepers.nodes({"num_cpus": 1}, {"num_cpus": 0, "num_gpus": 1}):
        sleepers.warm(1)
        for turn in range(ROUNDS):
            folder = tmp_path / str(turn)
            began = time.monotonic()
            sleepers.leg(sleepers.ledger_of(folder / "leg", [600.0] * UNITS), pace, gpus=1)
            streamed = time.monotonic() - began
            ledger = sleepers.ledger_of(folder / "apart", [600.0] * UNITS)
            began = time.monotonic()
            for steps in (["scan"], ["witness", "shots", "score"]):
                sleepers.leg(ledger, pace, steps, gpus=1)
            apart = time.monotonic() - began
            ratios.append(streamed / t)
            rows.append([f"{turn + 1}", f"{t:.0f}", f"{streamed:.1f}", f"{streamed / t:.2f}", f"{apart / t:.2f}"])
    title = f"{UNITS} units, a step of {STEP_S:.0f} s on a core and one on a GPU: {median(ratios):.2f} t"
    show(title, ["round", "t, s", "one leg, s", "of t", "step after step, of t"], rows, {"ratios": ratios})
    assert median(ratios) <= 1.25


@pytest.mark.bench
def test_cores_are_busy_to_the_end(tmp_path: Path, show: Any) -> None:
    lengths = sleepers.mixed(FILMS, LONG_S)
    scale = LEG_S * NODES * CORES / sum(lengths)
    pace = {name: scale * share for name, share in sleepers.PACE.items()}
    rows, shares = [], []
    with sleepers.nodes(*[{"num_cpus": CORES}] * NODES):
        sleepers.warm(NODES * CORES)
        for turn in range(ROUNDS):
            ledger = sleepers.ledger_of(tmp_path / str(turn), lengths)
            began = time.time()
            tasks = sleepers.leg(ledger, pace)
            ended = time.time()
            did = [one for task in tasks for one in task["did"]]
            busy = sum(one["ended"] - one["began"] for one in did)
            shares.append(busy / (NODES * CORES * (ended - began)))
            last = min(
                max(one["ended"] for one in did if one["worker"] == worker) for worker in {d["worker"] for d in did}
            )
            rows.append([f"{turn + 1}", f"{len({task['unit'] for task in tasks})}", f"{len(tasks)}",
                         f"{ended - began:.0f}", f"{shares[-1]:.3f}", f"{ended - last:.1f}"])  # fmt: skip
    head = ["round", "units", "tasks", "wall, s", "cores busy", "first core without work before the end, s"]
    show(
        f"{FILMS} films, one of 3 h, on {NODES} nodes: cores {median(shares):.2f} busy", head, rows, {"shares": shares}
    )
    assert median(shares) >= 0.9
