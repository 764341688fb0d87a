from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rushes.dit.config import SampleConfig
from rushes.dit.layout import Plan, plan
from rushes.dit.sample import write_mp4
from rushes.dit.sources import encoded, given
from rushes.tokenizer.data import read_video, to_video
from rushes.tokenizer.frozen import FrozenTokenizer
from tests.tokenizer.conftest import wan_22


@pytest.fixture(scope="module")
def codec() -> FrozenTokenizer:
    return FrozenTokenizer(wan_22())


@pytest.fixture
def clip(tmp_path) -> str:
    planned = Plan(lengths=(40,), height=32, width=32, fps=16.0, rates=(), counts=(), cells=(0, 0))
    write_mp4((np.full((32, 32, 3), 40 + 4 * t, np.uint8) for t in range(40)), planned, str(tmp_path / "clip.mp4"))
    return str(tmp_path / "clip.mp4")


def asked(**change) -> SampleConfig:
    return SampleConfig(**{"seconds": 3.0, "fps": 16.0, "height": 32, "width": 32, "rate": 8, **change})


@torch.no_grad()
def test_of_others_vaes_too_a_clip_is_given_by_the_segments_that_it_fills(clip, codec):
    config = asked(first=clip)
    what = given(config)
    planned = plan(config, codec, 2, what)
    assert planned.lengths == (1, 16, 16, 15) and planned.known == (True, True, False, False)
    found = list(encoded(what, codec, planned.lengths, planned.rates, planned.known))
    own = codec.encode(read_video(clip)[1][:, :, :17], 8, scale="-1..1").z[0].split(planned.counts[:2])
    assert found[2:] == [None, None] and all(torch.equal(one, two) for one, two in zip(found, own, strict=False))


@torch.no_grad()
def test_before_what_is_given_at_the_end_stands_what_was_shown_last(clip, tmp_path, codec):
    Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(tmp_path / "a.png")
    config = asked(first=str(tmp_path / "a.png"), last=clip)
    what = given(config)
    planned = plan(config, codec, 2, what)
    assert planned.lengths == (1, 16, 16, 16) and planned.known == (True, False, False, True)
    *_, last = encoded(what, codec, planned.lengths, planned.rates, planned.known)
    grey = to_video(np.full((33, 32, 32, 3), 200, np.uint8))
    shown = torch.cat([grey, read_video(clip)[1][:, :, 24:]], dim=2)
    assert torch.equal(last, codec.encode(shown, 8, scale="-1..1").z[0, -2:])


def test_a_file_that_is_no_picture_and_one_that_is_not_there_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    for name in ("a.txt", "none.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
            given(asked(last=str(tmp_path / name)))
