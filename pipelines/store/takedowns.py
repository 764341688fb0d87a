"""What was taken down, why and when: the table `takedowns`, and which footage it means. No Ray.

    rows = noted(read(ledger), entries, since="2026-11-29")
    write(ledger, ordered(resolved(ledger, rows)))
    now(read(ledger)).sources     # what is left out whole

A takedown names footage by a URI, a source id, a digest or the key of a clip, and means its content: the same bytes
under another name are taken down as well, be they here or yet to come. A row is one thing named, beside the source that
it was found to be; one that nothing was found for binds what comes in later. The date stands in the row from the first
command that named it, so a command that is given again changes nothing.

A clip is told by the moment at which it starts: shots found by other settings lose whichever clip covers any of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.policy import TAKEDOWN
from rushes.pipelines.store.clip import is_key
from rushes.pipelines.store.ledger import Ledger, to_table

Row = dict[str, Any]
PART, PRINT = "all", "0" * 12
"""One part, replaced as a whole: what a command noted is there or is not."""
SOURCE_HEX = 16
MOMENT_S = 1e-3
"""What a clip covers at least whose end is not known: keys count milliseconds."""
_COLUMNS = ["source_id", "uri", "wave", "unit", "digest", "digest_full"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that is to be taken down."""

    named: str
    """A URI, a source id (16 hex digits), a digest (64) or the key of a clip."""
    reason: str | None = None


def kind_of(named: str) -> str:
    """Return what a name is: `clip`, `source`, `digest` or `uri`."""
    if is_key(named):
        return "clip"
    is_hex = re.fullmatch(r"[0-9a-f]+", named)
    return {SOURCE_HEX: "source", 64: "digest"}.get(len(named), "uri") if is_hex else "uri"


# ---------------------------------------------------------------------------------------------------------- the table


def read(ledger: Ledger) -> list[Row]:
    """Return the rows of the table, those that were withdrawn too."""
    return ledger.read("takedowns").to_pylist() if ledger.parts("takedowns") else []


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order in which they stand in the table."""
    return sorted(rows, key=lambda row: tuple(str(row[name] or "") for name in ("since", "named", "source_id", "key")))


def write(ledger: Ledger, rows: Sequence[Row]) -> None:
    """Replace the table."""
    ledger.write("takedowns", PART, to_table("takedowns", rows), PRINT, [])


def holds(row: Mapping[str, Any]) -> bool:
    """Whether a row means footage that is to be left out now; a clip that resembles one does where that was asked."""
    return row["until"] is None and bool(row["dropped"])


def noted(rows: Sequence[Row], entries: Iterable[Entry], since: str) -> list[Row]:
    """Return the rows with one for each entry that does not stand yet; what stands keeps its date and its reason."""
    there = {row["named"] for row in rows if row["until"] is None}
    found = {entry.named: entry for entry in entries if entry.named not in there}  # of a name twice the last reason
    return [*rows, *(_row(entry, since) for entry in found.values())]


def _row(entry: Entry, since: str) -> Row:
    kind = kind_of(entry.named)
    row: Row = {"named": entry.named, "kind": kind, "reason": entry.reason, "since": since, "until": None, "uri": None,
           "source_id": None, "key": None, "start_s": None, "end_s": None, "resembles": None, "dropped": True,
           "applied": False}  # fmt: skip
    if kind in ("clip", "source"):
        row["source_id"] = entry.named[:SOURCE_HEX]
    if kind == "clip":
        row |= {"key": entry.named, "start_s": int(entry.named[SOURCE_HEX + 1 :]) / 1000}
    return row


def withdrawn(rows: Sequence[Row], names: Iterable[str], until: str) -> tuple[list[Row], list[str]]:
    """Return the rows with some of them withdrawn, and the names that were not taken down."""
    wanted = set(names)
    live = {row["named"] for row in rows if row["until"] is None}
    ended = [row | {"until": until} if row["until"] is None and row["named"] in wanted else row for row in rows]
    return ended, sorted(wanted - live)


def resolved(ledger: Ledger, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the sources and the clips that they are found to be; a URI may come to be several."""
    live = [row for row in rows if row["until"] is None]
    if not live:
        return list(rows)
    sources = _named_sources(ledger, live)
    found = [row for row in rows if row["until"] is not None]
    for row in live:
        found += _as_found(row, sources)
    found = list({(row["named"], row["since"], row["source_id"], row["key"]): row for row in found}.values())
    return _with_ends(ledger, found)


def _named_sources(ledger: Ledger, live: Sequence[Row]) -> list[Row]:
    """Return the sources that some rows mean, in the order in which they came in."""
    names = pa.array(sorted({row["named"] for row in live} | {row["source_id"] for row in live if row["source_id"]}))
    found: list[Row] = []
    for batch in ledger.batches("sources", _COLUMNS):
        hits = [pc.is_in(batch[name], value_set=names) for name in ("uri", "source_id", "digest", "digest_full")]
        mask = hits[0]
        for hit in hits[1:]:
            mask = pc.or_(mask, hit)
        found += batch.filter(mask).to_pylist()
    return sorted(found, key=lambda row: (row["wave"] or 0, row["unit"] or "", row["uri"]))


def _as_found(row: Row, sources: Sequence[Row]) -> list[Row]:
    """Return a row for each source that this one means; itself where there is none, or no other."""
    means = {"uri": ("uri",), "digest": ("digest", "digest_full")}.get(row["kind"])
    if means is None:
        own = [source for source in sources if source["source_id"] == row["source_id"]]
        return [row | {"uri": own[0]["uri"] if own else None}]
    first: dict[str, Row] = {}
    for source in sources:
        if any(source[name] == row["named"] for name in means):
            first.setdefault(source["source_id"], source)
    before = [row] if row["source_id"] or not first else []
    new = [row | {"source_id": name, "uri": source["uri"], "applied": row["applied"] and name == row["source_id"]}
           for name, source in first.items()]  # fmt: skip
    return [*before, *new]


