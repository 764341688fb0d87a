"""Lists of inputs and of takedowns: CSV, JSONL, Parquet, text, and what is wrong with them; playlists. No Ray."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.store import storage

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})
"""Of lists with columns."""
NAMES = ("uri", "source_id", "digest", "key")
"""Columns by which a list names what is taken down."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat version", b"v=0", b"[playlist]", b"[Reference]")
_PLAYLIST_TAGS = (b"<MPD", b"<smil", b"<asx", b"<ASX")


def is_playlist(head: bytes) -> bool:
    """Whether a file that begins so is text that names other files to be played, whatever it is called."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return text.startswith(_PLAYLISTS) or (text.startswith(b"<") and any(tag in text for tag in _PLAYLIST_TAGS))


def no_column(where: str, wanted: str, there: Iterable[Any]) -> ValueError:
    """Return the error for a list, or a row of it, without the column that names the videos."""
    has = ", ".join(map(str, there)) or "none"
    return ValueError(f"{where} has no column {wanted!r}; it has {has}; set inputs.uri_column to one of them")


def _check_columns(uri: str, wanted: str | None, names: Sequence[str]) -> None:
    """Raise ValueError where the columns of a list leave open which video a row names."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{uri} has several columns named {', '.join(map(repr, twice))}; give each a name of its own, since only "
            "one of them would be read"
        )
    if wanted is not None and wanted not in names:
        raise no_column(uri, wanted, names)


def records(uri: str, wanted: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a CSV, JSONL or Parquet list, a few at a time.

    Raises ValueError for a list that cannot be read, has a name twice, or lacks the column `wanted`, if one is.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    try:
        with storage.open_read(uri) as file:
            if suffix == ".parquet":
                parquet = pq.ParquetFile(file)
                _check_columns(uri, wanted, parquet.schema_arrow.names)
                for batch in parquet.iter_batches(batch_size=4096):
                    yield from batch.to_pylist()
                return
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            if suffix == ".csv":
                table = csv.DictReader(lines, strict=True)
                if table.fieldnames is None:
                    raise ValueError(
                        f"{uri} is empty; a list begins with a row of names, such as: {wanted or 'uri'},caption"
                    )
                _check_columns(uri, wanted, table.fieldnames)
                for cells in table:
                    yield {key: value for key, value in cells.items() if key is not None}
                return
            for line in lines:
                if line.strip():
                    yield _object(line)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException, json.JSONDecodeError) as error:
        kind = {".csv": "CSV (UTF-8)", ".parquet": "Parquet"}.get(suffix, "JSON lines (UTF-8)")
        raise ValueError(f"{uri} cannot be read as {kind}: {error}; write it again or correct its suffix") from error


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line, object_pairs_hook=_once)
    if not isinstance(value, dict):
        raise json.JSONDecodeError("a line is not an object", line, 0)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise json.JSONDecodeError("a name stands twice in one object", json.dumps(pairs), 0)
    return value


def target(named: str, folder: str) -> str:
    """Return the URI, or the absolute path, of what a list in a folder names; relative paths count from there."""
    named = named.strip()
    if "://" not in named and not named.startswith("/"):
        named = f"{folder}/{named}"
    return os.path.abspath(storage.local_path(named)) if storage.is_local(named) else named  # noqa: PTH100


def named(uri: str) -> Iterator[tuple[str, str | None]]:
    """Yield what a list names to be taken down, each with the reason that stands beside it.

    A text has a name on each line, and comments after `#` at its beginning; other lists have exactly one of the columns
    `NAMES`, and may have `reason`. Names that are neither ids, digests nor keys are URIs or paths.

    Raises ValueError for a list that cannot be read, names nothing, or leaves open what a row names.
    """
    rows = _columned(uri) if PurePosixPath(uri).suffix.lower() in SUFFIXES else _lines(uri)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{uri} names nothing; write a URI, source id, digest or clip key on each line")
    yield first
    yield from rows


def _lines(uri: str) -> Iterator[tuple[str, str | None]]:
    try:
        with storage.open_read(uri) as file:
            for line in io.TextIOWrapper(file, encoding="utf-8-sig"):
                if (name := line.strip()) and not name.startswith("#"):
                    yield name, None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{uri} cannot be read as a text of names (UTF-8): {error}") from error


def _columned(uri: str) -> Iterator[tuple[str, str | None]]:
    for number, record in enumerate(records(uri)):
        there = [name for name in NAMES if record.get(name)]
        if len(there) != 1:
            has = " and ".join(there) or "none of them"
            raise ValueError(
                f"{uri}: row {number} has {has}; it must name what is taken down by one of {', '.join(NAMES)}, "
                "since a clip is less than its source: leave that column, and `reason`"
            )
        yield str(record[there[0]]).strip(), str(record["reason"]).strip() if record.get("reason") else None
