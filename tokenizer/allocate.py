"""Which segment gets how many latents, as pure arithmetic on two tables: `distortion` and `costs`, [segments, options].

A row is a segment of any length, a column one of its options: the rates, in any order. `costs` are latents. Distortions
add up over segments. Where a clip is known whole, `allocate` is the exact optimum under its budget; `lagrangian` looks
at one segment alone; for streams with a hard limit see `tokenizer.bucket`. Importing this loads no torch.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from rushes.tokenizer.config import Budget

Distortion = Float[np.ndarray, "segments options"]
Costs = Int[np.ndarray, "segments options"]


class BudgetError(ValueError):
    """The budget is below what the cheapest options need."""


def monotone(distortion: Distortion, costs: Costs) -> Distortion:
    """Return the least distortion that each option's latents can buy: its own, or that of an option with fewer.

    A network that is trained briefly, or a scorer that errs, says of some segments that more latents are worse. Such an
    option is dominated. It takes the value of the cheaper one (a running minimum) rather than infinity, so that every
    table stays finite; it stays selectable, but nothing here selects it, since of equal distortions the cheaper wins.
    So the value is a bound for whoever may spend up to that cost, not the distortion of that very option.

    After it distortion does not increase with cost. Options of equal cost keep their own values. The choice of
    `allocate` is the same with it and without.
    """
    _check(distortion, costs)
    cheaper = costs[:, None, :] < costs[:, :, None]  # [segment, option, other]: the other has fewer latents
    others = np.where(cheaper, distortion[:, None, :], np.inf).min(axis=2, initial=np.inf)
    return np.minimum(distortion, others)


def allocate(distortion: Distortion, costs: Costs, budget: int) -> list[int]:
    """Return one option for each segment: the least total distortion whose total cost is at most `budget`.

    Exact: the multiple-choice knapsack by dynamic programming over the budget (Kellerer, Pferschy, Pisinger, *Knapsack
    Problems*, 2004, §11.5). The cheapest option of each segment is paid for in advance, so the table runs over what is
    left: O(segments · options · spare latents) time and a byte for each segment and spare latent. Of equal distortions
    the cheaper wins.

    Raises:
        BudgetError: The cheapest choice costs more than `budget`; the message names the minimum.
        ValueError: A distortion is not finite.
    """
    _check(distortion, costs)
    extra = costs - costs.min(axis=1, keepdims=True)
    spare = min(int(budget) - _least(costs, budget), int(extra.max(axis=1).sum()))
    order = np.lexsort((distortion, extra), axis=1)  # cheapest first, of equal costs the better
    best = np.zeros(spare + 1)  # least distortion of the segments so far for at most so many latents
    choices = np.empty((len(costs), spare + 1), dtype=np.int8)
    for i, options in enumerate(order):
        before, best = best, best + distortion[i, options[0]]
        choices[i] = options[0]
        for option in options[1:]:
            cost = extra[i, option]
            if cost > spare:
                break
            found = before[: spare + 1 - cost] + distortion[i, option]
            np.copyto(choices[i, cost:], option, where=found < best[cost:])
            np.minimum(best[cost:], found, out=best[cost:])
    return _trace(choices, extra, int(np.argmin(best)))


def _trace(choices: Int[np.ndarray, "segments latents"], extra: Costs, left: int) -> list[int]:
    """Return the options that led to the last segment with so many latents left."""
    picked = []
    for i in reversed(range(len(extra))):
        picked.append(int(choices[i, left]))
        left -= int(extra[i, picked[-1]])
    return picked[::-1]


def lagrangian(distortion: Distortion, costs: Costs, lam: float) -> list[int]:
    """Return for each segment by itself the option of least distortion + `lam` · cost; of equals the cheaper.

    No look-ahead and no limit: `lam` is the distortion that one latent must save, and it fixes the mean cost only over
    many segments (Shoham and Gersho, IEEE Trans. ASSP 36(9), 1988). Raises ValueError where `lam` is negative.
    """
    _check(distortion, costs)
    if not 0 <= lam < np.inf:
        raise ValueError(f"lam={lam} must be a distortion for a latent, 0 or more; see `lam_for`")
    order = np.lexsort((distortion, costs), axis=1)
    price = np.take_along_axis(distortion + lam * costs, order, axis=1)
    return [int(option) for option in order[np.arange(len(order)), price.argmin(axis=1)]]


def lam_for(distortion: Distortion, costs: Costs, budget: float) -> float:
    """Return the least λ, to a relative 1e-9, for which `lagrangian` spends at most `budget` latents on these segments.

    Tuned on the segments of a training set with budget = segments · wanted mean, it gives that mean on what is like
    them. Raises BudgetError where the cheapest choice costs more.
    """
    _check(distortion, costs)
    _least(costs, budget)

    def spent(lam: float) -> float:
        return total(costs, lagrangian(distortion, costs, lam))

    if spent(0.0) <= budget:
        return 0.0
    low, high = 0.0, max(float(np.ptp(distortion, axis=1).max()), np.finfo(float).tiny)  # a latent saves no more
    while spent(high) > budget:  # rounding
        high *= 2
    while high - low > 1e-9 * high and low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if spent(middle) <= budget else (middle, high)
    return high


def uniform(costs: Costs, budget: int) -> list[int]:
    """Return the baseline: one option for all segments, the dearest that the budget affords."""
    totals = costs.sum(axis=0)
    affordable = [int(option) for option in np.argsort(-totals, kind="stable") if totals[option] <= budget]
    if not affordable:
        raise BudgetError(f"a budget of {budget} latents is below the minimum of {int(totals.min())} at one rate")
    return [affordable[0]] * len(costs)


def total(table: np.ndarray, picked: list[int]) -> float:
    """Return the sum of a table over the chosen options: latents of `costs`, distortion of `distortion`."""
    return table[np.arange(len(picked)), picked].sum()


def limit(budget: Budget, costs: Costs, duration_s: float) -> int:
    """Return the budget of a clip in latents.

    A share and a number for each second are rounded down, but never below what the cheapest options need: a clip with a
    short last segment is no reason to fail. A number of latents is taken at its word.
    """
    dearest, least = int(costs.max(axis=1).sum()), int(costs.min(axis=1).sum())
    if budget.latents:
        return budget.latents
    if budget.per_second:
        return max(int(budget.per_second * duration_s + 1e-9), least)
    return max(int(budget.share * dearest), least) if budget.share else dearest


def _least(costs: Costs, budget: float) -> int:
    """Return the cost of the cheapest choice. Raises BudgetError where the budget is below it."""
    least = int(costs.min(axis=1).sum())
    if budget < least:
        raise BudgetError(f"a budget of {budget} latents is below the minimum of {least} for {len(costs)} segments")
    return least


def _check(distortion: Distortion, costs: Costs) -> None:
    if distortion.shape != costs.shape or distortion.ndim != 2 or not 1 <= distortion.shape[1] < 128:
        raise ValueError(
            f"distortion {distortion.shape} and costs {costs.shape} must both be [segments, options], "
            "with 127 options at most"
        )
    if not np.isfinite(distortion).all():
        raise ValueError("distortion holds NaN or infinity; the tokenizer or the video is broken")
