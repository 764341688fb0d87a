"""What moving a limit costs on large runs, and starting, and a grid of strips, in the server of `rushes explore`.

Targets: a slider to new counts within 50 ms at 10⁵ and 100 ms at 10⁶ clips; ready within 5 s and 2 GB at 10⁶; a grid of
60 strips within 0.3 s. Counts while a slider moves are those of the limits; duplicates follow once it rests.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from rushes.pipelines.stages.match import stage as match
from tests.bench import ledgers
from tests.bench.test_select import measured

SIZES = (100_000, 1_000_000)
MS = ("limits_ms", "settled_ms", "grid_ms")
WORK = """
import json
from rushes.filters import policy as policies
from rushes.pipelines.explore.clip import Looks
from rushes.pipelines.explore.workbench import Workbench

def ms(call, *given):
    begun = time.perf_counter()
    call(*given)
    return 1000 * (time.perf_counter() - begun)

begun = time.perf_counter()
bench = Workbench(sys.argv[1])
first = bench.outcome(bench.policy)
found = {"ready_s": time.perf_counter() - begun, "kept": first["kept"]["clips"]}
def moved(at):
    rules = [dict(rule) for rule in bench.given["rules"]]
    next(rule for rule in rules if rule["name"] == "flat")["min"] = 6 + at
    return policies.load({**bench.given, "rules": rules})
for name, settled, turns in (("limits_ms", False, range(11)), ("settled_ms", True, range(20, 25))):
    found[name] = sorted(ms(bench.outcome, moved(turn), settled) for turn in turns)
bench.listed(bench.policy, measure="motion", order="spread")
looks = Looks(bench)
def grid(order):
    for clip in bench.listed(bench.policy, measure="motion", order=order, limit=0.1)["clips"]:
        looks.strip(clip["key"])
found["grid_ms"] = [ms(grid, order) for order in ("highest", "lowest", "nearest")]
print(json.dumps(found))
"""


@pytest.mark.bench
def test_a_limit_is_moved_in_a_blink(tmp_path: Path, show: Any) -> None:
    real = ledgers.small_run(tmp_path)
    rows, raw = [], {}
    for clips in SIZES:
        ledger = ledgers.make(str(tmp_path / str(clips)), clips, real)
        match.run(ledger)
        raw[clips] = cost = measured(WORK, ledger.run)
        said = cost["said"]
        times = [f"{median(said[name]):.0f}" for name in MS]
        rows.append([f"{clips:,}", f"{said['ready_s']:.1f}", *times, f"{cost['memory_gb']:.2f}"])
    show("rushes explore: a slider, the start and a grid of 60 strips",
         ["clips", "ready, s", "limits, ms", "settled, ms", "grid, ms", "memory, GB"], rows, raw=raw)  # fmt: skip
    largest = raw[SIZES[-1]]
    assert largest["said"]["ready_s"] <= 5 and largest["memory_gb"] <= 2
    for clips, most_ms in zip(SIZES, (50, 100), strict=True):
        assert median(raw[clips]["said"]["limits_ms"]) <= most_ms
    assert median(largest["said"]["grid_ms"]) <= 300
