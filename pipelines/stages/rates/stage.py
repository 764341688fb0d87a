"""What each segment of packed clips costs and loses at each rate, shard after shard: table `rates`.

The first of the two passes of `rushes latents` under one budget for all clips. A clip that cannot be read has no rows
here; the second pass says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit, guard
from rushes.pipelines.store import shards
from rushes.pipelines.store.tables import TABLES

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RatesJob:
    """What all shards of a selection have in common."""

    selection: str
    model: str
    """A tokenizer's name that the workers can read, see `codec.load`."""
    side_px: int
    tokenizer: str
    """Fingerprint of the tokenizer."""
    predicted: bool
    """Whether the tokenizer foresees distortion; else it is measured."""
    pictures: float
    """Share of the clips whose first frame is a segment of its own."""


class Rates:
    """Looks at the clips of shards."""

    def __init__(self, job: RatesJob):
        import torch

        from rushes.tokenizer.codec import load

        self.job = job
        self.tokenizer = load(job.model).to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, unit: Unit) -> Tally:
        """Write the rows of one shard."""
        uri = f"{unit.run}/shards/{self.job.selection}/{unit.task['shard']}"
        failed: list[Row] = []
        found = [TABLES["rates"].empty_table()]
        try:
            for sample in shards.read_shard(uri, ("mp4",)):
                with guard(failed, key=sample["__key__"]):
                    found.extend(self._rows(unit.task["shard"], sample))
        except shards.ShardError:  # what was read of it will not be encoded
            found = found[:1]
        rows = pa.concat_tables(found)
        unit.write("rates", rows)
        return Tally(items=len(found) - 1, note=f"{len(failed)} not read" if failed else "")

    def _rows(self, shard: str, sample: Row) -> Iterator[pa.Table]:
        """Yield the rows of a clip: its segments in order, of each its rates in the tokenizer's order."""
        from rushes.tokenizer.codec import segments
        from rushes.tokenizer.data import begins_with_picture
        from rushes.tokenizer.plan import duration_s, looked_at

        device = self.tokenizer.latent_mean.device
        lone = begins_with_picture(sample["__key__"], self.job.pictures)
        videos = segments(self.tokenizer, sample["mp4"], self.job.side_px, lone)
        shown = ((times_s, video.to(device)) for times_s, video in videos)
        table, times_s = looked_at(self.tokenizer, shown, predict=self.job.predicted)
        frames = np.array([len(one) for one in times_s])
        seconds = duration_s([time_s for one in times_s for time_s in one]) * frames / max(frames.sum(), 1)
        count, options = table.costs.shape
        yield pa.table(
            {
                "key": [sample["__key__"]] * table.costs.size,
                "shard": [shard] * table.costs.size,
                "segment": np.repeat(np.arange(count), options),
                "seconds": np.repeat(seconds, options),
                "rate": np.tile(self.tokenizer.config.rates, count),
                "latents": table.costs.ravel(),
                "distortion": table.distortion.ravel(),
                "tokenizer": [self.job.tokenizer] * table.costs.size,
                "predicted": [self.job.predicted] * table.costs.size,
            }
        ).cast(TABLES["rates"])


STAGE = Stage(
    name="rates",
    writes=("rates",),
    settings=lambda job: job.tokenizer,
    where=lambda job: "model",
    worker=Rates,
)
