"""Two policies on one run, or on two, side by side: what each drops, whose verdict differs, which measures moved.

    found = compared(bench, first, other, second)

Clips of two runs are the same where their keys are: same content, same start. A run is also held beside itself as it
was when it was opened: selections that were made since, by `rushes select` in another terminal, are told and taken up.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from rushes.filters.policy import Policy
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.select import selections, trial
from rushes.pipelines.store.ledger import Ledger

CLIPS = ("clips", "scores", "errors", "matches", "sketches")
"""What is in memory of a run is made of these tables."""
EXAMPLES = 12
MOVED = 20
"""Measures that are told, those that moved most first."""


def compared(a: Workbench, first: Policy, b: Workbench, second: Policy) -> dict[str, Any]:
    """Return the counts of both, the clips that only one keeps, and how far the measures of what is kept moved.

    Args:
        a: the run of the first policy.
        first: the first policy.
        b: the run of the second, which may be the same.
        second: the second policy.

    Raises PolicyError and MissingMeasure as a selection does.
    """
    kept = []
    sides = []
    for bench, policy in ((a, first), (b, second)):
        with bench.lock:
            bench.need_all()
            verdicts = bench.verdicts(policy)
            sides.append({"run": bench.run, "policy": policy.name, **trial.counts(policy, verdicts, bench.seconds)})
            kept.append(verdicts.kept)
    places = np.minimum(np.searchsorted(b.keys, a.keys), max(len(b.keys) - 1, 0))
    shared = b.keys[places] == a.keys if len(b.keys) else np.zeros(len(a.keys), bool)
    stays = np.zeros(len(a.keys), bool)
    stays[shared] = kept[1][places[shared]]
    return {
        "sides": sides,
        "only_first": _some(a, shared & kept[0] & ~stays),
        "only_second": _some(a, shared & stays & ~kept[0]),
        "both": int((shared & kept[0] & stays).sum()),
        "clips_of_first_alone": int((~shared).sum()),
        "clips_of_second_alone": len(b.keys) - int(shared.sum()),
        "moved": _moved(a, kept[0], b, kept[1]),
    }


def _some(bench: Workbench, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rows = np.flatnonzero(chosen)
    return {
        "clips": len(rows),
        "hours": float(np.nansum(bench.seconds[rows]) / 3600),
        "keys": [key.decode() for key in bench.keys[rows[:EXAMPLES]].tolist()],
    }


def _moved(
    a: Workbench, in_a: npt.NDArray[np.bool_], b: Workbench, in_b: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Return the measures of both whose distributions over what is kept lie furthest apart.

    The distance is that of Kolmogorov and Smirnov: 0 for equal distributions, 1 for those that share no value.
    """
    found = []
    for one in a.measured():
        first, second = a.numbers_of(one["name"]), b.numbers_of(one["name"])
        if one["form"] == "number" and first is not None and second is not None:
            first, second = first[in_a & np.isfinite(first)], second[in_b & np.isfinite(second)]
            if len(first) and len(second):
                medians = [float(np.median(first)), float(np.median(second))]
                found.append({**one, "medians": medians, "distance": _distance(first, second)})
    return sorted(found, key=lambda row: -row["distance"])[:MOVED]


def _distance(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    first, second = np.sort(first), np.sort(second)
    at = np.concatenate([first, second])
    shares = (np.searchsorted(own, at, side="right") / len(own) for own in (first, second))
    return float(np.abs(np.subtract(*shares)).max())


def news(bench: Workbench) -> list[str]:
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
