"""Selections that were made while a run is looked at, by `rushes select` beside it, say: told, and taken up."""

from __future__ import annotations

import copy

from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store.ledger import Ledger

CLIPS = ("clips", "scores", "errors", "matches", "sketches")
"""What is in memory of a run is made of these tables."""


def told(bench: Workbench) -> list[str]:
    """Return the names of the selections that were made, made again or removed since, sorted; one listing."""
    then, now = (
        {part.unit: part.fingerprint for part in ledger.parts("selection")}
        for ledger in (bench.ledger, Ledger(bench.run))
    )
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def taken_up(bench: Workbench) -> Workbench:
    """Return a workbench of the run as it is now, under the same selection where it is still there.

    It shares the clips in memory with the old one unless they changed, too. Raises as `Workbench` does.
    """
    now = Ledger(bench.run).snapshot()
    names = selections.names(now)
    selection = bench.selection if bench.selection in names else ""
    if any(now.parts(table) != bench.ledger.parts(table) for table in CLIPS):
        return Workbench(bench.run, selection or "")
    fresh = copy.copy(bench)
    fresh.ledger, fresh.selections = now, names
    for made in ("was", "books"):
        vars(fresh).pop(made, None)
    with bench.lock:
        fresh.choose(selection or "")
        fresh.need(fresh.policy)
    return fresh
