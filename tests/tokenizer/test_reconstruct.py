from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch

from rushes.tokenizer.config import Budget, TokenizerConfig
from rushes.tokenizer.model import Tokenizer, save
from rushes.tokenizer.reconstruct import BAR_PX, reconstruct


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save(Tokenizer(TokenizerConfig()), str(tmp_path / "model"))
    return str(tmp_path / "model")


def test_a_reconstruction_plays_side_by_side_with_every_frame(model, clip_bytes, tmp_path):
    (tmp_path / "in.mp4").write_bytes(clip_bytes)
    out = str(tmp_path / "out.mp4")
    told = []
    source, budget = str(tmp_path / "in.mp4"), Budget(latents=8)
    done = reconstruct(model, source, out, budget=budget, tell=lambda *words: told.append(words[:3]))
    assert told == [
        *((number, 0, "segments looked at") for number in (1, 2, 3)),
        *((number, 3, "segments coded") for number in (1, 2, 3)),
    ]
    assert 6 <= done.latents <= 8 and len(done.rates) == 3 and done.frames == 37 and done.psnr > 18
    with av.open(out) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 37 and (frames[0].width, frames[0].height) == (256, 56 + BAR_PX)
    assert frames[-1].time == pytest.approx(36 / 25, abs=1e-3)


def test_a_clip_of_shards_is_found_by_its_key(model, clip_shards, tmp_path):
    from rushes.pipelines.store import shards

    keys = [sample["__key__"] for sample in shards.pipeline(clip_shards, members=("mp4",))]
    done = reconstruct(model, clip_shards, str(tmp_path / "out.mp4"), key=keys[2], side_px=32)
    assert done.frames == 24 and done.rates == [2, 2]
    with pytest.raises(ValueError, match="no clip nothing"):
        reconstruct(model, clip_shards, str(tmp_path / "out.mp4"), key="nothing")


def test_a_budget_below_the_minimum_names_it_and_leaves_no_file(model, clip_bytes, tmp_path):
    (tmp_path / "in.mp4").write_bytes(clip_bytes)
    with pytest.raises(ValueError, match="minimum of 3"):
        reconstruct(model, str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), budget=Budget(latents=2))
    assert not (tmp_path / "out.mp4").exists()
