"""`rushes sql RUN`: one query, or a shell, over the tables and views of a run, none of which it can change."""

from __future__ import annotations

import base64
import csv
import difflib
import json
import math
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import duckdb

from rushes.pipelines.explore.queries import QUERIES
from rushes.pipelines.explore.views import ABOUT
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.store.tables import TABLES

ROWS = 4096
"""Rows that are held at once."""
_ANSWERED = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
"""Statements that have rows; of others, such as one that makes a view, nothing is shown."""
_END = (".exit", ".quit", "exit", "quit")


class QueryError(ValueError):
    """A query cannot be answered; the message is DuckDB's, and says what there is."""


def asked(books: Books, query: str) -> duckdb.DuckDBPyRelation | None:
    """Return the answer to a query, or to the documented one of that name; None where the last statement has none.

    Raises QueryError with the tables and views that there are.
    """
    known = QUERIES.get(query.strip())
    try:
        statements = books.connection.extract_statements(known.sql if known else query)
        last = statements.pop() if statements and statements[-1].type in _ANSWERED else None
        for statement in statements:
            books.connection.execute(statement)
        return books.connection.sql(last.query) if last else None
    except duckdb.Error as error:
        if meant := _meant(query.strip().removesuffix(";")):
            raise QueryError(meant) from error
        said = " ".join(str(error).split())
        raise QueryError(
            f"{said}; tables are {', '.join(TABLES)}, views {', '.join(ABOUT)}, queries {', '.join(QUERIES)}; "
            "the connection reads the ledger alone and writes nothing"
        ) from error


def _meant(word: str) -> str:
    """Return what a single word that names no query may have meant; empty for a query that is written out."""
    if not re.fullmatch(r"[A-Za-z_]+", word):
        return ""
    if word in (*TABLES, *ABOUT):
        return f"{word} is no documented query but a table or view; ask `from {word}`"
    near = difflib.get_close_matches(word, QUERIES, n=1)
    said = f"did you mean {near[0]}? " if near else ""
    return f"there is no documented query {word!r}; {said}queries are {', '.join(QUERIES)}"


def rows(found: duckdb.DuckDBPyRelation) -> Iterator[dict[str, Any]]:
    """Yield the rows of an answer as plain values, some at a time; bytes become Base64. Raises QueryError."""
    try:
        for batch in found.to_arrow_reader(ROWS):
            for row in batch.to_pylist():
                yield {name: plain(value) for name, value in row.items()}
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split())) from error


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: bytes as Base64, numbers that are none as null, the rest as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def show(found: duckdb.DuckDBPyRelation | None, form: str, out: TextIO) -> None:
    """Write an answer as a table for people (`text`), as `json` or as `csv`. Raises QueryError."""
    if found is None:
        return
    if form == "csv":
        table = csv.writer(out, lineterminator="\n")
        table.writerow(found.columns)
        table.writerows(row.values() for row in rows(found))
    elif form == "json":
        out.write("[")
        for number, row in enumerate(rows(found)):
            out.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
        out.write("\n]\n")
    else:
        try:
            out.write(str(found))
        except duckdb.Error as error:
            raise QueryError(" ".join(str(error).split())) from error


def shell(books: Books, form: str, given: TextIO, out: TextIO) -> bool:
    """Answer statements, each ended by a semicolon, until the input ends; return whether all could be answered.

    On a terminal it prompts and goes on after an error; `.exit` ends it.
    """
    live, held, well = given.isatty(), "", True
    if live:
        sys.stderr.write(f"tables: {', '.join(TABLES)}\nviews: {', '.join(ABOUT)}\nqueries: {', '.join(QUERIES)}\n")
    for line in _read(given, live):
        if not held and line.strip().removesuffix(";") in _END:
            break
        held += line
        if not held.strip().endswith(";") and held.strip() not in QUERIES:
            continue
        query, held = held, ""
        well &= _answered(books, query, form, out)
    return well and (not held.strip() or _answered(books, held, form, out))


def _answered(books: Books, query: str, form: str, out: TextIO) -> bool:
    try:
        show(asked(books, query), form, out)
    except QueryError as error:
        sys.stderr.write(f"rushes: error: {error}\n")
        return False
    return True


def _read(given: TextIO, live: bool) -> Iterator[str]:
    if not live:
        yield from given
        return
    import readline  # noqa: F401  lets people edit what they type

    while True:
        try:
            yield input("rushes> ") + "\n"
        except EOFError:
            return
