"""How long a policy takes to answer from the ledger alone. Target: seconds for a million clips, in a few GB.

The ledger is synthetic: a policy sees columns, and does not care where they came from. Each answer is a process of its
own, so start-up and memory are those that a person meets. Duplicates are timed apart: their cost is that of
deduplication, not of the policy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rushes.pipelines.stages.select import selections
from rushes.pipelines.store.ledger import TABLES, Ledger

REPO = Path(__file__).parents[2]
ROUNDS = 3
UNIT = 50_000
TICKS = 18
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
RULES = """rules:
  - {name: too_small, measure: min_side_px, min: 256}
  - {name: shaky, measure: camera, not_in: [shake]}
  - {name: too_still, measure: motion, keep_highest: 0.75}
  - {name: too_much_text, measure: text, max: 0.07}
  - {name: low_quality, measure: quality, min: 30}
  - {name: aesthetic, measure: aesthetic, keep_highest: 0.3}
"""


def ledger(folder: Path, clips: int) -> Ledger:
    """Make a ledger of so many clips with three scorers, and the selection `before` to compare with."""
    made = Ledger(str(folder / "run"))
    made.create()
    dice = np.random.default_rng(0)
    for start in range(0, clips, UNIT):
        unit, count = f"w0000-{start // UNIT:05d}", min(UNIT, clips - start)
        keys = pa.array([f"{n * 2654435761 % 2**64:016x}-000000000" for n in range(start, start + count)])
        made.write("plan", unit, _table("plan", unit=[unit], uri=[unit]), "b" * 12)
        made.write("clips", unit, _clips(dice, keys, unit), "c" * 12)
        made.write("scores", unit, _scores(dice, keys), "d" * 12)
    for name, text in (("before", RULES.replace("0.3}", "0.2}")), ("after", RULES), ("deduped", RULES)):
        dedup = "" if name == "deduped" else "dedup: {enabled: false}\n"
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}{dedup}")
    (folder / "run" / "config.yaml").write_text(f"select: {{policy: {folder / 'before.yaml'}}}\n")
    selections.make(str(folder / "run"))
    return made


def _table(name: str, **columns: Any) -> pa.Table:
    rows = len(next(iter(columns.values())))
    schema = TABLES[name]
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type)
        for f in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def _clips(dice: np.random.Generator, keys: pa.Array, unit: str) -> pa.Table:
    count = len(keys)
    offsets = np.arange(0, TICKS * count + 1, TICKS, dtype=np.int32)
    hashes = pa.array(dice.integers(0, 2**64, TICKS * count, dtype=np.uint64))
    seconds = pa.array(np.tile(np.arange(TICKS, dtype=np.float32) / 6, count))
    return _table(
        "clips", key=keys, source_id=pa.compute.utf8_slice_codeunits(keys, 0, 16), unit=pa.repeat(unit, count),
        duration_s=dice.uniform(1, 20, count), width=dice.choice([320, 640, 1280], count),
        height=dice.choice([180, 360, 720], count), bit_rate=dice.integers(10**5, 10**7, count),
        motion=dice.gamma(2, 0.02, count).astype(np.float32), luma_std=dice.uniform(0, 80, count).astype(np.float32),
        sharpness=dice.uniform(0, 200, count).astype(np.float32),
        camera=pa.array(["static", "pan", "shake", "zoom"]).take(pa.array(dice.integers(0, 4, count))),
        phash=pa.ListArray.from_arrays(offsets, hashes), phash_s=pa.ListArray.from_arrays(offsets, seconds),
    )  # fmt: skip


def _scores(dice: np.random.Generator, keys: pa.Array) -> pa.Table:
    count, names = len(keys), ("quality", "text", "aesthetic")
    values = np.concatenate([dice.uniform(0, 100, count), dice.beta(1, 20, count), dice.normal(5, 1, count)])
    return _table("scores", key=pa.concat_arrays([keys] * 3), scorer=np.repeat(names, count).tolist(),
                  model=pa.repeat("m", 3 * count), value=values)  # fmt: skip


def answer(folder: Path, policy: str) -> dict[str, Any]:
    """Run the dry run as a person does; return its own steps, and wall, CPU and peak memory of the process."""
    command = [sys.executable, "-c", CHILD, "select", "--out", str(folder / "run"), "--dry-run", "--json",
               "--policy", str(folder / f"{policy}.yaml")]  # fmt: skip
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - begun
    text, _, cost = done.stdout.rpartition("COST")
    cpu_s, memory_kb = map(float, cost.split())
    found = json.loads(text)
    return {"wall_s": wall_s, "cpu_s": cpu_s, "memory_gb": memory_kb / 2**20, "steps": found["seconds"],
            "kept": found["kept"]["clips"], "newly_kept": found["against"]["newly_kept"]["clips"]}  # fmt: skip


@pytest.mark.bench
def test_a_policy_answers_from_the_ledger(tmp_path: Path, show: Any) -> None:
    sizes, raw, rows = (100_000, 1_000_000), {}, []
    for clips in sizes:
        (tmp_path / str(clips)).mkdir()
        ledger(tmp_path / str(clips), clips)
    rounds = [{clips: answer(tmp_path / str(clips), "after") for clips in sizes} for _ in range(ROUNDS)]
    for clips in sizes:
        raw[clips] = [one[clips] for one in rounds]
        middle = {name: median(one[name] for one in raw[clips]) for name in ("wall_s", "cpu_s", "memory_gb")}
        steps = {name: median(one["steps"][name] for one in raw[clips]) for name in ("read", "limits", "compare")}
        assert 0 < raw[clips][0]["kept"] < clips and raw[clips][0]["newly_kept"] > 0
        assert len({one["kept"] for one in raw[clips]}) == 1
        rows.append([f"{clips:,}", *(f"{value:.2f}" for value in (*steps.values(), *middle.values()))])
    deduped = answer(tmp_path / str(sizes[0]), "deduped")
    raw["deduped"] = deduped
    show(f"select --dry-run, six rules, two of them shares (medians of {ROUNDS})",
         ["clips", "read, s", "limits, s", "compare, s", "wall, s", "CPU, s", "memory, GB"], rows, raw=raw)  # fmt: skip
    found, spent = f"{deduped['kept']:,}", f"{deduped['steps']['duplicates']:.1f}"
    show("duplicates among the survivors, timed apart (once)", ["clips", "kept", "seconds", "memory, GB"],
         [[f"{sizes[0]:,}", found, spent, f"{deduped['memory_gb']:.2f}"]])  # fmt: skip
    assert median(one["wall_s"] for one in raw[sizes[1]]) < 60
