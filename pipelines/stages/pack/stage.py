"""Assembling shards of encoded clips: table `packed`, a part a shard."""

from __future__ import annotations

from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.unit import status
from rushes.pipelines.store.ledger import Ledger

Row = dict[str, Any]


def shards_unit(unit: Row, *, run: str, config: CurateConfig, policy: str) -> Row:
    """Assemble a group of shards, whose clips are looked up in the ledger once: table `packed`, a part a shard."""
    ledger = Ledger(run)
    plans = [pack.ShardPlan(**plan["plan"]) for plan in unit["shards"]]
    joined = pack.join(ledger, [key for plan in plans for key in plan.keys], policy)
    for row, plan in zip(unit["shards"], plans, strict=True):
        info = pack.assemble(run, plan, config.pack, policy, joined)
        ledger.write("packed", row["unit"], pack.packed_rows(plan, info, joined, policy), row["fingerprint"])
    seconds = sum(clip.encoded["duration_s"] for clip in joined.values())
    return status(unit, len(joined), seconds, 0)
