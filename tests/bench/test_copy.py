"""A clip copied against the same clip encoded, in CPU time, in turns; and what a second of footage costs by codec."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode

ROUNDS = 3
WHOLE = (0.0, 0.0, 0.0, 0.0)
JOBS = {
    "copied": PackConfig(copy="keyframes"),
    "h264": PackConfig(copy="never"),
    "hevc": PackConfig(copy="never", codec="hevc"),
    "av1": PackConfig(copy="never", codec="av1"),
}


@pytest.mark.bench
def test_a_copy_against_an_encode(bikes: Path, bunny: Path, show: Callable[..., None]) -> None:
    rows: list[list[Any]] = []
    raw: dict[str, Any] = {}
    for path, end_s in ((bikes, 10.0), (bunny, 5.28)):
        row = room.probe(str(path), ScanConfig())
        took: dict[str, list[float]] = {name: [] for name in JOBS}
        for number in range(ROUNDS):
            for name in list(JOBS)[:: 1 if number % 2 else -1]:
                began = time.process_time()
                data, info = encode.cut(str(path), row, 0.0, end_s, JOBS[name], WHOLE)
                took[name].append(time.process_time() - began)
                assert info["copied"] == (name == "copied")
                raw.setdefault(path.name, {"cpu_s": took, "bytes": {}})["bytes"][name] = len(data)
        costs = {name: median(times) for name, times in took.items()}
        cells = [f"{cost / row['duration_s']:.3f}" for cost in costs.values()]
        rows.append(
            [f"{path.name}, {row['width']}×{row['height']}", *cells, f"{costs['h264'] / costs['copied']:.1f} ×"]
        )
    head = ["CPU s for a second of footage", *JOBS, "h264 / copied"]
    show("A clip copied against encoded", head, rows, raw=raw)
    assert all(float(row[-1].split()[0]) > 1 for row in rows)
