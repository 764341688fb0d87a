"""A unit at work: the parts that it reads and writes, guards round each item, the tally of what was done. No Ray.

Whoever works on a unit is told by its task which parts it has and under which fingerprints, so nothing is listed or
looked for. A step writes the table that marks the unit as done last: a worker killed at any instant leaves either
nothing or a part that the next try replaces with the same bytes.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from rushes.pipelines.media import footage
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import DamagedPart, Ledger, Part, to_table

Row = dict[str, Any]
FULL = {errno.ENOSPC, errno.EDQUOT}
SCANNED = ("frames", "windows", "signals")
"""Tables that the scan writes, a part for each chunk of a film that is scanned in several."""
PARTS_AT_HAND = 2
"""Parts of pictures of a long film that stand in memory together."""


class Crashes(Protocol):
    """Counts items begun and not ended; see `engine.cluster.Attempts`."""

    def begin(self, item: str) -> bool:
        """False if the item has taken too many workers down."""

    def end(self, item: str) -> None:
        """The item ended."""


@contextmanager
def begun(crashes: Crashes | None, item: str, uri: str, doing: str) -> Iterator[None]:
    """Count the work on an item, so that what kills its worker is not tried for ever; nobody counts where None.

    Raises FootageError for an item that has taken too many workers down; it stays counted, whoever dies after it.
    """
    if crashes is not None and not crashes.begin(item):
        reason, remedy = f"{doing} it killed the worker twice", "re-encode it or leave it out"
        raise footage.FootageError(uri, "crashed", reason, remedy)
    try:
        yield
    finally:
        if crashes is not None:
            crashes.end(item)


@contextmanager
def guard(errors: list[Row], **where: Any) -> Iterator[None]:
    """The one place that catches everything: what goes wrong with one source or clip becomes an error row.

    But for a full disk, of which no source is guilty: StorageError names it.
    """
    try:
        yield
    except DamagedPart:  # no source is guilty of that either
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise storage.StorageError(
                f"no space left in {tempfile.gettempdir()}; free some (or set TMPDIR) and run the same command again"
            ) from error
        errors.append({**where, **explain(error)})


def explain(error: Exception) -> Row:
    """Return code, reason and remedy of an error, for the table of errors."""
    unreached = isinstance(error, storage.StorageError)
    remedy = "then try again with --retry-failed" if unreached else "unexpected: please report it with the file"
    return {
        "code": getattr(error, "code", type(error).__name__),
        "reason": storage.redact(str(getattr(error, "reason", "") or error or type(error).__name__)),
        "remedy": getattr(error, "remedy", remedy),
    }


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a step did with a unit."""

    items: int = 0
    """Sources, spans, clips or shards, by the step."""
    seconds: float = 0.0
    """Of footage."""
    errors: int = 0
    """Items that failed, each with a row in the table `errors`."""
    note: str = ""
    """A word for the log."""


