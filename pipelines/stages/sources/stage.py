"""Probing: what each input is, by its headers. Table `sources`."""

from __future__ import annotations

from typing import Any

import pyarrow.dataset as ds

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.unit import Crashes, begun, guard, status, write_errors
from rushes.pipelines.store.ledger import Ledger

Row = dict[str, Any]


def planned(ledger: Ledger, unit: str) -> list[Row]:
    """Return the inputs of a unit."""
    return ledger.read_unit("plan", unit.split("-")[0], where=ds.field("unit") == unit).to_pylist()


def probe_unit(unit: Row, *, run: str, config: CurateConfig, crashes: Crashes | None = None) -> Row:
    """Probe the inputs of a unit: table `sources`."""
    ledger, rows, errors = Ledger(run), [], []  # type: ignore[var-annotated]
    for plan in planned(ledger, unit["unit"]):
        with guard(errors, uri=plan["uri"], seconds=0.0), begun(crashes, plan["uri"], plan["uri"], "opening"):
            given = {name: plan[name] for name in ("wave", "unit", "caption", "licence", "rights", "extra")}
            rows.append({**footage.probe(plan["uri"], config.scan), **given})
    write_errors(ledger, "sources", unit, errors)
    ledger.write("sources", unit["unit"], rows, unit["fingerprint"])
    return status(unit, len(rows), sum(row["duration_s"] or 0.0 for row in rows), len(errors))
