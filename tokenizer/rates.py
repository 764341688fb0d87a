"""What each segment costs and loses at each rate, measured by coding it at all of them, and the rates that follow.

The choice itself is arithmetic on these tables (`tokenizer.allocate`); a scorer predicts them without coding anything
(`tokenizer.scorer`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushes.tokenizer.allocate import allocate, lagrangian, limit, monotone
from rushes.tokenizer.config import Budget
from rushes.tokenizer.layers import Caches
from rushes.tokenizer.model import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """What each segment costs and loses at each rate, measured or predicted."""

    costs: Int[np.ndarray, "segments rates"]
    """Latents."""
    distortion: Float[np.ndarray, "segments rates"]
    """Squared error in the range [-1, 1], mean over pixels, summed over frames: sums of segments are sums of clips."""


@torch.no_grad()
def measure(tokenizer: Tokenizer, segments: Iterable[Float[Tensor, "1 3 t h w"]]) -> RateDistortion:
    """Return cost and distortion of every segment at every rate, where the whole clip has that rate.

    Segments are consumed one by one, so memory does not grow with the clip; each may have its own length.
    """
    rates = tokenizer.config.rates
    encoding: list[Caches] = [{} for _ in rates]
    decoding: list[Caches] = [{} for _ in rates]
    lengths, distortion = [], []
    for video in segments:
        losses = []
        for i, rate in enumerate(rates):
            moments, encoding[i] = tokenizer.encode_chunk(video, rate, encoding[i])
            z = tokenizer.normed(moments.chunk(2, dim=2)[0])
            again, decoding[i] = tokenizer.decode_chunk(z, rate, decoding[i])
            t, h, w = video.shape[2:]
            error = (again[:, :, :t, :h, :w].clamp(-1, 1) - video).square().mean(dim=(0, 1, 3, 4)).sum()
            losses.append(float(error))
        distortion.append(losses)
        lengths.append(video.shape[2])
    return RateDistortion(costs=costs(lengths, rates), distortion=np.array(distortion).reshape(-1, len(rates)))


def costs(lengths: Sequence[int], rates: Sequence[int]) -> Int[np.ndarray, "segments rates"]:
    """Return the latents that segments of so many frames take at each rate."""
    return -(-np.array(lengths, dtype=np.int64)[:, None] // np.array(rates))


def choose(rates: Sequence[int], table: RateDistortion, budget: Budget, duration_s: float) -> tuple[int, ...]:
    """Return the best rates of a clip of `duration_s` seconds under a budget, or of each segment at its λ.

    Raises:
        BudgetError: The budget is below the clip's minimum; the message names it.
        ValueError: A distortion is not finite.
    """
    if budget.lam is not None:
        return tuple(rates[option] for option in lagrangian(table.distortion, table.costs, budget.lam))
    picked = allocate(monotone(table.distortion, table.costs), table.costs, limit(budget, table.costs, duration_s))
    return tuple(rates[option] for option in picked)


def latent_times(times_s: Sequence[float], rates: Sequence[int], lengths: Sequence[int]) -> list[float]:
    """Return the time of each latent in seconds: the mean time of the frames that it stands for."""
    times, start = [], 0
    for rate, length in zip(rates, lengths, strict=True):
        within = times_s[start : start + length]
        groups = [within[at : at + rate] for at in range(0, length, rate)]
        times += [sum(group) / len(group) for group in groups]
        start += length
    return times
