"""Clip shards through the tokenizer, one after another: table `latents`, and the latent shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rushes.pipelines.config import LatentsConfig
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit
from rushes.pipelines.store import shards
from rushes.pipelines.store.storage import StopsTheRun

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LatentsJob:
    """What all shards of a selection have in common."""

    selection: str
    model: str
    """Name of a tokenizer that the workers can read, see `tokenizer.codec`."""
    config: LatentsConfig
    tokenizer: str
    """Fingerprint of the tokenizer."""


class LatentsStop(StopsTheRun, ValueError):
    """The model or the settings are to be looked at, not the shard."""


class Latents:
    """Encodes the clips of shards."""

    def __init__(self, job: LatentsJob):
        self.job = job

    def __call__(self, unit: Unit) -> Tally:
        """Encode the clips of one shard; what cannot be decoded or read becomes an error row."""
        try:
            info, failed = self._encode(unit)
        except ValueError as error:
            raise LatentsStop(str(error)) from error
        uri = f"{unit.run}/shards/{self.job.selection}/{unit.task['shard']}"
        unit.write_errors([{"uri": uri, "seconds": 0.0, **row} for row in failed])
        unit.write("latents", [self._row(info)] if info else [])
        if info is None:
            return Tally(errors=len(failed))
        seconds = info.stats.get("duration_s", {}).get("sum", 0.0)
        return Tally(items=info.samples, seconds=seconds, errors=len(failed))

    def _encode(self, unit: Unit) -> tuple[shards.ShardInfo | None, list[Row]]:
        from rushes.pipelines.stages.latents import latents, spend
        from rushes.tokenizer.config import Budget

        config, selection = self.job.config, self.job.selection
        budget, rates = Budget(share=config.share, per_second=config.per_second), None
        if config.lam is not None:
            budget = Budget(lam=config.lam)
        if config.rate:
            budget = Budget(rate=config.rate)
        if config.together:  # of a shard without clips that can be read nothing is bought
            budget, rates = Budget(), spend.of_clips(unit.read("rates", ["key"]), unit.task["rates"] or "")
        try:
            return latents.encode_shard(
                f"{unit.run}/shards/{selection}", unit.task["shard"], f"{unit.run}/latents/{selection}", self.job.model,
                budget, side_px=config.side_px, allocation=config.allocation, rates=rates, pictures=config.pictures,
            )  # fmt: skip
        except shards.ShardError as error:
            remedy = f"remove it and run `{unit.task['remedy']}`, which packs it anew"
            return None, [{"code": "damaged", "reason": str(error), "remedy": remedy}]

    def _row(self, info: shards.ShardInfo) -> Row:
        return {"shard": info.path, "samples": info.samples, "size_bytes": info.size_bytes, "sha256": info.sha256,
                "tokenizer": self.job.tokenizer, "selection": self.job.selection}  # fmt: skip


STAGE = Stage(
    name="latents",
    reads=("rates",),
    writes=("latents",),
    settings=lambda job: job.tokenizer,
    where=lambda job: "model",
    worker=Latents,
)
