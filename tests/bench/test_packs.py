"""Packs of the DiT: how full and balanced the planned ones are, how fast they are planned, read and gone on with.

Latents are of the shapes that `rushes latents` makes; what is in them does not matter here, so they are noise.
"""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.data import Packs, loader
from rushes.dit.index import Index, read_index
from rushes.dit.plan import Windows, costs, pair_cost, plan, windows
from rushes.dit.text import Embedded
from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key

ROUNDS, CLIPS, RANKS = 5, 500, 8
SIZES = {
    "256 px, mixed aspects": ([(32, 56), (32, 43), (56, 32), (32, 76)], [0.6, 0.2, 0.1, 0.1]),
    "128 to 480 px": ([(16, 28), (24, 43), (32, 56), (45, 80), (60, 104)], [0.2] * 5),
    "240 to 720 px": ([(30, 52), (45, 80), (60, 104), (90, 160), (80, 45), (30, 40)], [0.3, 0.25, 0.2, 0.1, 0.1, 0.05]),
}
"""Latent cells of clips and their shares; the first is what `rushes latents` makes by default."""


def index_of(clips: int, sizes: str, seed: int = 0) -> Index:
    """Clips of 1 s to a minute, 6 s in the median, each segment at a rate of its own."""
    dice, (cells, shares) = np.random.default_rng(seed), SIZES[sizes]
    seconds = np.minimum(np.exp(dice.normal(1.6, 0.7, clips)) + 1, 60)
    segments = np.maximum(1, (seconds * 24 / 16).astype(int))
    rates = dice.choice([2, 4, 8, 16], segments.sum(), p=[0.1, 0.3, 0.35, 0.25])
    return Index(
        root="latents", paths=("b/part-000000.tar",), tokenizer="rushes", fingerprint="f" * 12, channels=16,
        keys=np.char.mod("%016x-000000000", np.arange(clips)).astype("S26"), shard=np.zeros(clips, np.int64),
        places=np.zeros((clips, 2, 2), np.int64), cells=np.array(cells)[dice.choice(len(cells), clips, p=shares)],
        first=np.concatenate([[0], np.cumsum(segments)]), counts=16 // rates, rates=rates,
        pictures=False, seconds=np.full(len(rates), 16 / 24),
        captions=pa.array([""]), caption=np.zeros(clips, np.int64),
    )  # fmt: skip


