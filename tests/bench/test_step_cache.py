"""Error against steps spared at sampling, on the toy's moving shapes: the cache, fixed schedules, fewer steps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from rushes.dit import toy
from rushes.dit.cache import StepCache
from rushes.dit.model import unpatchify
from rushes.tokenizer.config import silent

TRAINED, STEPS, GUIDANCE = 1000, 50, 2.0
THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
SKIPPED = (5, 4, 3, 2)
FEWER = (45, 40, 33, 25, 17, 12, 8)


class Skipping(StepCache):
    """Passes by every k-th step."""

    def __init__(self, every: int):
        super().__init__(0.0)
        self.every = every

    def due(self, seen: Tensor, before: Tensor | None) -> bool:
        return before is None or (self.asked + 1) % self.every != 0


@pytest.mark.bench
def test_the_cache_errs_less_than_a_fixed_schedule_that_spares_as_many_steps(show):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = toy.Shapes(toy.RATES)
    net = toy.scaled(shapes(random.Random("scale"), toy.HELD)[0])
    toy.fit(net, shapes, TRAINED, 0, silent)
    asked = [(colour, direction) for colour in toy.COLOURS for direction in toy.DIRECTIONS] * 2
    like = [toy.clip(toy.Shape(*one, 0.25, (toy.SIDE / 2, toy.SIDE / 2)), toy.ASKED, 16.0) for one in asked]
    batch, known = shapes.known(like)
    known = known.without_facts(torch.tensor([[False, True, True]]).expand_as(known.facts))

    def drawn(cache: StepCache | None, steps: int = STEPS) -> list[Tensor]:
        return toy.draw(net.eval(), batch, known, GUIDANCE, 0, steps, cache)

    exact, raw = torch.cat(drawn(None)), []

    def told(way: str, tokens: list[Tensor], spared: float) -> None:
        error = float((torch.cat(tokens) - exact).square().mean().sqrt() / exact.std())
        films = [toy.decode(unpatchify(one, toy.NETWORK.patch, toy.SIDE, toy.SIDE), toy.ASKED) for one in tokens]
        right = np.mean([np.equal(toy.seen(film), one) for film, one in zip(films, asked, strict=True)], axis=0)
        raw.append({"way": way, "spared": spared, "error": error, "colour": right[0], "direction": right[1]})

    for way, cache in [
        *((f"cache {threshold:g}", StepCache(threshold)) for threshold in THRESHOLDS),
        *((f"skip every {every}", Skipping(every)) for every in SKIPPED),
    ]:
        told(way, drawn(cache), 1 - cache.computed / cache.asked)
    for steps in FEWER:
        told(f"{steps} steps", drawn(None, steps), 1 - steps / STEPS)
    rows = [
        [r["way"], f"{r['spared']:.2f}", f"{r['error']:.3f}", f"{r['colour']:.2f} / {r['direction']:.2f}"] for r in raw
    ]
    head = ["way", "spared of the blocks' FLOPs", "error", "colour / direction as asked"]
    show(f"Steps spared, moving shapes, against {STEPS} steps", head, rows, raw)
    cached = sorted((one["spared"], one["error"]) for one in raw if one["way"].startswith("cache"))
    for one in raw:
        if one["way"].startswith("skip"):
            assert np.interp(one["spared"], *zip(*cached, strict=True)) < one["error"], one["way"]
