from __future__ import annotations

import pytest
import torch

from rushes.dit import flow


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_exact_velocity_of_a_single_datum_leads_back_to_it(sampler, steps, shift):
    torch.manual_seed(0)
    data, noise = torch.randn(5, 8), torch.randn(5, 8)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return (x - data) / t  # of the field that takes every noise to this datum

    found = flow.SAMPLERS[sampler](velocity, noise, steps, shift)
    torch.testing.assert_close(found, data, atol=1e-5, rtol=0)


def test_a_gaussian_comes_back_with_its_mean_and_spread_and_heun_needs_fewer_steps():
    torch.manual_seed(0)
    mean, std, noise = 2.0, 0.5, torch.randn(20_000, 1)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        # E[noise - data | x] for data ~ N(mean, std²)
        gain = (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)
        return gain * (x - (1 - t) * mean) - mean

    exact = mean + std * noise
    errors = {name: (run(velocity, noise, 10, 1.0) - exact).abs().mean() for name, run in flow.SAMPLERS.items()}
    assert errors["heun"] < errors["euler"] / 3
    found = flow.euler(velocity, noise, 200)
    assert found.mean() == pytest.approx(2.0, abs=0.02) and found.std() == pytest.approx(0.5, abs=0.02)


def test_times_run_from_noise_to_data():
    assert flow.times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    moved = flow.times(4, shift=3.0)
    assert moved[0] == 1.0 and moved[-1] == 0.0 and moved[2] == pytest.approx(0.75)


def test_training_times_are_logit_normal_and_repeatable():
    t = flow.logit_normal_times(torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
    assert t.min() > 0 and t.max() < 1
    assert torch.logit(t).mean() == pytest.approx(0, abs=0.03) and torch.logit(t).std() == pytest.approx(1, abs=0.03)


def test_the_path_joins_data_and_noise_and_its_velocity_has_no_loss():
    data, noise = torch.randn(6, 4), torch.randn(6, 4)
    assert torch.equal(flow.mix(data, noise, torch.zeros(6, 1)), data)
    assert torch.equal(flow.mix(data, noise, torch.ones(6, 1)), noise)
    assert flow.loss(noise - data, data, noise) == 0


def test_a_token_of_no_weight_does_not_count():
    data, noise = torch.zeros(2, 4), torch.ones(2, 4)
    guess = torch.tensor([[1.0] * 4, [3.0] * 4])
    assert flow.loss(guess, data, noise) == 2
    assert flow.loss(guess, data, noise, torch.tensor([1.0, 0.0])) == 0


def test_guidance_of_one_is_none():
    with_, without = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(flow.guided(with_, without, 1.0), with_)
    torch.testing.assert_close(flow.guided(with_, without, 0.0), without)
