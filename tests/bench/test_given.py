"""What `rushes dit sample` makes of what it is given, on real frames: discs that go around a picture of 64×64.

The shipped tokenizer codes 512 clips of 2 s, a DiT of 0.4 M parameters is trained on them for minutes, and clips that
it has not seen are gone on with, filled in, and made under budgets. Samples lie beside the numbers as a strip.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image

from rushes.dit import toy
from rushes.dit.config import DiTConfig, SampleConfig, TrainConfig
from rushes.dit.layout import Plan
from rushes.dit.sample import Sampler, write_mp4
from rushes.dit.train import train
from rushes.pipelines.stages.latents.latents import encode_shard
from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.data import read_video, to_pictures

CLIPS, SIDE, HELD, STEPS = 512, 64, 24, 2500
TRAIN = TrainConfig(
    model=DiTConfig(size="pico", facts=("fps",)), steps=STEPS, tokens=1024, lr=3e-3, shift=8.0, known=0.5,
    holdout=0.02, save_every=STEPS, log_every=100, device="cpu",
)  # fmt: skip
ASKED = SampleConfig(guidance=1.0, steps=5, shift=8.0, rate=8, device="cpu")  # more add what it has not learned


def write(one: toy.Shape, path: Path, segments: int = 2) -> str:
    small = toy.film(one, 16.0, segments * toy.FRAMES)
    video = F.interpolate(small, scale_factor=SIDE // toy.SIDE, mode="bicubic").clamp(-1, 1)
    n = len(video)
    planned = Plan(lengths=(n,), height=SIDE, width=SIDE, fps=16.0, rates=(), counts=(), cells=(0, 0))
    write_mp4(iter(to_pictures(video.permute(1, 0, 2, 3)[None])), planned, str(path))
    return str(path)


def seen(video: torch.Tensor) -> tuple[str, str]:
    """Colour and direction in frames [t 3 h w]."""
    return toy.seen(F.avg_pool2d(video, SIDE // toy.SIDE))


def seam_and_mean(video: torch.Tensor) -> list[float]:
    """Change from frame to frame [t 3 h w] where a segment begins, and everywhere, behind the first two segments."""
    change = video.diff(dim=0).abs().mean(dim=(1, 2, 3))[32:]
    return [float(change[15::16].mean()), float(change.mean())]


@pytest.mark.bench
@torch.no_grad()
def test_seams_of_the_tokenizer_alone(tmp_path: Path, show: Any) -> None:
    torch.set_num_threads(1)
    codec, dice, found = codecs.load("shipped"), random.Random("held"), []
    for _ in range(HELD):
        own = read_video(write(toy.anywhere(dice), tmp_path / "held.mp4", 5))[1]
        again = codec.decode(codec.encode(own, 8))
        found.append([seam_and_mean(video[0].transpose(0, 1)) for video in (own, again)])
    ratios = np.array(found).mean(axis=0)
    table = [[name, f"{seam / mean:.2f}"] for name, (seam, mean) in zip(("film", "decoded"), ratios, strict=True)]
    show("Change of frames where a segment begins by the mean change, shipped, rate 8", ["of", "found"], table, found)


def trained(folder: Path) -> str:
    dice, rates, samples = random.Random(0), {}, []
    for number in range(CLIPS):
        one = toy.anywhere(dice)
        film = Path(write(one, folder / "one.mp4")).read_bytes()
        key = clip_key(f"{number:016x}", 0.0)
        rates[key] = (8, 8)
        samples.append(shards.Sample(key, [("mp4", film), ("json", b"{}"), ("txt", f"a {one.colour} ball".encode())]))
    clips = shards.write_shard(str(folder / "clips"), "b", "part", 0, samples)
    info, failed = encode_shard(str(folder / "clips"), clips.path, str(folder / "latents"), "shipped", rates=rates)
    assert info is not None and not failed
    shards.write_manifest(str(folder / "latents"), [info], kind="latents", fingerprint="bench")
    return str(train(TRAIN, str(folder / "latents"), str(folder / "run"), tell=lambda *words: None))


@pytest.mark.bench
def test_clips_go_on_and_boxes_are_filled_in(tmp_path: Path, show: Any) -> None:
    torch.set_num_threads(1)
    sampler, dice = Sampler(trained(tmp_path), "shipped"), random.Random("held")
    right, seams, inside, rows, spent = [], [], [], [], []
    for number in range(HELD):
        one = toy.anywhere(dice)
        film, out = write(one, tmp_path / "held.mp4"), str(tmp_path / "made.mp4")
        own = read_video(film)[1]

        def made(out: str = out, seed: int = number, **change: Any) -> torch.Tensor:
            sampler.write(SampleConfig(**{**vars(ASKED), "seed": seed, **change}), out)
            return read_video(out)[1]

        begun = made(first=film)[0].transpose(0, 1)
        longer = made(extend=film, seconds=3.0)[0].transpose(0, 1)
        right.append([np.equal(seen(video), (one.colour, one.direction)) for video in (begun[16:], longer[64:80])])
        seams.append(seam_and_mean(longer))
        filled, blind = made(source=film, mask=(0.25, 0.25, 0.75, 0.75)), made()
        middle = slice(SIDE // 4, 3 * SIDE // 4)
        again = sampler.codec.decode(sampler.codec.encode(own, 8))
        inside.append([float((v - own)[..., middle, middle].square().mean()) for v in (filled, blind, again)])
        if number < 8:
            rows += [longer, filled[0].transpose(0, 1), own[0].transpose(0, 1)]
        if number < 3:
            budget = (64, 96, 160)[number]
            spent.append(
                (budget, sampler.write(SampleConfig(**{**vars(ASKED), "rate": 0, "budget": budget}), out).tokens)
            )
    (colour, way), (late_colour, late_way) = np.mean(right, axis=0)
    seam, mean = np.mean(seams, axis=0)
    filled_error, blind_error, code = np.mean(inside, axis=0)
    table = [
        ["colour / direction of what follows a first segment", f"{colour:.2f} / {way:.2f}", "0.95"],
        ["colour / direction 3 s behind a clip that goes on", f"{late_colour:.2f} / {late_way:.2f}", "0.95"],
        ["change of frames at the seams of windows by the mean change", f"{seam / mean:.2f}", "1.1"],
        ["error in a box by that of what sees nothing", f"{filled_error / blind_error:.3f}", "0.1"],
        ["error of the tokenizer there, by the same", f"{code / blind_error:.3f}", ""],
        ["tokens used of those asked for", ", ".join(f"{used} of {asked}" for asked, used in spent), "all"],
    ]
    raw = {"seams": seams, "inside": inside, "right": np.array(right).tolist(), "spent": spent}
    show(f"Given clips gone on with and filled in, {STEPS} steps", ["what", "found", "aim"], table, raw)
    strips = [rearrange(F.pad(video[2::8][:10], (0, 2, 0, 2)), "t k h w -> h (t w) k") for video in rows]
    wide = max(strip.shape[1] for strip in strips)
    picture = torch.cat([F.pad(strip, (0, 0, 0, wide - strip.shape[1])) for strip in strips])
    Image.fromarray(((picture.clamp(-1, 1) + 1) * 127.5).byte().numpy()).save(tmp_path / "given.png")
    print(tmp_path / "given.png")
