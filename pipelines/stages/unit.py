"""What every stage does with a unit: guards round each item, error rows, the row that tells how it went. No Ray.

Every stage takes a unit's row and returns a status row; it writes the table that marks the unit as done last, so a
worker killed at any instant leaves either nothing or a part that the next try replaces with the same bytes.
"""

from __future__ import annotations

import errno
import functools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow.dataset as ds

from rushes.pipelines.media import footage
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

log = logging.getLogger("rushes")
FULL = {errno.ENOSPC, errno.EDQUOT}

Row = dict[str, Any]


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


def status(unit: Row, items: int, seconds: float, errors: int) -> Row:
    """Return the row that a worker sends back for a finished unit."""
    return {"unit": unit["unit"], "items": items, "seconds": float(seconds), "errors": errors, "fatal": ""}


def reporting(work: Callable[..., Row]) -> Callable[..., Row]:
    """Wrap a unit's work so that what stops the run comes back as one sentence instead of a traceback.

    A full disk, a refused write, a clip that cannot be packed: a caption that is another clip's, say.
    """

    @functools.wraps(work)
    def wrapped(unit: Row, **arguments: Any) -> Row:
        try:
            return work(unit, **arguments)
        except storage.StopsTheRun as error:
            return {**status(unit, 0, 0.0, 0), "fatal": str(error)}

    return wrapped


def write_errors(ledger: Ledger, stage: str, unit: Row, rows: list[Row]) -> None:
    """Write what failed in a unit, or remove what an earlier try of it left."""
    name = f"{stage}-{unit['unit']}"
    if rows:
        named = [{**row, "stage": stage, "unit": unit["unit"]} for row in rows]
        ledger.write("errors", name, named, unit["fingerprint"])
    else:
        ledger.remove("errors", name)


def finish(
    ledger: Ledger, stage: str, table: str, unit: Row, clips: Sequence[Row], rows: list[Row], errors: list[Row]
) -> Row:
    """Write a unit's errors, then its rows, and return its status; what cannot be written is fatal."""
    try:
        write_errors(ledger, stage, unit, errors)
        ledger.write(table, unit["unit"], rows, unit["fingerprint"])
    except storage.StorageError as error:
        return {**status(unit, 0, 0.0, 0), "fatal": str(error)}
    return status(unit, len(clips) - len(errors), sum(clip["duration_s"] for clip in clips), len(errors))


def candidates(ledger: Ledger, unit: str, source_id: str) -> dict[float, bytes]:
    """Return the candidate frames of a source as JPEG, by their time in seconds."""
    rows = ledger.read_unit("frames", unit, ["time_s", "jpeg"], where=ds.field("source_id") == source_id)
    return dict(zip(rows["time_s"].to_pylist(), rows["jpeg"].to_pylist(), strict=True))


def signals_of(ledger: Ledger, unit: Row) -> Iterator[tuple[Row, list[Row]]]:
    """Yield each source of a unit that was scanned, with the rows of its spans in order."""
    for source in ledger.read_unit("sources", unit["unit"]).to_pylist():
        if source["uri"] in unit["excluded"]:
            continue
        spans = ledger.read_unit("signals", unit["unit"], where=ds.field("source_id") == source["source_id"])
        if spans.num_rows:
            yield source, spans.sort_by("span").to_pylist()


def clip_frames(ledger: Ledger, unit: str, clips: Iterable[Row]) -> Iterator[Row]:
    """Yield `{**clip, jpegs}` for clips in ledger order, reading the frames of one source at a time."""
    source_id, pictures = "", {}  # type: ignore[var-annotated]
    for clip in clips:
        if clip["source_id"] != source_id:
            source_id = clip["source_id"]
            pictures = candidates(ledger, unit, source_id)
        yield {**clip, "jpegs": [pictures[time] for time in clip["frame_s"]]}


def kept_keys(ledger: Ledger, unit: str) -> list[str]:
    """Return the keys of a unit's clips that any selection keeps, sorted: captions and encoded clips are shared."""
    own = ds.field("kept") & (ds.field("unit") == unit)
    return sorted(set(ledger.read("selection", ["key"], where=own)["key"].to_pylist()))
