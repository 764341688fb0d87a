"""Assembling shards of encoded clips: table `packed`, a part a shard."""

from __future__ import annotations

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit


class Packing:
    """Assembles groups of shards."""

    def __init__(self, config: CurateConfig):
        self.config = config.pack

    def __call__(self, unit: Unit) -> Tally:
        """Assemble a group of shards, whose clips are looked up in the ledger once."""
        policy, rows = unit.task["policy"], unit.task["shards"]
        plans = [pack.ShardPlan(**row["plan"]) for row in rows]
        ledger = unit.ledger.of_units(unit.task["units"], ("clips", "scores", "captions", "encoded"))
        joined = pack.join(ledger, [key for plan in plans for key in plan.keys], policy)
        for row, plan in zip(rows, plans, strict=True):
            info = pack.assemble(unit.run, plan, self.config, policy, joined)
            packed = pack.packed_rows(plan, info, joined, policy)
            unit.ledger.write("packed", row["unit"], packed, row["fingerprint"], unit.stale("packed", row["unit"]))
        return Tally(items=len(joined), seconds=sum(clip.encoded["duration_s"] for clip in joined.values()))


STAGE = Stage(
    name="pack",
    reads=("clips", "scores", "captions", "encoded", "selection"),
    writes=("packed",),
    follows="encode",
    settings=lambda config: config.pack.name,
    where=lambda config: "cpu",
    worker=Packing,
)
