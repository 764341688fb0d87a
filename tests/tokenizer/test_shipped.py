"""The tokenizer that comes with the package is whole, loads by its name wherever a model does, and keeps a picture.

The film here is of its training footage: these are checks of wiring. What it is worth on others is in tests/bench.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from rushes.pipelines.engine.encode_latents import tokenizer_fingerprint
from rushes.tokenizer.data import segments
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import fingerprint, load
from rushes.tokenizer.rates import measure
from rushes.tokenizer.shipped import FOLDER, SHIPPED, folder_of


def test_it_loads_by_its_name_and_is_small():
    tokenizer = load(SHIPPED)
    assert tokenizer_fingerprint(SHIPPED) == fingerprint(tokenizer) and tokenizer.config.rates == (2, 4, 8, 16)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12e6
    assert (FOLDER / "README.md").exists()


def test_any_other_name_is_a_folder():
    assert folder_of("runs/shipped/") == "runs/shipped" and folder_of("s3://bucket/shipped") == "s3://bucket/shipped"


def test_its_reconstruction_is_good_and_better_with_more_latents(bunny):
    tokenizer = load(SHIPPED)
    videos = [video for _, video in islice(segments(str(bunny), tokenizer.config.segment, 96), 3)]
    table = measure(tokenizer, videos)
    quality = [psnr(error / 48) for error in table.distortion.sum(axis=0)]
    assert quality[1] > 29 and (np.diff(quality) < 0).all(), quality


def test_it_foresees_what_still_and_moving_segments_lose(bunny):
    tokenizer = load(SHIPPED)
    moving = next(iter(segments(str(bunny), tokenizer.config.segment, 96)))[1]
    still = moving[:, :, :1].expand_as(moving)
    for video in (moving, still):
        ratio = tokenizer.foreseen(video) / measure(tokenizer, [video]).distortion[0]
        assert (np.abs(np.log(ratio)) < 0.15).all(), ratio
