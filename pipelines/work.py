"""What a worker does with one unit, stage by stage: read parts, call a pure step, write a part. No Ray.

Every function takes a unit's row and returns a status row; it writes the table that marks the unit as done last, so a
worker killed at any instant leaves either nothing or a part that the next try replaces with the same bytes.
"""

from __future__ import annotations

import errno
import functools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.dataset as ds

from pipelines import dedup, encode, footage, pack, scan, shots, storage
from pipelines.config import CurateConfig
from pipelines.ledger import TABLES, Ledger, to_table

log = logging.getLogger("rushes")

Row = dict[str, Any]
FULL = {errno.ENOSPC, errno.EDQUOT}
UNIT_S = 600.0  # a scan unit holds about this many seconds of footage: what a killed worker loses at most


class Crashes(Protocol):
    """Counts items begun and not ended; see `stages.Attempts`."""

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
        except (storage.StorageError, pack.PackError) as error:
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


def planned(ledger: Ledger, unit: str) -> list[Row]:
    """Return the inputs of a unit."""
    return ledger.read_unit("plan", unit.split("-")[0], where=ds.field("unit") == unit).to_pylist()


def probe_unit(unit: Row, *, run: str, config: CurateConfig, crashes: Crashes | None = None) -> Row:
    """Probe the inputs of a unit: table `sources`."""
    ledger, rows, errors = Ledger(run), [], []  # type: ignore[var-annotated]
    for plan in planned(ledger, unit["unit"]):
        with guard(errors, uri=plan["uri"], seconds=0.0), begun(crashes, plan["uri"], plan["uri"], "opening"):
            given = {name: plan[name] for name in ("wave", "unit", "caption", "licence", "rights", "extra")}
            rows.append({**footage.probe(plan["uri"], config.scan), **given})
    write_errors(ledger, "sources", unit, errors)
    ledger.write("sources", unit["unit"], rows, unit["fingerprint"])
    return status(unit, len(rows), sum(row["duration_s"] or 0.0 for row in rows), len(errors))


def scan_chunks(sources: Iterable[Mapping[str, Any]], excluded: set[str], config: CurateConfig) -> list[list[Row]]:
    """Split the sources of a unit into scan units of about `UNIT_S` seconds.

    Args:
        sources: rows of the table `sources`.
        excluded: URIs that are byte-identical to an earlier source.
        config: the run's configuration.
    """
    chunks: list[list[Row]] = [[]]
    filled = 0.0
    for source in sources:
        if source["uri"] in excluded:
            continue
        for index, (start, end) in enumerate(footage.spans(source["duration_s"] or 0.0, config.scan)):
            length = min(end, source["duration_s"] or 0.0) - start
            if chunks[-1] and filled + length > UNIT_S:
                chunks.append([])
                filled = 0.0
            chunks[-1].append({"source": source, "span": index, "start_s": start, "end_s": end})
            filled += length
    return chunks


def scan_unit(unit: Row, *, run: str, config: CurateConfig, crashes: Crashes | None = None, threads: int = 1) -> Row:
    """Decode the spans of a scan unit once: tables `signals`, `frames` and `windows`."""
    ledger = Ledger(run)
    sources = ledger.read_unit("sources", unit["sources"]).to_pylist()
    chunk = scan_chunks(sources, set(unit["excluded"]), config)[unit["chunk"]]
    signals: list[Row] = []
    frames: list[Row] = []
    windows: list[Row] = []
    errors: list[Row] = []
    for job in chunk:
        source, item = job["source"], f"{job['source']['uri']} span {job['span']}"
        where = {"uri": source["uri"], "source_id": source["source_id"], "start_s": job["start_s"]}
        lost = max(0.0, min(job["end_s"], source["duration_s"] or 0.0) - job["start_s"])
        with guard(errors, **where, seconds=lost), begun(crashes, item, source["uri"], "decoding"):
            footage.check_unchanged(source)
            signal, pictures, damage, small = scan.scan_span(
                source, job["span"], job["start_s"], job["end_s"], config.scan, threads
            )
            signals.append(signal)
            frames.extend(pictures)
            windows.extend(small)
            errors.extend({**where, **row} for row in damage)
    write_errors(ledger, "scan", unit, errors)
    ledger.write("frames", unit["unit"], frames, unit["fingerprint"])
    ledger.write("windows", unit["unit"], windows, unit["fingerprint"])
    ledger.write("signals", unit["unit"], signals, unit["fingerprint"])
    return status(unit, len(signals), sum(row["covered_s"] for row in signals), len(errors))


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


