"""Probing: what each input is, by its headers. Table `sources`."""

from __future__ import annotations

from typing import Any

import pyarrow.dataset as ds

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit, guard

Row = dict[str, Any]
GIVEN = ("wave", "unit", "caption", "licence", "rights", "extra")


class Prober:
    """Probes the inputs of units."""

    def __init__(self, config: CurateConfig):
        self.config = config

    def __call__(self, unit: Unit) -> Tally:
        """Probe one unit; an input that is no footage becomes an error row."""
        rows, errors = list[Row](), list[Row]()
        for plan in planned(unit):
            with guard(errors, uri=plan["uri"], seconds=0.0), unit.begun(plan["uri"], plan["uri"], "opening"):
                rows.append({**footage.probe(plan["uri"], self.config.scan), **{name: plan[name] for name in GIVEN}})
        unit.write_errors(errors)
        unit.write("sources", rows)
        return Tally(items=len(rows), seconds=sum(row["duration_s"] or 0.0 for row in rows), errors=len(errors))


def planned(unit: Unit) -> list[Row]:
    """Return the inputs of a unit: a few rows of the part of its wave."""
    wave = unit.ledger.part("plan", unit.name.split("-")[0], unit.task["prints"]["plan"])
    return unit.ledger.read_part(wave, "plan", where=ds.field("unit") == unit.name).to_pylist()


STAGE = Stage(
    name="sources",
    reads=("plan",),
    writes=("sources",),
    settings=lambda config: config.scan.max_side_px,
    where=lambda config: "cpu",
    worker=Prober,
)
