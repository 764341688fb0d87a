"""What a curate command would do, told before it does anything. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rushes.pipelines.config import CurateConfig, check
from rushes.pipelines.engine import plan, removal
from rushes.pipelines.engine.removal import Takedown
from rushes.pipelines.media import footage
from rushes.pipelines.media.passed_over import PassedOver, line
from rushes.pipelines.report import rights
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import Ledger


def dry_run(inputs: Sequence[str], run: str, config: CurateConfig, takedown: Takedown | None = None) -> dict[str, Any]:
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
        "takedowns": rights.taken(_taken(ledger, takedown or Takedown())),
        "passed_over": [row for rows in passed_over.rows().values() for row in rows],
    }  # fmt: skip


def _taken(ledger: Ledger, takedown: Takedown) -> list[dict[str, Any]]:
    return removal.looked_up(ledger, removal.asked(takedowns.read(ledger), takedown), takedown.similar)


def dry_run_lines(found: dict[str, Any]) -> list[str]:
    """Return what `dry_run` found as lines for a terminal."""
    return [
        f"{found['inputs']} inputs, {found['bytes'] / 1e6:.1f} MB: {found['new']} new, "
        f"{found['known']} known to {found['run']}",
        *filter(None, [line(found["passed_over"])]),
        f"policy {found['policy']}, scorers {', '.join(found['scorers'])}",
        *rights.taken_lines(found["takedowns"]),
        "nothing was written",
    ]
