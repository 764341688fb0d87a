"""The scan against a bare decode of the same files, in turns in the same run.

Targets: 1.2 × from 720p on, 1.35 × at 480p. A class is told by the shorter side of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import av
import av.error
import pytest

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.stages.scan.scan import scan_span

ROUNDS = 3
SECONDS = 10.0
"""Of each file no more than this, so that one long film does not weigh as much as all the others."""
CLASSES = {"under 480": (0, 480), "480p (480 to 719)": (480, 720), "720p and more": (720, 1e9), "all": (0, 1e9)}
Cost = tuple[float, float]


def bare(source: dict[str, Any], threads: int = 1) -> int:
    """Decode with PyAV, with as many threads as the scan, and look at nothing; return the number of frames."""
    count = 0
    with av.open(source["uri"], metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        try:
            for frame in container.decode(stream):
                count += 1
                if frame.time is not None and frame.time - source["start_s"] >= SECONDS:
                    break
        except av.error.FFmpegError:
            pass
    return count


def cost(work: Callable[[], Any]) -> Cost:
    """Return CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(source: dict[str, Any], threads: int) -> tuple[Cost, Cost]:
    """Return the median costs of a bare decode and of the scan, taken in turns."""
    rounds = [
        (
            cost(lambda: bare(source, threads)),
            cost(lambda: scan_span(source, 0, 0.0, SECONDS, ScanConfig(), threads)),
        )
        for _ in range(ROUNDS)
    ]
    decoded, scanned = zip(*rounds, strict=True)
    return tuple((median(c for c, _ in side), median(w for _, w in side)) for side in (decoded, scanned))  # type: ignore[return-value]


def row(name: str, frames: int, decoded: Cost, scanned: Cost) -> list[str]:
    each = [f"{1e3 * cost[0] / max(frames, 1):.2f}" for cost in (decoded, scanned)]
    return [name, str(frames), *each, *(f"{b / a:.2f}" for a, b in zip(decoded, scanned, strict=True))]


@pytest.mark.bench
@pytest.mark.parametrize("threads", [1, 2])
def test_scan_against_a_bare_decode(films: list[dict[str, Any]], threads: int, show: Any) -> None:
    found = [(source, bare(source), *compare(source, threads)) for source in films]

    def total(name: str, least: float, most: float) -> list[str]:
        part = [f for f in found if least <= min(f[0]["width"], f[0]["height"]) < most]
        sums = [tuple(sum(f[side][kind] for f in part) for kind in (0, 1)) for side in (2, 3)]
        return row(f"**{name}** ({len(part)} files)", sum(f[1] for f in part), *sums) if part else [name, *"-----"]  # type: ignore[arg-type]

    rows = [row(f"{Path(s['uri']).name} {s['width']}×{s['height']}", *rest) for s, *rest in found]
    rows += [total(name, *sides) for name, sides in CLASSES.items()]
    head = ["file", "frames", "decode, CPU ms a frame", "scan, CPU ms a frame", "ratio, CPU", "ratio, wall"]
    raw = [
        {"file": Path(s["uri"]).name, "width": s["width"], "height": s["height"], "frames": n,
         "decode_cpu_wall_s": decoded, "scan_cpu_wall_s": scanned}
        for s, n, decoded, scanned in found
    ]  # fmt: skip
    show(f"Scan against a bare decode, threads {threads} (first {SECONDS:.0f} s, medians of {ROUNDS})", head, rows, raw)
    assert found and all(b > 0 for _, _, (a, _), (b, _) in found)
