"""The witness of shots at work on a unit: table `witness`."""

from __future__ import annotations

from typing import Any

import pyarrow.dataset as ds

from rushes.pipelines.stages.unit import Crashes, begun, guard, signals_of, status, write_errors
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

Row = dict[str, Any]


class WitnessActor:
    """Looks at the doubtful windows of units: table `witness`."""

    def __init__(self, run: str, crashes: Crashes | None = None):
        from rushes.pipelines.stages.witness import (
            witness,  # brings torch, which neither the driver nor a worker that captions needs
        )

        self.run, self.witness, self.crashes = run, witness.Witness(), crashes

    def __call__(self, unit: Row) -> Row:
        """Look at one unit; a source that cannot be looked at becomes an error row, and is decided without it."""
        ledger, name = Ledger(self.run), unit["unit"]
        rows: list[Row] = []
        errors: list[Row] = []
        for source, spans in signals_of(ledger, unit):
            of = ds.field("source_id") == source["source_id"]
            uri, where = source["uri"], {"source_id": source["source_id"], "start_s": 0.0, "seconds": 0.0}
            with guard(errors, uri=uri, **where), begun(self.crashes, uri, uri, "looking at cuts in"):
                kept = ledger.read_unit("windows", name, ["time_s", "jpeg"], where=of)
                pictures = dict(zip(kept["time_s"].to_pylist(), kept["jpeg"].to_pylist(), strict=True))
                rows.extend(self.witness(spans, pictures))
        try:
            write_errors(ledger, "witness", unit, errors)
            ledger.write("witness", name, rows, unit["fingerprint"])
        except storage.StorageError as error:
            return {**status(unit, 0, 0.0, 0), "fatal": str(error)}
        return status(unit, len(rows), 0.0, len(errors))