def shots_unit(unit: Row, *, run: str, config: CurateConfig) -> Row:
    """Join the spans of each source: tables `clips`, `sketches`, `trims` and `strips`. Decodes nothing."""
    ledger, name = Ledger(run), unit["unit"]
    clips: list[Row] = []
    trims: list[Row] = []
    strips: list[Row] = []
    sketches: list[pa.Table] = [TABLES["sketches"].empty_table()]
    errors: list[Row] = []
    for source, spans in signals_of(ledger, unit):
        covered = sum(row["covered_s"] for row in spans)
        with guard(errors, uri=source["uri"], source_id=source["source_id"], start_s=0.0, seconds=covered):
            said = _said(ledger, name, source["source_id"]) if config.shots.witness != "none" else []
            found, trimmed = shots.shots_of(source, spans, config.shots, config.scan, said)
            found = [{**row, "wave": source["wave"], "unit": name} for row in found]
            pictures = candidates(ledger, name, source["source_id"])
            middle = {row["key"]: pictures[times[len(times) // 2]] for row in found if (times := row["frame_s"])}
            sketches.append(dedup.sketch(to_table("clips", found), middle))
            strips.extend(_strips(pictures, found, config.shots.strip_frames))
            clips.extend(found)
            trims.extend(trimmed)
    write_errors(ledger, "shots", unit, errors)
    ledger.write("strips", name, strips, unit["fingerprint"])
    ledger.write("trims", name, trims, unit["fingerprint"])
    ledger.write("sketches", name, pa.concat_tables(sketches), unit["fingerprint"])
    ledger.write("clips", name, clips, unit["fingerprint"])
    return status(unit, len(clips), sum(row["duration_s"] for row in clips), len(errors))


def _said(ledger: Ledger, unit: str, source_id: str) -> list[Row]:
    return ledger.read_unit("witness", unit, where=ds.field("source_id") == source_id).to_pylist()


def _strips(pictures: Mapping[float, bytes], clips: Iterable[Row], count: int) -> Iterator[Row]:
    times = sorted(pictures)
    for clip in clips:
        chosen = shots.strip_times(times, clip["start_s"], clip["end_s"], count)
        if chosen:
            yield {"key": clip["key"], "webp": shots.strip([pictures[time] for time in chosen])}


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
    return sorted(set(ledger.read_unit("selection", unit, ["key"], where=ds.field("kept"))["key"].to_pylist()))


def encode_unit(unit: Row, *, run: str, config: CurateConfig, crashes: Crashes | None = None) -> Row:
    """Cut and encode the kept clips of a unit once: table `encoded` and a tar of the clips.

    Clips that an earlier selection had encoded with the same settings are taken over from its tar, byte by byte; it is
    removed only when the new one is complete.
    """
    ledger, name = Ledger(run), unit["unit"]
    excluded = set(unit["excluded"])
    sources = {s["source_id"]: s for s in ledger.read_unit("sources", name).to_pylist() if s["uri"] not in excluded}
    kept = set(kept_keys(ledger, name))
    clips = [row for row in ledger.read_unit("clips", name).to_pylist() if row["key"] in kept]
    earlier = pack.Earlier(ledger, name, unit["made_by"])
    errors: list[Row] = []

    @functools.cache
    def check(source_id: str) -> None:
        footage.check_unchanged(sources[source_id])

    def encoded() -> Iterator[tuple[str, bytes, Row]]:
        for clip in clips:
            taken = earlier.take(clip["key"])
            if taken is not None:
                yield clip["key"], *taken
                continue
            where = {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"]}
            with guard(errors, **where, start_s=clip["start_s"], seconds=clip["duration_s"]):
                with begun(crashes, clip["key"], clip["uri"], "cutting"):
                    check(clip["source_id"])
                    source, span = sources[clip["source_id"]], (clip["start_s"], clip["end_s"])
                    data, info = encode.cut(clip["uri"], source, *span, config.pack, _crop(clip))
                yield clip["key"], data, info

    rows = pack.write_encoded(run, name, unit["fingerprint"], encoded(), unit["wave"], unit["made_by"])
    write_errors(ledger, "encode", unit, errors)
    ledger.write("encoded", name, rows, unit["fingerprint"])
    return status(unit, len(rows), sum(row["duration_s"] for row in rows), len(errors))


def shards_unit(unit: Row, *, run: str, config: CurateConfig, policy: str) -> Row:
    """Assemble a group of shards, whose clips are looked up in the ledger once: table `packed`, a part a shard."""
    ledger = Ledger(run)
    plans = [pack.ShardPlan(**plan["plan"]) for plan in unit["shards"]]
    joined = pack.join(ledger, [key for plan in plans for key in plan.keys], policy)
    for row, plan in zip(unit["shards"], plans, strict=True):
        info = pack.assemble(run, plan, config.pack, policy, joined)
        ledger.write("packed", row["unit"], pack.packed_rows(plan, info, joined, policy), row["fingerprint"])
    seconds = sum(clip.encoded["duration_s"] for clip in joined.values())
    return status(unit, len(joined), seconds, 0)


def _crop(clip: Row) -> tuple[float, float, float, float]:
    return clip["crop_left"], clip["crop_top"], clip["crop_right"], clip["crop_bottom"]
