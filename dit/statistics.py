"""What training and sampling must know of a set of latents: scale, facts, usual sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit.config import DiTConfig
from rushes.dit.data import durations, facts_of, parse
from rushes.dit.index import Index, LatentError
from rushes.dit.plan import generator

MEASURED_CLIPS = 512  # clips from which the statistics of a training set are taken


@dataclass(kw_only=True)
class Statistics:
    """Measured once, before training; saved with the model where sampling needs it."""

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    fact_mean: Float[Tensor, " facts"]
    fact_std: Float[Tensor, " facts"]
    typical: dict[str, float]
    """Commonest rate, fps, height and width: what sampling uses where nothing is asked for."""
    captioned: bool
    """Whether any clip has a caption."""
    token_s: float
    """How long a token lasts, the mean over all tokens."""

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as plain values."""
        return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Statistics:
        """Undo `to_json`."""
        plain: dict[str, Any] = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in record.items()}
        return Statistics(**plain)


def statistics(index: Index, config: DiTConfig, seed: int = 0) -> Statistics:
    """Return the statistics of a set of latent shards, from at most `MEASURED_CLIPS` clips chosen at random."""
    found, cells, spent, tokens = [], Moments(), 0.0, 0
    for row in sorted(generator("statistics", seed).permutation(len(index))[:MEASURED_CLIPS].tolist()):
        clip = parse(index.read(row), index.fingerprint)
        cells.add(clip.latents)
        found.append(clip.facts)
        own = clip.tokens(config.patch)
        spent, tokens = spent + float(durations(clip).mean()) * own, tokens + own
    facts = facts_of(found, config.facts).double()
    known = (~facts.isnan()).sum(dim=0).clamp(min=1)
    fact_mean = facts.nansum(dim=0) / known
    fact_std = ((facts - fact_mean).square().nansum(dim=0) / known).sqrt()
    mean, std = cells.result()
    return Statistics(
        mean=mean,
        std=std,
        fact_mean=fact_mean.float(),
        fact_std=torch.where(fact_std > 1e-6, fact_std, 1.0).float(),
        typical=_typical(found),
        captioned=any(caption.as_py() for caption in index.captions),
        token_s=spent / tokens,
    )


class Moments:
    """Mean and spread of each channel, gathered clip by clip (Chan's update), so that no clip need be kept."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(1, dtype=torch.float64)

    def add(self, latents: Float[Tensor, "l c h w"]) -> None:
        """Take in a clip. Raises LatentError where it has other channels than those before."""
        values = latents.double().movedim(1, -1).flatten(0, -2)  # cells c
        if self.count and values.shape[1] != len(self.mean):
            raise LatentError(
                f"latents of {values.shape[1]} channels among others of {len(self.mean)}; encode all again"
            )
        count, mean = len(values), values.mean(dim=0)
        total, apart = self.count + count, mean - self.mean
        self.squares = self.squares + (values - mean).square().sum(dim=0) + apart**2 * self.count * count / total
        self.mean, self.count = self.mean + apart * count / total, total

    def result(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Return mean and standard deviation; a channel that says nothing is not blown up."""
        return self.mean.float(), (self.squares / self.count).sqrt().clamp(min=1e-3).float()


def _typical(clips: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    rates = Counter(rate for clip in clips for rate in clip["rates"])
    found = {"rate": float(rates.most_common(1)[0][0])}
    for names in (("fps",), ("height", "width")):  # the sides as a pair: of upright and wide clips neither is square
        values = Counter(tuple(round(float(clip[n]), 3) for n in names) for clip in clips if set(names) <= set(clip))
        if values:
            found |= zip(names, values.most_common(1)[0][0], strict=True)
    return found
