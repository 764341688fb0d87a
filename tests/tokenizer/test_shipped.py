"""The tokenizer that comes with the package is whole, loads by its name wherever a model does, and keeps a picture.

The film here is of its training footage: these are checks of wiring. What it is worth on others is in tests/bench.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from rushes.pipelines.config import LatentsConfig
from rushes.pipelines.engine.encode_latents import scorer_fingerprint, tokenizer_fingerprint
from rushes.tokenizer import scorer
from rushes.tokenizer.data import segments, to_pictures
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import fingerprint, load
from rushes.tokenizer.rates import measure
from rushes.tokenizer.scorer import scorer_for
from rushes.tokenizer.shipped import FOLDER, SHIPPED, folder_of


def test_it_loads_by_its_name_with_its_scorer_and_is_small():
    tokenizer = load(SHIPPED)
    predictor = scorer_for(SHIPPED, tokenizer, "predicted")
    assert predictor is not None and predictor.rates == tokenizer.config.rates == (2, 4, 8, 16)
    assert tokenizer_fingerprint(SHIPPED) == fingerprint(tokenizer) == predictor.tokenizer
    assert scorer_fingerprint(SHIPPED, fingerprint(tokenizer), LatentsConfig()) == scorer.scorer_fingerprint(predictor)
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


def test_its_scorer_knows_which_segments_are_still(bunny):
    tokenizer = load(SHIPPED)
    predictor = scorer_for(SHIPPED, tokenizer, "auto")
    assert predictor is not None
    pictures = to_pictures(next(iter(segments(str(bunny), tokenizer.config.segment, 96)))[1])
    moving, still = scorer.predict(predictor, pictures), scorer.predict(predictor, pictures[:1].repeat(16, axis=0))
    assert (still < moving / 2).all() and (np.diff(still) > 0).all(), (moving, still)


def test_no_scorer_is_trained_into_the_package(clip_shards):
    with pytest.raises(ValueError, match="copy its folder"):
        scorer.fit(clip_shards, SHIPPED)
