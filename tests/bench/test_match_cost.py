"""What matching costs by the number of clips: time, and peak memory of a fresh process. Target: near-linear, 4 GB.

Clips are real hash sequences of real footage, each turned into other footage by a mask of its own that is XORed to all
its hashes: how a clip moves stays, what it shows does not. A tenth of the clips are copies with noise of coding.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
SIZES = (10_000, 100_000, 1_000_000)
MOST_GB = 4.0
CHILD = """
import json, math, sys, time
from pathlib import Path
import numpy as np
import pyarrow as pa
from rushes.filters.duplicates import decide
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.match import match
from rushes.pipelines.stages.match.clips import gather
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.sketch import sketch

size, films = int(sys.argv[1]), sys.argv[2:]
real = []
for film in films:
    source = {**footage.probe(film, ScanConfig()), "wave": 0, "unit": "u"}
    real.append(np.asarray(scan_span(source, 0, 0.0, math.inf, ScanConfig())[0]["phash"], np.uint64))
rng = np.random.default_rng(0)
ticks = 30  # five seconds at 6 Hz
starts = [(k, at) for k, hashes in enumerate(real) for at in range(0, len(hashes) - ticks + 1, 3)]
windows = np.stack([real[k][at : at + ticks] for k, at in starts])
copies = size // 10
sequences = windows[rng.integers(len(windows), size=size - copies)]
sequences ^= rng.integers(2**64, size=(size - copies, 1), dtype=np.uint64)
of = rng.integers(size - copies, size=copies)
noise = np.uint64(1) << rng.integers(64, size=(copies, ticks), dtype=np.uint64)
sequences = np.concatenate([sequences, sequences[of] ^ noise])
ends = pa.array(np.arange(size + 1) * ticks, pa.int32())
lists = lambda values, kind: pa.ListArray.from_arrays(ends, pa.array(values, kind))
flat = lambda value, kind: pa.repeat(pa.scalar(value, kind), size)
clips = pa.table({
    "key": pa.array([f"{k:016x}-000000000" for k in range(size)]),
    "source_id": pa.array([f"{k:016x}" for k in range(size)]),
    "unit": flat("u", pa.string()),
    "duration_s": flat(5.0, pa.float64()), "width": flat(1280, pa.int32()), "height": flat(720, pa.int32()),
    "bit_rate": pa.array(rng.integers(10**6, 10**7, size=size)), "luma_std": flat(50.0, pa.float32()),
    "phash": lists(sequences.ravel(), pa.uint64()),
    "phash_s": lists(np.tile(np.arange(ticks, dtype=np.float32) / 6, size), pa.float32()),
    **{f"crop_{side}": flat(0.0, pa.float32()) for side in ("left", "top", "right", "bottom")},
})
del sequences, noise
sketched = time.perf_counter()
kept = sketch(clips, {})
began = time.perf_counter()
found, _ = match.find(gather(clips.to_batches(2**14), kept.to_batches(2**14), {}), lambda keys: {})
ended = time.perf_counter()
truth = {(int(a), int(b)) for a, b in zip(of, range(size - copies, size))}
shown = found.take(pa.array(decide(match.measured(found), match.DEFAULTS).couples))
same = {(int(a[:16], 16), int(b[:16], 16)) for a, b in zip(shown["a"].to_pylist(), shown["b"].to_pylist())}
reached = len(truth & same)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"clips": size, "sketch_s": began - sketched, "match_s": ended - began,
                  "couples": len(found), "pairs": len(same), "copies": len(truth),
                  "copies_found": reached, "windows": len(windows),
                  "peak_gb": int(peak.split()[1]) * 1024 / 1e9}))
"""


def measured(size: int, films: list[Path]) -> dict[str, Any]:
    """Return what a fresh process reports of matching so many clips."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(size), *map(str, films)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.bench
def test_cost_by_number_of_clips(bikes: Path, bunny: Path, show: Any) -> None:
    found = [measured(size, [bikes, bunny]) for size in SIZES]
    rows = [
        [f"{r['clips']:,}", f"{r['sketch_s']:.1f}", f"{r['match_s']:.1f}",
         f"{1e6 * (r['sketch_s'] + r['match_s']) / r['clips']:.0f}", f"{r['peak_gb']:.2f}",
         f"{r['copies_found']:,} of {r['copies']:,}", f"{r['couples']:,}", f"{r['pairs']:,}"]
        for r in found
    ]  # fmt: skip
    exponents = [math.log(b["match_s"] / a["match_s"]) / math.log(b["clips"] / a["clips"]) for a, b in pairwise(found)]
    head = ["clips", "sketches, s", "matching, s", "µs a clip", "peak, GB", "copies found", "couples", "pairs"]
    show("Cost of matching", head, rows, raw={"runs": found, "exponents of matching by decade": exponents})
    assert all(r["copies_found"] >= 0.95 * r["copies"] for r in found)
    assert found[-1]["peak_gb"] <= MOST_GB, found[-1]
