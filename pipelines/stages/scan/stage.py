"""The single decode of the spans of a unit: tables `signals`, `frames` and `windows`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.scan import scan
from rushes.pipelines.stages.unit import Crashes, begun, guard, status, write_errors
from rushes.pipelines.store.ledger import Ledger

UNIT_S = 600.0  # a scan unit holds about this many seconds of footage: what a killed worker loses at most

Row = dict[str, Any]


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