def _with_ends(ledger: Ledger, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the ends of the clips that they name, as far as these were found or trimmed away."""
    lacking = pa.array([row["source_id"] for row in rows if row["key"] and row["end_s"] is None], pa.string())
    if not len(lacking):
        return list(rows)
    ends: dict[tuple[str, int], float] = {}
    own = pc.field("source_id").isin(lacking)
    for table, where in (("trims", own & (pc.field("reason") == TAKEDOWN)), ("clips", own)):
        for stretch in ledger.read(table, ["source_id", "start_s", "end_s"], where=where).to_pylist():
            ends[stretch["source_id"], round(1000 * stretch["start_s"])] = stretch["end_s"]
    return [
        row | {"end_s": ends.get((row["source_id"], round(1000 * row["start_s"])))}
        if row["key"] and row["end_s"] is None else row
        for row in rows
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the footage it means


@dataclass(frozen=True, kw_only=True)
class Down:
    """Footage that is left out: sources as a whole, and stretches of others."""

    sources: frozenset[str] = frozenset()
    stretches: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    """By source, from and to in seconds, for the clips that are named by themselves."""

    def __bool__(self) -> bool:
        return bool(self.sources or self.stretches)

    def within(self, other: Down) -> bool:
        """Whether all of this is left out by another one, too."""
        clips = all(name in other.sources or set(_moments(own)) <= set(_moments(other.stretches.get(name, ())))
                    for name, own in self.stretches.items())  # fmt: skip
        return self.sources <= other.sources and clips

    def of(self, sources: Iterable[str]) -> dict[str, list[list[float]]]:
        """Return the stretches of some sources, as a task can hold them."""
        return {name: [list(one) for one in self.stretches[name]] for name in sources if name in self.stretches}

    def keys(self, keys: pa.Array) -> pa.Array:
        """Return which of some clip keys are of footage that is left out."""
        of = pc.utf8_slice_codeunits(keys, 0, SOURCE_HEX)
        whole = pc.is_in(of, value_set=pa.array(sorted(self.sources), pa.string()))
        if not self.stretches:
            return whole
        partly = pc.is_in(of, value_set=pa.array(sorted(self.stretches), pa.string())).to_numpy(zero_copy_only=False)
        mask = whole.to_numpy(zero_copy_only=False).copy()
        for at in partly.nonzero()[0].tolist():
            key = keys[at].as_py()
            start_s = int(key[SOURCE_HEX + 1 :]) / 1000 if is_key(key) else -1.0
            mask[at] |= covers(self.stretches[key[:SOURCE_HEX]], start_s, start_s + MOMENT_S)
        return pa.array(mask)


NOTHING = Down()


def _moments(stretches: Iterable[Sequence[float]]) -> list[int]:
    return sorted({round(1000 * start_s) for start_s, _ in stretches})


def moments(stretches: Mapping[str, Sequence[Sequence[float]]]) -> list[Any]:
    """Return what a fingerprint depends on: the moments at which the clips start, whether they were found or not."""
    return [[name, _moments(own)] for name, own in sorted(stretches.items())]


def covers(stretches: Iterable[Sequence[float]], start_s: float, end_s: float) -> bool:
    """Whether a clip shows anything of some stretches; borders count by the millisecond, as keys do."""
    first, last = round(1000 * start_s), round(1000 * end_s)
    return any(round(1000 * low) < last and first < round(1000 * high) for low, high in stretches)


def now(rows: Iterable[Mapping[str, Any]]) -> Down:
    """Return the footage that is to be left out."""
    return _down(row for row in rows if holds(row))


def before(rows: Iterable[Mapping[str, Any]]) -> Down:
    """Return the footage that the ledger's parts were made without."""
    return _down(row for row in rows if row["applied"])


def applied(rows: Iterable[Row]) -> list[Row]:
    """Return the rows once the ledger's parts are made without what they name, and with what they name no more."""
    return [row | {"applied": holds(row) and row["source_id"] is not None} for row in rows]


def _down(rows: Iterable[Mapping[str, Any]]) -> Down:
    known = [row for row in rows if row["source_id"]]
    whole = frozenset(row["source_id"] for row in known if not row["key"])
    clips: dict[str, set[tuple[float, float]]] = {}
    for row in known:
        if row["key"] and row["source_id"] not in whole:
            end_s = row["end_s"] if row["end_s"] is not None else row["start_s"] + MOMENT_S
            clips.setdefault(row["source_id"], set()).add((row["start_s"], end_s))
    return Down(sources=whole, stretches={name: tuple(sorted(own)) for name, own in sorted(clips.items())})


# ------------------------------------------------------------------------------------------- a unit without its clips


def apart(clips: Sequence[Row], stretches: Sequence[Sequence[float]]) -> tuple[list[Row], list[Row]]:
    """Return the clips of a source that stay, and those that show anything of some stretches."""
    out = [covers(stretches, clip["start_s"], clip["end_s"]) for clip in clips]
    stay = [clip for clip, gone in zip(clips, out, strict=True) if not gone]
    return stay, [clip for clip, gone in zip(clips, out, strict=True) if gone]


def trims(clips: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the rows of `trims` for clips that are left out."""
    for clip in sorted(clips, key=lambda clip: str(clip["key"])):
        yield {"source_id": clip["source_id"], "uri": clip["uri"], "start_s": clip["start_s"], "end_s": clip["end_s"],
               "reason": TAKEDOWN}  # fmt: skip
