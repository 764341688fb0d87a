"""Cutting the kept clips, the only pictures that are ever encoded: table `encoded` and a tar of the clips of a unit."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit, guard
from rushes.pipelines.store import encoded as tars

Row = dict[str, Any]


class Encoding:
    """Cuts and encodes the kept clips of units, once."""

    def __init__(self, config: CurateConfig):
        self.config = config.pack

    def __call__(self, unit: Unit) -> Tally:
        """Cut the clips of one unit; one that cannot be cut becomes an error row and the others go on.

        Clips that an earlier selection had encoded with the same settings are taken over from its tar, byte by byte; it
        is removed only when the new one is complete.
        """
        errors: list[Row] = []
        made_by, print_ = unit.task["made_by"]["encode"], unit.task["prints"]["encoded"]
        clips = self._clips(unit, errors, made_by)
        rows = tars.write_encoded(unit.run, unit.name, print_, clips, unit.task["wave"], made_by)
        unit.write_errors(errors)
        unit.write("encoded", rows)
        return Tally(items=len(rows), seconds=sum(row["duration_s"] for row in rows), errors=len(errors))

    def _clips(self, unit: Unit, errors: list[Row], made_by: str) -> Iterator[tuple[str, bytes, Row]]:
        from rushes.pipelines.stages.encode import encode

        kept = set(unit.task["keys"])
        if not kept:
            return
        sources = {source["source_id"]: source for source in unit.sources()}
        earlier = tars.Earlier(unit.ledger, unit.stale("encoded"), made_by)

        @functools.cache
        def check(source_id: str) -> None:
            footage.check_unchanged(sources[source_id])

        for clip in (row for row in unit.read("clips").to_pylist() if row["key"] in kept):
            taken = earlier.take(clip["key"])
            if taken is not None:
                yield clip["key"], *taken
                continue
            where = {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"]}
            with guard(errors, **where, start_s=clip["start_s"], seconds=clip["duration_s"]):
                with unit.begun(clip["key"], clip["uri"], "cutting"):
                    check(clip["source_id"])
                    source, span = sources[clip["source_id"]], (clip["start_s"], clip["end_s"])
                    data, info = encode.cut(clip["uri"], source, *span, self.config, _crop(clip))
                yield clip["key"], data, info


def _crop(clip: Row) -> tuple[float, float, float, float]:
    return clip["crop_left"], clip["crop_top"], clip["crop_right"], clip["crop_bottom"]


def _settings(config: CurateConfig) -> Any:
    pack = config.pack
    keeps_hdr = pack.hdr == "keep"  # what was cut for `tonemap` serves `drop` as well
    return (
        pack.codec, pack.crf, pack.max_side_px, pack.crop_bars, pack.audio, pack.copy, sorted(pack.copy_codecs),
        keeps_hdr,
    )  # fmt: skip


STAGE = Stage(
    name="encode",
    reads=("sources", "clips"),
    writes=("encoded",),
    follows="shots",
    settings=_settings,
    where=lambda config: "cpu",
    worker=Encoding,
)
