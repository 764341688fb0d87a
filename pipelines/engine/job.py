"""The job: which stages there are, in which order, and which of them form a leg. No Ray.

A leg is a stretch of stages that work at the same time: a unit goes through all of them without waiting for another.
Between legs there is a barrier, for what needs to know everything: which sources are byte-identical, which clips
resemble each other (`match`), which stay (`select`), and which shard each goes into.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rushes.pipelines.config import STAGES, CurateConfig
from rushes.pipelines.engine.plan import WorkUnit
from rushes.pipelines.stages import stage as stages
from rushes.pipelines.stages.stage import Place, Stage
from rushes.pipelines.stages.unit import SCANNED
from rushes.pipelines.store.ledger import Ledger, Part, fingerprint

Row = dict[str, Any]
FOUND = STAGES[STAGES.index("scan") : STAGES.index("match")]
"""The leg from footage to scored clips."""
KEPT = ("encode", "caption")
"""The leg of the clips that stay; cutting goes first, so that a server that is down costs nothing but captions."""
ON_UNITS = ("sources", *FOUND, *KEPT, "pack")


def through(last: str) -> tuple[str, ...]:
    """Return the stages up to one of them."""
    return STAGES[: STAGES.index(last) + 1]


def written() -> list[str]:
    """Return the tables that have a part for each unit of work, those that are written last first."""
    return [table for name in reversed((*FOUND, *KEPT)) for table in reversed(stages.load(name).writes)]


def fingerprints(config: CurateConfig) -> dict[str, str]:
    """Return the fingerprint of each stage: of its settings and of the stage that it follows."""
    found: dict[str, str] = {}

    def of(name: str) -> str:
        if name and name not in found:
            stage = stages.load(name)
            found[name] = fingerprint(name, stage.settings(config), of(stage.follows))
        return found.get(name, "")

    for name in ON_UNITS:
        of(name)
    return found


def segments(steps: Sequence[str], config: Any, gpus: int) -> list[tuple[Place, list[str], int]]:
    """Return the steps of a leg in stretches that run in one process: where, which, and in how many processes.

    A model runs on a core where there is no GPU, and then together with the steps beside it: models are loaded once a
    process, and no pool of actors holds cores that another step waits for.
    """
    found: list[tuple[Place, list[str], int]] = []
    for name in steps:
        stage = stages.load(name)
        beside: Place = found[-1][0] if found else "cpu"
        model: Place = "gpu" if gpus else "cpu"
        places: dict[str, Place] = {"either": beside, "model": model, "cpu": "cpu", "wait": "wait"}
        place = places[stage.where(config)]
        if found and beside == place:
            found[-1] = (place, [*found[-1][1], name], max(found[-1][2], stage.workers(config)))
        else:
            found.append((place, [name], stage.workers(config)))
    return found


class Index:
    """The parts of a ledger as one listing tells them, by table and unit."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._parts: dict[str, dict[str, list[Part]]] = {}

    def of(self, table: str, unit: str) -> list[Part]:
        """Return the parts of a unit, whatever made them."""
        if table not in self._parts:
            self._parts[table] = {}
            for part in self._ledger.parts(table):
                self._parts[table].setdefault(part.unit, []).append(part)
        return self._parts[table].get(unit, [])

    def has(self, table: str, unit: str, print_: str) -> bool:
        """Whether a unit has its part of a table under a fingerprint."""
        return any(part.fingerprint == print_ for part in self.of(table, unit))


def part_names(stage: Stage, unit: str, chunks: int) -> list[str]:
    """Return the names of the parts that a stage writes for a unit."""
    return [f"{unit}-{chunk:03d}" for chunk in range(chunks)] if stage.writes[-1] in SCANNED else [unit]


def tasks(
    steps: Sequence[str], units: Iterable[WorkUnit], index: Index, prints: Mapping[str, Mapping[str, str]],
    more: Mapping[str, Row] | None = None,
) -> list[Row]:  # fmt: skip
    """Return what is to be done in a leg, the longest unit first, as plain values for `engine.line`.

    Args:
        steps: the stages of the leg.
        units: all units of the run.
        index: what is there.
        prints: by unit and stage the fingerprint that it must have; also of stages before the leg that these read.
        more: by unit what else its tasks hold.
    """
    found: list[Row] = []
    for unit in sorted(units, key=lambda unit: (-unit.seconds, unit.name)):
        found += _tasks_of(
            [stages.load(name) for name in steps], unit, index, prints[unit.name], (more or {}).get(unit.name)
        )
    return found


def _tasks_of(
    leg: Sequence[Stage], unit: WorkUnit, index: Index, prints: Mapping[str, str], more: Row | None
) -> list[Row]:
    lacking = {
        stage.name: [n for n, name in enumerate(part_names(stage, unit.name, unit.chunks))
                     if not index.has(stage.writes[-1], name, prints[stage.name])]
        for stage in leg
    }  # fmt: skip
    todo = [name for name, parts in lacking.items() if parts]
    if not todo:
        return []
    task = {
        "unit": unit.name, "wave": unit.wave, "probed_in": unit.probed_in, "uris": unit.uris, "chunks": unit.chunks,
        "chunk": None, "todo": todo, "prints": by_table(prints), **(more or {}),
    }  # fmt: skip
    if unit.chunks > 1 and lacking.get("scan"):
        old = stale(leg, todo, unit, index)
        return [{**task, "chunk": n, "stale": _of_chunk(old, f"{unit.name}-{n:03d}")} for n in lacking["scan"]]
    return [{**task, "stale": stale(leg, todo, unit, index)}]


def _of_chunk(old: Mapping[str, list[Row]], name: str) -> dict[str, list[Row]]:
    """Return what the task of a chunk must know of older parts: of what is scanned only those of the chunk."""
    scans = {"errors": f"scan-{name}"} | dict.fromkeys(SCANNED, name)
    return {
        table: [part for part in parts if part["unit"] == scans.get(table) or not _is_scanned(table, part["unit"])]
        for table, parts in old.items()
    }


def _is_scanned(table: str, unit: str) -> bool:
    return table in SCANNED or (table == "errors" and unit.startswith("scan-"))


def by_table(prints: Mapping[str, str]) -> Row:
    """Return the fingerprint of each table, by those of the stages that write them; of errors by stage."""
    tables = {table: print_ for name, print_ in prints.items() for table in stages.load(name).writes}
    return {**tables, "errors": dict(prints)}


def stale(leg: Sequence[Stage], todo: Sequence[str], unit: WorkUnit, index: Index) -> dict[str, list[Row]]:
    """Return, by table, the parts that a unit has of what is done again: they go when the new ones are there."""
    found: dict[str, list[Part]] = {}
    for stage in leg:
        if stage.name in todo:
            names = part_names(stage, unit.name, unit.chunks)
            for table in stage.writes:
                found[table] = [part for name in names for part in index.of(table, name)]
            found["errors"] = [
                *found.get("errors", []),
                *(p for n in names for p in index.of("errors", f"{stage.name}-{n}")),
            ]
    return {table: [vars(part) for part in parts] for table, parts in found.items() if parts}
