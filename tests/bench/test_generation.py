"""What a generator makes of adaptive latents and of as many at a fixed rate: a gain in PSNR promises none there.

Clips that `rushes curate` keeps of footage; both sets of latents by the shipped tokenizer, at equal count, and the same
training of the demo's DiT on each. Losses are integrals over seconds of clips that were held out, by noise level.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rushes.pipelines.store import shards

SIDE_PX, STEPS, SEEDS, RATE = 64, 1500, (0,), 4


def rushes(*words: object) -> None:
    """Run a command as a user does; of the footage some files are broken on purpose."""
    done = subprocess.run([sys.executable, "-m", "rushes.pipelines.cli.main", *map(str, words)])
    assert done.returncode in (0, 3), words


def latents_of(run: Path, *options: object) -> int:
    """Make latents; return how many there are."""
    rushes("latents", run, "--tokenizer", "shipped", "--side_px", SIDE_PX, *options)
    found = shards.pipeline(f"{run}/latents/default", members=("json",), nodes=False)
    return sum(len(json.loads(sample["json"])["times_s"]) for sample in found)


def held(run: Path, seed: int) -> dict[str, float]:
    """Train the demo's DiT; return the last losses of the clips held out."""
    out = run.parent / f"dit-{seed}"
    rushes("dit", "train", run, "--out", out, "--model.size", "nano", "--steps", STEPS, "--tokens", 1024, "--lr", 2e-3,
           "--shift", 10, "--log_every", 50, "--holdout", 0.15, "--seed", seed)  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items() if name.startswith("held_")}


@pytest.mark.bench
def test_a_dit_on_adaptive_latents_and_on_as_many_of_a_fixed_rate(
    footage: Path, tmp_path: Path, show: Callable[..., None]
) -> None:
    rushes("curate", footage, "--out", tmp_path / "first", "--pack.max_side_px", 128)
    finest = latents_of(tmp_path / "first", "--share", 0)
    fixed = latents_of(tmp_path / "first", "--rate", RATE)
    raw: dict[str, list[dict[str, float]]] = {}
    counts = {}
    for name, options in {"fixed": ("--rate", RATE), "adaptive": ("--share", fixed / finest)}.items():
        counts[name] = latents_of(tmp_path / "first", *options)
        raw[name] = [held(tmp_path / "first", seed) for seed in SEEDS]
        for seed in SEEDS:
            subprocess.run(["rm", "-r", tmp_path / f"dit-{seed}"], check=True)
    columns = sorted(raw["fixed"][0])
    rows = [
        [name, counts[name], *(", ".join(f"{one[column]:.4f}" for one in found) for column in columns)]
        for name, found in raw.items()
    ]
    show(f"The demo's DiT after {STEPS} steps on latents of rate {RATE} and on as many under one budget, {SIDE_PX} px",
         ["latents", "how many", *columns], rows, raw)  # fmt: skip
    assert counts["adaptive"] <= counts["fixed"]
