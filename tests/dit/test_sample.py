from __future__ import annotations

import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from rushes.dit.config import DiTConfig, SampleConfig, TrainConfig
from rushes.dit.model import DiT, save
from rushes.dit.sample import Plan, sample, write_mp4
from rushes.dit.train import train
from rushes.pipelines.stages.latents.latents import encode_shard
from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.model import save as save_tokenizer

TINY = SampleConfig(seconds=0.9, fps=25.0, height=36, width=50, rate=4, steps=2, prompt="waves", device="cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    """A DiT and its tokenizer with random weights."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    codec = save_tokenizer(Tokenizer(TokenizerConfig(rates=(4, 8))), str(folder / "tokenizer"))
    dit = DiT(DiTConfig())
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    typical = {"rate": 8.0, "fps": 24.0, "height": 32.0, "width": 48.0}
    save(dit, str(folder / "dit"), {"tokenizer": codec, "typical": typical, "captioned": True})
    return str(folder / "dit"), str(folder / "tokenizer")


def frames(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_generated_clip_plays_with_the_frames_size_and_rate_asked_for(models, tmp_path):
    sample(TINY, *models, str(tmp_path / "clip.mp4"))
    found = frames(tmp_path / "clip.mp4")
    assert len(found) == 22 and found[0].shape == (36, 50, 3)  # 0.9 s × 25, to even
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == 25


def test_the_seed_alone_decides_the_clip(models, tmp_path):
    def made(name: str, config: SampleConfig) -> bytes:
        sample(config, *models, str(tmp_path / name))
        return (tmp_path / name).read_bytes()

    assert made("a.mp4", TINY) == made("b.mp4", TINY)
    assert made("c.mp4", replace(TINY, seed=1)) != made("a.mp4", TINY)
    assert made("d.mp4", replace(TINY, prompt="a cat")) != made("a.mp4", TINY)


def test_what_is_not_asked_for_is_as_in_training(models, tmp_path):
    plan = sample(SampleConfig(seconds=0.5, steps=1), *models, str(tmp_path / "clip.mp4"))
    assert (sum(plan.lengths), plan.fps, plan.height, plan.width, plan.rates) == (12, 24.0, 32, 48, (8,))


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_clip_without_a_prompt_can_be_generated(models, tmp_path, sampler):
    told = []
    config = replace(TINY, prompt="", sampler=sampler, facts={"pan": 0.3})
    sample(config, *models, str(tmp_path / "clip.mp4"), lambda *words: told.append(words[:3]))
    assert len(frames(tmp_path / "clip.mp4")) == 22
    looks = 2 if sampler == "euler" else 3
    assert told[:looks] == [(look, looks, "looks of the network") for look in range(1, looks + 1)]
    assert told[looks:] == [(frame, 22, "frames") for frame in range(1, 23)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 37}, "even sides"),
        ({"rate": 5}, "it has \\[4, 8\\]"),
        ({"facts": {"mood": 1.0}}, "mood are unknown to this model"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(models, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        sample(replace(TINY, **change), *models, str(tmp_path / "clip.mp4"))
    assert not (tmp_path / "clip.mp4").exists()


def test_another_tokenizer_than_that_of_training_is_refused(models, tmp_path):
    folder = tmp_path / "dit"
    shutil.copytree(models[0], folder)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "tokenizer": "000000000000"}))
    with pytest.raises(ValueError, match=r"latents of the tokenizer rushes \(000000000000\) alone, and \S+ is rushes"):
        sample(TINY, str(folder), models[1], str(tmp_path / "clip.mp4"))


def test_footage_goes_through_latent_shards_and_training_to_a_clip(tmp_path):
    codec = str(tmp_path / "tokenizer")
    print_ = save_tokenizer(Tokenizer(TokenizerConfig(rates=(4, 8))), codec)
    samples = []
    for number in range(2):
        video = tmp_path / f"{number}.mp4"
        planned = Plan(lengths=(16, 4), height=32, width=48, fps=10.0, rates=(), counts=(), cells=(0, 0))
        write_mp4((np.full((32, 48, 3), 40 + 100 * number + t, np.uint8) for t in range(20)), planned, str(video))
        members = [("mp4", video.read_bytes()), ("json", b'{"pan": 0.5}'), ("txt", b"a grey wall")]
        samples.append(shards.Sample(clip_key(f"{number:016x}", 0.0), members))
    clips = shards.write_shard(str(tmp_path / "clips"), "b", "part", 0, samples)
    info, failed = encode_shard(str(tmp_path / "clips"), clips.path, str(tmp_path / "latents"), codec)
    assert not failed
    shards.write_manifest(str(tmp_path / "latents"), [info], kind="latents", fingerprint=print_)
    config = TrainConfig(steps=3, tokens=96, warmup=0, device="cpu")
    model = train(config, str(tmp_path / "latents"), str(tmp_path / "run"))
    made = sample(SampleConfig(seconds=2.0, steps=2, device="cpu"), str(model), codec, str(tmp_path / "clip.mp4"))
    assert (sum(made.lengths), made.height, made.width, made.rates) == (20, 32, 48, (4, 4))
    assert len(frames(tmp_path / "clip.mp4")) == 20
