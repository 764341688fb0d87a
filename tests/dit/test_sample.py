from __future__ import annotations

import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rushes.dit.config import DiTConfig, SampleConfig, TrainConfig
from rushes.dit.layout import Plan, plan
from rushes.dit.layout import windows as windows_of
from rushes.dit.model import DiT, save
from rushes.dit.sample import Guided, Sampler, condition, continued, resolved, sample, write_mp4
from rushes.dit.sources import encoded, given
from rushes.dit.train import train
from rushes.pipelines.stages.latents.latents import encode_shard
from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.data import read_video, to_video
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
    about = {"tokenizer": codec, "typical": typical, "captioned": True, "known": 0.2, "longest_s": 1.3}
    save(dit, str(folder / "dit"), about)
    return str(folder / "dit"), str(folder / "tokenizer")


@pytest.fixture(scope="module")
def sampler(models) -> Sampler:
    return Sampler(*models)


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
        ({"prompt": "wave " * 63}, "'wave wave .*… has 63 word pieces, of which the encoder takes 62; shorten it"),
        ({"budget": 100}, "budget=100 tokens cannot be met exactly: .* the nearest are 60 and 72"),
        ({"rate": 0, "rates": (4, 4, 4)}, "3 rates for 22 frames: 2 segments need one rate each"),
        ({"guide": {"pan": 3.0}}, "guide pan: not asked for; this clip is asked for fps, prompt"),
        ({"camera": "pan left", "facts": {"pan": 0.1}}, "both ask for pan"),
        ({"first": "{clip}", "height": 32}, r"first=\S+ \(40 frames\) is 50×36, the clip is to be 50×32; scale it, or"),
        ({"first": "{clip}", "fps": 24.0}, "has 25 frames a second, the clip is to have 24"),
        ({"first": "{picture}", "seconds": 0.04}, "leave nothing to generate beside first=.* ask for 0.68 or more"),
        ({"extend": "{picture}"}, "is a picture, which --first takes"),
        ({"last": "{text}"}, "cannot be decoded"),
        ({"window": 0.5}, "window=0.5 s has no room"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(sampler, shown, tmp_path, change, message):
    change = {name: value.format(**shown) if name in ("first", "last", "extend") else value
              for name, value in {**({"rate": 0} if "budget" in change else {}), **change}.items()}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        sampler.write(replace(TINY, **change), str(tmp_path / "clip.mp4"))
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": "a.png", "extend": "a.mp4"}, "first and extend contradict each other"),
        ({"source": "a.mp4", "mask": (0, 0, 1, 1), "last": "a.png"}, "source and last contradict each other"),
        ({"rate": 4, "budget": 96}, "rate and budget contradict each other"),
        ({"source": "a.mp4"}, "source and mask belong together"),
        ({"source": "a.mp4", "mask": (0.5, 0, 0.5, 1)}, "is no part of the picture"),
        ({"overlap": 0}, "overlap=0 must be 1 or more"),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(change, message):
    with pytest.raises(ValueError, match=message):
        SampleConfig(**change)


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> dict[str, str]:
    """A clip of 40 frames in which a wall brightens, a picture, and a text."""
    folder = tmp_path_factory.mktemp("shown")
    planned = Plan(lengths=(40,), height=36, width=50, fps=25.0, rates=(), counts=(), cells=(0, 0))
    write_mp4((np.full((36, 50, 3), 40 + 4 * t, np.uint8) for t in range(40)), planned, str(folder / "clip.mp4"))
    Image.fromarray(np.full((36, 50, 3), 200, np.uint8)).save(folder / "picture.png")
    (folder / "text.txt").write_text("no picture")
    return {path.stem: str(path) for path in folder.iterdir()}


def made(sampler: Sampler, config: SampleConfig, monkeypatch) -> tuple[list[torch.Tensor], list[tuple]]:
    """Return the latents of each segment, and what each window was given."""
    windows, generate = [], Guided.generate

    def spy(self, planned, pieces):
        windows.append((planned, pieces))
        return generate(self, planned, pieces)

    monkeypatch.setattr(Guided, "generate", spy)
    what = given(config)
    config = resolved(config, sampler.about, what)
    planned = plan(config, sampler.codec, 2, what)
    free, wanted = (
        windows_of(planned, config.window or 9.0, config.overlap),
        condition(config, sampler.dit, sampler.text),
    )
    flow = Guided(sampler.dit, wanted, config, lambda *words: None, len(free))
    taken = encoded(what, sampler.codec, planned.lengths, planned.rates, planned.known)
    return list(continued(planned, free, taken, flow, what.box)), windows


def test_what_is_given_comes_back_as_its_latents_and_the_rest_is_generated(sampler, shown, monkeypatch):
    _, video = read_video(shown["clip"])
    own = [z[0] for z in sampler.codec.encode(video[:, :, :32], 4).z.split(4, dim=1)]
    first, _ = made(sampler, replace(TINY, first=shown["clip"], seconds=1.28), monkeypatch)
    extended, _ = made(sampler, replace(TINY, extend=shown["clip"], seconds=0.64), monkeypatch)
    assert torch.equal(first[0], own[0]) and (first[1] - own[1]).abs().max() > 0.1
    assert len(extended) == 3 and all(torch.equal(one, two) for one, two in zip(extended, own, strict=False))
    boxed, _ = made(sampler, replace(TINY, source=shown["clip"], mask=(0, 0, 0.5, 0.5), seconds=1.28), monkeypatch)
    for found, wanted in zip(boxed, own, strict=True):
        changed = (found - wanted).abs().amax(dim=(0, 1)) > 0
        assert changed[:4, :4].all() and not changed[4:].any() and not changed[:, 4:].any()
    picture = to_video(np.full((1, 36, 50, 3), 200, np.uint8))
    begun, _ = made(sampler, replace(TINY, first=shown["picture"], seconds=0.68), monkeypatch)
    assert [len(z) for z in begun] == [1, 4] and torch.equal(
        begun[0], sampler.codec.encode(picture, 4, scale="-1..1").z[0]
    )
    ended, _ = made(sampler, replace(TINY, last=shown["picture"], seconds=0.68), monkeypatch)
    still = sampler.codec.encode(picture.expand(-1, -1, 17, -1, -1), 4, scale="-1..1").z[
        0
    ]  # what stands before it is unknown
    assert [len(z) for z in ended] == [4, 1] and torch.equal(ended[1], still[-1:])


def test_windows_go_on_from_the_latents_of_those_before(sampler, monkeypatch):
    config = replace(TINY, seconds=3.2)  # 5 segments
    whole, (one,) = made(sampler, config, monkeypatch)
    assert not any(one[1]) and [len(z) for z in whole] == [4] * 5
    pieces, windows = made(sampler, replace(config, window=1.92, overlap=2), monkeypatch)
    assert [len(planned.lengths) for planned, _ in windows] == [3, 3, 3] and len(pieces) == 5
    for number, (_, taken) in enumerate(windows[1:], 1):
        assert taken[2] is None and all(piece.mask.all() for piece in taken[:2])
        assert all(torch.equal(taken[i].z, pieces[number + i]) for i in range(2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(pieces, made(sampler, replace(config, window=1.92, overlap=2), monkeypatch)[0], strict=True)
    )


def test_a_clip_longer_than_those_of_training_is_made_and_streamed(sampler, tmp_path):
    planned = sampler.write(replace(TINY, seconds=2.56), str(tmp_path / "clip.mp4"))  # trained on 1.3 s
    assert len(frames(tmp_path / "clip.mp4")) == sum(planned.lengths) == 64


def test_a_causal_student_makes_segments_and_goes_on_with_those_that_are_given(models, shown, tmp_path):
    folder, told = tmp_path / "student", []
    shutil.copytree(models[0], folder)
    about = json.loads((folder / "config.json").read_text())
    student = {"method": "causal", "levels": [1.0, 0.75], "shift": 3.0, "guidance": 3.0}
    (folder / "config.json").write_text(json.dumps({**about, "student": student}))
    config, own = replace(TINY, steps=0, extend=shown["clip"], seconds=1.28), Sampler(str(folder), models[1])
    planned = own.write(config, str(tmp_path / "a.mp4"), lambda *words: told.append(words[:3]))
    assert planned.known == (True, True, False, False) and len(frames(tmp_path / "a.mp4")) == sum(planned.lengths) == 64
    order = [told.index(one) for one in [(1, 2, "segments"), (33, 64, "frames"), (2, 2, "segments")]]
    assert order == sorted(order)  # one is shown before the next is made
    own.write(config, str(tmp_path / "b.mp4"))
    own.write(replace(config, seed=1), str(tmp_path / "c.mp4"))
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c
    with pytest.raises(ValueError, match="sampler=heun: a causal student looks at 2 levels"):
        own.write(replace(config, sampler="heun"), str(tmp_path / "d.mp4"))


@pytest.mark.parametrize("budget", [36, 48, 72])
def test_a_budget_is_used_up(sampler, tmp_path, budget):
    planned = sampler.write(replace(TINY, rate=0, budget=budget), str(tmp_path / "clip.mp4"))
    latents = sampler.codec.encode(torch.zeros(1, 3, 22, 36, 50), planned.rates, scale="-1..1").z.shape[1]
    assert planned.tokens == budget == latents * 3 * 4


def test_a_single_condition_is_guided_by_and_a_scale_of_one_is_none(sampler, tmp_path):
    def of(**change) -> bytes:
        sampler.write(replace(TINY, facts={"pan": 0.3}, **change), str(tmp_path / "clip.mp4"))
        return (tmp_path / "clip.mp4").read_bytes()

    assert of() == of(guide={"pan": 1.0}) != of(guide={"pan": 3.0}) != of(guide={"prompt": 3.0})
    full, free, less = torch.tensor([4.0]), torch.tensor([1.0]), torch.tensor([3.0])
    guided = object.__new__(Guided)
    guided.guidance, guided.guiding, guided.guides = 2.0, True, [("pan", 3.0)]
    assert float(guided._pushed([full, free, less])) == 1 + 2 * 3 + (3 - 1) * 1


def test_a_model_that_was_never_given_latents_is_not_asked_to_go_on_from_any(models, shown, tmp_path):
    folder = tmp_path / "dit"
    shutil.copytree(models[0], folder)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "known": 0.0}))
    with pytest.raises(ValueError, match="trained without known latents; train one with --known above 0"):
        sample(replace(TINY, first=shown["picture"]), str(folder), models[1], str(tmp_path / "clip.mp4"))


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seconds": float("inf")}, "seconds=inf must be a finite number"), ({"shift": float("nan")}, "shift=nan"),
        ({"facts": {"pan": float("inf")}}, "finite"), ({"guide": {"pan": float("nan")}}, "finite"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        SampleConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"lr": -1.0}, {"warmup": -5}, {"max_cells": -1}, {"drop_condition": 5.0}, {"shift": 0.0}, {"seed": -1},
     {"lr": float("nan")}],
)  # fmt: skip
def test_trainings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainConfig(**settings)
    for model in ({"text_words": 0}, {"time_wavelengths_s": (0.0, 1.0)}, {"shift_tokens": -1}):
        with pytest.raises(ValueError, match=next(iter(model))):
            DiTConfig(**model)
