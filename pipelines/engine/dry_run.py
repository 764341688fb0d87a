"""What a curate command would do, told before it does anything. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from rushes.filters.policy import Policy
from rushes.pipelines.config import CurateConfig, check
from rushes.pipelines.engine import job, plan, removal
from rushes.pipelines.engine.removal import Takedown
from rushes.pipelines.media import footage
from rushes.pipelines.media.passed_over import PassedOver, line
from rushes.pipelines.progress import counted
from rushes.pipelines.report import rights
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import Ledger

KEPT = {"captions": "captioned", "encoded": "encoded", "packed": "packed"}
"""Tables of what is made of kept clips."""


def dry_run(
    inputs: Sequence[str], run: str, config: CurateConfig, takedown: Takedown | None = None, through: str = "pack"
) -> dict[str, Any]:
    """Return what a curate command would work on, without writing anything."""
    check(config)
    policy = selections.chosen(run, config.select.policy, config.pack.hdr)[0]
    select.check(policy, config.score.scorers)
    ledger = Ledger(run)
    ledger.check()
    if reason := selections.clash(ledger, policy):
        raise selections.SelectionError(reason)
    count, size_bytes, known = 0, 0, 0
    before = {uri for batch in ledger.batches("plan", ["uri"]) for uri in batch.column("uri").to_pylist()}
    passed_over = PassedOver()
    for row in footage.expand(inputs, config.inputs, passed_over):
        count += 1
        size_bytes += row["size_bytes"] or 0
        known += row["uri"] in before
    return {
        "run": run, "inputs": count, "bytes": size_bytes, "new": count - known, "known": known,
        "units_so_far": len(plan.probed_units(ledger)), "policy": config.select.policy, "scorers": config.score.scorers,
        "through": through, "succeeds": selections.succeeds(run, config.select.policy),
        "selection": _selected(ledger, policy),
        "takedowns": rights.taken(_taken(ledger, takedown or Takedown())),
        "passed_over": [row for rows in passed_over.rows().values() for row in rows],
    }  # fmt: skip


def _selected(ledger: Ledger, policy: Policy) -> dict[str, Any] | None:
    """Return what there is of a policy's selection as the ledger stands, None where it would be made first."""
    if not selections.is_done(ledger, policy, selections.print_of(ledger, policy)):
        return None
    mine = pc.field("policy") == policy.name
    kept = flat(ledger.read("selection", ["key"], mine & pc.field("kept"))["key"])
    there = {table: ledger.read(table, ["key"], mine if table == "packed" else None)["key"] for table in KEPT}
    made = {table: pc.sum(pc.is_in(kept, value_set=flat(keys))).as_py() or 0 for table, keys in there.items()}
    return {"policy": policy.name, "kept": len(kept), **made}


def _taken(ledger: Ledger, takedown: Takedown) -> list[dict[str, Any]]:
    return removal.looked_up(ledger, removal.asked(takedowns.read(ledger), takedown), takedown.similar)


def _selection_line(found: dict[str, Any]) -> str:
    if (there := found["selection"]) is None:
        return f"the policy {found['policy']} would select before anything is captioned, encoded or packed"
    made = ", ".join(f"{there[table]} {word}" for table, word in KEPT.items())
    return (
        f"{there['policy']} has selected {counted(there['kept'], 'clip')}; of them are {made}; "
        "what is missing, or was made by other settings, would be made"
    )


def dry_run_lines(found: dict[str, Any]) -> list[str]:
    """Return what `dry_run` found as lines for a terminal."""
    inputs = (
        f"{counted(found['inputs'], 'input')}, {found['bytes'] / 1e6:.1f} MB: {found['new']} new, "
        f"{found['known']} known to {found['run']}"
    )
    return [
        inputs if found["inputs"] else f"no inputs are named: {found['run']} goes on with its own",
        *filter(None, [line(found["passed_over"])]),
        f"stages {', '.join(job.through(found['through']))}; what is done is passed over",
        f"policy {found['policy']}, scorers {', '.join(found['scorers'])}",
        *filter(None, [found["succeeds"]]),
        _selection_line(found),
        *rights.taken_lines(found["takedowns"]),
        "nothing was written",
    ]
