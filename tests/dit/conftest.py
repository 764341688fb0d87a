"""Small latent shards, made in code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key

FINGERPRINT = "abcdef012345"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_sample(
    number: int, rates: tuple[int, ...] = (4, 8), frames: int = 32, side: int = 4, caption: str = "", **facts
) -> shards.Sample:
    """A clip whose latents drift smoothly, in a direction of its own."""
    lengths = [min(16, frames - 16 * i) for i in range(len(rates))]
    counts = [-(-length // rate) for length, rate in zip(lengths, rates, strict=True)]
    starts = np.concatenate(
        [16 * i + rate * np.arange(n) for i, (rate, n) in enumerate(zip(rates, counts, strict=True))]
    )
    dice = np.random.default_rng(number)
    z = dice.normal(size=(1, 16, side, side)) + starts[:, None, None, None] / 16 * dice.normal(size=(1, 16, 1, 1))
    buffer = io.BytesIO()
    np.save(buffer, z.astype(np.float16), allow_pickle=False)
    record = {
        "key": clip_key(f"{number:016x}", 0.0),
        "frames": frames,
        "fps": 24.0,
        "height": side * 8,
        "width": side * 8,
        "rates": list(rates),
        "lengths": lengths,
        "times_s": (starts / 24).tolist(),
        "latent_shape": [sum(counts), 16, side, side],
        "fingerprint": FINGERPRINT,
        "caption": caption,
        "pan": 0.1 * number,
        **facts,
    }
    members = [("npy", buffer.getvalue()), ("json", json.dumps(record).encode()), ("txt", caption.encode())]
    return shards.Sample(record["key"], members)


@pytest.fixture
def latent_sample() -> Callable[..., shards.Sample]:
    """The function that makes one sample."""
    return make_sample


@pytest.fixture
def make_latents(tmp_path: Path) -> Callable[..., str]:
    """Writes samples, split over two shards, and returns the root."""

    def make(samples: list[shards.Sample], kind: str = "latents", name: str = "latents") -> str:
        root = str(tmp_path / name)
        groups = [group for group in (samples[::2], samples[1::2]) if group]
        infos = [shards.write_shard(root, "b", "part", i, group) for i, group in enumerate(groups)]
        shards.write_manifest(root, infos, kind=kind, fingerprint="f" * 12)
        return root

    return make


@pytest.fixture
def latents(make_latents) -> str:
    """Seven clips of different lengths and rates."""
    captions = ["a red ball rolls", "a cat sleeps", "", "waves on a beach", "", "a red ball rolls", "night traffic"]
    shapes = [((4, 8), 32), ((8, 8), 32), ((4,), 16), ((8,), 9), ((4, 4), 20), ((8, 4), 32), ((4,), 7)]
    return make_latents(
        [
            make_sample(i, *shape, caption=caption)
            for i, (shape, caption) in enumerate(zip(shapes, captions, strict=True))
        ]
    )
