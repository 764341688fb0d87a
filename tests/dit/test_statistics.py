from __future__ import annotations

import json

import pytest
import torch

from rushes.dit.config import DiTConfig
from rushes.dit.data import LatentError, parse
from rushes.dit.index import read_index
from rushes.dit.statistics import Moments, Statistics, statistics
from rushes.pipelines.store import shards


def test_statistics_are_those_of_the_latents(latents):
    found = statistics(read_index(latents), DiTConfig())
    cells = torch.cat([parse(s).latents.float() for s in shards.pipeline(latents, members=("npy", "json", "txt"))])
    torch.testing.assert_close(found.mean, cells.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(found.std, cells.std(dim=(0, 2, 3), unbiased=False), atol=1e-3, rtol=1e-3)
    assert found.captioned
    again = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert torch.equal(again.mean, found.mean) and again.typical == found.typical
    assert found.typical == {"rate": 4.0, "fps": 24.0, "height": 32.0, "width": 32.0}
    assert found.fact_mean[1] == pytest.approx(0.3) and found.fact_std[2] == 1


def test_moments_gathered_clip_by_clip_are_those_of_all_cells():
    torch.manual_seed(0)
    clips = [torch.randn(n, 3, 4, 5) * n + 100 for n in (1, 2, 5)]
    gathered = Moments()
    for one in clips:
        gathered.add(one)
    cells = torch.cat(clips).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(gathered.result(), (cells.mean(dim=0), cells.std(dim=0, unbiased=False)))
    with pytest.raises(LatentError, match="4 channels"):
        gathered.add(torch.zeros(1, 4, 2, 2))


def test_the_usual_size_is_one_that_clips_have(make_latents, latent_sample):
    sizes = [(32, 56), (32, 56), (32, 56), (56, 32), (56, 32), (40, 32), (40, 32)]  # most are 32 high and 32 wide
    root = make_latents([latent_sample(i, height=h, width=w) for i, (h, w) in enumerate(sizes)])
    found = statistics(read_index(root), DiTConfig()).typical
    assert (found["height"], found["width"]) == (32.0, 56.0)
