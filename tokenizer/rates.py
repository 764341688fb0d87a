"""Which segment gets how many latents: distortion at every rate, then the exact best choice under a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.config import Budget
from tokenizer.layers import Caches
from tokenizer.model import Tokenizer


class BudgetError(ValueError):
    """The budget is below what the highest rates need."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What each segment costs and loses at each rate."""

    lengths: tuple[int, ...]
    """Frames of each segment."""
    costs: Int[np.ndarray, "segments rates"]
    """Latents."""
    distortion: Float[np.ndarray, "segments rates"]
    """Squared error in the range [-1, 1], mean over pixels, summed over frames: sums of segments are sums of clips."""


@torch.no_grad()
def measure(tokenizer: Tokenizer, segments: Iterable[Float[Tensor, "1 3 t h w"]]) -> Measured:
    """Return cost and distortion of every segment at every rate, where the whole clip has that rate.

    Segments are consumed one by one, so memory does not grow with the clip.
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
    return Measured(lengths=tuple(lengths), costs=costs(lengths, rates), distortion=np.array(distortion))


def distortions(tokenizer: Tokenizer, video: Float[Tensor, "1 3 t h w"]) -> Float[np.ndarray, "segments rates"]:
    """Return the distortion of each segment at each rate; see `Measured.distortion`."""
    return measure(tokenizer, video.split(tokenizer.config.segment, dim=2)).distortion


def costs(lengths: Sequence[int], rates: Sequence[int]) -> Int[np.ndarray, "segments rates"]:
    """Return the latents that each segment of a clip takes at each rate, by the frames of the segments."""
    return np.array([[-(-length // rate) for rate in rates] for length in lengths])


def allocate(
    distortion: Float[np.ndarray, "segments options"], costs: Int[np.ndarray, "segments options"], budget: int
) -> list[int]:
    """Return one option for each segment: the least total distortion whose total cost is at most `budget`.

    Exact: the multiple-choice knapsack by dynamic programming over the budget (Kellerer, Pferschy, Pisinger, *Knapsack
    Problems*, §11.5), O(segments · options · budget). Of equal distortions the cheaper wins.

    Raises:
        BudgetError: the cheapest choice costs more than `budget`; the message names the minimum.
    """
    least = int(costs.min(axis=1).sum())
    if budget < least:
        raise BudgetError(f"a budget of {budget} latents is below the minimum of {least} for {len(costs)} segments")
    if not np.isfinite(distortion).all():
        raise ValueError("distortion holds NaN or infinity; the tokenizer or the video is broken")
    budget = min(budget, int(costs.max(axis=1).sum()))
    best = np.zeros(budget + 1)  # least distortion of the segments so far for at most so many latents
    choices = np.zeros((len(costs), budget + 1), dtype=np.int16)
    for i, (loss, cost) in enumerate(zip(distortion, costs, strict=True)):
        table = np.full((len(cost), budget + 1), np.inf)
        for option in np.flatnonzero(cost <= budget):
            table[option, cost[option] :] = best[: budget + 1 - cost[option]] + loss[option]
        order = np.argsort(cost, kind="stable")
        choices[i] = order[np.argmin(table[order], axis=0)]
        best = table.min(axis=0)
    return _trace(choices, costs, int(np.argmin(best)))


def _trace(choices: np.ndarray, costs: np.ndarray, left: int) -> list[int]:
    picked = []
    for i in reversed(range(len(costs))):
        picked.append(int(choices[i, left]))
        left -= int(costs[i, picked[-1]])
    return picked[::-1]


def uniform(costs: Int[np.ndarray, "segments options"], budget: int) -> list[int]:
    """Return the baseline: one option for all segments, the dearest that the budget affords."""
    totals = costs.sum(axis=0)
    affordable = [int(option) for option in np.argsort(-totals, kind="stable") if totals[option] <= budget]
    if not affordable:
        raise BudgetError(f"a budget of {budget} latents is below the minimum of {int(totals.min())} at one rate")
    return [affordable[0]] * len(costs)


def limit(budget: Budget, costs: Int[np.ndarray, "segments options"]) -> int:
    """Return a budget in latents; a share is rounded down, but never below what the highest rates need."""
    dearest = int(costs.max(axis=1).sum())
    if budget.latents:
        return budget.latents
    return max(int(budget.share * dearest), int(costs.min(axis=1).sum())) if budget.share else dearest


def choose(tokenizer: Tokenizer, measured: Measured, budget: Budget) -> tuple[int, ...]:
    """Return the best rates of a measured clip under a budget."""
    picked = allocate(measured.distortion, measured.costs, limit(budget, measured.costs))
    return tuple(tokenizer.config.rates[option] for option in picked)


def latent_times(times_s: Sequence[float], rates: Sequence[int], lengths: Sequence[int]) -> list[float]:
    """Return the time of each latent in seconds: the mean time of the frames that it stands for."""
    times, start = [], 0
    for rate, length in zip(rates, lengths, strict=True):
        within = times_s[start : start + length]
        groups = [within[at : at + rate] for at in range(0, length, rate)]
        times += [sum(group) / len(group) for group in groups]
        start += length
    return times
