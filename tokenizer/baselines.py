"""What the allocation is measured against: rates by thresholds on motion or on SSIM, as others choose them.

The rules are arithmetic on a statistic of each segment; `motion` and `held_ssim` measure it. Options stand in the order
of the rates, dearest first. Each rule keeps its budget in the same way, see `_fitted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushes.tokenizer.allocate import BudgetError, Costs, Distortion, total
from rushes.tokenizer.metrics import ssim


@torch.no_grad()
def motion(video: Float[Tensor, "1 3 t h w"]) -> float:
    """Return the mean absolute difference of neighbouring frames in [-1, 1]; 0 for a single frame."""
    return float(video.diff(dim=2).abs().mean()) if video.shape[2] > 1 else 0.0


@torch.no_grad()
def held_ssim(video: Float[Tensor, "1 3 t h w"], rates: Sequence[int]) -> Float[np.ndarray, " rates"]:
    """Return the mean SSIM of a segment and its subsampled version: every `rate`-th frame, held until the next."""
    frames = video[0].transpose(0, 1)
    held = [frames[torch.arange(len(frames)) // rate * rate] for rate in rates]
    return np.array([float(ssim(frames, other).mean()) for other in held])


def by_motion(
    motions: Float[np.ndarray, " segments"], costs: Costs, thresholds: Sequence[float], budget: int
) -> list[int]:
    """Return the rates that thresholds on motion choose.

    Args:
        motions: Motion of each segment, such as `motion` gives.
        costs: Latents, dearest option first.
        thresholds: For each option but the first the motion up to which it is taken; they descend.
        budget: Latents in all.
    """
    options = costs.shape[1]
    if list(thresholds) != sorted(thresholds, reverse=True):
        raise ValueError(f"thresholds {list(thresholds)} must descend: less motion, fewer latents")
    calm = np.repeat(-motions[:, None], options, axis=1)
    return _fitted(_passed(calm, [-limit for limit in thresholds]), calm, costs, budget)


def by_ssim(
    similarity: Float[np.ndarray, "segments options"], costs: Costs, thresholds: Sequence[float], budget: int
) -> list[int]:
    """Return the rates that fixed thresholds on SSIM choose, after DLFR-VAE (arXiv 2502.11897).

    Theirs is the idea: the content complexity of a segment is measured by how similar its frames are, and a table of
    fixed thresholds maps it to a latent frame rate. They published no code. Our choices: the similarity is that of the
    segment and its subsampled version at each rate (`held_ssim`), so that each rate has a threshold of its own, and the
    fewest latents that pass are taken; and, as theirs has no budget, `_fitted`.

    Args:
        similarity: SSIM of each segment and its subsampled version.
        costs: Latents, dearest option first.
        thresholds: For each option but the first the SSIM from which it is taken.
        budget: Latents in all.
    """
    return _fitted(_passed(similarity, thresholds), similarity, costs, budget)


def by_tuned_ssim(
    similarity: Float[np.ndarray, "segments options"],
    distortion: Distortion,
    costs: Costs,
    budget: int,
    candidates: int = 20,
) -> tuple[list[int], tuple[float, ...]]:
    """Return the best that thresholds on SSIM could do on these very segments, and those thresholds: an oracle.

    All combinations of candidates are tried on the measured distortion; the least total within the budget wins, of
    equals the cheaper. With no more than `candidates` segments every value that occurs is a candidate, so that no
    thresholds do better; with more segments these are as many quantiles, and it is nearly so.

    Raises:
        BudgetError: The cheapest choice costs more than `budget`; the message names the minimum.
    """
    _fits(costs, budget)
    options = costs.shape[1]
    levels = [_levels(similarity[:, option], candidates) for option in range(1, options)]
    best: tuple[float, float, list[int], tuple[float, ...]] | None = None
    for thresholds in product(*levels):
        picked = _passed(similarity, thresholds)
        spent = total(costs, picked)
        if spent <= budget:
            found = (total(distortion, picked), spent, picked, thresholds)
            best = found if best is None or found[:2] < best[:2] else best
    assert best is not None  # with every last threshold at -inf the cheapest are chosen, and they fit
    return best[2], best[3]


def _levels(values: Float[np.ndarray, " segments"], candidates: int) -> list[float]:
    """Return thresholds that tell the segments apart: all pass, some do, none does."""
    found = np.unique(values)
    if len(found) > candidates:
        found = np.unique(np.quantile(values, np.linspace(0, 1, candidates), method="nearest"))
    return [-np.inf, *(float(value) for value in found), np.inf]


def _passed(similarity: Float[np.ndarray, "segments options"], thresholds: Sequence[float]) -> list[int]:
    """Return the last option of each segment whose similarity reaches its threshold, else the first."""
    if len(thresholds) != similarity.shape[1] - 1:
        raise ValueError(f"{similarity.shape[1]} options need {similarity.shape[1] - 1} thresholds, not {thresholds}")
    passes: Bool[np.ndarray, "segments others"] = similarity[:, 1:] >= np.array(thresholds)
    last = passes.shape[1] - np.argmax(passes[:, ::-1], axis=1)
    return [int(option) for option in np.where(passes.any(axis=1), last, 0)]


def _fitted(
    picked: list[int], similarity: Float[np.ndarray, "segments options"], costs: Costs, budget: int
) -> list[int]:
    """Return the choice with segments moved to cheaper options until the budget holds.

    One step at a time: of all segments that have a cheaper option, the one that is most similar at its next option
    moves there (of equals the earlier). So what passed its threshold by most loses most, and nothing is measured anew.
    """
    _fits(costs, budget)
    choice: Int[np.ndarray, " segments"] = np.array(picked)
    rows, spent = np.arange(len(choice)), total(costs, picked)
    while spent > budget:
        following = np.minimum(choice + 1, costs.shape[1] - 1)
        i = int(np.argmax(np.where(following > choice, similarity[rows, following], -np.inf)))
        spent += int(costs[i, following[i]] - costs[i, choice[i]])
        choice[i] = following[i]
    return [int(option) for option in choice]


def _fits(costs: Costs, budget: int) -> None:
    """Raise BudgetError where the last options exceed the budget, ValueError where they are not the cheapest."""
    if (np.diff(costs, axis=1) > 0).any():
        raise ValueError("thresholds need options in the order of the rates, dearest first")
    least = int(costs[:, -1].sum())
    if budget < least:
        raise BudgetError(f"a budget of {budget} latents is below the minimum of {least} for {len(costs)} segments")
