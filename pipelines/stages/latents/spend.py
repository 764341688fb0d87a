"""One budget over all segments of a selection: one λ for all, and the rates that follow, shard by shard.

Columns, never a Python object for each segment: of a selection of 10⁶ clips only its hulls are held.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rushes.pipelines.config import LatentsConfig
from rushes.pipelines.store.ledger import Ledger, Part
from rushes.tokenizer.allocate import BudgetError, Hulls


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What one budget buys."""

    lam: float
    """The squared error that one latent saves at least; see `Budget.lam`."""
    budget: int
    """Latents that there are."""
    latents: int
    """Latents that are spent."""
    finest: int
    """Latents that the lowest rate number takes."""
    rates: dict[str, str]
    """By unit the rates of its segments, as `packed` writes them."""


def packed(rates: np.ndarray) -> str:
    """Return rates as text: a byte for each segment, compressed, so that a task of a large shard stays small."""
    return base64.b64encode(zlib.compress(rates.astype(np.uint8).tobytes())).decode()


def of_clips(rows: pa.Table, rates: str) -> dict[str, list[int]]:
    """Return the rates of each clip of a shard, by its rows of the table `rates`; none where these are empty."""
    if not rates:
        return {}
    chosen = np.frombuffer(zlib.decompress(base64.b64decode(rates)), np.uint8)
    keys = rows["key"].to_numpy()[:: len(rows) // len(chosen)]
    found: dict[str, list[int]] = {}
    for key, rate in zip(keys.tolist(), chosen.tolist(), strict=True):
        found.setdefault(key, []).append(rate)
    return found


def spend(ledger: Ledger, parts: Mapping[str, Part], config: LatentsConfig) -> Spending:
    """Return what a share, or a number for each second, buys over all clips together.

    Of equal savings those of the earlier unit, clip and segment go first, so that the same parts give the same rates.

    Args:
        ledger: Ledger of the run.
        parts: Parts of the table `rates`, by unit.
        config: The budget.

    Raises:
        BudgetError: The budget is below the minimum of all clips together; the message names it.
        ValueError: A distortion is not finite.
    """
    names, hulls, own = [], [], []
    finest = least = 0
    seconds = 0.0
    for name, part in sorted(parts.items()):
        rows = ledger.read_part(part, "rates", ["seconds", "rate", "latents", "distortion"])
        if not len(rows):
            continue
        rate, latents = (rows[column].to_numpy() for column in ("rate", "latents"))
        rates = rate[: len(np.unique(rate))]
        costs = latents.astype(np.int16).reshape(-1, len(rates))
        hulls.append(Hulls.of(rows["distortion"].to_numpy().reshape(costs.shape), costs))
        names.append(name)
        own.append(rates)
        finest, least = finest + int(costs.max(axis=1).sum()), least + int(costs.min(axis=1).sum())
        seconds += float(rows["seconds"].to_numpy().reshape(costs.shape)[:, 0].sum())
    wanted = config.per_second * seconds if config.per_second else config.share * finest
    budget = int(wanted + 1e-9)
    if budget < least:
        given = f"per_second={config.per_second:g}" if config.per_second else f"share={config.share:g}"
        enough = least / seconds if config.per_second else least / finest
        raise BudgetError(
            f"{given} is a budget of {budget} latents, below the minimum of {least} for all clips together; give "
            f"{given.split('=')[0]}={np.ceil(enough * 1e4) / 1e4:g} at least"
        )
    if not hulls:
        return Spending(lam=0.0, budget=0, latents=0, finest=0, rates={})
    sizes = [len(one.first) for one in hulls]
    together = Hulls.joined(hulls)
    hulls.clear()
    options, lam, spent = together.spend(budget - least)
    chosen = dict(zip(names, np.split(options, np.cumsum(sizes)[:-1]), strict=True))
    return Spending(
        lam=lam, budget=budget, latents=least + spent, finest=finest,
        rates={name: packed(rates[chosen[name]]) for name, rates in zip(names, own, strict=True)},
    )  # fmt: skip
