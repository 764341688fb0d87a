"""The single decode of the spans of a unit: tables `signals`, `frames` and `windows`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rushes.pipelines.config import CurateConfig, ScanConfig
from rushes.pipelines.media import boxes, footage
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit, guard

MEASURES = 2
"""Raised when other numbers come out of the same pictures: what was scanned before is then scanned again."""

Row = dict[str, Any]


class Scan:
    """Decodes the spans of units, or of the chunk of a unit that the task names."""

    def __init__(self, config: CurateConfig):
        self.config = config.scan

    def __call__(self, unit: Unit) -> Tally:
        """Decode one chunk; what cannot be decoded becomes an error row with the seconds that are lost."""
        signals, frames, windows, errors = list[Row](), list[Row](), list[Row](), list[Row]()
        sound: set[str] = set()  # what was seen to hold the content that was probed
        for job in chunk_of(spans_of(unit.sources(), self.config), unit.task):
            source = job["source"]
            where = {"uri": source["uri"], "source_id": source["source_id"], "start_s": job["start_s"]}
            lost = max(0.0, min(job["end_s"], source["duration_s"] or 0.0) - job["start_s"])
            item = f"{source['uri']} span {job['span']}"
            with guard(errors, **where, seconds=lost), unit.begun(item, source["uri"], "decoding"):
                found = self._span(job, sound, unit.threads)
                signals.append(found[0])
                frames.extend(found[1])
                errors.extend({**where, **row} for row in found[2])
                windows.extend(found[3])
            if math.isinf(job["end_s"]) and source["uri"] in sound:
                with guard(errors, **{**where, "start_s": source["duration_s"]}, seconds=0.0):
                    boxes.check_alone(source)
        unit.write_errors(errors)
        unit.write("frames", frames)
        unit.write("windows", windows)
        unit.write("signals", signals)
        return Tally(items=len(signals), seconds=sum(row["covered_s"] for row in signals), errors=len(errors))

    def _span(self, job: Row, sound: set[str], threads: int) -> tuple[Row, list[Row], list[Row], list[Row]]:
        from rushes.pipelines.stages.scan import scan

        source = job["source"]
        if source["uri"] not in sound:
            footage.check_unchanged(source)
            sound.add(source["uri"])
        return scan.scan_span(source, job["span"], job["start_s"], job["end_s"], self.config, threads)


def spans_of(sources: Sequence[Row], config: ScanConfig) -> list[Row]:
    """Return the spans of sources: `source`, `span`, its number, `start_s` and `end_s`."""
    return [
        {"source": source, "span": number, "start_s": start, "end_s": end}
        for source in sources
        for number, (start, end) in enumerate(footage.spans(source["duration_s"] or 0.0, config))
    ]


def chunk_of(spans: Sequence[Row], task: Row) -> Sequence[Row]:
    """Return the spans of the chunk that a task names; all of them where the unit is scanned at once."""
    count, chunk = task.get("chunks", 1), task.get("chunk") or 0
    return spans[len(spans) * chunk // count : len(spans) * (chunk + 1) // count]


STAGE = Stage(
    name="scan",
    reads=("sources",),
    writes=("frames", "windows", "signals"),
    follows="sources",
    settings=lambda config: (asdict(config.scan), MEASURES),
    where=lambda config: "cpu",
    worker=Scan,
)
