"""The work list: which inputs a run has, and in which unit each one is worked on. No Ray.

A wave is one addition of inputs. It is written as one part, so a run killed while planning has planned nothing, and the
order in which inputs are given changes nothing: a wave is sorted by URI. Inputs are probed in units of so many files;
then it is known how long they are, and each such unit is split into units of work of about ten minutes of footage.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import duckdb
import pyarrow as pa

from rushes.pipelines.config import InputConfig, ScanConfig
from rushes.pipelines.media import footage
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import Ledger, Part, fingerprint, to_table
from rushes.pipelines.store.tables import TABLES
from rushes.pipelines.store.takedowns import NOTHING, Down

MAX_SOURCES_PER_UNIT = 256
UNIT_S = 600.0
"""Seconds of footage that a unit of work holds at most: what a killed worker loses, and what the last one does …"""
MAX_UNITS = 15_000
"""… unless a wave would need more units than this: each has about a dozen objects in the ledger, which are listed."""
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


def probed_units(ledger: Ledger) -> list[str]:
    """Return the names of the units in which the inputs of a run are probed, in order."""
    found: set[str] = set()
    for batch in ledger.batches("plan", ["unit"]):
        found.update(batch.column("unit").unique().to_pylist())
    return sorted(found)


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """Sources that are worked on together: several short ones, or a long one by itself."""

    name: str
    wave: int
    probed_in: str
    """The unit of the table `sources` that holds their rows."""
    uris: list[str]
    seconds: float
    chunks: int
    """In how many parts its spans are scanned; more than one only of a long film."""
    print: str
    """Changes when the unit holds other footage."""
    down: dict[str, list[list[float]]] = field(default_factory=dict)
    """By source, the stretches of it that were taken down, in seconds."""


def work_units(ledger: Ledger, scan: ScanConfig, made_by: str, down: Down = NOTHING) -> list[WorkUnit]:
    """Return the units of work of a run, in order, and keep them in the table `units`, a part for each wave.

    Each is a stretch of a unit of probing, so that a source that is mended or replaced changes its neighbours alone.
    The table knows of no takedown, so that what is taken down moves no other source to another unit.

    Args:
        ledger: the run's ledger, as it is when everything has been probed.
        scan: the settings that say what a span is.
        made_by: fingerprint of the stage that probed.
        down: what is left out.
    """
    probed: dict[str, list[Part]] = {}
    for part in ledger.parts("sources"):
        probed.setdefault(part.unit.split("-")[0], []).append(part)
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    current: dict[str, str] = {}
    print_ = fingerprint("units", made_by, scan.span_s, UNIT_S, MAX_UNITS)
    for wave, parts in sorted(probed.items()):
        print_ = fingerprint(
            print_, [(part.unit, part.fingerprint) for part in parts]
        )  # copies are of all waves before
        kept = ledger.part("units", wave, print_)
        if kept in ledger.parts("units", wave):
            found = ledger.read_whole("units", kept).to_pylist()
        else:
            found = _wave_units(ledger, wave, parts, seen, scan)
            ledger.write("units", wave, found, print_)
        current[wave] = print_
        seen.update(row["source_id"] for row in found)
        rows += found
    ledger.tidy("units", current)
    units = (_work_unit(name, list(own), down) for name, own in groupby(rows, key=lambda row: row["unit"]))
    return [unit for unit in units if unit.uris]


def _wave_units(ledger: Ledger, wave: str, parts: list[Part], seen: set[str], scan: ScanConfig) -> list[dict[str, Any]]:
    """Return the rows of `units` of one wave, whose first copies of sources are those that `seen` lacks."""
    columns = ["unit", "uri", "source_id", "duration_s"]
    firsts: list[dict[str, Any]] = []
    mine: set[str] = set()
    for part in parts:
        for row in ledger.read_whole("sources", part).select(columns).to_pylist():
            if row["source_id"] not in seen and row["source_id"] not in mine:
                mine.add(row["source_id"])
                firsts.append({**row, "duration_s": row["duration_s"] or 0.0})
    before = [ledger.read_whole("units", part) for part in ledger.parts("units", wave)]
    lengths = [table["unit_s"][0].as_py() for table in before if len(table)]
    unit_s = lengths[0] if lengths else _unit_s(sum(row["duration_s"] for row in firsts))  # once told, it stays
    found: list[dict[str, Any]] = []
    for probed_in, own in groupby(firsts, key=lambda row: row["unit"]):
        for number, rows in enumerate(_split(list(own), unit_s)):
            spans = len(footage.spans(rows[0]["duration_s"], scan))
            chunks = 1 if len(rows) > 1 else -(-spans // max(1, int(unit_s / scan.span_s)))
            common = {"wave": int(wave[1:]), "unit": f"{probed_in}-{number:03d}", "probed_in": probed_in}
            found += [{**row, **common, "chunks": chunks, "unit_s": unit_s} for row in rows]
    return found


def _unit_s(seconds: float) -> float:
    """Return how long units of so much footage are: longer, in steps of a fifth, where they would be too many."""
    enough = UNIT_S * MAX_UNITS
    steps = math.ceil(4 * math.log2(seconds / enough)) if seconds > enough else 0
    return float(UNIT_S * 2 ** (steps / 4))


def _split(sources: list[dict[str, Any]], unit_s: float) -> Iterator[list[dict[str, Any]]]:
    """Yield stretches of sources of at most `unit_s` seconds; what is longer stands alone."""
    held: list[dict[str, Any]] = []
    filled = 0.0
    for source in sources:
        if held and filled + source["duration_s"] > unit_s:
            yield held
            held, filled = [], 0.0
        held.append(source)
        filled += source["duration_s"]
    if held:
        yield held


def _work_unit(name: str, rows: list[dict[str, Any]], down: Down) -> WorkUnit:
    """Return a unit without what is taken down; one of which nothing is left has no source."""
    own = [row for row in rows if row["source_id"] not in down.sources]
    stretches = down.of(row["source_id"] for row in own)
    without = [takedowns.moments(stretches)] if stretches else []
    return WorkUnit(
        name=name,
        wave=rows[0]["wave"],
        probed_in=rows[0]["probed_in"],
        uris=[row["uri"] for row in own],
        seconds=sum(row["duration_s"] for row in own),
        chunks=rows[0]["chunks"],
        print=fingerprint([(row["uri"], row["source_id"]) for row in own], rows[0]["chunks"], *without),
        down=stretches,
    )


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
