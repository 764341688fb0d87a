from __future__ import annotations

import random
from itertools import product

import pytest
import torch
from einops import rearrange

from rushes.dit import claims, flow, toy
from rushes.dit.config import ToyConfig


@pytest.mark.parametrize("rates", product(toy.RATES, repeat=2))
def test_colour_and_direction_are_read_from_latents_of_every_rate(rates):
    dice = random.Random(0)
    shapes = [toy.shape(dice) for _ in range(40)]
    films = [toy.decode(toy.clip(one, rates, 16.0).latents, rates) for one in shapes]
    assert [toy.seen(film) for film in films] == [(one.colour, one.direction) for one in shapes]
    assert len({(one.colour, one.direction) for one in shapes}) > 12


def test_a_disc_stays_in_the_picture_and_moves_as_its_facts_say():
    one = toy.shape(random.Random(1))
    mass = (toy.film(one, 16.0) - toy.GROUND).abs().sum(dim=1)
    assert mass.sum(dim=(1, 2)) == pytest.approx(float(mass[0].sum()), rel=0.05)
    pan, tilt = (toy.clip(one, (8, 8), 16.0).facts[name] for name in ("pan", "tilt"))
    x, y = toy._wrapped(torch.stack([toy._centre(frame[None]) for frame in mass]).diff(dim=0)).sum(dim=0).tolist()
    seconds = (len(mass) - 1) / 16
    assert (x, y) == pytest.approx((pan * seconds * toy.SIDE, tilt * seconds * toy.SIDE), abs=0.3)


def test_a_disc_that_goes_around_comes_in_on_the_other_side():
    one = toy.anywhere(random.Random(1))
    film = toy.film(one, 16.0, 6 * toy.FRAMES)
    mass = (film - toy.GROUND).abs().sum(dim=(1, 2, 3))
    assert mass.min() > 0.97 * mass.max() and len(film) == 96
    assert [toy.seen(film[at : at + 16]) for at in range(0, 96, 16)] == [(one.colour, one.direction)] * 6
    turn = round(16 / one.speed)
    torch.testing.assert_close(film[turn], film[0], atol=0.2, rtol=0)


def test_the_code_keeps_the_mean_of_a_latents_frames():
    film = toy.film(toy.shape(random.Random(2)), 16.0)
    again = toy.decode(toy.encode(film, (2, 16)), (2, 16))
    torch.testing.assert_close(again[:2].mean(dim=0), film[:2].mean(dim=0))
    torch.testing.assert_close(again[20], film[16:].mean(dim=0))


@pytest.mark.parametrize("t", [0.2, 0.6, 0.95])
def test_no_velocity_is_better_than_the_exact_one_of_the_mixture(t):
    """What an expectation leaves is orthogonal to every function of x."""
    mixture = toy.Mixture(0)
    data = rearrange(mixture(random.Random(0), 8000)[0].tokens, "(b l) d -> b (l d)", l=2)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    x = flow.mix(data, noise, torch.tensor(t))
    left = noise - data - mixture.velocity(x, t)
    for test in (torch.ones_like(x), x, x.tanh(), x.square() - 1):
        assert abs(float((left * test).mean())) < 0.02
    assert float(left.square().mean()) < float((noise - data).square().mean()) / 2


def test_a_claim_leaves_its_figures_and_a_picture(tmp_path):
    told = []
    config = ToyConfig(claim="mixture", steps=2)
    (figure,), picture = claims.prove(config, str(tmp_path), lambda *words: told.append(words[:3]))
    assert not figure.met and figure.found > 0.05 and told == [(1, 2, "steps"), (2, 2, "steps")]
    assert picture == f"{tmp_path}/mixture.svg" and (tmp_path / "mixture.svg").read_text().startswith("<svg")


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["first", "mask"])
def test_clips_go_on_without_seams_and_boxes_are_filled_in(tmp_path, claim):
    figures, _ = claims.prove(ToyConfig(claim=claim), str(tmp_path))
    assert all(figure.met for figure in figures), figures
