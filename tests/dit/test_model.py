from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.dit.config import DiTConfig
from rushes.dit.model import Condition, DiT, grid, load, moments, patchify, save, unpatchify

CONFIG = DiTConfig()


def wakened(config: DiTConfig) -> DiT:
    """A network all of whose weights matter; a fresh one answers zero, and gains near zero make attention uniform."""
    torch.manual_seed(0)
    model = DiT(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=2.0 if name.endswith("_norm.weight") else 0.0, std=0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def awake() -> DiT:
    return wakened(CONFIG)


def clip(
    latents: int, h: int, w: int, rate: float, words: int, seed: int
) -> tuple[tuple[torch.Tensor, ...], Condition]:
    dice = torch.Generator().manual_seed(seed)
    tokens = patchify(torch.randn(latents, 16, h, w, generator=dice), 2)
    where = grid(torch.arange(latents) * rate / 24, 2, h, w)
    facts = torch.randn(1, len(CONFIG.facts), generator=dice)
    facts[:, seed % 3] = torch.nan
    known = Condition(
        words=torch.randn(words, 384, generator=dice),
        word_lengths=(words,),
        pooled=torch.randn(1, 384, generator=dice),
        facts=facts,
    )
    orders = torch.arange(latents).float().repeat_interleave(len(tokens) // latents)
    return (tokens, where, torch.full((len(tokens),), float(rate)), orders), known


def test_packing_two_clips_is_running_each_alone(awake):
    (one, a), (two, b) = clip(4, 8, 8, 4, words=5, seed=1), clip(3, 6, 9, 8, words=0, seed=2)
    t, lengths = torch.tensor([0.2, 0.9]), [len(one[0]), len(two[0])]
    both = awake(*(torch.cat(pair) for pair in zip(one, two, strict=True)), lengths, t, a.joined(b))
    alone = torch.cat([awake(*one, lengths[:1], t[:1], a), awake(*two, lengths[1:], t[1:], b)])
    assert alone.abs().max() > 0.1
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("placed", [True, False])
def test_a_shift_of_the_clips_time_changes_nothing_and_reversed_time_does(awake, placed):
    """With the embedding of a token's moment, and with rotary attention alone."""
    model = copy.deepcopy(awake)
    if not placed:
        torch.nn.init.zeros_(model.moment_in.out.weight)
    (tokens, where, rates, orders), known = clip(4, 4, 4, 4, words=2, seed=3)
    t = torch.tensor([0.5])

    def found(times: torch.Tensor) -> torch.Tensor:
        return model(tokens, torch.cat([times, where[:, 1:]], dim=1), rates, orders, [len(tokens)], t, known)

    here = found(where[:, :1])
    torch.testing.assert_close(found(where[:, :1] + 12.5), here, atol=1e-4, rtol=0)
    assert (found(-where[:, :1]) - here).abs().max() > 1e-2


def test_the_moment_of_a_token_is_counted_from_its_own_clips_start_and_end():
    found = moments(torch.tensor([1.0, 1.5, 3.0, 10.0, 12.0]), [3, 2])
    assert found.tolist() == [[0, 2], [0.5, 1.5], [2, 0], [0, 2], [2, 0]]


def test_no_clip_of_a_pack_has_a_gradient_on_another(awake):
    (one, a), (two, b) = clip(4, 8, 8, 4, words=5, seed=1), clip(3, 6, 9, 8, words=0, seed=2)
    lengths = [len(one[0]), len(two[0])]
    packed = [torch.cat(pair).requires_grad_() for pair in zip(one, two, strict=True)]
    known = a.joined(b)
    known = replace(known, words=known.words.requires_grad_(), pooled=known.pooled.requires_grad_())
    t = torch.tensor([0.2, 0.9], requires_grad=True)
    awake(*packed, lengths, t, known)[: lengths[0]].square().sum().backward()
    for values, own in [*((value, lengths[0]) for value in packed), (known.pooled, 1), (t, 1)]:
        assert values.grad[:own].any() and not values.grad[own:].any()
    assert known.words.grad.any()  # all of them are the first clip's


@pytest.mark.parametrize("part", ["words", "pooled", "facts", "rates", "orders", "time"])
def test_every_condition_reaches_the_output(awake, part):
    (tokens, where, rates, orders), known = clip(2, 4, 4, 4, words=3, seed=4)
    t = torch.tensor([0.5])
    before = awake(tokens, where, rates, orders, [len(tokens)], t, known)
    if part == "rates":
        rates = rates * 2
    elif part == "orders":
        orders = orders.flip(0)
    elif part == "time":
        t = t + 0.1
    else:
        known = Condition(**{**vars(known), part: getattr(known, part) + torch.randn_like(getattr(known, part))})
    assert (awake(tokens, where, rates, orders, [len(tokens)], t, known) - before).abs().max() > 1e-4


def test_a_dropped_condition_is_that_of_a_clip_of_which_nothing_is_known(awake):
    (tokens, where, rates, orders), known = clip(2, 4, 4, 4, words=3, seed=5)
    nothing = Condition(
        words=torch.zeros(0, 384),
        word_lengths=(0,),
        pooled=torch.zeros(1, 384),
        facts=torch.full((1, len(CONFIG.facts)), torch.nan),
    )
    t, lengths = torch.tensor([0.5]), [len(tokens)]
    dropped = awake(tokens, where, rates, orders, lengths, t, known.dropped([True]))
    assert torch.equal(dropped, awake(tokens, where, rates, orders, lengths, t, nothing))
    assert known.dropped([False]).word_lengths == known.word_lengths


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_a_fresh_network_predicts_the_velocity_of_a_unit_gaussian(time):
    (tokens, where, rates, orders), known = clip(2, 4, 4, 4, words=3, seed=6)
    found = DiT(CONFIG)(tokens, where, rates, orders, [len(tokens)], torch.tensor([time]), known)
    gain = (time - (1 - time)) / ((1 - time) ** 2 + time**2)  # E[noise - data | x] of data ~ N(0, 1)
    torch.testing.assert_close(found, gain * tokens)


@settings(max_examples=20, deadline=None)
@given(l=st.integers(1, 3), h=st.integers(1, 7), w=st.integers(1, 7), p=st.integers(1, 3))
def test_patches_come_back_as_the_latents_they_were(l, h, w, p):  # noqa: E741
    latents = torch.randn(l, 2, h, w)
    tokens = patchify(latents, p)
    assert torch.equal(unpatchify(tokens, p, h, w), latents)
    where = grid(torch.arange(l) / 6, p, h, w)
    assert len(where) == len(tokens) and len(where.unique(dim=0)) == len(where)


def test_normalised_tokens_come_back(awake):
    model = DiT(CONFIG)
    model.latent_mean.copy_(torch.arange(16.0))
    model.latent_std.copy_(torch.arange(1.0, 17.0))
    latents = torch.randn(3, 16, 4, 4) * model.latent_std[:, None, None] + model.latent_mean[:, None, None]
    tokens = model.normalise(patchify(latents, 2))
    spread = unpatchify(tokens, 2, 4, 4)
    torch.testing.assert_close(
        spread * torch.arange(1.0, 17.0)[:, None, None] + torch.arange(16.0)[:, None, None], latents
    )
    torch.testing.assert_close(unpatchify(model.denormalise(tokens), 2, 4, 4), latents)


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        ("pico", 0.398), ("nano", 1.79), ("micro", 5.38), ("mini", 14), ("S", 40), ("B", 160), ("L", 562), ("XL", 826),
    ],
)  # fmt: skip
def test_one_dial_sets_the_number_of_parameters(size, millions):
    with torch.device("meta"):
        model = DiT(DiTConfig(size=size))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_a_saved_model_is_the_same_model(awake, tmp_path):
    save(awake, str(tmp_path), {"tokenizer": "abc"})
    again, about = load(str(tmp_path))
    assert about["tokenizer"] == "abc" and again.config == CONFIG
    assert all(torch.equal(a, b) for a, b in zip(awake.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_folder_without_a_model_is_named_with_the_remedy(awake, tmp_path):
    with pytest.raises(ValueError, match="rushes dit train"):
        load(str(tmp_path))
    save(awake, str(tmp_path), {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged"):
        load(str(tmp_path))


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="nano, micro, mini, S, B, L, XL"):
        DiTConfig(size="XXL")  # type: ignore[arg-type]


def test_one_part_of_a_picture_is_told_from_another_in_even_noise(awake):
    (tokens, where, rates, orders), known = clip(1, 4, 4, 4, words=3, seed=7)
    even = tokens[:1].expand_as(tokens)
    found = awake(even, where, rates, orders, [len(even)], torch.tensor([1.0]), known)
    assert (found - found[:1]).abs().max() > 1e-4
