"""Perceptual hashes of shots that never were, made in code."""

from __future__ import annotations

import numpy as np


def shot(seed: int, ticks: int, swaps: int = 3) -> np.ndarray:
    """Hashes of a shot: half of the bits are set, and `swaps` pairs of bits change places from tick to tick."""
    rng = np.random.default_rng(seed)
    bits = rng.permutation(np.arange(64) < 32)
    rows = []
    for _ in range(ticks):
        rows.append(np.packbits(bits).view(">u8")[0])
        on, off = rng.permutation(np.flatnonzero(bits))[:swaps], rng.permutation(np.flatnonzero(~bits))[:swaps]
        bits[on], bits[off] = False, True
    return np.array(rows, np.uint64)


def encoded(hashes: np.ndarray, seed: int = 0, flips: int = 2) -> np.ndarray:
    """The same pictures after another encoder: `flips` bits of each hash differ."""
    rng = np.random.default_rng(seed)
    noise = [np.bitwise_or.reduce(np.uint64(1) << rng.permutation(64)[:flips].astype(np.uint64)) for _ in hashes]
    return hashes ^ np.array(noise, np.uint64)
