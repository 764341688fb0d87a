"""The adaptive frame rate on frozen VAEs; `Pooled` stands in where a claim needs a VAE whose losses are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rushes.tokenizer.adaptive import STRIDES, choose, costs, decode, encode, interpolate, kept, measure, segments
from rushes.tokenizer.allocate import BudgetError, uniform
from rushes.tokenizer.config import Budget

law = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Pooled:
    """A VAE without weights: the first frame as it is, then the mean of every four frames, in cells of 2×2."""

    factor_t, factor_s = 4, 2

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        groups = [video[:, :, :1], *video[:, :, 1:].split(4, dim=2)]
        assert video.shape[2] % 4 == 1
        means = torch.cat([group.mean(dim=2, keepdim=True) for group in groups if group.shape[2]], dim=2)
        return F.avg_pool3d(means, (1, 2, 2))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        large = z.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return torch.cat([large[:, :, :1], large[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)


@st.composite
def plans(draw, longest: int = 70) -> tuple[int, list[int]]:
    """Frames and a stride for each segment."""
    frames = draw(st.integers(1, longest))
    number = len(segments(frames, 4))
    return frames, draw(st.lists(st.sampled_from(STRIDES), min_size=number, max_size=number))


def noise(frames: int, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def still_then_moving(*moves: bool) -> torch.Tensor:
    """A clip of a segment for each argument: a still picture, or a different one at every frame."""
    lengths = [17, *[16] * (len(moves) - 1)]
    parts = [noise(n) if move else noise(1).expand(-1, -1, n, -1, -1) for n, move in zip(lengths, moves, strict=True)]
    return torch.cat(parts, dim=2)


@law
@given(plan=plans())
def test_segments_are_whole_clips_and_kept_frames_end_each_of_them(plan):
    frames, strides = plan
    parts, at = segments(frames, 4), kept(*plan, 4)
    assert [frame for part in parts for frame in part] == list(range(frames))
    assert at == sorted(set(at)) and at[0] == 0 and {part[-1] for part in parts} <= set(at)
    assert all(len(part) == 16 for part in parts[1:-1])
    for part, stride in zip(parts, strides, strict=True):
        inside = [part.start - 1 if part.start else 0, *(frame for frame in at if frame in part and frame)]
        assert max(np.diff(inside), default=0) <= stride


@law
@given(plan=plans(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_frames_and_size_out_are_those_in_and_the_cost_is_as_told(plan, height, width):
    frames, strides = plan
    video = noise(frames, height, width)
    latents = encode(Pooled(), video, strides)
    table = costs(frames, 4)
    assert latents.z.shape[2] == sum(row[STRIDES.index(s)] for row, s in zip(table, strides, strict=True))
    assert decode(Pooled(), latents).shape == video.shape


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17, 18, 30, 37])
def test_real_vaes_give_back_every_frame(small_wan, small_hunyuan, frames):
    video = noise(frames, 9, 16)
    strides = [STRIDES[(i + frames) % 3] for i in range(len(segments(frames, 4)))]
    for vae in (small_wan, small_hunyuan):
        latents = encode(vae, video, strides)
        assert decode(vae, latents).shape == video.shape
        assert latents.z.shape[3:] == (2, 2)


def test_at_stride_1_a_clip_that_fits_is_coded_as_the_vae_codes_it(small_wan):
    video = noise(21, 16, 16)
    latents = encode(small_wan, video, [1, 1])
    assert torch.equal(latents.z, small_wan.encode(video))
    assert torch.equal(decode(small_wan, latents), small_wan.decode(latents.z))


@pytest.mark.parametrize("strides", [(4, 4, 1), (1, 2, 4)])
def test_a_later_segment_moves_no_earlier_frame(small_wan, strides):
    video = noise(49, 8, 8)
    other = video.clone()
    other[:, :, 33:] = -other[:, :, 33:]
    again, moved = (decode(small_wan, encode(small_wan, clip, strides)) for clip in (video, other))
    assert torch.equal(again[:, :, :33], moved[:, :, :33]) and not torch.equal(again[:, :, 33:], moved[:, :, 33:])


@law
@given(plan=plans(), slope=st.floats(-1, 1))
def test_interpolation_keeps_what_is_known_and_is_exact_on_a_line(plan, slope):
    frames, at = plan[0], kept(*plan, 4)
    line = torch.arange(frames, dtype=torch.float64)[:, None, None] * slope
    known = torch.randn(1, 2, len(at), 3, 3)
    assert torch.equal(interpolate(known, at)[:, :, at], known)
    torch.testing.assert_close(interpolate(line[None, None, at], at), line[None, None])


@law
@given(frames=st.integers(1, 60), spare=st.integers(0, 20), pan=st.floats(0, 1))
def test_the_budget_is_never_exceeded(frames, spare, pan):
    video = (1 - pan) * noise(1) + pan * noise(frames)
    measured = measure(Pooled(), video)
    least = int(measured.costs.min(axis=1).sum())
    strides = choose(measured, Budget(latents=least + spare))
    assert encode(Pooled(), video, strides).z.shape[2] <= least + spare
    if least > 1:
        with pytest.raises(BudgetError, match=f"minimum of {least}"):
            choose(measured, Budget(latents=least - 1))


def test_a_still_clip_gets_the_lowest_rate():
    measured = measure(Pooled(), still_then_moving(False, False, False))
    assert choose(measured, Budget()) == (4, 4, 4)


def test_latents_go_to_the_segment_that_moves():
    measured = measure(Pooled(), still_then_moving(False, True, False))
    assert choose(measured, Budget(latents=7)) == (4, 1, 4)
    assert choose(measured, Budget(latents=5)) == (4, 2, 4)


def test_at_equal_latents_the_choice_loses_less_than_one_stride_for_all():
    video = still_then_moving(False, True, False)
    measured = measure(Pooled(), video)
    same = [STRIDES[option] for option in uniform(measured.costs, 7)]
    errors = []
    for strides in (choose(measured, Budget(latents=7)), same):
        latents = encode(Pooled(), video, strides)
        assert latents.z.shape[2] == 7
        errors.append(float((decode(Pooled(), latents) - video).square().mean()))
    assert same == [2, 2, 2] and errors[0] < errors[1]


@law
@given(frames=st.integers(1, 60))
def test_distortion_of_segments_sums_to_that_of_the_clip(frames):
    video = noise(frames)
    measured = measure(Pooled(), video)
    for option, stride in enumerate(STRIDES):
        again = decode(Pooled(), encode(Pooled(), video, [stride] * len(measured.costs)))
        loss = float((again - video).square().mean()) * frames
        assert measured.distortion[:, option].sum() == pytest.approx(loss, rel=1e-5)


def test_measuring_works_on_real_vaes(small_wan, small_hunyuan):
    for vae in (small_wan, small_hunyuan):
        measured = measure(vae, noise(20, 8, 8))
        assert measured.costs.tolist() == [[5, 3, 2], [1, 1, 1]]
        assert measured.distortion.shape == (2, 3) and (measured.distortion > 0).all()


@pytest.mark.parametrize("strides", [[1], [1, 3], [1, 2, 4]])
def test_strides_that_do_not_fit_are_refused(strides):
    with pytest.raises(ValueError, match="2 segments need one each"):
        encode(Pooled(), noise(20), strides)


def test_latents_that_do_not_fit_are_refused():
    latents = encode(Pooled(), noise(20), [1, 1])
    with pytest.raises(ValueError, match=r"6 latents, but .* mean 4"):
        decode(Pooled(), type(latents)(**{**vars(latents), "strides": (2, 1)}))