class Unit:
    """A unit at work, in one step of a leg after another.

    Whole tables that were read or written stay at hand for the next step in the same process: a unit is small enough.
    """

    def __init__(self, run: str, task: Mapping[str, Any], crashes: Crashes | None = None, threads: int = 1):
        """Take up a task.

        Args:
            run: the run's folder.
            task: `unit`, its name; `prints`, by table the fingerprint of its parts; `stale`, by table the older parts
                of the unit; and what its steps need besides: `wave`, `probed_in`, `uris`, `chunk`, `chunks`, `keys`.
            crashes: counts items that are begun.
            threads: CPUs that there are for it.
        """
        self.ledger, self.task, self.crashes, self.threads = Ledger(run), dict(task), crashes, threads
        self.run, self.name, self.step = self.ledger.run, str(task["unit"]), ""
        self.reads: tuple[str, ...] | None = None
        """Tables that the step under way has named; None where nobody asks."""
        self.again = False
        """Whether a worker that took this task up before has died: then it may have left more than the task tells."""
        self._held: dict[str, pa.Table] = {}

    @property
    def chunk(self) -> str:
        """The name under which what is scanned now stands: that of the chunk."""
        return f"{self.name}-{self.task.get('chunk') or 0:03d}"

    def parts(self, table: str) -> list[Part]:
        """Return the parts of a table that this unit has: one, but of what is scanned one for each chunk."""
        names = [self.task["probed_in"]] if table == "sources" and "probed_in" in self.task else [self.name]
        if table in SCANNED:
            names = [f"{self.name}-{chunk:03d}" for chunk in range(self.task.get("chunks", 1))]
        return [self.ledger.part(table, name, self.task["prints"][table]) for name in names]

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a table, of chunks one after the other."""
        self.named(table)
        whole = pa.concat_tables([self.read_part(table, part) for part in self.parts(table)])
        return whole if columns is None else whole.select(list(columns))

    def named(self, table: str) -> None:
        """Raise KeyError where the step under way reads a table that its STAGE does not name."""
        if self.reads is not None and table not in self.reads:
            raise KeyError(f"{self.step} reads the table {table}, which its STAGE does not name")

    def read_part(self, table: str, part: Part) -> pa.Table:
        """Return the rows of one of `parts`; those of a film's chunks do not stay at hand."""
        if part.uri in self._held:
            return self._held[part.uri]
        found = self.ledger.read_whole(table, part)
        if self.task.get("chunks", 1) == 1:
            self._held[part.uri] = found
        return found

    def write(self, table: str, rows: pa.Table | Iterable[Mapping[str, Any]]) -> None:
        """Write the unit's part of a table; of what is scanned that of its chunk."""
        data = rows if isinstance(rows, pa.Table) else to_table(table, rows)
        part = self.parts(table)[(self.task.get("chunk") or 0) if table in SCANNED else 0]
        self.ledger.write(table, part.unit, data, part.fingerprint, [])  # older ones go when the step is done
        if self.task.get("chunks", 1) == 1:
            self._held[part.uri] = data

    def stale(self, table: str, unit: str = "") -> list[Part]:
        """Return the parts of a table that this unit had before the task was made, under whatever fingerprint."""
        unit = unit or self.name
        if self.again:
            return self.ledger.parts(table, unit)
        return [Part(**part) for part in self.task.get("stale", {}).get(table, []) if part["unit"] == unit]

    def write_errors(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write what failed in the step under way, or remove what an earlier try of it left."""
        unit = self.chunk if self.step == "scan" else self.name
        name = f"{self.step}-{unit}"
        if rows:
            named = [{**row, "stage": self.step, "unit": unit} for row in rows]
            self.ledger.write("errors", name, named, self.task["prints"]["errors"][self.step], [])
            return
        for part in self.stale("errors", name):
            if part.fingerprint == self.task["prints"]["errors"][self.step]:
                storage.remove(part.uri)

    def settle(self, tables: Sequence[str]) -> None:
        """Remove what other configurations left of a step that is done; killed before, either one is whole."""
        own = {table: self.task["prints"][table] for table in tables if table in self.task["prints"]}
        chunk = self.chunk if self.step == "scan" else self.name
        old = [part for table, print_ in own.items() for part in self.stale(table, chunk) if part.fingerprint != print_]
        errors = self.task["prints"].get("errors", {}).get(self.step)
        old += [part for part in self.stale("errors", f"{self.step}-{chunk}") if part.fingerprint != errors]
        storage.remove_many([part.uri for part in old])

    def begun(self, item: str, uri: str, doing: str) -> AbstractContextManager[None]:
        """Count the work on an item as `begun` does."""
        return begun(self.crashes, f"{self.step} {item}", uri, doing)

    def sources(self) -> list[Row]:
        """Return the sources of the unit, in order."""
        rows = {row["uri"]: row for row in self.read("sources").to_pylist()}
        return [rows[uri] for uri in self.task["uris"]]

    def spans(self) -> Iterator[tuple[Row, list[Row]]]:
        """Yield each source that was scanned, with its rows of `signals` in the order of its spans, lists as arrays."""
        signals = self.read("signals")
        for source in self.sources():
            rows = signals.filter(pc.equal(signals["source_id"], source["source_id"]))
            if rows.num_rows:
                yield source, _with_arrays(rows.sort_by("span"))


def _with_arrays(table: pa.Table) -> list[Row]:
    """Return the rows of a table, its lists as arrays: what a film of hours holds is no list of Python numbers."""
    rows: list[Row] = [{} for _ in range(table.num_rows)]
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_list = pa.types.is_list(column.type)
        for row, value in zip(rows, column, strict=True):
            lists = is_list and value.is_valid
            row[name] = value.values.to_numpy(zero_copy_only=False) if lists else value.as_py()
    return rows


class Pictures(Mapping[float, bytes]):
    """The pictures of one source that a scan kept, JPEG by time in seconds; few of a long film stand in memory."""

    def __init__(self, unit: Unit, table: str, source_id: str):
        """Look up when the pictures of a source are.

        Args:
            unit: the unit that the source belongs to.
            table: `frames` or `windows`.
            source_id: the source.
        """
        unit.named(table)
        self._unit, self._table, self._source = unit, table, source_id
        self._parts = unit.parts(table)
        self._at_hand: dict[int, dict[float, bytes]] = {}
        self._part = {time: number for number in range(len(self._parts)) for time in self._load(number)}

    def _load(self, number: int) -> dict[float, bytes]:
        if number not in self._at_hand:
            rows = self._unit.read_part(self._table, self._parts[number])
            rows = rows.filter(pc.equal(rows["source_id"], self._source))
            while len(self._at_hand) >= PARTS_AT_HAND:
                self._at_hand.pop(next(iter(self._at_hand)))
            self._at_hand[number] = dict(zip(rows["time_s"].to_pylist(), rows["jpeg"].to_pylist(), strict=True))
        return self._at_hand[number]

    def __getitem__(self, time_s: float) -> bytes:
        return self._load(self._part[time_s])[time_s]

    def __iter__(self) -> Iterator[float]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)


def clip_frames(unit: Unit, clips: Iterable[Row]) -> Iterator[Row]:
    """Yield `{**clip, jpegs}` for clips in ledger order, with the pictures of one source at a time."""
    source_id, pictures = "", {}  # type: Any, Any
    for clip in clips:
        if clip["source_id"] != source_id:
            source_id = clip["source_id"]
            pictures = Pictures(unit, "frames", source_id)
        yield {**clip, "jpegs": [pictures[time] for time in clip["frame_s"]]}
