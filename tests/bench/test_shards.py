"""Writing shards against the disk's own sequential write of the same bytes, in turns. Target: at least 0.8 of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.shards import Sample, write_shard

ROUNDS = 5
SAMPLES = 400
BLOCK_BYTES = 4 * 2**20
"""What `dd bs=4M conv=fsync` writes at once."""


def samples() -> list[Sample]:
    """Clips of 0.2 to 2.8 MB with facts and captions, about 600 MB."""
    dice = np.random.default_rng(0)
    made = []
    for number in range(SAMPLES):
        key = clip_key("0123456789abcdef", number)
        facts = {f"fact_{index}": float(index) for index in range(60)} | {"key": key, "caption": "A clip. " * 12}
        mp4 = dice.bytes(int(dice.integers(200_000, 2_800_000)))
        members = [("mp4", mp4), ("json", json.dumps(facts).encode()), ("txt", b"A clip. " * 12)]
        made.append(Sample(key, members))
    return made


def sequential(path: Path, data: list[memoryview]) -> None:
    """Write as `dd` does: block after block, then fsync."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for block in data:
        os.write(handle, block)
    os.fsync(handle)
    os.close(handle)


@pytest.mark.bench
def test_writing_shards_against_the_disk(tmp_path: Path, show: Callable[..., None]) -> None:
    made = samples()
    size = write_shard(str(tmp_path), "b", "warm", 0, made).size_bytes
    whole = memoryview((tmp_path / "b" / "warm-000000.tar").read_bytes())
    blocks = [whole[at : at + BLOCK_BYTES] for at in range(0, size, BLOCK_BYTES)]
    took: dict[str, list[tuple[float, float]]] = {"write_shard": [], "sequential": []}
    for number in range(ROUNDS):
        jobs: list[tuple[str, Callable[[], Any]]] = [
            ("write_shard", lambda: write_shard(str(tmp_path), "b", "clips", 0, made)),
            ("sequential", lambda: sequential(tmp_path / "plain", blocks)),
        ]
        for name, job in jobs[:: 1 if number % 2 else -1]:
            for old in (tmp_path / "plain", tmp_path / "b" / "clips-000000.tar"):
                old.unlink(missing_ok=True)
            os.sync()
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    rows = [
        [name, f"{size / median(wall for wall, _ in times) / 1e6:.0f}", f"{median(cpu for _, cpu in times):.2f}"]
        for name, times in took.items()
    ]
    ratio = median(one[0] / two[0] for one, two in zip(took["sequential"], took["write_shard"], strict=True))
    rows.append(["write_shard / sequential", f"{ratio:.2f}", ""])
    head = [f"{size / 1e6:.0f} MB, fsync included", "MB/s", "CPU s"]
    show("Writing a shard against the disk", head, rows, raw={"size_bytes": size, "wall_and_cpu_s": took})
    assert size > 512e6
