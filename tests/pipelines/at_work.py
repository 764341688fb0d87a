"""A unit at work in one step: the task that the engine would make of what stands in a ledger, done by a line. No Ray.

So guards, counters and what stops a run are those of a real run, while a test writes only the tables that it needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.engine import job
from rushes.pipelines.engine.line import Counter, Line
from rushes.pipelines.engine.plan import WorkUnit
from rushes.pipelines.stages import stage as stages
from rushes.pipelines.stages.select import selections
from rushes.pipelines.stages.stage import Worker
from rushes.pipelines.stages.unit import SCANNED
from rushes.pipelines.store.ledger import Ledger, fingerprint

Row = dict[str, Any]
PROBED = "w0000-00000"
"""The unit in which the sources of `UNIT` are probed."""
UNIT = f"{PROBED}-000"
"""A unit of work."""
SCAN = f"{UNIT}-000"
"""What is scanned of it, in one chunk."""
PRINT = "f" * 12
"""The fingerprint of what is done, unless a test gives another."""


def task(
    run: str, config: CurateConfig, step: str, *, unit: str = UNIT, print_: str = PRINT, chunks: int = 1,
    made_by: str = "", **more: Any,
) -> Row:  # fmt: skip
    """Return the task of one unit in one step, with the fingerprints of the parts that are there.

    Args:
        run: the run's folder.
        config: all settings.
        step: name of the stage; `sources` works on the unit of probing.
        unit: name of the unit.
        print_: fingerprint of what the step writes.
        chunks: in how many parts the unit is scanned.
        made_by: fingerprint of the settings of cutting or captions; else that of `config`.
        more: what else the task holds, such as `chunk`.
    """
    ledger, stage = Ledger(run), stages.load(step)
    probed_in = "-".join(unit.split("-")[:2])
    name = probed_in if step == "sources" else unit
    index = job.Index(ledger.snapshot())
    uris = ledger.read_unit("sources", probed_in, ["uri"])["uri"].to_pylist()
    work = WorkUnit(
        name=name, wave=int(name[1:5]), probed_in=probed_in, uris=uris, seconds=0.0, chunks=chunks, print=""
    )
    made = {"encode": job.fingerprints(config)["encode"], "caption": stages.load("caption").settings(config)}
    prints: Row = {**_there(index, work), **dict.fromkeys(stage.writes, print_), "errors": {step: print_}}
    return {
        "unit": name, "wave": work.wave, "probed_in": probed_in, "uris": uris, "chunks": chunks, "chunk": None,
        "todo": [step], "prints": prints,
        "stale": job.stale([stage], [step], work, index),
        "keys": dict(selections.kept_by_unit(ledger)).get(unit, []),
        "made_by": {**made, **({step: made_by} if made_by else {})}, **more,
    }  # fmt: skip


def _there(index: job.Index, unit: WorkUnit) -> dict[str, str]:
    """Return, by table, the fingerprint of the parts that a unit has; of several the last one."""
    named = {"plan": [unit.name.split("-")[0]], "sources": [unit.probed_in]}
    tables = {"plan", *(table for name in job.ON_UNITS for table in stages.load(name).writes)}
    found: dict[str, str] = {}
    for table in sorted(tables):
        scanned = [f"{unit.name}-{chunk:03d}" for chunk in range(unit.chunks)]
        for name in scanned if table in SCANNED else named.get(table, [unit.name]):
            for part in index.of(table, name):
                found[table] = part.fingerprint
    return found


def keep(run: str, keys: Iterable[str], unit: str = UNIT) -> None:
    """Let a selection keep these clips of a unit and drop its others."""
    ledger, kept = Ledger(run), set(keys)
    there = [clip for clip in ledger.read("clips", ["key", "unit"]).to_pylist() if clip["unit"] == unit]
    rows = [{"key": clip["key"], "unit": unit, "policy": "p", "kept": clip["key"] in kept} for clip in there]
    ledger.write("selection", "p", rows, fingerprint(sorted(kept)))


def through(line: Line, given: Mapping[str, Any], counter: Counter | None = None) -> Row:
    """Return a task as it comes out of a line, having been through JSON before and after, as in Ray."""
    found: Row = json.loads(json.dumps(line(json.loads(json.dumps(given)), counter)))
    return found


def do(
    run: str, config: CurateConfig, step: str, *, counter: Counter | None = None, worker: Worker | None = None,
    **more: Any,
) -> Row:  # fmt: skip
    """Do one step of one unit and return what came of it: the row of `did`, if any, and `fatal`, empty if it is not.

    Args:
        run: the run's folder.
        config: all settings.
        step: name of the stage.
        counter: counts what is begun.
        worker: does the work in place of one that the configuration makes.
        more: as `task` takes it.
    """
    line = Line(run, config, [step])
    if worker is not None:
        line._workers[step] = worker
    done = through(line, task(run, config, step, **more), counter)
    return {**(done["did"][-1] if done["did"] else {}), "fatal": done.get("fatal", "")}
