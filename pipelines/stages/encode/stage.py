"""Cutting the kept clips: table `encoded` and a tar of the clips of a unit."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.stages.unit import Crashes, begun, guard, kept_keys, status, write_errors
from rushes.pipelines.store import encoded as tars
from rushes.pipelines.store.ledger import Ledger

Row = dict[str, Any]


def encode_unit(unit: Row, *, run: str, config: CurateConfig, crashes: Crashes | None = None) -> Row:
    """Cut and encode the kept clips of a unit once: table `encoded` and a tar of the clips.

    Clips that an earlier selection had encoded with the same settings are taken over from its tar, byte by byte; it is
    removed only when the new one is complete.
    """
    ledger, name = Ledger(run), unit["unit"]
    excluded = set(unit["excluded"])
    sources = {s["source_id"]: s for s in ledger.read_unit("sources", name).to_pylist() if s["uri"] not in excluded}
    kept = set(kept_keys(ledger, name))
    clips = [row for row in ledger.read_unit("clips", name).to_pylist() if row["key"] in kept]
    earlier = tars.Earlier(ledger, name, unit["made_by"])
    errors: list[Row] = []

    @functools.cache
    def check(source_id: str) -> None:
        footage.check_unchanged(sources[source_id])

    def encoded() -> Iterator[tuple[str, bytes, Row]]:
        for clip in clips:
            taken = earlier.take(clip["key"])
            if taken is not None:
                yield clip["key"], *taken
                continue
            where = {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"]}
            with guard(errors, **where, start_s=clip["start_s"], seconds=clip["duration_s"]):
                with begun(crashes, clip["key"], clip["uri"], "cutting"):
                    check(clip["source_id"])
                    source, span = sources[clip["source_id"]], (clip["start_s"], clip["end_s"])
                    data, info = encode.cut(clip["uri"], source, *span, config.pack, _crop(clip))
                yield clip["key"], data, info

    rows = tars.write_encoded(run, name, unit["fingerprint"], encoded(), unit["wave"], unit["made_by"])
    write_errors(ledger, "encode", unit, errors)
    ledger.write("encoded", name, rows, unit["fingerprint"])
    return status(unit, len(rows), sum(row["duration_s"] for row in rows), len(errors))


def _crop(clip: Row) -> tuple[float, float, float, float]:
    return clip["crop_left"], clip["crop_top"], clip["crop_right"], clip["crop_bottom"]
