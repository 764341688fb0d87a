from __future__ import annotations

import copy

import pytest
import torch

from rushes.dit import toy
from rushes.dit.cache import StepCache
from rushes.dit.model import Condition, DiT


@pytest.fixture(scope="module")
def asked() -> tuple[DiT, toy.Packed, Condition]:
    """A network with random weights, and clips to be like."""
    torch.manual_seed(0)
    batch = toy.pack([toy.clip(toy.Shape("red", "left", 0.25, (4, 4)), (8, 16), 16.0)] * 2, toy.NETWORK)
    net, width = DiT(toy.NETWORK), toy.NETWORK.text_width
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    words = torch.randn(4, width)
    return net.eval(), batch, Condition(
        words=words, word_lengths=(2, 2), pooled=torch.randn(2, width), facts=batch.facts
    )  # fmt: skip


def drawn(asked, cache: StepCache | None, net: DiT | None = None) -> torch.Tensor:
    return torch.cat(toy.draw(net or asked[0], *asked[1:], guidance=2.0, seed=0, steps=12, cache=cache))


def test_no_threshold_is_no_cache_to_the_bit_and_a_higher_one_spares_more_and_errs_more(asked):
    plain, spared, errors = drawn(asked, None), [], []
    for threshold in (0.0, 0.05, 0.2, 1e9):
        cache = StepCache(threshold)
        found = drawn(asked, cache)
        spared.append(cache.asked - cache.computed)
        errors.append(float((found - plain).square().mean().sqrt() / plain.std()))
    assert spared[0] == errors[0] == 0 and spared[-1] == 11
    assert spared == sorted(set(spared)) and errors == sorted(set(errors))


def test_a_step_that_is_spared_asks_no_block_and_takes_the_time_and_the_noise_of_its_own(asked):
    net, calls = copy.deepcopy(asked[0]), []
    net.blocks[-1].register_forward_pre_hook(lambda *_: calls.append(1))
    cache = StepCache(1e9)
    found = drawn(asked, cache, net)
    assert len(calls) == cache.computed == 1 and cache.asked == 12
    assert not torch.equal(found, torch.cat(toy.draw(net, *asked[1:], guidance=2.0, seed=0, steps=1)))
