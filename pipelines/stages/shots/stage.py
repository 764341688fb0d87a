"""From signals to clips: tables `clips`, `sketches`, `trims` and `strips`. Decodes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.judge import digest, judge
from rushes.filters.sketches import PARAMETERS
from rushes.pipelines.config import CurateConfig
from rushes.pipelines.stages.shots import shots
from rushes.pipelines.stages.shots.sketch import sketch
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Pictures, Tally, Unit, guard
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES

Row = dict[str, Any]


class Shots:
    """Joins the spans of each source of a unit and finds its clips."""

    def __init__(self, config: CurateConfig):
        self.config = config

    def __call__(self, unit: Unit) -> Tally:
        """Find the clips of one unit; a source whose signals make no sense becomes an error row."""
        clips, trims, strips, errors = list[Row](), list[Row](), list[Row](), list[Row]()
        sketches = [TABLES["sketches"].empty_table()]
        said, out = unit.read("witness"), list[Row]()
        for source, spans in unit.spans():
            covered = sum(row["covered_s"] for row in spans)
            with guard(errors, uri=source["uri"], source_id=source["source_id"], start_s=0.0, seconds=covered):
                own = said.filter(pc.equal(said["source_id"], source["source_id"])).to_pylist()
                found, trimmed = shots.shots_of(source, spans, self.config.shots, self.config.scan, own)
                found, gone = takedowns.apart(found, unit.task.get("down", {}).get(source["source_id"], ()))
                found = [{**row, "wave": source["wave"], "unit": unit.name} for row in found]
                pictures = Pictures(unit, "frames", source["source_id"])
                sketches.append(_sketched(found, pictures))
                strips.extend(_strips(pictures, found, self.config.shots.strip_frames))
                clips.extend(found)
                trims.extend(trimmed)
                out.extend(gone)
        unit.write_errors(errors)
        unit.write("strips", strips)
        unit.write("trims", [*trims, *takedowns.trims(out)])
        unit.write("sketches", pa.concat_tables(sketches))
        unit.write("clips", clips)
        return Tally(items=len(clips), seconds=sum(row["duration_s"] for row in clips), errors=len(errors))


def check(config: CurateConfig) -> None:
    """Raise ValueError where the judge of cuts cannot be had: else every source would fail of it."""
    judge()


def _sketched(clips: list[Row], pictures: Mapping[float, bytes]) -> pa.Table:
    middle = {row["key"]: pictures[times[len(times) // 2]] for row in clips if (times := row["frame_s"])}
    return sketch(to_table("clips", clips), middle)


def _strips(pictures: Mapping[float, bytes], clips: Iterable[Row], count: int) -> Iterator[Row]:
    times = sorted(pictures)
    for clip in clips:
        chosen = shots.strip_times(times, clip["start_s"], clip["end_s"], count)
        if chosen:
            yield {"key": clip["key"], "webp": shots.strip([pictures[time] for time in chosen])}


STAGE = Stage(
    name="shots",
    reads=("sources", "signals", "witness", "frames"),
    writes=("strips", "trims", "sketches", "clips"),
    follows="witness",
    settings=lambda config: (config.shots, PARAMETERS, digest()),
    where=lambda config: "either",
    worker=Shots,
    check=check,
)
