"""A worker's way through the steps of a leg: one unit after another, each through the steps that it needs. No Ray."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rushes.pipelines.stages import stage as stages
from rushes.pipelines.stages.stage import Stage, Worker
from rushes.pipelines.stages.unit import SCANNED, Crashes, Unit
from rushes.pipelines.store.storage import StopsTheRun

Row = dict[str, Any]


class Counter(Crashes, Protocol):
    """What workers tell each other and the driver; see `cluster.Attempts`."""

    def again(self, task: str) -> bool:
        """Note that a task is taken up; whether another worker took it up before and died."""

    def claim(self, unit: str, task: str) -> bool:
        """Whether this task, and no other one of the same unit, goes on with what the unit's chunks have in common."""

    def tell(self, step: str, items: int, seconds: float, errors: int) -> None:
        """Note that a step is done with a unit."""


class Line:
    """The steps that one worker does with each unit.

    Models are made when the first unit needs them and stay for those that follow.
    """

    def __init__(self, run: str, config: Any, steps: Sequence[str]):
        """Remember the settings.

        Args:
            run: the run's folder.
            config: all settings.
            steps: names of stages, in order.
        """
        self.run, self.config = run, config
        self.stages = [stages.load(name) for name in steps]
        self._workers: dict[str, Worker] = {}

    def __call__(self, task: Row, counter: Counter | None = None, threads: int = 1) -> Row:
        """Return the task with what came of it: `did`, a row for each step, and `fatal`, why the run cannot go on.

        A task that is `waiting`, because other chunks of its unit are under way, or that is fatal passes as it is.
        """
        if task.get("fatal") or task.get("waiting"):
            return task
        unit = Unit(self.run, task, counter, threads)
        unit.again = counter is not None and counter.again(f"{self.stages[0].name} {task_name(task)}")
        did = list(task.get("did", []))
        try:
            for stage in self.stages:
                if stage.name in task["todo"] and not (unit.again and _is_done(unit, stage)):
                    did.append(self._do(stage, unit, counter))
                if stage.name == "scan" and not _whole(unit, task, counter):
                    return {**task, "did": did, "waiting": True}
        except StopsTheRun as error:
            return {**task, "did": did, "fatal": str(error)}
        return {**unit.task, "did": did}

    def _do(self, stage: Stage, unit: Unit, counter: Counter | None) -> Row:
        unit.step, unit.reads = stage.name, stage.reads
        began = time.time()
        if stage.name not in self._workers:
            try:
                self._workers[stage.name] = stage.worker(self.config)
            except ValueError as error:  # a model that cannot be loaded: no unit is to blame
                raise StopsTheRun(f"{stage.name}: {error}") from error
        tally = self._workers[stage.name](unit)
        unit.settle(stage.writes)
        if counter is not None:
            counter.tell(stage.name, tally.items, tally.seconds, tally.errors)
        return {
            "step": stage.name,
            "items": tally.items,
            "seconds": float(tally.seconds),
            "errors": tally.errors,
            "note": tally.note,
            "began": began,
            "ended": time.time(),
            "worker": f"{platform.node()} {os.getpid()}",
        }


def task_name(task: Mapping[str, Any]) -> str:
    """Return the name of a task: its unit, and the chunk of it where it is scanned in several."""
    return str(task["unit"]) if task.get("chunk") is None else f"{task['unit']}-{task['chunk']:03d}"


def _is_done(unit: Unit, stage: Stage) -> bool:
    """Whether a worker that died had done a step before."""
    table = stage.writes[-1]
    if table == "packed":
        return False
    wanted = unit.parts(table)
    part = wanted[(unit.task.get("chunk") or 0) if table in SCANNED else 0]
    before = unit.task.get("stale", {}).get(table, [])  # what was there already is no work of the one that died
    return all(one["uri"] != part.uri for one in before) and part in unit.ledger.parts(table, part.unit)


def _whole(unit: Unit, task: Row, counter: Counter | None) -> bool:
    """Whether a unit is scanned as a whole, so that its task goes on: of several chunks that of the last one does."""
    if task.get("chunk") is None or task.get("chunks", 1) == 1:
        return True
    if not set(unit.parts("signals")) <= set(unit.ledger.parts("signals", f"{unit.name}-*")):
        return False
    if counter is not None and not counter.claim(unit.name, task_name(task)):
        return False
    unit.task["chunk"] = None
    return True
