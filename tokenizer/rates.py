"""What each segment costs and loses at each rate, measured or foreseen, and the rates that follow.

Measuring codes and decodes each segment at every rate. The linear code of the variant `adaptive` tells much the same
without: what a rate leaves out of it is what it loses, and the network on top betters all rates alike. The choice
itself is arithmetic on these tables (`tokenizer.allocate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat, tee

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushes.tokenizer.allocate import allocate, lagrangian, limit, monotone
from rushes.tokenizer.codec import AnyTokenizer, lengths_of, stream_again
from rushes.tokenizer.config import Budget
from rushes.tokenizer.model import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """What each segment costs and loses at each rate, measured or foreseen."""

    costs: Int[np.ndarray, "segments rates"]
    """Latents."""
    distortion: Float[np.ndarray, "segments rates"]
    """Squared error in the range [-1, 1], mean over pixels, summed over frames: sums of segments are sums of clips."""


@torch.no_grad()
def measure(tokenizer: AnyTokenizer, segments: Iterable[Float[Tensor, "1 3 t h w"]]) -> RateDistortion:
    """Return cost and distortion of every segment at every rate, where the whole clip has that rate.

    Segments are consumed one by one, so memory does not grow with the clip; each may have its own length.
    """
    rates = tokenizer.config.rates
    given, *copies = tee(segments, 1 + len(rates))
    coded = [stream_again(tokenizer, zip(copy, repeat(rate))) for copy, rate in zip(copies, rates, strict=True)]
    lengths, distortion = [], []
    for video, *others in zip(given, *coded, strict=True):
        distortion.append([float((again - video).square().mean(dim=(0, 1, 3, 4)).sum()) for again in others])
        lengths.append(video.shape[2])
    return RateDistortion(costs=costs(lengths, rates), distortion=np.array(distortion).reshape(-1, len(rates)))


def foresee(tokenizer: Tokenizer, segments: Iterable[Float[Tensor, "1 3 t h w"]]) -> RateDistortion:
    """Return what `measure` returns as the linear code tells it, coding nothing; see `Tokenizer.foreseen`."""
    lengths, distortion = [], []
    for video in segments:
        distortion.append(tokenizer.foreseen(video))
        lengths.append(video.shape[2])
    rates = tokenizer.config.rates
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


def rates_at(tokenizer: AnyTokenizer, video: Float[Tensor, "1 3 t h w"], lam: float) -> tuple[int, ...]:
    """Return the rate of each segment of a clip of one shot that is worth `lam`: see `allocate.lagrangian`."""
    table = measure(tokenizer, video.split(lengths_of(tokenizer, video.shape[2]), dim=2))
    picked = lagrangian(monotone(table.distortion, table.costs), table.costs, lam)
    return tuple(tokenizer.config.rates[option] for option in picked)


def plainest(rates: Sequence[int], frames: int, rate: int) -> int:
    """Return the lowest rate at which a segment of so many frames has as many latents as at a rate.

    A segment that is short has one latent at several rates: a DiT shall be told of it by one of them.
    """
    return next(one for one in rates if -(-frames // one) == -(-frames // rate))


def latent_times(times_s: Sequence[float], rates: Sequence[int], lengths: Sequence[int]) -> list[float]:
    """Return the time of each latent in seconds: the mean time of the frames that it stands for."""
    times, start = [], 0
    for rate, length in zip(rates, lengths, strict=True):
        within = times_s[start : start + length]
        groups = [within[at : at + rate] for at in range(0, length, rate)]
        times += [sum(group) / len(group) for group in groups]
        start += length
    return times
