"""The tables of a ledger asked by SQL, through DuckDB: on disk or in a bucket, few parts or many.

with reading(ledger), tables(ledger, "clips") as db:
    rows = db.sql("select key, motion from clips").to_arrow_table()
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import DamagedPart, Ledger

MEMORY_GB = 1
"""What DuckDB may hold; more goes to temporary files."""
_SEAL = "set python_enable_replacements = false; set enable_external_access = false; set lock_configuration = true"


def tables(ledger: Ledger, *names: str, sealed: bool = False, ordered: bool = False) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection in which tables of the ledger can be queried by name, on disk or in a bucket.

    A table without parts is an empty one, so queries work on a run that has just begun. Parts on disk are read by
    DuckDB itself, which takes half the time for many small ones; a sealed connection, which is for people's own
    queries, is given them, reads and writes no file, and stays so.

    Args:
        ledger: the ledger.
        names: tables of it.
        sealed: see above.
        ordered: whether rows come in the order of the parts, where a query asks for no other.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 2, "memory_limit": f"{MEMORY_GB}GB", "temp_directory": f"{tempfile.gettempdir()}/rushes-duckdb",
        "enable_object_cache": True, "preserve_insertion_order": ordered,
    }  # fmt: skip
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("set enable_progress_bar = false")  # it goes to stdout, among the data
    for name in names:
        direct = storage.is_local(ledger.root) and not sealed
        parts = [storage.local_path(part.uri) for part in ledger.parts(name)] if direct else []
        if parts:
            listed = ", ".join("'" + str(path.absolute()).replace("'", "''") + "'" for path in parts)
            connection.execute(f"create view {name} as select * from read_parquet([{listed}])")
        else:
            dataset = ledger.dataset(name)
            connection.register(name, ledger.read(name) if dataset is None else dataset)
    if sealed:
        connection.execute(_SEAL)
    return connection


@contextmanager
def reading(ledger: Ledger) -> Iterator[None]:
    """Say of a ledger that DuckDB cannot read what to do about it. Raises DamagedPart."""
    try:
        yield
    except duckdb.Error as error:
        raise DamagedPart(
            f"the ledger of {ledger.run} cannot be read ({storage.redact(str(error))}); a damaged part is to be "
            "removed: then run the same curate command again, which makes it anew"
        ) from error
