"""The shipped tokenizer on clips that it has never seen: quality, what choosing rates gains, what choosing costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from rushes.pipelines.stages.latents import latents
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import shards
from rushes.tokenizer.allocate import total
from rushes.tokenizer.config import Budget, EvalConfig
from rushes.tokenizer.data import segments
from rushes.tokenizer.evaluate import evaluate
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer, load
from rushes.tokenizer.rates import RateDistortion, choose, foresee, measure
from tests.bench.conftest import RESULTS

HELD_OUT = (
    "learning-area__elf.mp4", "shared-assets__flower.mp4", "sample-videos__again.mkv", "sample-videos__help.mkv",
    "sample-videos__yes.mkv", "sample-videos__bottle-detection.mp4", "torchcodec__nasa_13013.mp4",
)  # fmt: skip
"""Files of licence class A that its training left out."""
ROUNDS, SEGMENTS = 3, 6


@pytest.fixture(scope="session")
def held_out(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Root of the shards of the clips that `rushes curate` keeps of the files that were left out."""
    root = tmp_path_factory.mktemp("held-out")
    (root / "list.csv").write_text("uri\n" + "".join(f"{footage / name}\n" for name in HELD_OUT))
    command = [
        sys.executable,
        "-m",
        "rushes.pipelines.cli.main",
        "curate",
        str(root / "list.csv"),
        "--out",
        str(root / "run"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return selections.folder(str(root / "run"))


@pytest.mark.bench
def test_quality_and_what_choosing_rates_gains(held_out: str, tmp_path: Path, show: Callable[..., None]) -> None:
    config, out = EvalConfig(clips=0, side_px=128), tmp_path / "eval"
    found = evaluate("shipped", [held_out], str(out), config)
    head = ["frames per latent", "PSNR, dB", "SSIM", "feature distance", "flicker"]
    rows = [
        [rate, *(f"{f[name]:.{digits}f}" for name, digits in zip(head_of(f), (2, 4, 4, 2), strict=True))]
        for rate, f in found["by_rate"].items()
    ]
    show(f"Shipped tokenizer on {found['clips']} held-out clips, {found['frames']} frames, 128 px", head, rows, found)
    show("… PSNR at rate 4 by kind of motion, dB", list(found["by_kind"]),
         [[f"{table['4']['psnr']:.2f}" for table in found["by_kind"].values()]])  # fmt: skip
    curves = {name: {point["share"]: point["psnr"] for point in points} for name, points in found["curves"].items()}
    fixed = {2: 1.0, 4: 0.5, 8: 0.25, 16: 0.125}
    rows = []
    for rate in (4, 8):
        share = min(curves["fixed"], key=lambda one: abs(one - fixed[rate]))
        rows.append([f"1/{rate // 2}", *(f"{curves[name][share]:.2f}" for name in METHODS)])
    show("… PSNR of all frames at equal latents, dB", ["of the latents of rate 2", *METHODS], rows, curves)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "rate-distortion-of-the-shipped-tokenizer.svg").write_bytes((out / "rate-distortion.svg").read_bytes())
    assert found["clips"] >= 7


METHODS = (
    "fixed", "adaptive", "predicted", "ssim", "tuned ssim", "adaptive, all clips", "tuned ssim, all clips",
)  # fmt: skip


def head_of(figures: dict[str, Any]) -> list[str]:
    """Return the names of the figures that are shown."""
    return [name for name in figures if name != "latents"]


@pytest.mark.bench
def test_still_clips_and_predictions_and_fine_pictures(held_out: str, show: Callable[..., None]) -> None:
    tokenizer = load("shipped")
    rates = tokenizer.config.rates
    tables, stills, fine = [], [], []
    for sample in shards.pipeline(held_out, members=("mp4", "json"), nodes=False):
        read = islice(segments(sample["mp4"], tokenizer.config.segment, 256), SEGMENTS)
        videos = [video for _, video in read]
        table = measure(tokenizer, videos)
        tables.append((table, foresee(tokenizer, videos)))
        frames = sum(video.shape[2] for video in videos)
        quality = [psnr(error / frames) for error in table.distortion.sum(axis=0)]
        fine.append(quality)
        moved = json.loads(sample["json"])["motion"]
        cheapest = max(i for i in range(len(rates)) if quality[i] >= quality[rates.index(4)] - 0.1)
        fewer = table.costs[:, rates.index(4)].sum() / table.costs[:, cheapest].sum()
        stills.append([sample["__key__"][:12], f"{moved:.4f}", *(f"{q:.2f}" for q in quality), f"{fewer:.1f} ×"])
    stills.sort(key=lambda row: row[1])
    head = ["clip", "motion, widths/s", *(f"rate {rate}, dB" for rate in rates), "fewer latents than rate 4"]
    show("Shipped tokenizer, held-out clips at 256 px: PSNR and what rate 4's quality takes", head, stills)
    costs = {share: regret(rates, tables, share) for share in (0.5, 0.25)}
    show("Regret of predicted rates against the measured optimum, dB", [f"{share:g} of the latents" for share in costs],
         [[f"{cost:.3f}" for cost in costs.values()]], costs)  # fmt: skip
    assert np.mean(fine, axis=0)[rates.index(4)] > 20


def regret(rates: Sequence[int], tables: Sequence[tuple[RateDistortion, RateDistortion]], share: float) -> float:
    """Return by how many dB the measured distortion of clips is higher when predictions choose the rates."""
    lost = [0.0, 0.0]
    for pair in tables:
        for i, table in enumerate(pair):
            chosen = choose(rates, table, Budget(share=share), 0.0)
            lost[i] += total(pair[0].distortion, [rates.index(rate) for rate in chosen])
    return float(10 * np.log10(lost[1] / lost[0]))


@dataclass
class Clock:
    """Seconds by what was done."""

    spent: Counter[str]

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the time of a block."""
        begun = time.perf_counter()
        yield
        self.spent[what] += time.perf_counter() - begun


@pytest.mark.bench
def test_what_is_beside_the_network_when_latents_are_made(
    held_out: str, tmp_path: Path, show: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [one for one in shards.read_manifest(held_out).shards if one.stats["duration_s"]["sum"] < 10]
    rounds = []
    network, foreseen, reading = Tokenizer.encode_chunk, Tokenizer.foreseen, latents.segments
    for _ in range(ROUNDS):
        clock = Clock(Counter())

        def timed(*given: Any, clock: Clock = clock) -> Any:
            with clock.of("network"):
                return network(*given)

        def read(*given: Any, clock: Clock = clock) -> Iterator[Any]:
            chunks = reading(*given)
            while True:
                with clock.of("decoding and scaling video"):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk

        def predicted(*given: Any, clock: Clock = clock) -> Any:
            with clock.of("predicting"):
                return foreseen(*given)

        def loaded(*given: Any, clock: Clock = clock) -> Any:
            with clock.of("loading the model for each shard"):
                return load(*given)

        with monkeypatch.context() as patched, clock.of("all"):
            patched.setattr(latents, "load", loaded)
            patched.setattr(Tokenizer, "encode_chunk", timed)
            patched.setattr(latents, "segments", read)
            patched.setattr(Tokenizer, "foreseen", predicted)
            for info in short:
                latents.encode_shard(
                    held_out,
                    info.path,
                    str(tmp_path),
                    "shipped",
                    Budget(share=0.4),
                    side_px=256,
                    allocation="predicted",
                )
        rest = clock.spent["all"] - sum(clock.spent[name] for name in PARTS)
        rounds.append({**clock.spent, "allocation, packing and all else": rest})
    parts = [*PARTS, "allocation, packing and all else"]
    rows = [[name, f"{median(one[name] for one in rounds):.2f}",
             f"{median(one[name] / one['network'] for one in rounds):.1%}"] for name in parts]  # fmt: skip
    show("Making latents of the held-out clips at 256 px, rates predicted", ["", "s", "of the network"], rows, rounds)


PARTS = ("network", "decoding and scaling video", "loading the model for each shard", "predicting")
