from __future__ import annotations

import pytest
import torch

from rushes.dit import flow
from rushes.dit.config import DiTConfig
from rushes.dit.model import Condition, DiT
from rushes.dit.predictors import Gaussian, Linear, Zero


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    """Tokens that are normal, of a mean and of values that know of one another."""
    dice = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=dice) / 3
    return [torch.randn(2500, 8, generator=dice) @ mixing + 0.3 for _ in range(8)]


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_what_the_linear_predictor_leaves_has_nothing_to_do_with_what_it_saw_and_the_others_lose_more(clips, t):
    net, data = DiT(DiTConfig(size="pico", in_channels=2)), torch.cat(clips)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    x, when = flow.mix(data, noise, torch.tensor(t)), torch.full((2,), t)
    found = {type(one).__name__: one(x, when, None) for one in (Zero(net), Gaussian(net), Linear(net, iter(clips)))}
    left = {name: noise - data - velocity for name, velocity in found.items()}
    assert abs(float(left["Linear"].mean())) < 0.01
    assert float((left["Linear"].T @ x / len(x)).abs().max()) < 0.05
    lost = {name: float(rest.square().mean()) for name, rest in left.items()}
    assert lost["Linear"] < 0.98 * min(lost["Gaussian"], lost["Zero"])


def test_what_is_taken_for_normal_is_what_an_untrained_network_says():
    net = DiT(DiTConfig(size="pico", in_channels=2))
    told = (torch.rand(6, 3), torch.full((6,), 4.0), torch.zeros(6), [6], torch.tensor([0.7]))
    nothing = torch.zeros(1, 384)
    known = Condition(words=nothing[:0], word_lengths=(0,), pooled=nothing, facts=torch.full((1, 9), torch.nan))
    x = torch.randn(6, 8)
    torch.testing.assert_close(Gaussian(net)(x, *told, known), net(x, *told, known))
