"""Taking footage down, and giving it back: the ledger is made without what a command names. No Ray.

In the order in which `curate` does it: `asked` is what the command names, kept once the run is open; `looked_up` finds
what it is, once all inputs are probed; `carry` writes the units that lose something anew without it, from what the
ledger holds, so that nothing is decoded again; `purge` removes the pictures of clips that are left out by themselves,
once the clips are found. Killed between any two, the same command, or any other one on the run, goes on: what is left
out stands in the table `takedowns` from the first moment, and is `applied` when all of this is done.

A unit that gets something back is decoded again. What was cut, described and packed of footage that is left out goes
where these stages look at their units again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.policy import TAKEDOWN
from rushes.pipelines.engine import job
from rushes.pipelines.engine.plan import WorkUnit
from rushes.pipelines.media import lists
from rushes.pipelines.stages import stage as stages
from rushes.pipelines.stages.match import stage as match
from rushes.pipelines.store import storage, takedowns
from rushes.pipelines.store.ledger import Ledger, fingerprint, to_table
from rushes.pipelines.store.takedowns import Down, Entry

log = logging.getLogger("rushes")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Takedown:
    """What a command asks for."""

    listed: str = ""
    """A list of what is taken down."""
    withdrawn: str = ""
    """A list of what is no longer."""
    similar: bool = False
    """Whether clips that resemble one that is taken down go with it."""
    date: str = ""
    """When, as ISO 8601; empty is now."""

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.date or "2026-01-01")
        except ValueError as error:
            raise ValueError(f"the takedown's date {self.date!r} is none; write it like 2026-11-29") from error

    def entries(self, uri: str) -> list[Entry]:
        """Return what one of the lists names; paths count from its folder."""
        folder = storage.absolute(uri).rsplit("/", 1)[0]
        return [
            Entry(named=lists.target(name, folder) if takedowns.kind_of(name) == "uri" else name, reason=reason)
            for name, reason in lists.named(uri)
        ]

    def when(self) -> str:
        """Return the date."""
        return self.date or datetime.now(UTC).isoformat(timespec="seconds")


# ------------------------------------------------------------------------------------------------------ what is named


def asked(rows: Sequence[Row], takedown: Takedown) -> list[Row]:
    """Return the rows of `takedowns` as a command wants them."""
    rows = list(rows)
    if takedown.listed:
        rows = takedowns.noted(rows, takedown.entries(takedown.listed), takedown.when())
    if takedown.withdrawn:
        names = [entry.named for entry in takedown.entries(takedown.withdrawn)]
        rows, unknown = takedowns.withdrawn(rows, names, takedown.when())
        for name in unknown:
            log.warning("takedown  %s was not taken down here; nothing is withdrawn for it", storage.redact(name))
    return rows


def looked_up(ledger: Ledger, rows: Sequence[Row], similar: bool) -> list[Row]:
    """Return the rows with what they are found to be, and with the clips that resemble what is newly taken down.

    Args:
        ledger: the run's ledger, with the table `matches` as it stood before.
        rows: rows of `takedowns`.
        similar: whether those clips are left out, too; else they are only named.
    """
    if not rows:
        return []
    found = takedowns.resolved(ledger, rows)
    if more := list(_similar(ledger, found)):
        found = takedowns.resolved(ledger, [*found, *more])
    asked_for = [similar and row["kind"] == "similar" and row["until"] is None for row in found]
    return [row | {"dropped": True} if goes else row for row, goes in zip(found, asked_for, strict=True)]


def _similar(ledger: Ledger, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row for each clip that shows what another one shows which is newly taken down."""
    live = [row for row in rows if row["kind"] != "similar" and takedowns.holds(row)]
    fresh = [row for row in live if row["source_id"] and not row["applied"]]
    meant = takedowns.now(fresh)
    if not meant:
        return
    named = {row["key"] or row["source_id"]: row for row in reversed(fresh)}
    there = {(row["named"], row["key"]) for row in rows if row["until"] is None}
    every = takedowns.now(rows)
    for key, other in match.resembling(ledger, meant.keys):
        row = named.get(key) or named.get(key[: takedowns.SOURCE_HEX])
        if row is None or every.keys(pa.array([other]))[0].as_py() or (row["named"], other) in there:
            continue
        there.add((row["named"], other))
        start_s = int(other[takedowns.SOURCE_HEX + 1 :]) / 1000
        yield row | {"kind": "similar", "source_id": other[: takedowns.SOURCE_HEX], "uri": None, "key": other,
                     "start_s": start_s, "end_s": None, "resembles": key, "dropped": False}  # fmt: skip


# --------------------------------------------------------------------------------------------- units without some of it


def moved(old: Sequence[WorkUnit], new: Sequence[WorkUnit], down: Down) -> list[tuple[WorkUnit, WorkUnit]]:
    """Return the units, as they were and as they are, that lost something and got nothing back."""
    was = {unit.name: unit for unit in old}
    pairs = [(was[unit.name], unit) for unit in new if unit.name in was and was[unit.name].print != unit.print]
    return [
        (before, unit) for before, unit in pairs
        if set(unit.uris) <= set(before.uris)
        and Down(stretches=before.down).within(Down(sources=down.sources, stretches=unit.down))
    ]  # fmt: skip


