from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipelines import shards
from tokenizer.config import TokenizerConfig, TrainConfig
from tokenizer.data import segments
from tokenizer.losses import FeatureDistance
from tokenizer.model import Tokenizer, load
from tokenizer.train import ResumeError, train

QUICK = TrainConfig(steps=6, batch=1, frames=17, side=32, feature=0, save_every=2, log_every=1, shuffle=4, warmup=2)


class Killed(BaseException):
    """What a kill is to the training."""


def metrics(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def kill_at(step: int):
    def progress(line: dict) -> None:
        if line["step"] == step:
            raise Killed

    return progress


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_training_ends_with_the_same_weights_and_losses_as_an_uninterrupted_one(
    clip_shards, tmp_path, workers
):
    settings = replace(QUICK, workers=workers)
    whole = train(clip_shards, str(tmp_path / "whole"), settings=settings)
    for step in (1, 3, 5):
        with pytest.raises(Killed):
            train(clip_shards, str(tmp_path / "killed"), settings=settings, progress=kill_at(step))
    again = train(clip_shards, str(tmp_path / "killed"), settings=settings)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert again.fingerprint == whole.fingerprint and again.steps == 6


def test_a_short_training_beats_the_linear_start_at_the_loss_it_is_trained_for(clip_shards, tmp_path):
    settings = replace(QUICK, steps=60, side=48, feature=0.1, lr=1e-3, warmup=10, ema=0.9, save_every=60, passes=1)
    done = train(clip_shards, str(tmp_path), settings=settings)
    clips = shards.pipeline(clip_shards, members=("mp4",))
    videos = [next(segments(sample["mp4"], 16))[1] for sample in clips]
    feature = FeatureDistance()

    def loss(tokenizer: Tokenizer, rate: int) -> float:
        pairs = [(tokenizer.decode(tokenizer.encode(video, rate)), video) for video in videos]
        frames = [[x[0].transpose(0, 1)[::5].contiguous() for x in pair] for pair in pairs]
        return float(sum((a - b).abs().mean() for a, b in pairs) + 0.1 * sum(feature(a, b) for a, b in frames))

    trained, fresh = load(done.model, expect=done.fingerprint), Tokenizer(TokenizerConfig()).requires_grad_(False)
    for rate in (4, 8):
        before, after = loss(fresh, rate), loss(trained, rate)
        assert after < 0.97 * before


def test_a_training_leaves_a_curve_and_strips(clip_shards, tmp_path):
    done = train(clip_shards, str(tmp_path), settings=replace(QUICK, steps=2, batch=2, side=48, feature=0.1, passes=3))
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["feature"] > 0 and line["psnr_rate_4"] > 10 and line["psnr_rate_8"] > 10 for line in lines)
    assert Image.open(tmp_path / "strips" / "final.png").size == (6 * 48, 3 * 48)
    assert set(done.psnr) == {"4", "8"}


def test_a_finished_training_is_not_repeated_and_another_one_is_refused_its_folder(clip_shards, tmp_path):
    settings = replace(QUICK, steps=2)
    done = train(clip_shards, str(tmp_path), settings=settings)
    weights = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert train(clip_shards, str(tmp_path), settings=settings).fingerprint == done.fingerprint
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(ResumeError, match=r"other settings \(model.channels 16, not 8\)"):
        train(clip_shards, str(tmp_path), TokenizerConfig(channels=8), settings)


def test_training_goes_on_from_a_saved_model(clip_shards, tmp_path):
    first = train(clip_shards, str(tmp_path / "first"), settings=QUICK)
    still = replace(QUICK, steps=1, lr=0.0)
    second = train(clip_shards, str(tmp_path / "second"), settings=still, start=first.model)
    a, b = load(first.model).state_dict(), load(second.model).state_dict()
    assert all((a[name] == b[name]).all() for name in a if not name.startswith("latent_"))


def test_training_into_an_object_store_is_refused_with_the_remedy(clip_shards):
    with pytest.raises(ValueError, match="local folder"):
        train(clip_shards, "s3://bucket/run")
