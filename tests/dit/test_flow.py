from __future__ import annotations

import pytest
import torch

from rushes.dit import flow


def test_a_share_of_the_times_is_uniform_and_the_others_stay():
    times, uniforms = torch.full((20_000,), 0.9), torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    found = flow.with_uniform(times, uniforms, 0.25)
    drawn = found[found != times]
    assert len(drawn) / 20_000 == pytest.approx(0.25, abs=0.01)
    assert torch.histc(drawn, 4, 0, 1).div(len(drawn)).sub(0.25).abs().max() < 0.02
    assert torch.equal(flow.with_uniform(times, uniforms, 0.0), times)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_exact_velocity_of_a_single_datum_leads_back_to_it(sampler, steps, shift):
    torch.manual_seed(0)
    data, noise = torch.randn(5, 8), torch.randn(5, 8)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return (x - data) / t  # of the field that takes every noise to this datum

    found = flow.SAMPLERS[sampler](velocity, noise, steps, shift, "shifted")
    torch.testing.assert_close(found, data, atol=1e-5, rtol=0)


def test_a_gaussian_comes_back_with_its_mean_and_spread_and_heun_needs_fewer_steps():
    torch.manual_seed(0)
    mean, std, noise = 2.0, 0.5, torch.randn(20_000, 1)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        # E[noise - data | x] for data ~ N(mean, std²)
        gain = (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)
        return gain * (x - (1 - t) * mean) - mean

    exact = mean + std * noise
    errors = {
        name: (run(velocity, noise, 10, 1.0, "shifted") - exact).abs().mean() for name, run in flow.SAMPLERS.items()
    }
    assert errors["heun"] < errors["euler"] / 3
    found = flow.euler(velocity, noise, 200)
    assert found.mean() == pytest.approx(2.0, abs=0.02) and found.std() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("time", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_preconditioning_asks_the_network_for_numbers_of_unit_variance(time):
    torch.manual_seed(0)
    data, noise, t = torch.randn(50_000, 1), torch.randn(50_000, 1), torch.tensor(time)
    x = flow.mix(data, noise, t)
    skip_scale, out_scale, in_scale = flow.preconditioning(t)
    asked = (noise - data - skip_scale * x) / out_scale
    assert float((in_scale * x).std()) == pytest.approx(1, abs=0.02) == float(asked.std())
    assert float((asked * x).mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("target", flow.TARGETS)
def test_what_others_predict_is_told_from_the_velocity_and_back(target):
    """By its own definition, at all times but those at which x itself is the target."""
    torch.manual_seed(0)
    data, noise = torch.randn(9, 4), torch.randn(9, 4)
    t = torch.linspace(0.1, 0.9, 9)[:, None]
    spread = torch.hypot(1 - t, t)
    alpha, turn = (1 - t) / spread, t / spread
    meant = {"velocity": noise - data, "noise": noise, "data": data, "v": alpha * noise - turn * data}[target]
    of_x, of_velocity = flow.conversion(target, t)
    x = flow.mix(data, noise, t)
    torch.testing.assert_close(of_x * x + of_velocity * (noise - data), meant)
    for other in flow.TARGETS:
        to_x, to_velocity = flow.conversion(other, t)
        velocity = (meant - of_x * x) / of_velocity
        again = (to_x * x + to_velocity * velocity - to_x * x) / to_velocity
        torch.testing.assert_close(of_x * x + of_velocity * again, meant)


def test_the_preconditioned_denoiser_of_edm_is_our_network_on_the_same_path():
    """With the scales of Stable Video Diffusion, arXiv 2311.15127; EDM's, arXiv 2206.00364, have c_out above 0."""
    torch.manual_seed(0)
    data, noise, t = torch.randn(9, 4), torch.randn(9, 4), torch.linspace(0.05, 0.95, 9)[:, None]
    sigma = torch.tensor([[flow.sigma(float(one))] for one in t])
    c_skip, c_out, c_in = 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt(), 1 / (sigma**2 + 1).sqrt()
    noisy, x = data + sigma * noise, flow.mix(data, noise, t)
    torch.testing.assert_close(x, (1 - t) * noisy)
    skip, out, into = flow.preconditioning(t)
    torch.testing.assert_close(into * x, c_in * noisy)  # networks see the same
    answer = torch.randn(9, 4)
    velocity, denoised = skip * x + out * answer, c_skip * noisy + c_out * answer
    of_x, of_velocity = flow.conversion("data", t)
    torch.testing.assert_close(of_x * x + of_velocity * velocity, denoised)
    assert flow.sigma(1.0) == float("inf")


def test_fifty_steps_of_the_linear_quadratic_schedule_begin_as_a_thousand_even_ones():
    found, even = torch.tensor(flow.times(50, 3.0, "linear-quadratic"), dtype=torch.float64), flow.times(1000)
    assert len(found) == 51 and found[-1] == 0
    torch.testing.assert_close(found[:26], torch.tensor(even[:26], dtype=torch.float64))
    longer = -found.diff().diff()[24:]
    assert longer.min() > 0
    torch.testing.assert_close(longer[1:], longer[1:2].expand(len(longer) - 1))
    assert flow.times(1, 1.0, "linear-quadratic") == [1.0, 0.0]


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_schedule_asks_the_network_as_often_as_another(sampler):
    asked = {"shifted": [], "linear-quadratic": []}
    for schedule, own in asked.items():
        flow.SAMPLERS[sampler](lambda x, t, own=own: own.append(t) or x, torch.zeros(1), 6, 3.0, schedule)
    assert len(asked["shifted"]) == len(asked["linear-quadratic"]) == flow.looks(sampler, 6)
    assert asked["shifted"] != asked["linear-quadratic"]


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


def test_a_token_of_no_time_does_not_count():
    data, noise = torch.zeros(2, 4), torch.ones(2, 4)
    guess = torch.tensor([[1.0] * 4, [3.0] * 4])
    assert flow.loss(guess, data, noise) == 2
    assert flow.loss(guess, data, noise, torch.tensor([1.0, 0.0])) == 0


def test_another_rate_changes_what_a_clip_counts_by_token_but_not_by_second():
    """A lively second, then a calm one, and the best predictor of Gaussian latents, E[noise - data | x]."""
    torch.manual_seed(0)
    t, spreads, frames = 0.6, (1.0, 0.2), 16

    def ideal(rates: tuple[int, int]) -> tuple[float, float]:
        counts = [4000 * frames // rate for rate in rates]
        std = torch.tensor(spreads).repeat_interleave(torch.tensor(counts))[:, None]
        seconds = (torch.tensor(rates) / frames).repeat_interleave(torch.tensor(counts))
        data, noise = std * torch.randn(len(std), 8), torch.randn(len(std), 8)
        x = flow.mix(data, noise, torch.full_like(std, t))
        velocity = x * (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)
        return float(flow.loss(velocity, data, noise, seconds)), float(flow.loss(velocity, data, noise))

    (over_time, over_tokens), (again, tokens_again) = ideal((2, 16)), ideal((4, 4))
    assert again == pytest.approx(over_time, rel=0.01)
    assert abs(tokens_again / over_tokens - 1) > 0.3


def test_a_longer_clip_has_noisier_times_and_a_shorter_one_those_it_had():
    shift = flow.shifts([64, 256, 25_600], reference=256)
    assert shift.tolist() == [1.0, 1.0, 10.0]
    assert flow.shifts([64, 25_600], reference=256, least=3.0).tolist() == [3.0, 10.0]
    assert flow.shifts([64, 25_600], reference=0).tolist() == [1.0, 1.0]
    normals = torch.randn(3, generator=torch.Generator().manual_seed(0))
    t, plain = flow.logit_normal_times(normals, shift), flow.logit_normal_times(normals)
    assert torch.equal(t[:2], plain[:2]) and t[2] == pytest.approx(10 * plain[2] / (1 + 9 * plain[2]))


def test_the_mean_of_a_clip_is_as_unclear_at_its_shifted_time_as_that_of_one_of_the_reference_length():
    """What eq. 23 is derived from: the mean of n tokens has a noise of t / (1 - t) / sqrt(n)."""
    lengths, t = [256, 1024, 25_600], torch.tensor(0.4)
    moved = flow.shifted(t, flow.shifts(lengths, reference=256))
    unclear = moved / (1 - moved) / torch.tensor(lengths).sqrt()
    torch.testing.assert_close(unclear, unclear[:1].expand(3))


def test_guidance_of_one_is_none():
    with_, without = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(flow.guided(with_, without, 1.0), with_)
    torch.testing.assert_close(flow.guided(with_, without, 0.0), without)
