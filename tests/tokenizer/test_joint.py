from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.data import segments
from rushes.tokenizer.joint import (
    MODES,
    PLAIN,
    AlongTime,
    CoarseIn,
    CoarseOut,
    OverTime,
    held,
    kept,
    levels,
    modes_in,
    numbers_of,
    places,
    seam,
    shares,
    split,
    union,
)
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer

EVERY = TokenizerConfig(space=4, channels=64, rates=(1,))
"""More numbers than a segment has coefficients."""
BANDS = 3 * 8**2


def slices(frames: int, speed: int) -> torch.Tensor:
    """Return a segment of smooth ground on which detail drifts by so many pixels a frame: b s f c h w."""
    at = torch.arange(64)[None, :] - speed * torch.arange(frames)[:, None]
    wave = 0.4 * torch.cos(at * 0.9) + 0.2 * torch.cos(at * 0.3)
    return wave[None, None, :, None, None].expand(1, 1, -1, 3, 64, -1).contiguous()


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 11, 16])
def test_all_coefficients_of_a_segment_of_any_length_give_it_back(frames):
    x = torch.rand(1, 2, frames, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        again = CoarseOut(EVERY)(CoarseIn(EVERY)(x)[0], frames)
    torch.testing.assert_close(again, x.flatten(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("space", [4, 8, 16, 32])
def test_what_is_done_at_a_seam_is_undone_by_its_transpose_and_leaves_flat_pictures_alone(space):
    done = torch.tensor(seam(space).copy())
    torch.testing.assert_close(done @ done.T, torch.eye(space, dtype=done.dtype))
    torch.testing.assert_close(done.sum(dim=1), torch.ones(space, dtype=done.dtype))


def test_cells_beside_each_other_share_their_seam():
    x = torch.zeros(1, 1, 16, 3, 16, 16)
    x[..., :, 7] = 1
    found, _ = CoarseIn(TokenizerConfig())(x)
    assert (found.abs().amax(dim=(0, 1, 2)) > 0.01).all(), "a line beside the seam is seen by the cell behind it, too"


def test_latents_of_a_still_segment_hold_nothing_that_changes():
    config = TokenizerConfig()
    found, modes = CoarseIn(config)(torch.rand(1, 1, 1, 3, 16, 24).expand(-1, -1, 16, -1, -1, -1))
    frequencies = torch.tensor(union(config)) // BANDS
    most = found.abs().amax(dim=(0, 1, 3, 4))
    assert most[frequencies > 0].max() < 1e-5 < most[frequencies == 0].min()
    assert modes.max() < 3, "what stands is told from what moves"


def test_modes_follow_speed_and_direction():
    config = TokenizerConfig()
    still, slow, fast = (CoarseIn(config)(slices(16, speed))[1][..., 1:-1] // 3 for speed in (0, 1, 4))
    assert (still == 0).all() and (slow >= 1).all() and (fast >= slow).all() and fast.float().mean() > 1
    across = CoarseIn(config)(slices(16, 0))[1][..., 1:-1]
    down = CoarseIn(config)(slices(16, 0).transpose(-1, -2))[1][..., 1:-1, :]
    assert 2 not in across and 1 in across and 1 not in down and 2 in down


def test_a_flat_picture_takes_the_first_mode():
    assert not CoarseIn(TokenizerConfig())(torch.full((1, 2, 16, 3, 16, 16), 0.3))[1].any()


def test_modes_are_read_back_through_noise():
    modes = torch.arange(len(MODES)).view(1, 1, 3, 3)
    numbers = levels()[modes][:, :, None].expand(-1, -1, 4, -1, -1)
    for seed in range(20):
        noise = 0.05 * torch.randn(numbers.shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(modes_in(numbers + noise), modes)


def test_every_mode_holds_light_and_colour_first_and_the_first_latent_mostly_what_stays():
    for mode, order in enumerate(kept(TokenizerConfig())):
        assert {0, 1} <= set(order[:15])
        assert sum(one < BANDS for one in order[:15]) >= (15, 9, 3)[mode // 3]


@pytest.mark.parametrize(
    "settings", [{}, {"space": 16}, {"space": 4, "channels": 64, "rates": (1, 16)}, {"segment": 32}]
)
def test_a_latent_holds_the_next_best_coefficients_whatever_the_length_and_none_is_held_twice(settings):
    config = TokenizerConfig(**settings)
    every, bands, size = union(config), 3 * config.space**2, config.channels
    for frames in range(1, config.segment + 1):
        there = set(places(frames, config.segment))
        for order, numbers in zip(kept(config), held(config, frames), strict=True):
            found = [every[i] for i in numbers]
            assert sorted(found) == sorted(order) and len(found) == numbers_of(config) - 1
            best = [one for one in order if one // bands in there]
            for latents in range(1, len(best) // size):
                count = latents * size - 1
                assert set(found[:count]) == set(best[:count])


def test_coefficients_keep_their_channels_over_the_modes():
    numbers = torch.from_numpy(held(TokenizerConfig(), 16))
    common = [set(row.tolist()) & set(numbers[PLAIN].tolist()) for row in numbers]
    kept_to = [
        sum((row == one).nonzero().item() % 16 == (numbers[PLAIN] == one).nonzero().item() % 16 for one in both)
        for row, both in zip(numbers, common, strict=True)
    ]
    assert all(same > 0.5 * len(both) for same, both in zip(kept_to, common, strict=True))


def test_cutting_latents_off_gives_those_of_the_coarser_rate(clip_bytes):
    tokenizer = Tokenizer(TokenizerConfig()).eval().requires_grad_(False)
    _, video = next(segments(clip_bytes, 16))
    fine, coarse = (tokenizer.encode(video[:, :, :16], rate).z for rate in (2, 8))
    torch.testing.assert_close(fine[:, :2], coarse, rtol=0, atol=1e-4)


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


@torch.no_grad()
def test_frames_made_a_few_at_once_are_those_made_together(stirred):
    tokenizer = stirred()
    video = torch.rand(1, 3, 21, 24, 32) * 2 - 1
    few = tokenizer.encode(video, 4, scale="-1..1")
    with torch.enable_grad():  # as in training
        together = tokenizer.encode(video, 4, scale="-1..1")
        again = tokenizer.decode(together)
    torch.testing.assert_close(few.z, together.z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokenizer.decode(few), again, atol=1e-4, rtol=1e-4)


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
