from __future__ import annotations

import torch
from einops import reduce, repeat

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.growth import grown, inherit
from rushes.tokenizer.layers import each_frame
from rushes.tokenizer.model import Tokenizer


def clip() -> torch.Tensor:
    return torch.rand(1, 3, 32, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_new_rate_leaves_what_lower_rates_give_as_it_was_to_the_bit(stirred):
    old = stirred(rates=(2, 4))
    new = grown(old, TokenizerConfig(rates=(2, 4, 8, 16))).requires_grad_(False)
    for rates in ((2, 2), (4, 4), (2, 4), (4, 2)):
        before, after = old.encode(clip(), rates), new.encode(clip(), rates)
        assert torch.equal(before.z, after.z)
        assert torch.equal(old.decode(before), new.decode(after))


def test_a_fresh_stage_is_the_mean_and_the_repeat_of_the_one_below(stirred):
    new = grown(stirred(rates=(4,)), TokenizerConfig(rates=(4, 8))).requires_grad_(False)
    inside = {}
    for name, norm in (("encoder", new.encoder.norm), ("decoder", new.decoder.full)):
        norm.register_forward_pre_hook(lambda _, given, name=name: inside.__setitem__(name, given[0].clone()))
    halved = {}
    for rate in (4, 8):
        new.posterior(clip(), (rate, rate), at_once=2)
        halved[rate] = inside["encoder"]
    torch.testing.assert_close(halved[8], reduce(halved[4], "b (t p) c h w -> b t c h w", "mean", p=2))
    z = new.encode(clip(), 8).z
    new.decode_chunk(z, 8, {})
    torch.testing.assert_close(inside["decoder"], _repeated(new, z))


def _repeated(tokenizer: Tokenizer, z: torch.Tensor) -> torch.Tensor:
    """What the decoder's time stages make of latents where the topmost one only repeats them."""
    z = z * tokenizer.latent_std[:, None, None] + tokenizer.latent_mean[:, None, None]
    x = repeat(each_frame(tokenizer.decoder.enter, z), "b t c h w -> b (t p) c h w", p=2)
    for i in (1, 0):
        x = tokenizer.decoder.time_up[i](tokenizer.decoder.time[i](x, 1, {}, {}))
    return x


def test_a_fresh_tokenizer_codes_a_high_rate_as_the_mean_of_a_low_one():
    tokenizer = Tokenizer(TokenizerConfig(rates=(4, 8))).requires_grad_(False)
    low, high = tokenizer.encode(clip(), 4), tokenizer.encode(clip(), 8)
    torch.testing.assert_close(high.z, reduce(low.z, "b (t p) c h w -> b t c h w", "mean", p=2))
    four = tokenizer.decode_chunk(high.z[:, :2], 4, {})[0]
    torch.testing.assert_close(
        tokenizer.decode_chunk(high.z[:, :2], 8, {})[0], repeat(four, "b c (n t) h w -> b c (n p t) h w", n=2, p=2)
    )


def test_a_rate_inherits_the_gains_of_the_rate_below(stirred):
    tokenizer = stirred(rates=(2, 4, 8, 16))
    norm = tokenizer.encoder.norm.by_rate
    before = norm.clone()
    inherit(tokenizer, [8], 4)
    assert torch.equal(norm[2], before[1]) and torch.equal(norm[[0, 1, 3]], before[[0, 1, 3]])


def test_the_same_configuration_is_the_same_tokenizer(stirred):
    tokenizer = stirred()
    assert grown(tokenizer, tokenizer.config) is tokenizer
