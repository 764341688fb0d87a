from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.growth import grown, inherit


def clip() -> torch.Tensor:
    return torch.rand(1, 3, 32, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_new_rate_leaves_what_lower_rates_give_as_it_was_to_the_bit(stirred):
    old = stirred(rates=(2, 4))
    new = grown(old, TokenizerConfig(rates=(2, 4, 8, 16))).requires_grad_(False)
    for rates in ((2, 2), (4, 4), (2, 4), (4, 2)):
        before, after = old.encode(clip(), rates), new.encode(clip(), rates)
        assert torch.equal(before.z, after.z)
        assert torch.equal(old.decode(before), new.decode(after))


def test_a_fresh_rate_gives_the_first_of_the_latents_of_the_one_below_and_decodes_them_as_that_one_does(stirred):
    new = grown(stirred(rates=(4,)), TokenizerConfig(rates=(4, 8))).requires_grad_(False)
    low, high = new.encode(clip(), 4), new.encode(clip(), 8)
    first = rearrange(low.z, "b (s n) c h w -> b s n c h w", n=4)[:, :, :2]
    torch.testing.assert_close(high.z, first.flatten(1, 2))
    filled = torch.cat([first, torch.zeros_like(first)], dim=2).flatten(1, 2)
    torch.testing.assert_close(new.decode(high), new.decode(replace(low, z=filled)))


def test_a_lower_rate_cannot_be_added_for_its_latents_hold_more(stirred):
    with pytest.raises(ValueError, match="higher rates"):
        grown(stirred(rates=(4, 8)), TokenizerConfig(rates=(2, 4, 8)))


def test_a_rate_inherits_the_gains_of_the_rate_below(stirred):
    tokenizer = stirred(rates=(2, 4, 8, 16))
    norm = tokenizer.encoder.norm.by_rate
    before = norm.clone()
    inherit(tokenizer, [8], 4)
    assert torch.equal(norm[2], before[1]) and torch.equal(norm[[0, 1, 3]], before[[0, 1, 3]])


def test_the_same_configuration_is_the_same_tokenizer(stirred):
    tokenizer = stirred()
    assert grown(tokenizer, tokenizer.config) is tokenizer
