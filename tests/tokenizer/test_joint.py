from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.data import segments
from rushes.tokenizer.joint import (
    AlongTime,
    CoarseIn,
    CoarseOut,
    OverTime,
    held,
    places,
    ranking,
    ranks_of,
    shares,
    split,
)
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer

EVERY = TokenizerConfig(space=4, channels=48, rates=(1,))
"""As many ranks as a segment has coefficients."""


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 11, 16])
def test_all_coefficients_of_a_segment_of_any_length_give_it_back(frames):
    x = torch.rand(1, 2, frames, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        again = CoarseOut(EVERY)(CoarseIn(EVERY)(x), frames)
    torch.testing.assert_close(again, x.flatten(1, 2), rtol=0, atol=1e-5)


def test_latents_of_a_still_segment_hold_nothing_that_changes():
    config = TokenizerConfig()
    with torch.no_grad():
        found = CoarseIn(config)(torch.rand(1, 1, 1, 3, 16, 24).expand(-1, -1, 16, -1, -1, -1))
    frequencies = torch.tensor(ranking(config.segment, config.space, ranks_of(config))[0])
    most = found.abs().amax(dim=(0, 1, 3, 4))
    assert most[frequencies > 0].max() < 1e-5 < most[frequencies == 0].min()


def test_the_first_latent_holds_mostly_what_stays_and_all_of_colour_and_light():
    frequencies, bands = ranking(16, 8, 128)
    assert frequencies[0] == 0 and sum(k == 0 for k in frequencies[:16]) >= 8
    assert {(0, 0), (0, 1), (0, 2)} <= set(zip(frequencies[:16], bands[:16], strict=True))


@pytest.mark.parametrize(
    "settings", [{}, {"space": 16}, {"space": 4, "channels": 64, "rates": (1, 16)}, {"segment": 32}]
)
def test_a_coarser_rate_holds_a_prefix_and_no_rank_is_held_twice(settings):
    config = TokenizerConfig(**settings)
    for frames in range(1, config.segment + 1):
        every = held(config, frames, config.segment // config.rates[0])
        assert sorted(every) == list(range(ranks_of(config)))
        for rate in config.rates:
            latents = -(-frames // rate)
            assert held(config, frames, latents) == every[: latents * config.channels]


def test_a_short_segment_has_as_many_frequencies_as_frames():
    for frames in range(1, 17):
        found = places(frames, 16)
        assert found == sorted(set(found)) and found[0] == 0 and found[-1] < 16
    assert places(4, 16) == [0, 4, 8, 12]


@pytest.mark.parametrize("segment", [4, 16, 32])
def test_frequencies_share_the_channels_and_the_lowest_has_most(segment):
    found = shares(160, segment)
    assert len(found) == segment and sum(found) == 160 and min(found) >= 1 and found[0] == max(found)


def test_features_of_short_segments_go_over_time_and_back():
    torch.manual_seed(0)
    there, back = OverTime(8, 40, 16), AlongTime(40, 8, 16)
    for frames in (1, 5, 16):
        x = torch.randn(2, 3 * frames, 8, 2, 2)
        one = there(x, 3)
        assert one.shape == (2, 3, 40, 2, 2) and back(one, frames).shape == x.shape
        assert torch.equal(there(x[:, :frames], 1), one[:, :1]), "a segment sees no other"


def test_frames_that_are_no_whole_segments_are_refused_with_the_remedy():
    assert split(TokenizerConfig(), 48) == (3, 16) and split(TokenizerConfig(), 7) == (1, 7)
    with pytest.raises(ValueError, match="give a short segment by itself"):
        Tokenizer(TokenizerConfig()).encode_chunk(torch.zeros(1, 3, 20, 8, 8), 4, {})


def test_a_fresh_tokenizer_gains_from_every_latent(clip_bytes):
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig()).eval().requires_grad_(False)
    _, video = next(segments(clip_bytes, 16))
    found = [
        psnr((tokenizer.decode(tokenizer.encode(video, rate)) - video).square().mean())
        for rate in tokenizer.config.rates
    ]
    assert all(more > less + 1 for more, less in pairwise(found)), found
