"""What the discriminator is for: sharper pictures at little loss, on clips that were not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from rushes.tokenizer.config import TokenizerConfig, TrainConfig
from rushes.tokenizer.data import read_video
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import load
from rushes.tokenizer.train import train
from tests.tokenizer.conftest import excerpt

PLAIN = TrainConfig(
    stages="decoder:150@64", batch=2, frames=8, min_frames=8, passes=1, lr=1e-3, warmup=20, ema=0.9, save_every=150,
    log_every=30, shuffle=4, feature=0, shrink=1.5, holdout=0,
)  # fmt: skip
JUDGED = replace(PLAIN, gan=0.7, gan_lr=1e-3)


def gradient_energy(video: Tensor) -> float:
    """The mean squared step from pixel to pixel: what softening takes away."""
    return float(video.diff(dim=-1).square().mean() + video.diff(dim=-2).square().mean())


@pytest.mark.slow
def test_it_sharpens_held_out_clips_at_no_more_than_a_third_of_a_decibel(
    bikes: Path, bunny: Path, write_clips: Callable[[dict[str, bytes]], str], tmp_path: Path
) -> None:
    clips = {f"bikes {i}": excerpt(bikes, 40 * i, 24, 256, 112) for i in range(4)}
    clips |= {f"bunny {i}": excerpt(bunny, 25 * i, 24, 256, 144) for i in range(3)}
    held = [excerpt(bikes, 200, 16, 256, 112), excerpt(bunny, 108, 16, 256, 144)]
    root = write_clips(clips)
    found = {}
    for name, settings in (("plain", PLAIN), ("judged", JUDGED)):
        done = train(root, str(tmp_path / name), TokenizerConfig(), settings, "shipped")
        tokenizer = load(done.model)
        for number, clip in enumerate(held):
            _, video = read_video(clip)
            again = tokenizer.decode(tokenizer.encode(video, 16)).clamp(-1, 1)  # the softest
            sharpness = gradient_energy(again) / gradient_energy(video)
            found[name, number] = psnr((again - video).square().mean()), sharpness
    for number in range(len(held)):
        (plain, soft), (judged, sharp) = found["plain", number], found["judged", number]
        assert sharp > 1.03 * soft and judged >= plain - 0.3, found
