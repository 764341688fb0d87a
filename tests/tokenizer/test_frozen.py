"""The adaptive frame rate on frozen VAEs; `Pooled` stands in where a claim needs a VAE whose losses are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from rushes.tokenizer.allocate import BudgetError, uniform
from rushes.tokenizer.config import Budget
from rushes.tokenizer.frozen import FrozenTokenizer, _spread
from rushes.tokenizer.model import Latents
from rushes.tokenizer.rates import choose, costs, measure, rates_at

law = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RATES = (4, 8, 16)


class Pooled(nn.Module):
    """A VAE without weights: the first frame as it is, then the mean of every four frames, in cells of 2×2."""

    factor_t, factor_s, config = 4, 2, SimpleNamespace(name="pooled", channels=3)

    def __init__(self, piece: int = 0):
        super().__init__()
        self.piece = piece
        self.register_buffer("latent_mean", torch.zeros(3, 1, 1, 1))
        self.register_buffer("latent_std", torch.ones(3, 1, 1, 1))

    def stream_encode(self, chunks):
        for number, chunk in enumerate(chunks):
            assert chunk.shape[2] % 4 == 0 if number else chunk.shape[2] == 1
            yield F.avg_pool3d(chunk, (4 if number else 1, 2, 2))

    def stream_decode(self, chunks):
        for number, z in enumerate(chunks):
            large = z.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            yield large.repeat_interleave(4, dim=2) if number else large


POOLED, IN_PIECES = FrozenTokenizer(Pooled()), FrozenTokenizer(Pooled(piece=32))


@pytest.fixture(params=["wan", "wan_22", "hunyuan"])
def frozen(request) -> FrozenTokenizer:
    return FrozenTokenizer(request.getfixturevalue(f"small_{request.param}"))


@st.composite
def plans(draw, longest: int = 70) -> tuple[FrozenTokenizer, int, list[int]]:
    """A tokenizer, frames, and a rate for each segment."""
    tokenizer, frames = draw(st.sampled_from([POOLED, IN_PIECES])), draw(st.integers(1, longest))
    number = len(tokenizer.lengths(frames))
    return tokenizer, frames, draw(st.lists(st.sampled_from(RATES), min_size=number, max_size=number))


def noise(frames: int, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def still_then_moving(*moves: bool) -> torch.Tensor:
    """A clip of a frame, then a segment for each argument: a still picture, or a different one at every frame."""
    parts = [noise(16) if move else noise(1).expand(-1, -1, 16, -1, -1) for move in moves]
    return torch.cat([noise(1), *parts], dim=2)


def cut(tokenizer: FrozenTokenizer, video: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return video.split(tokenizer.lengths(video.shape[2]), dim=2)


@law
@given(frames=st.integers(1, 200))
def test_a_clip_is_a_frame_and_segments_of_16_and_so_is_each_piece(frames):
    whole, pieces = POOLED.lengths(frames), IN_PIECES.lengths(frames)
    assert sum(whole) == sum(pieces) == frames
    assert whole[0] == 1 and set(whole[1:-1]) <= {16}
    assert list(pieces[:-1]) == ([1, 16, 16] * len(pieces))[: len(pieces) - 1]


@law
@given(plan=plans(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_frames_and_size_out_are_those_in_and_the_cost_is_as_told(plan, height, width):
    tokenizer, frames, rates = plan
    video = noise(frames, height, width)
    latents = tokenizer.encode(video, rates)
    table = costs(tokenizer.lengths(frames), RATES)
    assert latents.z.shape[1] == sum(row[RATES.index(s)] for row, s in zip(table, rates, strict=True))
    assert latents.z.shape[-2:] == tokenizer.config.cells(height, width)
    assert tokenizer.decode(latents).shape == video.shape


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17, 18, 30, 37, 70])
def test_real_vaes_give_back_every_frame(frozen, frames):
    video = noise(frames, 9, 16)
    rates = [RATES[(i + frames) % 3] for i in range(len(frozen.lengths(frames)))]
    again = frozen.decode(frozen.encode(video, rates))
    assert again.shape == video.shape and torch.isfinite(again).all()


def test_at_the_lowest_rate_a_clip_that_fits_is_coded_as_the_vae_codes_it(frozen):
    video = noise(21, 16, 16)
    latents = frozen.encode(video)
    assert torch.equal(latents.z.transpose(1, 2), frozen.vae.encode(video))
    assert torch.equal(frozen.decode(latents), frozen.vae.decode(latents.z.transpose(1, 2)))


def test_what_cannot_stream_is_coded_in_pieces_each_of_them_whole(small_hunyuan):
    tokenizer, video = FrozenTokenizer(small_hunyuan), noise(70, 8, 8)
    pieces = [video[:, :, :65], video[:, :, 65:]]
    assert tokenizer.lengths(70) == (1, 16, 16, 16, 16, 1, 4)
    expected = torch.cat([small_hunyuan.encode(piece) for piece in pieces], dim=2)
    assert torch.equal(tokenizer.encode(video).z.transpose(1, 2), expected)


def test_streamed_coding_equals_whole_coding_bit_for_bit(frozen):
    video = noise(70, 9, 16)
    rates = [RATES[i % 3] for i in range(len(frozen.lengths(70)))]
    latents = frozen.encode(video, rates)
    pieces = list(frozen.stream_encode(zip(cut(frozen, video), rates, strict=True)))
    assert torch.equal(torch.cat(pieces, dim=1), latents.z)
    frames = list(frozen.stream_decode(zip(pieces, rates, strict=True)))
    shown = [one[:, :, :n, :9, :16] for one, n in zip(frames, latents.lengths, strict=True)]
    assert torch.equal(torch.cat(shown, dim=2), frozen.decode(latents))
    again = torch.cat(list(frozen.stream_again(zip(cut(frozen, video), rates, strict=True))), dim=2)
    assert torch.equal(again, frozen.decode(latents).clamp(-1, 1))


def test_no_more_is_held_than_a_segment_or_a_piece(frozen):
    asked: list[int] = []

    def endless():
        for number, length in enumerate(frozen.ahead()):
            asked.append(number)
            yield noise(length, 8, 8), 16

    coded = frozen.stream_again(endless())
    for number in range(7):
        next(coded)
        assert len(asked) <= (1 + number // 5) * 5 if frozen.vae.piece else len(asked) == number + 1


@pytest.mark.parametrize("rates", [(4, 16, 16, 4), (4, 4, 8, 16)])
def test_a_later_segment_moves_no_earlier_frame(small_wan_22, rates):
    tokenizer, video = FrozenTokenizer(small_wan_22), noise(49, 16, 16)
    other = video.clone()
    other[:, :, 33:] = -other[:, :, 33:]
    again, moved = (tokenizer.decode(tokenizer.encode(clip, rates)) for clip in (video, other))
    assert torch.equal(again[:, :, :33], moved[:, :, :33]) and not torch.equal(again[:, :, 33:], moved[:, :, 33:])


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_interpolation_keeps_what_is_known_and_is_exact_on_a_line(stride):
    line = torch.arange(13, dtype=torch.float64)[None, None, :, None, None].expand(1, 2, 13, 3, 3)
    found = _spread(line[:, :, :1], line[:, :, stride::stride], stride)
    assert torch.equal(found[:, :, stride - 1 :: stride], line[:, :, stride::stride])
    torch.testing.assert_close(found, line[:, :, 1 : 1 + found.shape[2]])


@law
@given(frames=st.integers(1, 60), spare=st.integers(0, 20), pan=st.floats(0, 1))
def test_the_budget_is_never_exceeded(frames, spare, pan):
    video = (1 - pan) * noise(1) + pan * noise(frames)
    table = measure(POOLED, cut(POOLED, video))
    least = int(table.costs.min(axis=1).sum())
    rates = choose(RATES, table, Budget(latents=least + spare), 0.0)
    assert POOLED.encode(video, rates).z.shape[1] <= least + spare
    if least > 1:
        with pytest.raises(BudgetError, match=f"minimum of {least}"):
            choose(RATES, table, Budget(latents=least - 1), 0.0)


def test_a_still_clip_gets_the_lowest_rate_and_a_dear_latent_moves_the_others_there():
    video = still_then_moving(False, False, False)
    assert rates_at(POOLED, video, 1e-6)[1:] == (16, 16, 16)
    moving = still_then_moving(False, True, False)
    assert rates_at(POOLED, moving, 0.05)[1:] == (16, 4, 16)
    assert rates_at(POOLED, moving, 1e6)[1:] == (16, 16, 16)


def test_at_equal_latents_the_choice_loses_less_than_one_rate_for_all():
    video = still_then_moving(False, True, False)
    table = measure(POOLED, cut(POOLED, video))
    same = [RATES[option] for option in uniform(table.costs, 7)]
    best = choose(RATES, table, Budget(latents=7), 0.0)
    assert best[1:] == (16, 4, 16) and same[1:] == [8, 8, 8]
    errors = []
    for rates in (best, same):
        latents = POOLED.encode(video, rates)
        assert latents.z.shape[1] == 7
        errors.append(float((POOLED.decode(latents) - video).square().mean()))
    assert errors[0] < errors[1]


@law
@given(frames=st.integers(1, 60))
def test_distortion_of_segments_sums_to_that_of_the_clip(frames):
    video = noise(frames)
    table = measure(POOLED, cut(POOLED, video))
    for option, rate in enumerate(RATES):
        again = POOLED.decode(POOLED.encode(video, rate))
        loss = float((again - video).square().mean()) * frames
        assert table.distortion[:, option].sum() == pytest.approx(loss, rel=1e-5)


def test_measuring_works_on_real_vaes(frozen):
    table = measure(frozen, cut(frozen, noise(20, 8, 8)))
    assert table.costs.tolist() == [[1, 1, 1], [4, 2, 1], [1, 1, 1]]
    assert table.distortion.shape == (3, 3) and (table.distortion > 0).all()


@pytest.mark.parametrize(
    ("rates", "said"), [([4], "need one rate each"), ([4, 6, 4], r"rates \[6\] are unknown to pooled")]
)
def test_rates_that_do_not_fit_are_refused(rates, said):
    with pytest.raises(ValueError, match=said):
        POOLED.encode(noise(20), rates)


def test_latents_and_segments_that_do_not_fit_are_refused():
    z = POOLED.encode(noise(20)).z
    for rates, lengths in (((4, 4), (16, 4)), ((4, 8, 4), (1, 16, 3))):
        with pytest.raises(ValueError, match=r"6 latents of 3 channels .* pooled makes . of 3 .* \(1, 16, 3\) frames"):
            POOLED.decode(Latents(z=z, rates=rates, lengths=lengths, height=4, width=6))
    with pytest.raises(ValueError, match="a segment of 16 frames where pooled codes one"):
        list(POOLED.stream_encode([(noise(16), 4)]))
    with pytest.raises(ValueError, match="a segment of 20 frames where pooled codes 16"):
        list(POOLED.stream_encode([(noise(1), 4), (noise(20), 4)]))


def test_the_fingerprint_tells_weights_and_settings_apart(small_wan, small_wan_22, small_hunyuan):
    prints = [FrozenTokenizer(vae).fingerprint() for vae in (small_wan, small_wan_22, small_hunyuan, small_wan)]
    assert len(set(prints)) == 3 and prints[0] == prints[-1] and all(len(one) == 12 for one in prints)