def quality(index: Index, found: Windows, config: TrainConfig) -> dict[str, float]:
    """Empty share of the packs, tokens never seen and imbalance over the ranks, in all rounds of an epoch."""
    empty = filled = slots = most = mean = 0.0
    number, seen = 0, np.zeros(len(found), int)
    while not seen.all():
        planned = plan(found, config, number)
        if planned.epoch[0] > 0:
            break
        first = planned.epoch == 0
        seen[planned.window[first]] += 1
        pack = np.repeat(np.arange(len(planned.begin) - 1), np.diff(planned.begin))
        cost = costs(found, planned.window, pack, pair_cost(config))
        ranks = np.where(planned.steps >= 0, cost[planned.steps], 0.0)
        most, mean = most + ranks.max(axis=1).sum(), mean + ranks.mean(axis=1).sum()
        filled, slots, number = filled + found.tokens[planned.window].sum(), slots + planned.steps.size, number + 1
    empty = 1 - filled / slots / config.tokens
    sides = -(-index.cells // config.model.patch)
    tokens = (index.counts * np.repeat(sides.prod(axis=1), np.diff(index.first))).sum()
    return {"empty": empty, "unseen": float(tokens - found.tokens[seen == 1].sum()), "imbalance": most / mean}


@pytest.mark.bench
def test_packs_are_full_and_balanced(show: Any) -> None:
    rows, raw = [], {}
    for name, size in itertools.product(SIZES, ("nano", "B", "XL")):
        config = TrainConfig(tokens=32_768, packs=RANKS, holdout=0.0, model=DiTConfig(size=size))
        index = index_of(100_000, name)
        found, _ = windows(index, config)
        long = len(found) - len(np.unique(found.clip))
        raw[f"{name}, {size}"] = told = {**quality(index, found, config), "cuts": long}
        rows.append(
            [f"{name}, {size}", f"{told['empty']:.2%}", f"{told['unseen']:.0f}", f"{told['imbalance']:.4f}", long]
        )
    show(
        f"Planned packs of 32k tokens, 100,000 clips, {RANKS} ranks",
        ["clips, model", "empty", "tokens never seen", "imbalance of cost", "cuts of long clips"], rows, raw,
    )  # fmt: skip
    assert raw["256 px, mixed aspects, B"]["empty"] <= 0.01
    assert all(told["unseen"] == 0 and told["imbalance"] <= 1.05 for told in raw.values())


@pytest.mark.bench
def test_a_plan_of_a_million_clips_takes_seconds(show: Any) -> None:
    config = TrainConfig(tokens=32_768, packs=RANKS, model=DiTConfig(size="B"))
    index, seconds = index_of(10**6, "256 px, mixed aspects"), {}
    begun = time.process_time()
    found, _ = windows(index, config)
    seconds["windows and what is held out"] = time.process_time() - begun
    begun, number = time.process_time(), 0
    while plan(found, config, number).epoch[0] == 0:
        number += 1
    seconds[f"all {number} rounds of an epoch"] = time.process_time() - begun
    seconds["one round, which a resume takes"] = (time.process_time() - begun) / (number + 1)
    show(
        "Planning 1,000,000 clips, CPU time of one thread", ["part", "seconds"],
        [[name, f"{value:.2f}"] for name, value in seconds.items()], seconds,
    )  # fmt: skip


class Texts(Embedded):
    """Captions of twenty words, all the same: the other loader reads none."""

    def __init__(self) -> None:
        self.words, self.pooled = torch.zeros(20, 384), torch.zeros(384)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.words, self.pooled


def write(root: str, count: int = 512) -> None:
    """Latent shards of noise, of the shapes of the first sizes, with as many facts as clips have."""
    index, dice = index_of(count, "256 px, mixed aspects"), np.random.default_rng(0)

    def sample(row: int) -> shards.Sample:
        rates = index.rates[slice(*index.first[row : row + 2])].tolist()
        counts, data = [16 // rate for rate in rates], io.BytesIO()
        z = dice.normal(size=(sum(counts), 16, *index.cells[row])).astype(np.float16)
        np.save(data, z, allow_pickle=False)
        facts = {
            "key": clip_key(f"{row:016x}", 0.0), "fps": 24.0, "rates": rates, "lengths": [16] * len(rates),
            "times_s": (np.cumsum(np.repeat(rates, counts)) / 24).tolist(), "latent_shape": list(z.shape),
            "fingerprint": "f" * 12, "caption": f"clip {row}", **{f"fact_{i}": dice.normal() for i in range(60)},
        }  # fmt: skip
        members = [("npy", data.getvalue()), ("json", json.dumps(facts).encode()), ("txt", facts["caption"].encode())]
        return shards.Sample(facts["key"], members)

    infos = [
        shards.write_shard(root, "b", "clips", number, map(sample, range(first, first + 64)))
        for number, first in enumerate(range(0, count, 64))
    ]
    shards.write_manifest(root, infos, kind="latents", fingerprint="bench")


def ours(root: str) -> Iterator[int]:
    config = TrainConfig(tokens=32_768, packs=1, holdout=0.0)
    index = read_index(root)
    return (len(batch.tickets) for batch in loader(Packs(index, Texts(), config), windows(index, config)[0]))


def webdataset(root: str) -> Iterator[int]:
    import webdataset as wds

    clips = wds.WebDataset(shards.shard_uris(root), shardshuffle=False, nodesplitter=wds.split_by_node)
    return (len(np.load(io.BytesIO(clip["npy"]))) and len(json.loads(clip["json"])) and 1 for clip in clips)


def clips_a_second(clips: Iterator[int]) -> float:
    begun, count = time.process_time(), 0
    while count < CLIPS:
        count += next(clips)
    return count / (time.process_time() - begun)


@pytest.mark.bench
def test_clips_a_second_and_core(tmp_path: Path, show: Any) -> None:
    torch.set_num_threads(1)
    write(str(tmp_path))
    found: dict[str, list[float]] = {"planned packs, by byte offset": [], "webdataset + np.load, in order": []}
    for _ in range(ROUNDS + 1):
        for name, clips in zip(found, (ours, webdataset), strict=True):
            found[name].append(clips_a_second(clips(str(tmp_path))))
    ratio = median(a / b for a, b in zip(*(speeds[1:] for speeds in found.values()), strict=True))
    show(
        f"Clips of latents a second of CPU time, 256 px, medians of {ROUNDS}", ["loader", "clips a second"],
        [[name, f"{median(speeds[1:]):.0f}"] for name, speeds in found.items()], found,
    )  # fmt: skip
    assert ratio >= 1


@pytest.mark.bench
def test_a_resume_takes_as_long_at_any_step(tmp_path: Path, show: Any) -> None:
    torch.set_num_threads(1)
    write(str(tmp_path), 256)
    config = TrainConfig(tokens=32_768, packs=1, model=DiTConfig(size="B"))
    seconds: dict[str, float] = {}
    for step in (0, 50, 120):
        begun = time.process_time()
        index = read_index(str(tmp_path))
        found, _ = windows(index, config)
        next(iter(loader(Packs(index, Texts(), replace(config)), found, (7, step))))
        seconds[f"round 7, step {step}"] = time.process_time() - begun
    show(
        "From nothing to the first pack, CPU time", ["resumed at", "seconds"],
        [[name, f"{value:.3f}"] for name, value in seconds.items()], seconds,
    )  # fmt: skip
    assert max(seconds.values()) < 2
