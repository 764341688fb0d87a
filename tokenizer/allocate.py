"""Which segment gets how many latents, as pure arithmetic on two tables: `distortion` and `costs`, [segments, options].

A row is a segment of any length, a column one of its options: the rates, in any order. `costs` are latents. Distortions
add up over segments. Where a clip is known whole, `allocate` is the exact optimum under its budget. `Hulls` shares one
budget out over any number of segments, millions, within a step or two of the optimum; `lagrangian` looks at one segment
alone; for streams with a hard limit see `tokenizer.bucket`. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rushes.tokenizer.config import Budget

Distortion = Float[np.ndarray, "segments options"]
Costs = Int[np.ndarray, "segments options"]


class BudgetError(ValueError):
    """The budget is below what the cheapest options need."""


def monotone(distortion: Distortion, costs: Costs) -> Distortion:
    """Return the least distortion that each option's latents can buy: its own, or that of an option with fewer.

    A network that is trained briefly shows for some segments that more latents are worse. Such an
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


@dataclass(frozen=True, kw_only=True)
class Hulls:
    """The lower convex hull of each segment: the steps by which it is given more latents, from its cheapest option on.

    Along a row no step saves more for a latent than the one before (Shoham and Gersho, IEEE Trans. ASSP 36(9), 1988),
    so to take all steps that save more than λ is to minimise distortion + λ · cost. Latents have the type of `costs`:
    with 2 bytes for these a step takes 11 bytes.
    """

    first: Int[np.ndarray, " segments"]
    """The cheapest option; of equals the better."""
    option: Int[np.ndarray, "segments steps"]
    """What a step leads to."""
    latents: Int[np.ndarray, "segments steps"]
    """What it costs."""
    saves: Float[np.ndarray, "segments steps"]
    """Distortion that it saves for each of its latents; 0 where there is no more step."""

    @classmethod
    def of(cls, distortion: Distortion, costs: Costs) -> Hulls:
        """Return the hulls of tables as `allocate` takes them. Raises ValueError where a distortion is not finite."""
        _check(distortion, costs)
        rows, most = np.arange(len(costs)), costs.shape[1] - 1
        at = first = np.lexsort((distortion, costs), axis=1)[:, 0].astype(np.int8)
        option = np.zeros((len(costs), most), np.int8)
        latents, saves = np.zeros(option.shape, costs.dtype), np.zeros(option.shape)
        for step in range(most):
            more = costs - costs[rows, at][:, None]
            less = distortion[rows, at].astype(np.float64)[:, None] - distortion
            slope = np.where((more > 0) & (less > 0), less / np.where(more > 0, more, 1), 0.0)
            best = slope.max(axis=1)
            nearest = np.where((slope == best[:, None]) & (more > 0), more, np.iinfo(costs.dtype).max)
            at = np.where(best > 0, nearest.argmin(axis=1), at).astype(np.int8)
            option[:, step] = at
            latents[:, step] = np.where(best > 0, more[rows, at], 0)
            saves[:, step] = best if step == 0 else np.minimum(best, saves[:, step - 1])  # but for rounding it is less
        return cls(first=first, option=option, latents=latents, saves=saves)

    @classmethod
    def joined(cls, parts: Sequence[Hulls]) -> Hulls:
        """Return the hulls of several sets of segments with as many options, one after the other."""
        names = ("first", "option", "latents", "saves")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def lam(self, spare: float) -> float:
        """Return the least λ, exactly, for which all steps that save more cost `spare` latents at most together."""

        def spent(lam: float) -> int:
            return int(np.sum(self.latents, where=self.saves > lam, dtype=np.int64))

        if spent(0.0) <= spare:
            return 0.0
        low, high = 0, int(self.saves.max().view(np.int64))  # numbers above 0 have the order of their bits
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if spent(_float(middle)) <= spare else (middle + 1, high)
        return _float(low)

    def at(self, lam: float) -> Int[np.ndarray, " segments"]:
        """Return the option of each segment at a λ: of least distortion + λ · cost, of equals the cheaper."""
        return self._after((self.saves > lam).sum(axis=1))

    def spend(self, spare: int) -> tuple[Int[np.ndarray, " segments"], float, int]:
        """Return the option of each segment, λ, and the latents spent beyond the cheapest options: `spare` at most.

        Steps that save just λ are taken in the order of the segments as far as the latents go. What is left then is
        less than the dearest step, and goes to the best step that it pays for, again and again. So the distortion is
        above the least possible one by less than λ · the latents of the dearest step, however many segments there are.
        """
        lam = self.lam(spare)
        taken = (self.saves > lam).sum(axis=1)
        left = spare - int(np.sum(self.latents, where=self.saves > lam, dtype=np.int64))
        if lam > 0:
            ties = np.flatnonzero(self.saves == lam)  # those of a segment follow one another
            upto = np.cumsum(self.latents.ravel()[ties], dtype=np.int64)
            paid = int(np.searchsorted(upto, left, side="right"))
            np.add.at(taken, ties[:paid] // self.saves.shape[1], 1)
            left -= int(upto[paid - 1]) if paid else 0
            while left > 0 and (raised := self._best(taken, left)) is not None:
                left -= int(self.latents[raised, taken[raised]])
                taken[raised] += 1
        return self._after(taken), lam, spare - left

    def _best(self, taken: Int[np.ndarray, " segments"], left: int) -> int | None:
        """Return the segment whose next step saves most for each latent, of those that `left` latents pay for."""
        rows, next_ = np.arange(len(taken)), np.minimum(taken, self.saves.shape[1] - 1)
        there = (taken < self.saves.shape[1]) & (self.latents[rows, next_] <= left)
        saves = np.where(there, self.saves[rows, next_], 0.0)
        best = int(saves.argmax())
        return best if saves[best] > 0 else None

    def _after(self, taken: Int[np.ndarray, " segments"]) -> Int[np.ndarray, " segments"]:
        """Return the options after so many steps of each segment."""
        all_ = np.concatenate([self.first[:, None], self.option], axis=1)
        return all_[np.arange(len(taken)), taken]


def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))


def lagrangian(distortion: Distortion, costs: Costs, lam: float) -> list[int]:
    """Return for each segment by itself the option of least distortion + `lam` · cost; of equals the cheaper.

    No look-ahead and no limit: `lam` is the distortion that one latent must save, and it fixes the mean cost only over
    many segments. Raises ValueError where `lam` is negative.
    """
    if not 0 <= lam < np.inf:
        raise ValueError(f"lam={lam} must be a distortion for a latent, 0 or more; see `lam_for`")
    return [int(option) for option in Hulls.of(distortion, costs).at(lam)]


def lam_for(distortion: Distortion, costs: Costs, budget: float) -> float:
    """Return the least λ for which `lagrangian` spends at most `budget` latents on these segments.

    Tuned on the segments of a training set with budget = segments · wanted mean, it gives that mean on what is like
    them. Raises BudgetError where the cheapest choice costs more.
    """
    _check(distortion, costs)
    return Hulls.of(distortion, costs).lam(budget - _least(costs, budget))


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
