"""From signals to clips: tables `clips`, `sketches`, `trims` and `strips`. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.stages.shots import shots
from rushes.pipelines.stages.shots.sketch import sketch
from rushes.pipelines.stages.unit import candidates, guard, signals_of, status, write_errors
from rushes.pipelines.store.ledger import TABLES, Ledger, to_table

Row = dict[str, Any]


def shots_unit(unit: Row, *, run: str, config: CurateConfig) -> Row:
    """Join the spans of each source: tables `clips`, `sketches`, `trims` and `strips`. Decodes nothing."""
    ledger, name = Ledger(run), unit["unit"]
    clips: list[Row] = []
    trims: list[Row] = []
    strips: list[Row] = []
    sketches: list[pa.Table] = [TABLES["sketches"].empty_table()]
    errors: list[Row] = []
    for source, spans in signals_of(ledger, unit):
        covered = sum(row["covered_s"] for row in spans)
        with guard(errors, uri=source["uri"], source_id=source["source_id"], start_s=0.0, seconds=covered):
            said = _said(ledger, name, source["source_id"]) if config.shots.witness != "none" else []
            found, trimmed = shots.shots_of(source, spans, config.shots, config.scan, said)
            found = [{**row, "wave": source["wave"], "unit": name} for row in found]
            pictures = candidates(ledger, name, source["source_id"])
            middle = {row["key"]: pictures[times[len(times) // 2]] for row in found if (times := row["frame_s"])}
            sketches.append(sketch(to_table("clips", found), middle))
            strips.extend(_strips(pictures, found, config.shots.strip_frames))
            clips.extend(found)
            trims.extend(trimmed)
    write_errors(ledger, "shots", unit, errors)
    ledger.write("strips", name, strips, unit["fingerprint"])
    ledger.write("trims", name, trims, unit["fingerprint"])
    ledger.write("sketches", name, pa.concat_tables(sketches), unit["fingerprint"])
    ledger.write("clips", name, clips, unit["fingerprint"])
    return status(unit, len(clips), sum(row["duration_s"] for row in clips), len(errors))


def _said(ledger: Ledger, unit: str, source_id: str) -> list[Row]:
    return ledger.read_unit("witness", unit, where=ds.field("source_id") == source_id).to_pylist()


def _strips(pictures: Mapping[float, bytes], clips: Iterable[Row], count: int) -> Iterator[Row]:
    times = sorted(pictures)
    for clip in clips:
        chosen = shots.strip_times(times, clip["start_s"], clip["end_s"], count)
        if chosen:
            yield {"key": clip["key"], "webp": shots.strip([pictures[time] for time in chosen])}
