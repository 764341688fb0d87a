"""The scan by two workers against one, each of one CPU, on the same units. Target: 1.7 × in wall time."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

import pytest

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.stages.scan.scan import scan_span

ROUNDS = 3
SECONDS = 10.0


def work(source: dict[str, Any]) -> int:
    return int(scan_span(source, 0, 0.0, SECONDS, ScanConfig(), 1)[0]["frames"])


@pytest.mark.bench
def test_two_workers_against_one(films: list[dict[str, Any]], show: Any) -> None:
    films = sorted(films, key=lambda s: -s["width"] * s["height"] * min(s["duration_s"], SECONDS))
    found: dict[int, list[float]] = {1: [], 2: []}
    frames = set()
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as one,
        ProcessPoolExecutor(2, get_context("spawn")) as two,
    ):
        for pool in (one, two):  # start-up is not what is measured
            list(pool.map(work, films[-4:]))
        for _ in range(ROUNDS):
            for count, pool in ((1, one), (2, two)):
                start = time.perf_counter()
                frames.add(sum(pool.map(work, films)))
                found[count].append(time.perf_counter() - start)
    walls = {count: median(times) for count, times in found.items()}
    rows = [[f"{count}", f"{wall:.1f}", f"{walls[1] / wall:.2f}"] for count, wall in walls.items()]
    show(f"The scan by one and two workers ({len(films)} films)", ["workers", "wall, s", "faster by"], rows, found)
    assert len(frames) == 1
