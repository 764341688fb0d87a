"""Growth of a tokenizer by rates: what a new rate takes over from the one below.

An adaptive tokenizer's new rate starts by holding the first of the latents that the one below has; the halvings of the
frame rate of published systems start as means.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

import torch

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.layers import RateNorm
from rushes.tokenizer.model import Tokenizer


@torch.no_grad()
def inherit(tokenizer: Tokenizer, rates: Iterable[int], below: int) -> None:
    """Give rates the gains of the rate below them, so that each starts as that one does."""
    known = tokenizer.config.rates
    for norm in tokenizer.modules():
        if isinstance(norm, RateNorm):
            for rate in rates:
                norm.by_rate[known.index(rate)] = norm.by_rate[known.index(below)]


def grown(tokenizer: Tokenizer, config: TokenizerConfig) -> Tokenizer:
    """Return a tokenizer of a configuration with more rates; at the rates that it had it codes as before, to the bit.

    Raises ValueError where the configurations differ in more than new, higher rates.
    """
    old = tokenizer.config
    more = set(old.rates) <= set(config.rates) and old.rates[0] == config.rates[0]
    if replace(config, rates=old.rates) != old or not more:
        raise ValueError(f"a tokenizer of {old} cannot start one of {config}; only higher rates may be added")
    if old == config:
        return tokenizer
    new = Tokenizer(config)
    rows = [bisect_right(old.rates, rate) - 1 for rate in config.rates]  # its own, or that of the rate below
    weights = tokenizer.state_dict()
    gains = {name: weight[rows] for name, weight in weights.items() if name.endswith("by_rate")}
    new.load_state_dict({**new.state_dict(), **weights, **gains})
    return new
