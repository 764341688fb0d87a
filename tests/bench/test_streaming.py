"""Ten minutes of video decoded as a stream, against published VAEs that decode a clip whole, one core."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.bench.streams import SIDE

pytest.importorskip("diffusers")
LENGTHS = {"ours": (249, 1497, 14993), "ltx": (249, 497), "cosmos": (249, 497), "wan": (249, 497)}
"""Frames: 10 s, a minute and ten minutes; the others grow too large for those."""


@pytest.mark.bench
def test_a_stream_of_ten_minutes(show: Any) -> None:
    found = []
    for name, lengths in LENGTHS.items():
        for frames in lengths:
            command = [sys.executable, "-m", "tests.bench.streams", name, "10", str(frames)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        [f["name"], f["frames"], f"{f['frames'] / 25:.0f} s", f"{f['first_s']:.2f}", f"{f['seconds']:.0f}",
         f"{f['peak_mib']:.0f}"]
        for f in found
    ]  # fmt: skip
    head = ["model", "frames", "video", "first frames after, s", "all after, s", "peak memory above the model's, MiB"]
    show(f"Decode long videos of {SIDE} squared, 4×8×8×16, about 10 M parameters, one core", head, rows, found)
    minute, ten = found[1]["peak_mib"], found[2]["peak_mib"]
    assert ten <= 1.1 * minute + 8, "a stream's memory must not grow with its length"
