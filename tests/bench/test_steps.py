"""What each step of a whole `curate` costs on the labelled footage, in core-seconds a minute of footage.

    pytest -m bench -s tests/bench/test_steps.py

By one process, step after step, each resuming where the one before ended; so the loading of models is in it, and
starting Ray is not. CPU time of all threads counts, not the clock: other work on the machine changes little.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import STAGES, CurateConfig
from rushes.pipelines.engine import curate
from rushes.pipelines.progress import Reporter
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.one_process import in_one_process

LIMIT = 0.5
"""What the witness may take at most, of the scan."""


def used_s() -> float:
    """Return the CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.mark.bench
def test_what_each_step_costs(footage: Path, tmp_path: Path, show: Any) -> None:
    run, cost = str(tmp_path / "run"), dict[str, float]()
    with in_one_process():
        for step in STAGES:
            began = used_s()
            curate.curate([str(footage)], run, CurateConfig(), through=step, reporter=Reporter(live=False))
            cost[step] = used_s() - began
    seconds = sum(Ledger(run).read("sources", ["duration_s"])["duration_s"].to_pylist())
    asked, frames = len(Ledger(run).read("witness")), sum(Ledger(run).read("signals", ["frames"])["frames"].to_pylist())
    total = sum(cost.values())
    rows = [[step, f"{60 * spent / seconds:.2f}", f"{spent / total:.1%}"] for step, spent in cost.items()]
    rows += [
        ["**all**", f"{60 * total / seconds:.2f}", ""],
        ["witness by scan", f"{cost['witness'] / cost['scan']:.2f}", ""],
    ]
    rows.append(["frames that the witness is asked about", f"{asked / frames:.1%}", ""])
    head = ["step", "core-seconds a minute of footage", "of all"]
    show(f"Cost of each step of a curate of {seconds / 60:.0f} min of labelled footage", head, rows, raw=cost)
    assert cost["witness"] <= LIMIT * cost["scan"]
