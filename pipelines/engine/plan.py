"""The work list: which inputs a run has, and in which unit each one is worked on. No Ray.

A wave is one addition of inputs. It is written as one part, so a run killed while planning has planned nothing, and the
order in which inputs are given changes nothing: a wave is sorted by URI.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from rushes.pipelines.config import InputConfig
from rushes.pipelines.store.ledger import TABLES, Ledger, to_table

MAX_SOURCES_PER_UNIT = 2048
FINGERPRINT = "0" * 12  # a plan depends on no configuration
_CHUNK = 10_000


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What planning found."""

    new: int
    """Inputs that were added to the run."""
    known: int
    """Inputs that the run already has, unchanged."""
    changed: list[str]
    """Inputs whose content is another than when they were planned; they are not read again."""


def add_inputs(
    ledger: Ledger, rows: Iterable[dict[str, Any]], config: InputConfig, same_content: Callable[[str], bool]
) -> Planned:
    """Add to the run the inputs that it does not have yet, as a new wave.

    Args:
        ledger: the run's ledger.
        rows: inputs as `footage.expand` yields them.
        config: how many units a wave is split into.
        same_content: asked only for an input whose modification mark changed: whether its content is still the one
            that was read.
    """
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/plan.duckdb") as db:
        _load(db, "incoming", (_table(chunk) for chunk in _chunks(rows)))
        _load(db, "known", (pa.Table.from_batches([b]) for b in ledger.batches("plan", ["uri", "version"])))
        wave = len(ledger.parts("plan"))
        db.execute(
            "create table fresh as select distinct on (uri) * from incoming "
            "where uri not in (select uri from known) order by uri"
        )
        new, known = _count(db, "fresh"), _count(db, "(select distinct uri from incoming join known using (uri))")
        touched = db.execute(
            "select distinct i.uri from incoming i join known k using (uri) "
            "where i.version is distinct from k.version order by 1"
        ).fetchall()
        if new:
            per_unit = min(MAX_SOURCES_PER_UNIT, max(1, math.ceil(new / config.units_per_wave)))
            ledger.write_batches("plan", f"w{wave:04d}", _wave(db, wave, per_unit), FINGERPRINT)
    return Planned(new=new, known=known, changed=[uri for (uri,) in touched if not same_content(uri)])


def units(ledger: Ledger) -> list[str]:
    """Return the names of all units of a run, in order."""
    found: set[str] = set()
    for batch in ledger.batches("plan", ["unit"]):
        found.update(batch.column("unit").unique().to_pylist())
    return sorted(found)


def _wave(db: duckdb.DuckDBPyConnection, wave: int, per_unit: int) -> Iterator[pa.Table]:
    ordered = db.sql(
        f"select {wave}::int as wave, "
        f"printf('w%04d-%05d', {wave}, (row_number() over (order by uri) - 1) // {per_unit}) as unit, "
        "* from fresh order by uri"
    )
    for batch in ordered.to_arrow_reader(_CHUNK):
        yield pa.Table.from_batches([batch]).select(TABLES["plan"].names)


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return to_table("plan", rows).drop_columns(["wave", "unit"])


def _load(db: duckdb.DuckDBPyConnection, name: str, tables: Iterable[pa.Table]) -> None:
    columns = ["uri", "version"] if name == "known" else [c for c in TABLES["plan"].names if c not in ("wave", "unit")]
    empty = pa.schema([TABLES["plan"].field(c) for c in columns]).empty_table()
    db.register("chunk", empty)
    db.execute(f"create table {name} as select * from chunk")
    for table in tables:
        db.register("chunk", table)
        db.execute(f"insert into {name} select * from chunk")
    db.unregister("chunk")


def _count(db: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = db.execute(f"select count(*) from {relation}").fetchone()
    return int(row[0]) if row else 0
