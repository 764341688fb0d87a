"""The tokenizer against published video VAEs, same latents, same machine, same run, one core."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

import pytest

from tests.bench.video_vaes import BUILD, FRAMES, SIDE

pytest.importorskip("diffusers")


@pytest.mark.bench
@pytest.mark.parametrize(("millions", "what"), [(10, "about 10 M parameters"), (0, "widths as published")])
def test_encode_and_decode_against_published_vaes(millions: float, what: str, show: Any) -> None:
    found = []
    for name in BUILD:
        if millions or name != "ours-fixed":
            command = [sys.executable, "-m", "tests.bench.video_vaes", name, str(millions)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        [f["name"], f"{f['millions']:.1f}", f"{median(f['seconds']):.2f}", f"{f['peak_mib']:.0f}"]
        for f in sorted(found, key=lambda f: median(f["seconds"]))
    ]
    head = ["model", "M parameters", "encode + decode, s", "peak memory above the model's, MiB"]
    show(f"Encode and decode {FRAMES} frames of {SIDE} squared, 4×8×8×16, one core, {what}", head, rows, found)
    assert len(found) >= 6
