"""What deduplication costs as the clips grow tenfold: time on one core, and memory in a fresh process.

The clips are real sequences of hashes under other pictures: a reordering of the bits keeps how a shot moves and makes
it one that nobody has seen. A tenth of them are copies: other noise, and every third one is an excerpt. Copies of still
shots are not to be found here, since there is no picture to prove them by.

    python -m pytest -q -m bench -s tests/bench/test_dedup_cost.py
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.duplicates import DuplicateRules
from pipelines import dedup, scan, shots
from pipelines.config import ScanConfig, ShotsConfig
from pipelines.ledger import TABLES

SIZES = (10_000, 100_000, 1_000_000)
TICKS = 30
COPIES = 0.1
EXCERPT_TICKS = 15
NOISE_BITS = 2
MAX_BYTES = 4e9
BLOCK = 20_000


def seeds(films: list[dict[str, Any]]) -> np.ndarray:
    """Return real stretches [n, TICKS] of hashes at 6 Hz."""
    found = []
    for film in films:
        if (film["duration_s"] or 0) < TICKS / 6:
            continue
        signal, _, _ = scan.scan_span(film, 0, 0.0, math.inf, ScanConfig())
        for clip in shots.shots_of(film, [signal], ShotsConfig(), ScanConfig())[0]:
            hashes = np.array(clip["phash"], np.uint64)
            found += [hashes[at : at + TICKS] for at in range(0, len(hashes) - TICKS + 1, TICKS)]
    return np.stack(found)


def reordered(hashes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return sequences [n, t] with the bits of each one in another order: as far from all others as other pictures."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(*hashes.shape, 8), axis=2)
    order = rng.permuted(np.tile(np.arange(64), (len(hashes), 1)), axis=1)
    moved = np.take_along_axis(bits, order[:, None, :], axis=2)
    return np.packbits(moved, axis=2).view(np.uint64)[:, :, 0]


def noisy(hashes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return hashes of which NOISE_BITS random ones are flipped, as another encoder does."""
    for _ in range(NOISE_BITS):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, hashes.shape, dtype=np.uint64))
    return hashes


def table(real: np.ndarray, count: int) -> tuple[pa.Table, np.ndarray]:
    """Return `count` clips and, for each, the clip that it was copied from, −1 for an original."""
    rng = np.random.default_rng(count)
    copies = int(count * COPIES)
    of = np.full(count, -1)
    of[count - copies :] = rng.permutation(count - copies)[:copies]
    ticks = np.where((of >= 0) & (np.arange(count) % 3 == 0), EXCERPT_TICKS, TICKS)
    starts = np.r_[0, np.cumsum(ticks)].astype(np.int32)
    flat, film = np.empty(starts[-1], np.uint64), np.empty((count - copies, TICKS), np.uint64)
    for first in range(0, len(film), BLOCK):
        picked = real[rng.integers(0, len(real), len(film[first : first + BLOCK]))]
        film[first : first + BLOCK] = reordered(picked, rng)
    flat[: film.size] = film.ravel()
    for clip in range(count - copies, count):
        shift = int(rng.integers(0, TICKS - ticks[clip] + 1))
        flat[starts[clip] : starts[clip + 1]] = film[of[clip], shift : shift + ticks[clip]]
    flat[film.size :] = noisy(flat[film.size :], rng)
    times = np.arange(len(flat), dtype=np.float32) - np.repeat(starts[:-1], ticks)
    lists = [pa.ListArray.from_arrays(starts, pa.array(v)) for v in (flat, (times / 6).astype(np.float32))]
    names = pa.array([f"{clip:016x}-000000000" for clip in range(count)])
    constant = {"width": 640, "height": 360, "bit_rate": 1_000_000, "luma_std": 40.0}
    columns = {name: np.full(count, value) for name, value in constant.items()}
    bars = {f"crop_{side}": np.zeros(count, np.float32) for side in ("left", "top", "right", "bottom")}
    facts = {"key": names, "source_id": names, "uri": names, "duration_s": ticks / 6}
    return pa.table(facts | columns | bars | {"phash": lists[0], "phash_s": lists[1]}), of


def measure(path: str) -> dict[str, Any]:
    """Run deduplication on a table of clips in this process; return what it took and what it found."""
    clips = pq.read_table(path, memory_map=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, wall = time.process_time(), time.perf_counter()
    pairs = dedup.duplicates(clips, TABLES["scores"].empty_table(), np.arange(len(clips)), DuplicateRules())
    took, waited = time.process_time() - begun, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cpu_s": took, "wall_s": waited, "peak_bytes": peak * 1024, "before_bytes": before * 1024,
        "pairs": [[pair.dropped, pair.kept] for pair in pairs],
    }  # fmt: skip


@pytest.mark.bench
def test_the_cost_of_deduplication_is_near_linear(films: list[dict[str, Any]], tmp_path: Path, show: Any) -> None:
    real = seeds(films)
    rows, raw = [], []
    for count in SIZES:
        clips, of = table(real, count)
        path = tmp_path / f"{count}.parquet"
        pq.write_table(clips, path, row_group_size=BLOCK)
        del clips
        code = (
            f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"from test_dedup_cost import measure; print(json.dumps(measure({str(path)!r})))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        path.unlink()
        pairs = {tuple(sorted(pair)) for pair in found.pop("pairs")}
        true = {(int(of[clip]), int(clip)) for clip in np.flatnonzero(of >= 0)}
        hit, wrong = len(pairs & true), len(pairs - true)
        grown = math.log10(found["cpu_s"] / raw[-1]["cpu_s"]) if raw else None
        raw.append(found | {"clips": count, "recall": hit / len(true), "wrong": wrong, "exponent": grown})
        growth = "" if grown is None else f"{grown:.2f}"
        figures = (f"{found['cpu_s']:.1f}", f"{found['peak_bytes'] / 1e9:.2f}", f"{hit / len(true):.3f}")
        rows.append((f"{count:,}", *figures, wrong, growth))
        assert found["peak_bytes"] <= MAX_BYTES and wrong == 0
    head = ("clips", "CPU seconds", "peak memory, GB", "copies found", "wrong pairs", "exponent of time")
    show("Deduplication: cost by number of clips", head, rows, raw=raw)
