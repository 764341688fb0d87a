"""The scorer on a tokenizer as it starts: a linear codec, whose losses are real and cheap to measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rushes.pipelines.store import shards
from rushes.tokenizer.allocate import allocate, total, uniform
from rushes.tokenizer.config import ScorerConfig, TokenizerConfig
from rushes.tokenizer.data import segments, to_pictures, to_video, video_frames
from rushes.tokenizer.model import Tokenizer, fingerprint, save
from rushes.tokenizer.scorer import (
    Example,
    example,
    features,
    fit,
    fit_scorer,
    load_scorer,
    predict,
    regret,
    save_scorer,
    scorer_fingerprint,
    scorer_for,
)

RATES = (2, 4, 8, 16)
QUICK = ScorerConfig(steps=60, side_px=28)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(rates=RATES)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def examples(tokenizer, clip_shards) -> list[Example]:
    clips = shards.pipeline(clip_shards, members=("mp4",))
    return [example(tokenizer, (video for _, video in segments(clip["mp4"], 16, 28))) for clip in clips]


@pytest.fixture(scope="module")
def shots(tokenizer, bikes: Path) -> list[Example]:
    """One second of each of many moments of a film with cuts, in segments that are cut short here and there."""
    pictures = np.stack([picture for _, picture in video_frames(str(bikes), 28)])
    starts = range(0, len(pictures) - 25, 12)
    return [example(tokenizer, to_video(pictures[start : start + 25]).split([16, 9], dim=2)) for start in starts]


def test_allocating_by_what_is_predicted_costs_little_on_clips_never_seen_and_less_than_one_rate_for_all(
    tokenizer, shots
):
    held, rest = shots[::4], [one for i, one in enumerate(shots) if i % 4]
    scorer = fit_scorer(tokenizer, rest, QUICK)
    for share in (0.5, 0.25):
        alike, best = 0.0, 0.0
        for table in (one.table for one in held):
            budget = int(share * table.costs[:, 0].sum())
            alike += total(table.distortion, uniform(table.costs, budget))
            best += total(table.distortion, allocate(table.distortion, table.costs, budget))
        cost = regret(scorer, held, share)
        assert -1e-9 <= cost < 0.5
        assert cost < 10 * np.log10(alike / best)


def test_the_predicted_distortion_is_near_the_measured_one(tokenizer, examples, clip_shards):
    scorer = fit_scorer(tokenizer, examples, QUICK)
    clip = next(iter(shards.pipeline(clip_shards, members=("mp4",))))
    found = np.array([predict(scorer, to_pictures(video)) for _, video in segments(clip["mp4"], 16, 28)])
    assert found.shape == examples[0].table.distortion.shape  # the second segment has 8 frames
    assert np.abs(np.log(found / examples[0].table.distortion)).mean() < 0.3


def test_the_same_seed_gives_the_same_scorer_and_another_seed_another(tokenizer, examples):
    one, same, other = (
        scorer_fingerprint(fit_scorer(tokenizer, examples, replace(QUICK, steps=3, seed=seed))) for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_scorer_is_small(tokenizer, examples):
    scorer = fit_scorer(tokenizer, examples, replace(QUICK, steps=1))
    assert sum(weight.numel() for weight in scorer.parameters()) <= 100_000


@pytest.mark.parametrize("frames", [1, 2, 5, 15, 16])
def test_change_in_time_is_what_is_lost_if_a_latent_keeps_the_mean_of_its_frames(frames):
    levels = torch.randint(256, (frames, 32, 32), dtype=torch.uint8)
    luma = levels / 127.5 - 1
    maps = features(levels[..., None].repeat(1, 1, 1, 3).numpy(), RATES)
    assert maps.shape == (len(RATES) + 4, 16, 16) and torch.isfinite(maps).all()
    for found, rate in zip(maps, RATES, strict=False):
        filled = torch.cat([luma, luma[-1:].expand(-frames % rate, -1, -1)])
        groups = filled.unflatten(0, (-1, rate))
        assert float(found.mean()) == pytest.approx(float((groups - groups.mean(1, keepdim=True)).square().mean()))


def test_a_still_segment_changes_nowhere_in_time():
    maps = features(torch.randint(256, (1, 90, 160, 3), dtype=torch.uint8).repeat(16, 1, 1, 1).numpy(), RATES)
    assert float(maps[: len(RATES) + 1].max()) == pytest.approx(0, abs=1e-9) and float(maps[len(RATES) + 1].min()) > 0


def test_a_saved_scorer_comes_back_and_is_refused_for_another_tokenizer(tokenizer, examples, tmp_path: Path):
    scorer = fit_scorer(tokenizer, examples, replace(QUICK, steps=1))
    save_scorer(scorer, str(tmp_path))
    again = load_scorer(str(tmp_path), fingerprint(tokenizer))
    pictures = torch.randint(256, (7, 20, 20, 3), dtype=torch.uint8).numpy()
    assert (predict(again, pictures) == predict(scorer, pictures)).all()
    with pytest.raises(ValueError, match="predicts for the tokenizer"):
        load_scorer(str(tmp_path), "000000000000")
    about = json.loads((tmp_path / "scorer.json").read_text())
    (tmp_path / "scorer.json").write_text(json.dumps({**about, "features": 1}))
    with pytest.raises(ValueError, match="looks at other features"):
        load_scorer(str(tmp_path), fingerprint(tokenizer))
    (tmp_path / "scorer.json").write_text(json.dumps(about))
    (tmp_path / "scorer.safetensors").write_bytes(b"text")
    with pytest.raises(ValueError, match="damaged"):
        load_scorer(str(tmp_path), fingerprint(tokenizer))


def test_weights_that_the_record_does_not_describe_are_refused(tokenizer, examples, tmp_path: Path):
    for seed in (0, 1):
        save_scorer(fit_scorer(tokenizer, examples, replace(QUICK, steps=1, seed=seed)), str(tmp_path / f"{seed}"))
    (tmp_path / "0" / "scorer.safetensors").replace(tmp_path / "1" / "scorer.safetensors")
    with pytest.raises(ValueError, match="not the one"):
        load_scorer(str(tmp_path / "1"), fingerprint(tokenizer))


def test_auto_predicts_where_there_is_a_scorer_and_predicted_needs_one(tokenizer, examples, tmp_path: Path):
    model = str(tmp_path)
    assert scorer_for(model, tokenizer, "auto") is None
    with pytest.raises(ValueError, match="rushes tokenizer scorer"):
        scorer_for(model, tokenizer, "predicted")
    save_scorer(fit_scorer(tokenizer, examples, replace(QUICK, steps=1)), model)
    assert scorer_for(model, tokenizer, "measured") is None
    assert all(scorer_for(model, tokenizer, how) is not None for how in ("auto", "predicted"))


def test_a_broken_measurement_and_no_measurement_train_no_scorer(tokenizer, examples):
    broken = replace(examples[0].table, distortion=np.full_like(examples[0].table.distortion, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        fit_scorer(tokenizer, [replace(examples[0], table=broken)], QUICK)
    with pytest.raises(ValueError, match="at least one"):
        fit_scorer(tokenizer, [], QUICK)
    with pytest.raises(ValueError, match="without frames"):
        example(tokenizer, [])


def test_a_scorer_is_trained_from_shards_and_written_beside_its_model(
    tokenizer, clip_shards, clip_bytes, write_clips: Callable[[dict[str, bytes]], str], tmp_path: Path
):
    model = str(tmp_path / "model")
    save(tokenizer, model)
    told = []
    found = fit(clip_shards, model, replace(QUICK, steps=20), lambda *words: told.append(words[:3]))
    assert told == [(n, 5, "clips measured") for n in range(6)] + [(n, 20, "steps") for n in range(1, 21)]
    assert found["clips"] == 5 and 0 <= found["regret_db_quarter"] < 3
    about = json.loads((tmp_path / "model" / "scorer.json").read_text())
    assert about["tokenizer"] == fingerprint(tokenizer) and about["rates"] == list(RATES)
    assert scorer_fingerprint(load_scorer(model, fingerprint(tokenizer))) == about["fingerprint"]
    with pytest.raises(ValueError, match="five at least"):
        fit(write_clips({"one": clip_bytes}), model, replace(QUICK, steps=1))
