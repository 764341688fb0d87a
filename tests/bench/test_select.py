"""What a policy costs on large runs: matching clips once, trying a policy, and letting it select.

Targets for a million clips: a dry run within 10 s and 2 GB, a selection within 60 s and 3 GB. The runs are made of a
real one (`ledgers`), one clip in twenty a copy. Each measurement is a process of its own, so start-up and memory are
those that a person meets.
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

from rushes.pipelines.store.ledger import Ledger
from tests.bench import ledgers

REPO = Path(__file__).parents[2]
ROUNDS = 3
SIZES = (100_000, 1_000_000)
CHILD = """
import re, sys, time
from pathlib import Path
{work}
# getrusage would report the peak of the process that this one was forked from
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)
print("COST", time.process_time(), peak)
"""
COMMAND = """
from rushes.pipelines.cli.main import main
assert main(sys.argv[1:]) == 0
"""
MATCH = """
from rushes.pipelines.stages.match import stage
from rushes.pipelines.store.ledger import Ledger
print("[{}, {}]".format(*stage.run(Ledger(sys.argv[1]))))
"""
RULES = """rules:
  - {name: too_small, measure: min_side_px, min: 256}
  - {name: shaky, measure: camera, not_in: [shake]}
  - {name: too_still, measure: motion, keep_highest: 0.75}
  - {name: frozen, measure: frozen, max: 0.5}
  - {name: low_quality, measure: quality, min: 10}
  - {name: not_the_best, measure: quality, keep_highest: 0.8}
"""
COSTS = ("wall_s", "cpu_s", "memory_gb")


def measured(work: str, *arguments: str) -> dict[str, Any]:
    """Run a piece of work in a process of its own; return what it says as JSON, with wall, CPU and peak memory."""
    command = [sys.executable, "-c", CHILD.replace("{work}", work), *arguments]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begun
    assert done.returncode == 0, done.stderr
    text, _, cost = done.stdout.rpartition("COST")
    cpu_s, memory_kb = map(float, cost.split())
    return {"said": json.loads(text), "wall_s": wall_s, "cpu_s": cpu_s, "memory_gb": memory_kb / 2**20}


def matched(run: str) -> dict[str, dict[str, Any]]:
    """Return what matching costs: of all clips but one unit, when that unit came in, and with nothing to do."""
    held = [Path(part.uri) for table in ("clips", "sketches") for part in Ledger(run).parts(table)[-1:]]
    for part in held:
        part.rename(part.with_suffix(".held"))
    found = {"all": measured(MATCH, run)}
    for part in held:
        part.with_suffix(".held").rename(part)
    return found | {"a unit more": measured(MATCH, run), "nothing new": measured(MATCH, run)}


def asked(run: str, folder: Path, turn: int) -> dict[str, dict[str, Any]]:
    """Return what it costs to try a policy, and to let it select beside the selection that is there."""
    policy = folder / f"{turn}.yaml"
    policy.write_text(f"name: second-{turn}\n{RULES}")
    common = ["select", "--out", run, "--json", "--policy", str(policy)]
    return {"dry run": measured(COMMAND, *common, "--dry-run"), "select": measured(COMMAND, *common)}


@pytest.mark.bench
def test_a_policy_is_tried_in_seconds_and_selects_in_a_minute(tmp_path: Path, show: Any) -> None:
    real = ledgers.small_run(tmp_path)
    raw: dict[int, dict[str, Any]] = {}
    rows = []
    for clips in SIZES:
        run = ledgers.make(str(tmp_path / str(clips)), clips, real).run
        costs = {f"match, {name}": [cost] for name, cost in matched(run).items()}
        for turn in range(ROUNDS):
            for name, cost in asked(run, tmp_path, turn).items():
                costs.setdefault(name, []).append(cost)
        _check(costs)
        raw[clips] = costs
        rows += [
            [f"{clips:,}", name, *(f"{median(cost[of] for cost in some):.2f}" for of in COSTS)]
            for name, some in costs.items()
        ]
    show(f"Matching clips, dry runs and selections (match once, the others medians of {ROUNDS})",
         ["clips", "work", "wall, s", "CPU, s", "memory, GB"], rows, raw=raw)  # fmt: skip
    most = {"dry run": (10, 2), "select": (60, 3)}
    for name, (seconds, memory_gb) in most.items():
        assert median(cost["wall_s"] for cost in raw[SIZES[-1]][name]) <= seconds, name
        assert median(cost["memory_gb"] for cost in raw[SIZES[-1]][name]) <= memory_gb, name


def _check(costs: dict[str, list[dict[str, Any]]]) -> None:
    """Make sure that the work was done, and only once."""
    (couples, new), (more, newer), nothing = (costs[f"match, {name}"][0]["said"] for name in
                                              ("all", "a unit more", "nothing new"))  # fmt: skip
    assert couples == new > 0 and 0 < newer < more / 10 and nothing == [more, 0]
    tried, made = ([cost["said"] for cost in costs[name]] for name in ("dry run", "select"))
    assert {one["kept"]["clips"] for one in tried} == {one["kept"] for one in made} and len(
        {one["kept"] for one in made}
    ) == 1
    assert all(one["new"] and 0 < one["duplicates"] < one["kept"] < one["clips"] for one in made)
