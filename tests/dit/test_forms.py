from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rushes.dit import cost
from rushes.dit.cache import StepCache
from rushes.dit.config import DiTConfig
from rushes.dit.forms import Axes, AxialBlock, DualBlock, apart, together
from rushes.dit.layers import Block, Rotary
from rushes.dit.model import DiT, grid, load, save
from tests.dit.test_model import clip, wakened

FORMS = {
    "joint": DiTConfig(),
    "factorised": DiTConfig(attention="factorised"),
    "factorised-encoder": DiTConfig(attention="factorised-encoder"),
    "dual-to-single": DiTConfig(streams="dual-to-single"),
}
OTHERS = [name for name in FORMS if name != "joint"]
ROTARY = Rotary(32, (0.5, 64.0), (4.0, 256.0))


@pytest.fixture(scope="module")
def awake() -> dict[str, DiT]:
    """A network of each form, all of whose weights matter."""
    return {name: wakened(config) for name, config in FORMS.items()}


@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_a_fresh_network_of_any_form_change_nothing(form):
    model, same = DiT(FORMS[form]), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, given, found: same.append(torch.equal(found, given[0])))
    told, known = clip(3, 4, 6, 4, words=5, seed=1)
    model(*told, [len(told[0])], torch.tensor([0.5]), known)
    assert same == [True] * FORMS[form].blocks


@pytest.mark.parametrize("form", OTHERS)
def test_clips_of_any_length_and_grid_are_packed_and_none_has_a_gradient_on_another(awake, form):
    (one, a), (two, b), (three, c) = (
        clip(4, 8, 8, 4, words=5, seed=1), clip(3, 6, 9, 8, words=0, seed=2), clip(1, 8, 8, 8, words=2, seed=3),
    )  # fmt: skip
    t, lengths = torch.tensor([0.2, 0.9, 0.5]), [len(told[0]) for told in (one, two, three)]
    packed = [torch.cat(parts).requires_grad_() for parts in zip(one, two, three, strict=True)]
    both = awake[form](*packed, lengths, t, a.joined(b).joined(c))
    alone = [awake[form](*told, [len(told[0])], t[i : i + 1], (a, b, c)[i]) for i, told in enumerate((one, two, three))]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-5, rtol=0)
    both[: lengths[0]].square().sum().backward()
    for values in packed:
        assert values.grad[: lengths[0]].any() and not values.grad[lengths[0] :].any()


@pytest.mark.parametrize("form", OTHERS)
def test_a_shift_of_the_clips_time_changes_nothing_in_any_form_and_reversed_time_does(awake, form):
    model = awake[form]
    (tokens, where, rates, orders), known = clip(4, 4, 4, 4, words=2, seed=3)
    moment = model.moment_in.out.weight.clone()
    torch.nn.init.zeros_(model.moment_in.out.weight)  # so that attention alone knows of time

    def found(times: torch.Tensor) -> torch.Tensor:
        told = (tokens, torch.cat([times, where[:, 1:]], dim=1), rates, orders)
        return model(*told, [len(tokens)], torch.tensor([0.5]), known)

    here, later, reversed_ = (found(times) for times in (where[:, :1], where[:, :1] + 12.5, -where[:, :1]))
    model.moment_in.out.weight.copy_(moment)
    torch.testing.assert_close(later, here, atol=1e-4, rtol=0)
    assert (reversed_ - here).abs().max() > 1e-2


def test_factorised_attention_of_a_picture_is_joint_attention_with_the_same_weights(awake):
    """What it has more, attention from latent to latent, is shut where there is one latent, whatever its weights."""
    model = awake["factorised"]
    own = model.state_dict()
    model.load_state_dict({**own, **awake["joint"].state_dict()})
    for latents in (1, 2):
        told, known = clip(latents, 8, 8, 4, words=3, seed=4)
        given = (*told, [len(told[0])], torch.tensor([0.5]), known)
        apart_by = (model(*given) - awake["joint"](*given)).abs().max()
        assert apart_by < 1e-5 if latents == 1 else apart_by > 1e-2


def test_a_factorised_encoder_of_a_picture_is_a_network_whose_later_blocks_have_no_attention(awake):
    weights = awake["joint"].state_dict()
    mute = {n: v * 0 for n, v in weights.items() if n.startswith(("blocks.2.attention.out", "blocks.3.attention.out"))}
    encoder, joint = DiT(FORMS["factorised-encoder"]), DiT(FORMS["joint"])
    encoder.load_state_dict(weights)
    joint.load_state_dict({**weights, **mute})
    told, known = clip(1, 8, 8, 4, words=3, seed=4)
    given = (*told, [len(told[0])], torch.tensor([0.5]), known)
    torch.testing.assert_close(encoder(*given), joint(*given), atol=1e-5, rtol=0)


