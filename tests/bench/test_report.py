"""How long `rushes report` takes, whole, and what it holds. Target: a million clips in 30 s, 2 GB and a page of 10 MB.

The ledger is a real run's, varied (`ledgers`). Each report is a process of its own, so start-up and memory are those
that a person meets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.bench import ledgers

REPO = Path(__file__).parents[2]
ROUNDS = 3
SIZES = (100_000, 1_000_000)
CHILD = """
import re, sys, time
from pathlib import Path
from rushes.pipelines.cli.main import main
code = main(sys.argv[1:])
# getrusage would report the peak of the process that this one was forked from
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)
print("COST", time.process_time(), peak)
sys.exit(code)
"""


def report(run: str) -> dict[str, Any]:
    """Report a run as a person does; return what it said, wall, CPU and peak memory of the process, and the page."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, "report", run, "--json"], cwd=REPO, capture_output=True,
                          text=True, check=True)  # fmt: skip
    wall_s = time.perf_counter() - begun
    text, _, cost = done.stdout.rpartition("COST")
    cpu_s, memory_kb = map(float, cost.split())
    found = json.loads(text)
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "memory_gb": memory_kb / 2**20,
        "page_mb": Path(found["report"]).stat().st_size / 1e6,
        "json_mb": len(text) / 1e6,
        "clips": sum(entry["clips"] for entry in found["account"]),
        "unexplained_s": found["unexplained_s"],
    }


@pytest.mark.bench
def test_a_report_is_bounded_in_time_memory_and_size(tmp_path: Path, show: Any) -> None:
    real = ledgers.small_run(tmp_path)
    for clips in SIZES:
        ledgers.make(str(tmp_path / str(clips)), clips, real)
    rounds = [{clips: report(str(tmp_path / str(clips))) for clips in SIZES} for _ in range(ROUNDS)]
    raw = {clips: [one[clips] for one in rounds] for clips in SIZES}
    names = ("wall_s", "cpu_s", "memory_gb", "page_mb", "json_mb")
    middle = {clips: {name: median(one[name] for one in raw[clips]) for name in names} for clips in SIZES}
    for clips in SIZES:
        assert all(one["clips"] >= clips and one["unexplained_s"] == 0 for one in raw[clips])
    rows = [[f"{clips:,}", *(f"{middle[clips][name]:.2f}" for name in names)] for clips in SIZES]
    show(f"rushes report, whole (medians of {ROUNDS})",
         ["clips", "wall, s", "CPU, s", "memory, GB", "page, MB", "JSON, MB"], rows, raw=raw)  # fmt: skip
    largest = middle[SIZES[-1]]
    assert largest["wall_s"] <= 30 and largest["memory_gb"] <= 2 and largest["page_mb"] <= 10