def carry(ledger: Ledger, before: WorkUnit, unit: WorkUnit, prints: Mapping[str, str], down: Down) -> None:
    """Write what the ledger holds of a unit under its new fingerprints, without what it lost; the old parts go then.

    Args:
        ledger: the run's ledger.
        before: the unit as it was.
        unit: the unit as it is now.
        prints: the fingerprint of each stage.
        down: what is left out.
    """
    index = job.Index(ledger)
    left = _Left(ledger, index, before, unit, prints, down)
    done: list[tuple[str, str, str]] = []
    for stage in map(stages.load, job.FOUND):
        old, new = (fingerprint(prints[stage.name], one.print) for one in (before, unit))
        for name in job.part_names(stage, unit.name, unit.chunks):
            parts = [*((table, name) for table in stage.writes), ("errors", f"{stage.name}-{name}")]
            for table, part in parts if left.can(stage.name) else ():
                if index.has(table, part, old):
                    if not index.has(table, part, new):
                        rows = left(table, ledger.read_whole(table, ledger.part(table, part, old)))
                        if len(rows) or table != "errors":
                            ledger.write(table, part, rows, new, [])
                    done.append((table, part, new))
    for table, part, new in done:
        ledger.remove(table, part, keep=new)


class _Left:
    """What is left of a unit's rows without those of what it lost."""

    def __init__(
        self, ledger: Ledger, index: job.Index, before: WorkUnit, unit: WorkUnit, prints: Mapping[str, str], down: Down
    ):
        self.sources = pa.array(sorted(down.sources), pa.string())
        self.uris = pa.array(sorted(set(before.uris) - set(unit.uris)), pa.string())
        old, new = (fingerprint(prints["shots"], one.print) for one in (before, unit))
        self.has_clips = index.has("clips", unit.name, old) or index.has("clips", unit.name, new)
        self.out: list[Row] = []
        if unit.down and index.has("clips", unit.name, old):
            clips = ledger.read_whole("clips", ledger.part("clips", unit.name, old))
            for source_id, stretches in unit.down.items():
                own = clips.filter(pc.equal(clips["source_id"], source_id)).to_pylist()
                self.out += takedowns.apart(own, stretches)[1]
        self.keys = pa.array([clip["key"] for clip in self.out], pa.string())

    def can(self, stage: str) -> bool:
        """Whether what a stage made can be told apart: by its sources, or by the clips that were found."""
        return stage in ("scan", "witness") or self.has_clips

    def __call__(self, table: str, rows: pa.Table) -> pa.Table:
        lost = []
        if "source_id" in rows.column_names:
            lost.append(pc.is_in(rows["source_id"], value_set=self.sources))
        if "key" in rows.column_names and pa.types.is_string(rows["key"].type):  # of signals it is a list
            of = pc.utf8_slice_codeunits(rows["key"], 0, takedowns.SOURCE_HEX)
            lost += [pc.is_in(of, value_set=self.sources), pc.is_in(rows["key"], value_set=self.keys)]
        if table == "errors":
            lost.append(pc.is_in(rows["uri"], value_set=self.uris))
        stay = rows.filter(pc.invert(reduce(pc.or_, lost)))
        return (self._trimmed(stay) if table == "trims" else stay).combine_chunks()

    def _trimmed(self, rows: pa.Table) -> pa.Table:
        """Return trims with the clips that are left out behind them, in the order in which the stage writes them."""
        is_out = pc.equal(rows["reason"], TAKEDOWN)
        out = [*rows.filter(is_out).to_pylist(), *takedowns.trims(self.out)]
        out.sort(key=lambda row: (row["source_id"], row["start_s"]))
        return pa.concat_tables([rows.filter(pc.invert(is_out)), to_table("trims", out)])


def rescan(ledger: Ledger, units: Sequence[WorkUnit], prints: Mapping[str, str]) -> bool:
    """Let units count as not scanned of which the witness must see what was purged; return whether there are any."""
    index, found = job.Index(ledger), False
    for unit in (unit for unit in units if unit.down):
        own = {name: fingerprint(prints[name], unit.print) for name in ("scan", "witness")}
        if not index.has("witness", unit.name, own["witness"]):
            for name in job.part_names(stages.load("scan"), unit.name, unit.chunks):
                if index.has("signals", name, own["scan"]):
                    ledger.remove("signals", name)
                    found = True
    return found


def purge(ledger: Ledger, units: Sequence[WorkUnit], prints: Mapping[str, str]) -> None:
    """Remove the pictures of the clips that units lost by themselves: the clips beside them needed the shots whole."""
    for unit in (unit for unit in units if unit.down):
        own = {name: fingerprint(prints[name], unit.print) for name in ("scan", "shots")}
        lost = ledger.read_part(
            ledger.part("trims", unit.name, own["shots"]), "trims", where=pc.field("reason") == TAKEDOWN
        )
        for table in ("frames", "windows"):
            for name in job.part_names(stages.load("scan"), unit.name, unit.chunks):
                part = ledger.part(table, name, own["scan"])
                stays = pc.invert(_inside(ledger.read_part(part, table, ["source_id", "time_s"]), lost.to_pylist()))
                if not pc.all(stays).as_py():
                    ledger.write(table, name, ledger.read_whole(table, part).filter(stays), own["scan"], [])


def forget(ledger: Ledger, down: Down) -> None:
    """Remove what people said of clips that were taken down, and their places on the map."""
    for table in ("labels", "projection") if down else ():
        for part in ledger.parts(table):
            rows = ledger.read_whole(table, part)
            lost = down.keys(rows["key"].combine_chunks())
            if pc.any(lost).as_py():
                ledger.write(table, part.unit, rows.filter(pc.invert(lost)), part.fingerprint, [])


def _inside(pictures: pa.Table, stretches: Sequence[Row]) -> pa.Array:
    """Return which pictures are of some stretches of their sources."""
    found = pa.chunked_array([np.zeros(len(pictures), np.bool_)])
    for one in stretches:
        of = pc.equal(pictures["source_id"], one["source_id"])
        within = pc.and_(
            pc.greater_equal(pictures["time_s"], one["start_s"]), pc.less(pictures["time_s"], one["end_s"])
        )
        found = pc.or_(found, pc.and_(of, within))
    return found
