from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from rushes.tokenizer import plan as planning
from rushes.tokenizer.allocate import BudgetError, lagrangian, lam_for
from rushes.tokenizer.bucket import LeakyBucket, Level
from rushes.tokenizer.config import Budget, TokenizerConfig
from rushes.tokenizer.data import segments
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.plan import Segment, duration_s, looked_at, plan, streamed

RATES = (2, 4, 8, 16)


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(rates=RATES)).eval().requires_grad_(False)


class Reader:
    """Opens a clip and counts how often."""

    def __init__(self, clip: bytes):
        self.clip, self.opened = clip, 0

    def __call__(self) -> Iterator[Segment]:
        self.opened += 1
        return segments(self.clip, 16, 28)


@pytest.mark.parametrize("budget", [Budget(latents=9), Budget(share=0.5), Budget(per_second=6.0)])
@pytest.mark.parametrize("predicted", [False, True])
def test_a_plan_gives_every_frame_and_one_rate_a_segment_within_the_budget(tokenizer, clip_bytes, budget, predicted):
    read = Reader(clip_bytes)
    rates, _, chunks = plan(tokenizer, read, budget, predict=predicted)
    chunks = list(chunks)
    assert read.opened == (1 if predicted else 2)
    spent = sum(-(-len(times) // rate) for (times, _), rate in zip(chunks, rates, strict=True))
    assert 3 <= spent <= {9: 9, 0.5: 9, 6.0: 8}[budget.latents or budget.share or budget.per_second]
    for (times, video), (expected_times, expected) in zip(chunks, segments(clip_bytes, 16, 28), strict=True):
        assert times == expected_times and torch.equal(video, expected)


def test_a_plan_by_prediction_codes_nothing_and_one_by_measurement_does(tokenizer, clip_bytes, monkeypatch):
    def refused(*_):
        raise RuntimeError("measured")

    monkeypatch.setattr(planning, "measure", refused)
    plan(tokenizer, Reader(clip_bytes), Budget(share=0.5), predict=True)
    with pytest.raises(RuntimeError, match="measured"):
        plan(tokenizer, Reader(clip_bytes), Budget(share=0.5))


def test_without_a_limit_every_segment_takes_the_lowest_rate(tokenizer, clip_bytes):
    rates, _, chunks = plan(tokenizer, Reader(clip_bytes), Budget())
    assert rates == (2, 2, 2) and len(list(chunks)) == 3
    assert plan(tokenizer, Reader(clip_bytes), Budget(rate=8))[0] == (8, 8, 8)
    with pytest.raises(ValueError, match="rate=3 is unknown"):
        plan(tokenizer, Reader(clip_bytes), Budget(rate=3))


@pytest.mark.parametrize("asked", [False, True])
def test_at_a_price_each_segment_has_the_rate_that_it_has_by_itself(tokenizer, clip_bytes, asked):
    table, times = looked_at(tokenizer, segments(clip_bytes, 16, 28), predict=asked)
    lam = lam_for(table.distortion, table.costs, 8)
    rates, lengths, _ = plan(tokenizer, Reader(clip_bytes), Budget(lam=lam), predict=asked)
    assert rates == tuple(RATES[option] for option in lagrangian(table.distortion, table.costs, lam))
    assert sum(-(-n // rate) for n, rate in zip(lengths, rates, strict=True)) <= 8
    assert lengths == tuple(map(len, times)) == (16, 16, 5)
    dear, _, _ = plan(tokenizer, Reader(clip_bytes), Budget(lam=1e9), predict=asked)
    assert dear[:2] == (16, 16), "and of the last 5 frames, which take a latent at 8, too, the better one"


@pytest.mark.parametrize("predicted", [False, True])
def test_a_budget_below_the_minimum_is_refused_and_a_clip_without_frames_has_no_rates(tokenizer, clip_bytes, predicted):
    with pytest.raises(BudgetError, match="minimum of 3"):
        plan(tokenizer, Reader(clip_bytes), Budget(latents=2), predict=predicted)
    rates, _, chunks = plan(tokenizer, lambda: iter(()), Budget(share=0.5), predict=predicted)
    assert rates == () and list(chunks) == []


def test_a_stream_keeps_its_limit_and_goes_on_from_any_level(tokenizer, clip_bytes):
    bucket = LeakyBucket(capacity=6, per_second=2.5, lam=1e-3, segment_s=16 / 25)
    whole = list(streamed(tokenizer, segments(clip_bytes, 16, 28), bucket, Level(2.0)))
    latents = 2.0
    for ((times, _), rate, level), seconds in zip(whole, (15 / 25, 16 / 25, 5 / 25), strict=True):
        latents = min(6.0, latents + 2.5 * seconds) - -(-len(times) // rate)
        assert level.latents == pytest.approx(latents) and latents >= 0
    (_, again, last), *_ = streamed(tokenizer, list(segments(clip_bytes, 16, 28))[1:], bucket, whole[0][2])
    unknown = 2.5 / 25  # the step to its first frame is not refilled
    assert again == whole[1][1] and last.latents == pytest.approx(whole[1][2].latents - unknown)


def test_frames_last_as_long_as_their_mean_step():
    assert duration_s([0.0, 0.04, 0.08]) == pytest.approx(0.12)
    assert duration_s([3.0]) == duration_s([]) == 0
