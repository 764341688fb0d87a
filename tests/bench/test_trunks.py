"""The tokenizer's trunk: what linear codes reach untrained, and what trunks learn in the same few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import trunks

STEPS = int(os.environ.get("RUSHES_TRUNK_STEPS", "400"))
"""Steps of each training: a third of a second each on a core of its own."""


@pytest.mark.bench
def test_linear_codes_untrained(footage: Path, show: Callable[..., None]) -> None:
    shown = trunks.films(footage, trunks.TRAINED, trunks.MOST)
    raw = {}
    for name, films, most in (
        ("held-out films", trunks.HELD_OUT, trunks.MOST_HELD),
        ("varied films", trunks.VARIED, trunks.MOST_VARIED),
    ):
        found = raw[name] = trunks.bounds(shown, trunks.films(footage, films, most))
        head = [f"linear code, {name}", *(f"{n} latents of 16 frames, dB" for n in trunks.LATENTS)]
        show(f"Linear codes untrained, 16 numbers a latent, 128 px, {name}", head, [[k, *v] for k, v in found.items()])
    for found in raw.values():
        lapped, plain, apart = (
            found[name]
            for name in (
                "joint, nine modes, lapped: what is shipped",
                "joint, nine modes",
                "mean pictures, Haar packet",
            )
        )
        assert all(best > more > worse for best, more, worse in zip(lapped, plain, apart, strict=True))


@pytest.mark.bench
def test_trunks_trained_side_by_side(footage: Path, show: Callable[..., None]) -> None:
    raw = []
    for name in trunks.TRUNKS:
        command = [sys.executable, "-m", "tests.bench.trunks", name, str(STEPS), "0"]
        environment = os.environ | {"RUSHES_FOOTAGE": str(footage), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        raw.append(json.loads(done.stdout.splitlines()[-1]))
    report(raw, show)
    assert len({one["parameters"] // 50_000 for one in raw}) == 1


def report(raw: list[dict], show: Callable[..., None]) -> None:
    """Show what trunks reached, as `trunks.run` returned it."""
    rates = list(raw[0]["psnr"])
    head = [
        "trunk",
        "parameters",
        "CPU, s",
        *(f"held out, rate {r}" for r in rates),
        *(f"varied, rate {r}" for r in rates),
    ]
    rows = [
        [one["trunk"], one["parameters"], one["cpu_s"]]
        + [f"{one[films][rate]:.2f}" for films in ("psnr", "psnr_varied") for rate in rates]
        for one in raw
    ]
    show(f"Trunks after {raw[0]['steps']} steps of the same batches, PSNR in dB", head, rows, raw)
