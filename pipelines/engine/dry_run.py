"""What a curate command would do, told before it does anything. No Ray, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rushes.pipelines.config import CurateConfig, check
from rushes.pipelines.engine import plan
from rushes.pipelines.media import footage
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.store.ledger import Ledger


def dry_run(inputs: Sequence[str], run: str, config: CurateConfig) -> dict[str, Any]:
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
    for row in footage.expand(inputs, config.inputs):
        count += 1
        size_bytes += row["size_bytes"] or 0
        known += row["uri"] in before
    return {
        "run": run, "inputs": count, "bytes": size_bytes, "new": count - known, "known": known,
        "units_so_far": len(plan.probed_units(ledger)), "policy": config.select.policy, "scorers": config.score.scorers,
    }  # fmt: skip


def dry_run_lines(found: dict[str, Any]) -> list[str]:
    """Return what `dry_run` found as lines for a terminal."""
    return [
        f"{found['inputs']} inputs, {found['bytes'] / 1e6:.1f} MB: {found['new']} new, "
        f"{found['known']} known to {found['run']}",
        f"policy {found['policy']}, scorers {', '.join(found['scorers'])}",
        "nothing was written",
    ]
