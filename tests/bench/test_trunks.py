"""The tokenizer's trunk: what linear codes reach untrained, and what trunks learn in the same few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rushes.tokenizer.model import load
from tests.bench import trunks
from tests.bench.conftest import RESULTS

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


def trained(name: str, seed: int, footage: Path) -> dict:
    """Train a trunk in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.trunks", name, str(STEPS), str(seed)]
    environment = os.environ | {"RUSHES_FOOTAGE": str(footage), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.bench
def test_trunks_trained_side_by_side(footage: Path, show: Callable[..., None]) -> None:
    raw = [trained(name, 0, footage) for name in trunks.TRUNKS]
    report(raw, show)
    assert len({one["parameters"] // 50_000 for one in raw}) == 1


@pytest.mark.bench
def test_segments_coded_jointly_against_each_latent_by_itself_over_three_seeds(
    footage: Path, show: Callable[..., None]
) -> None:
    before, now = ([trained(name, seed, footage) for seed in (0, 1, 2)] for name in ("mean pictures", "joint"))
    rows = [
        [films, rate, *(", ".join(f"{one[psnr][rate]:.2f}" for one in trunk) for trunk in (before, now)),
         f"{min(b[psnr][rate] - a[psnr][rate] for a, b in zip(before, now, strict=True)):+.2f}"]
        for films, psnr in (("held out", "psnr"), ("varied", "psnr_varied")) for rate in before[0][psnr]
    ]  # fmt: skip
    head = ["films", "rate", "each latent by itself, seeds 0, 1, 2, dB", "jointly, dB", "least gain"]
    show(f"Segments coded jointly against each latent by itself, {STEPS} steps, three seeds", head, rows, before + now)
    assert all(float(row[-1]) >= 0.5 for row in rows)


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


BEFORE = "the shipped weights of that trunk, 4,600 steps of crops of 96"
"""The tokenizer that was shipped before segments were coded jointly, as `trunks tried` has it."""


@pytest.mark.bench
def test_the_shipped_tokenizer_against_the_one_before(footage: Path, show: Callable[..., None]) -> None:
    tried = json.loads((RESULTS / "trunks-tried-the-same-batches-and-seed-psnr-in-db-128-px.json").read_text())
    before = next(one for one in tried["raw"] if one["trunk"] == BEFORE)
    rows, raw = [], {}
    for name, films, most in (
        ("psnr", trunks.HELD_OUT, trunks.MOST_HELD),
        ("psnr_varied", trunks.VARIED, trunks.MOST_VARIED),
    ):
        now = trunks.quality(load("shipped"), trunks.films(footage, films, most))
        raw[name] = {"before": before[name], "now": now}
        for latents in trunks.LATENTS:
            rate = trunks.SEGMENT // latents
            was = before[name][str(rate)]
            needed = float(np.exp(np.interp(was, [now[16 // n] for n in trunks.LATENTS], np.log(trunks.LATENTS))))
            fewer = f"{1 - needed / latents:.0%}" if was > now[16] else f"at least {1 - 1 / latents:.0%}"
            rows.append([{"psnr": "held out", "psnr_varied": "varied"}[name], rate, f"{was:.2f}", f"{now[rate]:.2f}",
                         f"{now[rate] - was:+.2f}", fewer])  # fmt: skip
    head = ["films", "rate", "before, dB", "now, dB", "gain", "latents saved at the PSNR before"]
    show("The shipped tokenizer against the one before, 128 px", head, rows, raw)
    assert all(float(row[4]) > 0.5 for row in rows)


@pytest.mark.bench
def test_what_drawing_latents_costs(footage: Path, show: Callable[..., None]) -> None:
    tokenizer, rows, raw = load("shipped"), [], {}
    for name, films in (("held out", trunks.HELD_OUT), ("varied", trunks.VARIED)):
        shown = trunks.films(footage, films, 2)
        for rate in tokenizer.config.rates:
            found = raw[f"{name}, {rate}"] = [trunks.drawn(tokenizer, one, rate) for one in shown]
            mean, noisy, spread = np.mean(found, axis=0)
            rows.append([name, rate, f"{mean:.2f}", f"{noisy - mean:+.2f}", f"{spread:.3f}"])
    head = ["films", "rate", "means, dB", "drawn", "mean standard deviation of a latent's number"]
    show("Latents drawn from the posterior against its means, PSNR at 128 px", head, rows, raw)
    assert all(float(row[3]) > -0.3 for row in rows)
