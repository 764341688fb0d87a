from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.data import segments
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer, fingerprint, in_range, load, save


@pytest.mark.parametrize("space", [4, 8, 16, 32])
def test_every_spatial_factor_gives_its_cells(stirred, space):
    tokenizer = stirred(space=space)
    latents = tokenizer.encode(-torch.ones(1, 3, 3, 33, 64))
    assert latents.z.shape == (1, 2, 16, -(-33 // space), 64 // space)
    assert tokenizer.decode(latents).shape == (1, 3, 3, 33, 64)


@pytest.mark.parametrize(("size", "millions"), [("nano", 1), ("tiny", 5), ("small", 25), ("base", 120)])
def test_the_size_dial_gives_the_stated_parameters(size, millions):
    with torch.device("meta"):
        tokenizer = Tokenizer.__new__(Tokenizer)
        torch.nn.Module.__init__(tokenizer)
        from rushes.tokenizer.trunk import Decoder, Encoder

        parts = Encoder(TokenizerConfig(size=size)), Decoder(TokenizerConfig(size=size))
    found = sum(p.numel() for part in parts for p in part.parameters()) / 1e6
    assert millions * 0.8 < found < millions * 1.2


def test_a_fresh_tokenizer_is_a_coarse_but_working_one(clip_bytes):
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig()).eval()
    _, video = next(segments(clip_bytes, 16))
    with torch.no_grad():
        again = tokenizer.decode(tokenizer.encode(video)).clamp(-1, 1)
    assert psnr((again - video).square().mean()) > 18


DARK = -torch.ones(1, 3, 17, 8, 8)


@pytest.mark.parametrize(
    ("video", "rates", "words"),
    [
        (torch.zeros(3, 4, 8, 8), None, r"\[3, 4, 8, 8\]"),
        (torch.zeros(1, 4, 4, 8, 8), None, "alpha channel"),
        (torch.zeros(1, 3, 0, 8, 8), None, r"\[1, 3, 0, 8, 8\]"),
        (DARK, 3, r"it has \[2, 4, 8, 16\]"),
        (DARK, [4], "2 segments need one rate each"),
        (DARK * float("nan"), None, "NaN"),
        (DARK * 3, None, "from -3 to -3, expected -1 to 1"),
        (torch.rand(1, 3, 4, 8, 8), None, "scale='0..1'"),
        (torch.rand(1, 3, 4, 8, 8) * 255, None, "scale='0..1', '0..255'"),
        (torch.zeros(1, 3, 4, 8, 8, dtype=torch.int32), None, "int32"),
    ],
)
def test_what_is_no_video_or_no_rate_is_refused_with_the_remedy(stirred, video, rates, words):
    with pytest.raises(ValueError, match=words):
        stirred().encode(video, rates)


def test_every_scale_of_the_same_video_gives_the_same_latents(stirred):
    tokenizer = stirred()
    levels = torch.randint(0, 256, (1, 3, 5, 9, 7), dtype=torch.uint8)
    expected = tokenizer.encode(levels.float() / 127.5 - 1).z
    for video, scale in ((levels, ""), (levels.float() / 255, "0..1"), (levels.float(), "0..255")):
        torch.testing.assert_close(tokenizer.encode(video, scale=scale).z, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        in_range(levels.float(), "0..1")


def test_frames_of_three_by_five_pixels_come_back(stirred):
    video = torch.rand(1, 3, 7, 3, 5) * 2 - 1
    assert stirred().decode(stirred().encode(video, 4)).shape == video.shape


def test_a_saved_tokenizer_comes_back_bit_for_bit(stirred, tmp_path: Path):
    tokenizer = stirred(rates=(2, 8))
    print_ = save(tokenizer, str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), expect=print_)
    assert again.config == tokenizer.config and fingerprint(again) == print_
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert torch.equal(again.encode(video).z, tokenizer.encode(video).z)


def test_another_tokenizer_than_the_expected_one_is_refused(stirred, tmp_path: Path):
    save(stirred(), str(tmp_path))
    with pytest.raises(ValueError, match="fingerprint"):
        load(str(tmp_path), expect="000000000000")
    about = json.loads((tmp_path / "config.json").read_text())
    about["config"]["size"] = "tiny"
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="of another size than tiny"):
        load(str(tmp_path))
    with pytest.raises(ValueError, match="rushes tokenizer train"):
        load(str(tmp_path / "nowhere"))


def test_a_tokenizer_of_mean_pictures_is_refused_with_the_remedy(stirred, tmp_path: Path):
    save(stirred(variant="fixed-4x8x8"), str(tmp_path))
    about = json.loads((tmp_path / "config.json").read_text())
    about["config"]["variant"] = "adaptive"
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="not yet coded jointly; train it anew"):
        load(str(tmp_path))


@pytest.mark.parametrize("rates", [(4, 8), (8, 4), (4, 4)])
def test_batches_of_mixed_rates_have_gradients_with_and_without_recomputing(stirred, rates):
    tokenizer = stirred().train().requires_grad_(True)
    video = torch.rand(2, 3, 17, 16, 24) * 2 - 1
    gradients = []
    for tokenizer.checkpointing in (False, True):
        tokenizer.zero_grad()
        tokenizer.decode(tokenizer.encode(video, rates)).square().mean().backward()
        gradients.append([p.grad.clone() for p in tokenizer.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])
