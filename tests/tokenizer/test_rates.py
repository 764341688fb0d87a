from __future__ import annotations

import numpy as np
import pytest
import torch

from rushes.tokenizer.allocate import BudgetError
from rushes.tokenizer.config import Budget
from rushes.tokenizer.rates import RateDistortion, choose, costs, latent_times, measure


def test_segments_of_any_length_cost_a_latent_for_each_begun_run_of_frames():
    assert costs([16, 1, 5, 16], (2, 8, 16)).tolist() == [[8, 2, 1], [1, 1, 1], [3, 1, 1], [8, 2, 1]]
    assert costs([], (4, 8)).shape == (0, 2)


def test_latents_go_to_the_segment_that_moves():
    table = RateDistortion(costs=costs([16] * 3, (4, 8)), distortion=np.array([[1.0, 1.1], [2.0, 9.0], [1.0, 1.2]]))
    assert choose((4, 8), table, Budget(latents=8), 0.0) == (8, 4, 8)
    assert choose((4, 8), table, Budget(per_second=5.0), 1.6) == (8, 4, 8)
    with pytest.raises(BudgetError, match="minimum of 6"):
        choose((4, 8), table, Budget(latents=5), 0.0)


def test_a_clip_of_which_more_latents_are_worse_gets_fewer():
    table = RateDistortion(costs=costs([16] * 2, (4, 8)), distortion=np.array([[1.1, 1.0], [2.0, 1.0]]))
    assert choose((4, 8), table, Budget(), 0.0) == (8, 8)


def test_distortion_of_segments_sums_to_that_of_the_clip(stirred):
    tokenizer = stirred()
    video = torch.rand(1, 3, 37, 10, 12) * 2 - 1
    table = measure(tokenizer, video.split(16, dim=2))
    assert table.distortion.shape == (3, 4) and table.costs.tolist() == [[8, 4, 2, 1], [8, 4, 2, 1], [3, 2, 1, 1]]
    for i, rate in enumerate(tokenizer.config.rates):
        again = tokenizer.decode(tokenizer.encode(video, rate)).clamp(-1, 1)
        assert table.distortion[:, i].sum() == pytest.approx(float((again - video).square().mean()) * 37, rel=1e-5)


def test_a_clip_without_frames_measures_nothing(stirred):
    table = measure(stirred(), [])
    assert table.distortion.shape == table.costs.shape == (0, 4)


def test_the_time_of_a_latent_is_the_mean_time_of_its_frames():
    times = [0.0, 0.1, 0.3, 0.4, 1.0, 1.1]  # variable frame rate
    assert latent_times(times, [2, 4], [4, 2]) == pytest.approx([0.05, 0.35, 1.05])
