from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.tokenizer.layers import RateNorm, SpaceDown, SpaceUp, TimeConv, TimeDown, TimeUp, haar, unhaar  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(levels=st.integers(1, 3), rows=st.integers(1, 3), columns=st.integers(1, 3), frames=st.integers(1, 3))
def test_haar_patching_loses_nothing_and_keeps_the_energy(levels, rows, columns, frames):
    x = torch.randn(2, frames, 3, rows * 2**levels, columns * 2**levels)
    bands = haar(x, levels)
    assert bands.shape == (2, frames, 3 * 4**levels, rows, columns)
    torch.testing.assert_close(unhaar(bands, levels), x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())


@pytest.mark.parametrize("channels", [5, 48, 64])
def test_the_time_convolution_is_a_causal_conv3d(channels):
    conv = TimeConv(channels, "t").requires_grad_(False)
    conv.bias.normal_()
    x = torch.randn(2, 7, channels, 3, 4)
    led = torch.cat([x[:, :1], x[:, :1], x], dim=1).transpose(1, 2)
    weight = torch.stack(tuple(conv.weight), dim=-1)[..., None, None]
    expected = F.conv3d(led, weight, conv.bias).transpose(1, 2)
    torch.testing.assert_close(conv(x, {}, {}), expected, rtol=0, atol=2e-6)


def test_a_time_convolution_goes_on_from_its_cache():
    conv = TimeConv(48, "t").requires_grad_(False)
    x = torch.randn(1, 9, 48, 4, 4)
    whole, caches, parts = conv(x, {}, {}), {}, []
    for start, stop in ((0, 1), (1, 3), (3, 9)):
        after: dict = {}
        parts.append(conv(x[:, start:stop], caches, after))
        caches = after
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-6)


def test_new_time_stages_start_as_identity_on_still_video():
    x = torch.randn(1, 1, 6, 2, 2).expand(-1, 8, -1, -1, -1)
    torch.testing.assert_close(TimeUp(6)(TimeDown(6)(x)), x)


def test_a_norm_never_looks_at_another_position():
    norm = RateNorm(8, 2)
    x = torch.randn(1, 3, 8, 2, 2)
    y = x.clone()
    y[:, 2] += 5
    assert torch.equal(norm(x, 0)[:, :2], norm(y, 0)[:, :2])


def test_space_down_and_up_change_sides_and_channels():
    x = torch.randn(1, 2, 8, 6, 4)
    assert SpaceDown(8, 16)(x).shape == (1, 2, 16, 3, 2)
    assert SpaceUp(8, 4)(x).shape == (1, 2, 4, 12, 8)


def test_haar_patching_refuses_sides_of_which_it_would_lose_a_part():
    with pytest.raises(ValueError, match="multiples of 4"):
        haar(torch.zeros(1, 1, 3, 8, 10), 2)