@pytest.mark.parametrize("over", ["latents", "cells", "both"])
def test_a_token_sees_its_latent_or_its_cell_or_through_both_all_of_its_clip(over):
    torch.manual_seed(0)
    block, lengths = AxialBlock(64, 2, over), [24, 9]
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    where = torch.cat([grid(torch.arange(4) / 6, 2, 4, 6), grid(torch.arange(1), 2, 6, 6)])
    x = torch.randn(33, 64, requires_grad=True)
    angles, axes = ROTARY(where), Axes.of(where, lengths)
    token = 3 * 6 + 4
    block(x, torch.randn(2, 64), angles, torch.randn(2, 64), lengths, [1, 1], axes)[token].sum().backward()
    found = set(x.grad.any(dim=1).nonzero().flatten().tolist())
    latent, cell = set(range(18, 24)), {4, 10, 16, 22}
    assert found == {"latents": latent, "cells": cell, "both": set(range(24))}[over]


def test_a_dual_block_whose_streams_have_the_same_weights_is_a_single_block():
    torch.manual_seed(0)
    single, dual, counts = Block(64, 2, reads=False), DualBlock(64, 2), ([6, 9], [2, 3])
    for parameter in single.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for stream in (dual.tokens, dual.words):
        stream.load_state_dict(single.state_dict())
    rows, both = torch.randn(20, 64), [8, 12]
    given = (rows, torch.randn(2, 64), ROTARY(torch.rand(20, 3) * 5), rows[:0], both, counts[1])
    torch.testing.assert_close(dual(*given), single(*given), atol=1e-5, rtol=0)
    dual.words.mlp.down.bias.data.add_(1.0)
    changed = (dual(*given) - single(*given)).abs().amax(dim=1) > 1e-3
    assert changed.nonzero().flatten().tolist() == [6, 7, 17, 18, 19], "the words, and nothing else"
    assert torch.equal(together(*apart(rows, *counts), *counts), rows)


@pytest.mark.parametrize("form", FORMS)
def test_the_cost_of_a_clip_is_what_torch_counts(form):
    config, model = FORMS[form], DiT(FORMS[form])
    latents, cells, d, blocks = 3, 20, config.width, config.blocks
    told, known = clip(latents, 8, 10, 4, words=4, seed=1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # others on a CPU are not counted
        model(*told, [latents * cells], torch.tensor([0.5]), known)
    counted = sum(sum(counter.get_flop_counts()[f"DiT.blocks.{i}"].values()) for i in range(blocks))
    pairs = float(cost.pairs(config, np.array(latents), np.array(cells)))
    tokens = blocks * (latents * cells * cost.token_flops(config) + pairs * cost.pair_flops(config))
    modulation, words, seen = 12 * d * d, 5, latents * cells  # the first word is the learned one
    if form == "dual-to-single":
        rest = (blocks + config.dual_blocks) * modulation + blocks * words * cost.token_flops(config)
        rest += blocks * cost.pair_flops(config) * (2 * seen * words + words * words)
    else:
        rest = blocks * (modulation * (1.5 if form == "factorised" else 1) + words * (4 * d * d + 4 * d * seen))
    assert counted == tokens + rest


@pytest.mark.parametrize("form", OTHERS)
def test_a_form_is_saved_spares_steps_and_knows_what_is_given(awake, form, tmp_path):
    save(awake[form], str(tmp_path), {})
    model, _ = load(str(tmp_path))
    told, known = clip(2, 4, 4, 4, words=3, seed=5)
    given = (*told, [len(told[0])], torch.tensor([0.5]))
    plain, cache = awake[form](*given, known), StepCache(0.1)
    assert torch.equal(model(*given, known), plain)
    for _ in range(2):
        torch.testing.assert_close(model(*given, known, cache), plain, atol=1e-5, rtol=0)
    assert (cache.asked, cache.computed) == (2, 1)
    some = replace(known, known=torch.arange(len(told[0])) < 4)
    assert (model(*given, some) - plain).abs().max() > 1e-3


def test_words_stand_in_no_latent_so_both_forms_at_once_are_refused():
    with pytest.raises(ValueError, match="attention=joint or streams=cross"):
        DiTConfig(attention="factorised", streams="dual-to-single")
