from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rushes.dit import evaluate
from rushes.dit.config import EvalConfig, TrainConfig
from rushes.dit.data import parse
from rushes.dit.evaluate import frechets, nearest
from rushes.dit.judge import Seen, camera_of, plan_of, vector_of
from rushes.dit.train import train
from rushes.pipelines.models.weights import lite0
from rushes.pipelines.store import shards
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.model import save as save_tokenizer
from tests.dit.conftest import make_sample


def seen(seed: int, count: int = 16) -> Seen:
    """A clip whose features drift, as those of real films do."""
    dice = np.random.default_rng(seed)
    looked = dice.normal(size=12) + np.cumsum(dice.normal(size=(count, 12)), axis=0) / 4
    order = dice.permutation(count)
    strip = np.zeros((2, 4, 4, 3), np.uint8)
    return Seen(vector=vector_of(looked), shuffled=vector_of(looked[order]), strip=strip, key=f"clip {seed}")


def test_clips_out_of_order_are_further_away_than_the_floor_and_copies_are_no_further():
    real = [seen(seed) for seed in range(80)]
    found = frechets(real, real)
    assert found["shuffled"] > 1.2 * found["floor"] > 0 and found["real_generated"] < 1e-6
    assert found["generated"] == pytest.approx(found["floor"])
    assert frechets(real[:3], real[:3]) is None


def test_a_copy_of_a_training_clip_is_found_and_is_nearer_than_what_was_held_out():
    known = [seen(seed) for seed in range(20)]
    found = nearest([seen(100), seen(101)], [known[7], known[3]], known)
    assert [one["key"] for one in found["each"]] == ["clip 7", "clip 3"]
    assert found["generated"] < 1e-6 < found["held_out"]


@pytest.mark.parametrize(
    ("move", "name", "speed"),
    [
        ((2.0, 0, 1), "pan", 0.25), ((-1.0, 0, 1), "pan", -0.125), ((0, 1.5, 1), "tilt", -0.1875),
        ((0, 0, 1.01), "zoom", -0.15),
    ],
)  # fmt: skip
def test_the_camera_of_a_made_clip_is_measured_with_its_sign(move, name, speed):
    """The camera looks `move` further each frame: right, down, or further away."""
    dice, (across, down, away) = np.random.default_rng(0), move
    world = cv2.GaussianBlur(dice.integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 2)
    world = cv2.normalize(world, None, 0, 255, cv2.NORM_MINMAX)

    def frame(number: int) -> np.ndarray:
        grow = away**number
        left, top = 64 + across * number, 96 + down * number
        to = np.array([[grow, 0, left + 64 * (1 - grow)], [0, grow, top + 32 * (1 - grow)]])
        return cv2.warpAffine(world, to, (128, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    found = camera_of(map(frame, range(16)), fps=16.0)
    assert getattr(found, name) == pytest.approx(speed, rel=0.15)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[str, str, str]:
    """A training of two steps, its tokenizer with random weights, and its latents."""
    root = tmp_path_factory.mktemp("evaluated")
    torch.manual_seed(0)
    print_ = save_tokenizer(Tokenizer(TokenizerConfig(rates=(4, 8))), str(root / "tokenizer"))
    samples = [
        make_sample(i, caption=["waves", "a cat"][i % 2], frames=20, fingerprint=print_, pan=0.1 * i) for i in range(7)
    ]
    info = shards.write_shard(str(root / "latents"), "b", "part", 0, samples)
    shards.write_manifest(str(root / "latents"), [info], kind="latents", fingerprint=print_)
    config = TrainConfig(steps=2, tokens=64, save_every=2, holdout=0.2, device="cpu")
    train(config, str(root / "latents"), str(root / "dit"))
    return str(root / "dit"), str(root / "tokenizer"), str(root / "latents")


TINY = EvalConfig(clips=4, trained=3, samples=1, frames=2, steps=1, device="cpu")


def test_a_training_is_evaluated_in_figures_text_and_pictures(trained, tmp_path):
    told = []
    found = evaluate.evaluate(*trained, str(tmp_path), TINY, lite0(), lambda *words: told.append(words[:2]))
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    sets, loss = found["sets"], found["loss"]
    assert (sets["real"], sets["generated"], sets["trained"]) == (4, 4, 3) and sets["of_trained"] < 7
    assert 0 < sets["of_them_held_out"] < 4 and loss["held_out"] and len(loss["at"]["network"]) == len(loss["times"])
    assert loss["mean"]["network"] == pytest.approx(loss["mean"]["unit Gaussian"], rel=0.1), "two steps teach nothing"
    assert loss["mean"]["unit Gaussian"] < loss["mean"]["zero"]
    text = "\n".join(evaluate.lines_of(found))
    first, told_as = loss["at"]["network"][0], {name: row[0] for name, row in loss["as"].items()}  # at t = 0.05
    assert told_as == pytest.approx(
        {"velocity": first, "noise": 0.9025 * first, "data": 0.0025 * first, "v": 0.905 * first}
    )
    assert loss["sigmas"][9] == pytest.approx(19) and "the network's, as others count it, sigma = 0.053" in text
    assert set(found["camera"]["directions"]) == {"+pan", "-pan"}, "no other fact differs among the clips"
    assert told[-1][0] == told[-1][1] == 4 + 4 + 3 + 1 + 2
    assert "4 real clips" in text and "few for 2560 features" in text
    assert cv2.imread(str(tmp_path / "nearest.png")).shape[0] == 4 * (2 * 65 + 5)
    assert (tmp_path / "loss.svg").read_text().startswith("<svg")


def test_a_clip_of_the_latents_is_decoded_with_its_own_lengths_and_size(trained):
    clip = parse(next(iter(shards.pipeline(trained[2], members=("npy", "json", "txt")))))
    whole, first = plan_of(clip), plan_of(clip.window(0, 1))
    assert whole.lengths == (16, 4) and first.lengths == (16,) and first.counts == (4,)
    assert (whole.height, whole.width, whole.fps, whole.cells) == (32, 32, 24.0, (4, 4))
    small = replace(clip, latents=clip.latents[..., :2, :3])
    assert (plan_of(small).height, plan_of(small).width) == (16, 24)


def test_latents_that_were_not_trained_on_are_refused(trained, make_latents, latent_sample, tmp_path):
    other = make_latents([latent_sample(0)])
    with pytest.raises(ValueError, match="was trained on other latents"):
        evaluate.evaluate(trained[0], trained[1], other, str(tmp_path / "out"), TINY, lite0())
    with pytest.raises(ValueError, match=r"no trained DiT|no training"):
        evaluate.evaluate(str(tmp_path), trained[1], trained[2], str(tmp_path / "out"), TINY, lite0())
    assert not Path(tmp_path / "out").exists()
