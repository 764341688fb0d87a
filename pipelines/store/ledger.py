"""The ledger: one Parquet table per stage, in part files that appear whole or not at all.

A leaf: no Ray. Everything a run knows stands in these tables; open any of them with one line:

    duckdb -c "select * from 'RUN/ledger/clips/*.parquet'"

A part file is a finished unit of work. Its name is `part-<unit>.<fingerprint>.parquet`, so that a listing alone tells
what is done and under which configuration; its Parquet metadata repeat both with the schema version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rushes.pipelines.store import storage
from rushes.pipelines.store.tables import TABLES

SCHEMA_VERSION = 5

OUTDATED = "0" * 12
"""The fingerprint of what must be made again, whatever the configuration."""

FETCHED_BYTES = 16 * 2**20
"""Parts of a table in a bucket that are no more than this together are fetched whole."""
# Tables with pictures in them are read a few rows at a time.
ROW_GROUP = {"frames": 256, "windows": 2048, "strips": 128}


class SchemaMismatch(ValueError):
    """A run folder was written by another version of the schema."""


class DamagedPart(storage.StorageError):
    """A part cannot be read; the message names it and the remedy."""


class NoRun(ValueError):
    """A folder is no run; the message says how one is made."""


def fingerprint(*parts: Any) -> str:
    """Return 12 hex digits that change when any of the given configurations or values changes."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

    text = json.dumps([SCHEMA_VERSION, [plain(p) for p in parts]], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part file, as its name tells it."""

    unit: str
    fingerprint: str
    uri: str
    size_bytes: int = field(default=0, compare=False)
    """As a listing told it; 0 where nobody asked."""


class Ledger:
    """The tables of one run folder, on local disk or in an object store."""

    def __init__(self, run: str):
        self.run = run.rstrip("/")
        self.root = f"{self.run}/ledger"
        self._listed: dict[str, list[Part]] | None = None
        self._held: dict[Part, pa.Table] = {}

    def snapshot(self) -> Ledger:
        """Return this ledger with its parts as they are now, told by one listing of all tables.

        What is asked of it lists nothing any more. What it writes and removes itself it knows; of what others write
        after it was taken it knows nothing.
        """
        found = Ledger(self.run)
        found._listed = {}
        for entry in storage.list_entries(self.root, recursive=True):
            table, _, name = entry.uri.removeprefix(f"{self.root}/").partition("/")
            part = _part_of(entry.uri, name, entry.size_bytes)
            if part:
                found._listed.setdefault(table, []).append(part)
        return found

    def create(self) -> None:
        """Mark the folder as a run of this schema version. Raises SchemaMismatch if it belongs to another version."""
        marker = f"{self.root}/version.json"
        if not self.check():
            storage.write_bytes(marker, json.dumps({"rushes_schema": SCHEMA_VERSION}).encode())

    def check(self) -> bool:
        """Whether the folder is a run. Raises SchemaMismatch if another version of the schema wrote it."""
        marker = f"{self.root}/version.json"
        text = storage.read_if_there(marker)
        if text is None:
            return False
        try:
            found = json.loads(text)["rushes_schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise SchemaMismatch(f"{marker} is damaged ({error}); nothing was changed. Use another --out") from error
        if found != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{self.run} was written with ledger schema {found}, this version writes {SCHEMA_VERSION}; "
                f"nothing was changed. Use another --out, or the version of rushes that made it"
            )
        return True

    def require(self) -> None:
        """Raise NoRun where the folder is no run, and SchemaMismatch as `check` does."""
        if not self.check():
            raise NoRun(f"{self.run} is no run of rushes; make one with `rushes curate FOOTAGE --out {self.run}`")

    def of_units(self, units: Iterable[str], tables: Iterable[str]) -> Ledger:
        """Return a snapshot of which some tables, that have a part for each unit, hold those of some units alone."""
        listed, found = self if self._listed is not None else self.snapshot(), Ledger(self.run)
        wanted, held = set(units), set(tables)
        found._listed = {
            table: [part for part in parts if part.unit in wanted or table not in held]
            for table, parts in (listed._listed or {}).items()
        }
        return found

    def parts(self, table: str, unit: str | None = None) -> list[Part]:
        """Return the finished parts of a table, of one unit, or of units that begin alike (`w0000*`), sorted by unit.

        One listing, or none of a snapshot; no file is opened.
        """
        if self._listed is not None:
            named: Iterable[Part] = self._listed.get(table, [])
        else:
            begins = "part-" if unit is None else f"part-{unit.removesuffix('*')}"
            uris = storage.list_files(f"{self.root}/{table}", prefix=begins)
            named = [part for uri in uris if (part := _part_of(uri, uri.rsplit("/", 1)[-1]))]
        if unit is not None:
            begins = unit.removesuffix("*")
            named = [part for part in named if part.unit == unit or (begins != unit and part.unit.startswith(begins))]
        return sorted(named, key=lambda part: (part.unit, part.fingerprint))

    def part(self, table: str, unit: str, fingerprint_: str) -> Part:
        """Return a part by what its name is made of, whether it is there or not."""
        uri = f"{self.root}/{table}/part-{unit}.{fingerprint_}.parquet"
        return Part(unit=unit, fingerprint=fingerprint_, uri=uri)

    def write(
        self, table: str, unit: str, rows: pa.Table | Iterable[Mapping[str, Any]], fingerprint_: str,
        stale: Sequence[Part] | None = None,
    ) -> str:  # fmt: skip
        """Write one part atomically, then remove what older configurations left for the same unit; return its URI.

        Args:
            table: the table.
            unit: name of the unit.
            rows: what the part holds.
            fingerprint_: of what made it.
            stale: the older parts of the unit, where these are known; else they are looked for.
        """
        data = rows if isinstance(rows, pa.Table) else to_table(table, rows)
        return self.write_batches(table, unit, [data], fingerprint_, stale)

    def write_batches(
        self, table: str, unit: str, tables: Iterable[pa.Table], fingerprint_: str, stale: Sequence[Part] | None = None
    ) -> str:
        """Write one part as `write` does, from pieces that never stand in memory together."""
        schema = TABLES[table]
        own = {"rushes.schema": str(SCHEMA_VERSION), "rushes.table": table, "rushes.fingerprint": fingerprint_}
        schema = schema.with_metadata({**(schema.metadata or {}), **own})
        part = self.part(table, unit, fingerprint_)
        with (
            storage.open_write(part.uri) as file,
            pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd") as writer,
        ):
            for piece in tables:
                writer.write_table(piece.cast(schema), row_group_size=ROW_GROUP.get(table, 65_536))
        if self._listed is not None and part not in self._listed.setdefault(table, []):
            self._listed[table].append(part)
        old = self.parts(table, unit) if stale is None else stale
        self._remove(table, [other for other in old if other.fingerprint != fingerprint_])
        return part.uri

    def tidy(self, table: str, current: Mapping[str, str], prefix: str = "") -> None:
        """Remove the parts of a finished stage that are not current: other configurations, units that are no more.

        Args:
            table: the table.
            current: the fingerprint that each unit has now.
            prefix: only parts whose unit begins with it are looked at, and named without it in `current`.
        """
        known = [part for part in self.parts(table) if part.unit.startswith(prefix)]
        self._remove(table, [part for part in known if current.get(part.unit[len(prefix) :]) != part.fingerprint])

    def remove(self, table: str, unit: str, keep: str | None = None) -> None:
        """Remove the parts of one unit, but for the one with the fingerprint `keep`."""
        self._remove(table, [part for part in self.parts(table, unit) if part.fingerprint != keep])

    def _remove(self, table: str, parts: Sequence[Part]) -> None:
        storage.remove_many([part.uri for part in parts])
        if self._listed is not None and parts:
            gone = set(parts)
            self._listed[table] = [part for part in self._listed.get(table, []) if part not in gone]

    def outdate(self, table: str, part: Part) -> None:
        """Keep the rows of a part under a fingerprint that no configuration has, so that it counts as not done."""
        self.write(table, part.unit, self.read_whole(table, part), OUTDATED)

    def read_whole(self, table: str, part: Part) -> pa.Table:
        """Return all rows of one part, fetched at once: of an object store in one request.

        Raises DamagedPart where it is not there, or not what it should be.
        """
        with _naming(part.uri):
            return pq.read_table(pa.BufferReader(storage.read_bytes(part.uri)), schema=TABLES[table])

    def dataset_of(self, table: str, part: Part) -> ds.Dataset:
        """Return one part as a lazy Arrow dataset."""
        return self._dataset(table, [part.uri])

    def dataset(self, table: str) -> ds.Dataset | None:
        """Return a table as a lazy Arrow dataset, or None while it has no part."""
        parts = self.parts(table)
        return self._fetched(table, parts) or self._dataset(table, [part.uri for part in parts]) if parts else None

    def _fetched(self, table: str, parts: Sequence[Part]) -> ds.Dataset | None:
        """Return small parts of a bucket read whole, a request each; None where they are many bytes, or on disk.

        Arrow asks three times for the columns of a part. What was fetched stays, so that a snapshot fetches it once.
        """
        sizes = [part.size_bytes for part in parts]
        if self._listed is None or storage.is_local(self.root) or sum(sizes) > FETCHED_BYTES or 0 in sizes:
            return None
        for part in parts:
            if part not in self._held:
                self._held[part] = self.read_whole(table, part)
        return ds.dataset(pa.concat_tables([self._held[part] for part in parts]))

    def _dataset(self, table: str, uris: Sequence[str]) -> ds.Dataset:
        if not uris:
            return ds.dataset(TABLES[table].empty_table())
        filesystem, paths = storage.arrow(uris)
        return ds.dataset(paths, schema=TABLES[table], filesystem=filesystem, format="parquet")

    def read(self, table: str, columns: list[str] | None = None, where: ds.Expression | None = None) -> pa.Table:
        """Return rows of a table in the order of its units; an empty table where there is none."""
        dataset = self.dataset(table)
        if dataset is None:
            schema = TABLES[table]
            return (schema if columns is None else pa.schema([schema.field(c) for c in columns])).empty_table()
        with _naming(f"{self.root}/{table}"):
            return dataset.to_table(columns=columns, filter=where)

    def read_part(
        self, part: Part, table: str, columns: list[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """Return the rows of one part file."""
        with _naming(part.uri):
            return self._dataset(table, [part.uri]).to_table(columns=columns, filter=where)

    def read_unit(
        self, table: str, unit: str, columns: list[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """Return the rows that one unit wrote, and the units named `<unit>-…` below it, reading their parts alone."""
        below = f"{unit}-"
        uris = [part.uri for part in self.parts(table, f"{unit}*") if part.unit == unit or part.unit.startswith(below)]
        return self._dataset(table, uris).to_table(columns=columns, filter=where)

    def batches(self, table: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield a table in record batches, so that a reader's memory does not grow with the run."""
        dataset = self.dataset(table)
        if dataset is not None:
            with _naming(f"{self.root}/{table}"):
                yield from dataset.to_batches(columns=columns)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say of a part that is no Parquet, or not that of its table, what to do about it."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, FileNotFoundError) as error:
        said = storage.redact(str(error))
        raise DamagedPart(
            f"{what} cannot be read ({said}); it was removed or damaged: remove the file, if it is there, and run the "
            "same command again, which makes it anew"
        ) from error


def _part_of(uri: str, name: str, size_bytes: int = 0) -> Part | None:
    if not (name.startswith("part-") and name.endswith(".parquet")):
        return None
    unit, _, print_ = name[len("part-") : -len(".parquet")].rpartition(".")
    return Part(unit=unit, fingerprint=print_, uri=uri, size_bytes=size_bytes)


def to_table(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows as an Arrow table in the schema of `table`. Raises ValueError for a column it does not have."""
    schema = TABLES[table]
    rows = list(rows)
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}; it has {', '.join(schema.names)}")
    return pa.Table.from_pylist(rows, schema=schema)
