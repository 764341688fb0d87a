"""The laws of the tokenizer, on tokenizers whose every layer is stirred: a fresh one has zeros that hide faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenizer.config import TokenizerConfig
from tokenizer.data import segments
from tokenizer.metrics import psnr
from tokenizer.model import Latents, Tokenizer, counts, fingerprint, load, save, stream_decode, stream_encode

ALL = (2, 4, 8, 16)
law = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def clips(draw, tokenizer: Tokenizer) -> tuple[torch.Tensor, tuple[int, ...]]:
    frames, height, width = draw(st.integers(1, 65)), draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rates = draw(
        st.lists(st.sampled_from(tokenizer.config.rates), min_size=-(-frames // 16), max_size=-(-frames // 16))
    )
    seed = draw(st.integers(0, 99))
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1, tuple(rates)


@law
@given(data=st.data())
def test_streamed_coding_equals_whole_coding_bit_for_bit(stirred, data):
    tokenizer = stirred(rates=ALL)
    video, rates = clips(data.draw, tokenizer)
    whole = tokenizer.encode(video, rates)
    pieces = list(stream_encode(tokenizer, zip(video.split(16, dim=2), rates, strict=True)))
    assert torch.equal(torch.cat(pieces, dim=1), whole.z)
    frames = torch.cat(list(stream_decode(tokenizer, zip(pieces, rates, strict=True))), dim=2)
    t, h, w = video.shape[2:]
    assert torch.equal(frames[:, :, :t, :h, :w], tokenizer.decode(whole))


@law
@given(data=st.data())
def test_segments_computed_together_equal_segments_computed_in_turn(stirred, data):
    # Other chunk lengths make the CPU's kernels add in another order, so this holds to rounding, not to the bit.
    tokenizer = stirred(rates=ALL)
    video, _ = clips(data.draw, tokenizer)
    one, many = tokenizer.encode(video, 4), tokenizer.encode(video, 4, at_once=5)
    torch.testing.assert_close(one.z, many.z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokenizer.decode(one), tokenizer.decode(one, at_once=5), rtol=1e-5, atol=1e-5)


@law
@given(data=st.data())
def test_a_changed_future_frame_moves_no_past_latent(stirred, data):
    tokenizer = stirred(rates=ALL)
    video, rates = clips(data.draw, tokenizer)
    changed = data.draw(st.integers(0, video.shape[2] - 1))
    other = video.clone()
    other[:, :, changed:] = -other[:, :, changed:]
    segment = changed // 16
    past = sum(counts(video.shape[2], rates, 16)[:segment]) + changed % 16 // rates[segment]
    before, after = tokenizer.encode(video, rates).z, tokenizer.encode(other, rates).z
    assert torch.equal(before[:, :past], after[:, :past])
    assert not torch.equal(before[:, past:], after[:, past:])


@law
@given(data=st.data())
def test_a_changed_future_latent_moves_no_past_frame(stirred, data):
    tokenizer = stirred(rates=ALL)
    video, rates = clips(data.draw, tokenizer)
    latents = tokenizer.encode(video, rates)
    numbers = counts(video.shape[2], rates, 16)
    changed = data.draw(st.integers(0, sum(numbers) - 1))
    z = latents.z.clone()
    z[:, changed:] += 1
    segment = next(i for i in range(len(numbers)) if sum(numbers[: i + 1]) > changed)
    past = segment * 16 + (changed - sum(numbers[:segment])) * rates[segment]
    t, h, w = video.shape[2:]
    before = tokenizer.decode(latents)
    after = tokenizer.decode(Latents(z=z, rates=rates, frames=t, height=h, width=w))
    assert torch.equal(before[:, :, :past], after[:, :, :past])
    assert not torch.equal(before[:, :, past:], after[:, :, past:])


@pytest.mark.parametrize("rate", [4, 8])
def test_frames_out_are_frames_in_for_every_length_to_65_and_odd_sizes(stirred, rate):
    tokenizer = stirred()
    for frames in range(1, 66):
        video = torch.zeros(1, 3, frames, 1 + frames % 13, 1 + frames % 7)
        latents = tokenizer.encode(video, rate)
        assert latents.z.shape[1] == sum(counts(frames, latents.rates, 16))
        assert tokenizer.decode(latents).shape == video.shape


def test_the_state_of_a_stream_does_not_grow_with_the_video(stirred):
    tokenizer = stirred()
    caches: dict = {}
    sizes = []
    for _ in range(4):
        _, caches = tokenizer.encode_chunk(torch.zeros(1, 3, 16, 16, 16), 8, caches)
        sizes.append(sum(cache.numel() for cache in caches.values()))
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("space", [4, 8, 16, 32])
def test_every_spatial_factor_gives_its_cells(stirred, space):
    tokenizer = stirred(space=space)
    latents = tokenizer.encode(torch.zeros(1, 3, 3, 33, 64))
    assert latents.z.shape == (1, 1, 16, -(-33 // space), 64 // space)
    assert tokenizer.decode(latents).shape == (1, 3, 3, 33, 64)


@pytest.mark.parametrize(("size", "millions"), [("nano", 1), ("tiny", 5), ("small", 25), ("base", 120)])
def test_the_size_dial_gives_the_stated_parameters(size, millions):
    with torch.device("meta"):
        tokenizer = Tokenizer.__new__(Tokenizer)
        torch.nn.Module.__init__(tokenizer)
        from tokenizer.trunk import Decoder, Encoder

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


@pytest.mark.parametrize(
    ("video", "rates", "words"),
    [
        (torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), None, "divide by 127.5"),
        (torch.zeros(1, 4, 4, 8, 8), None, r"\[1, 4, 4, 8, 8\]"),
        (torch.zeros(1, 3, 4, 8, 8), 2, r"it has \[4, 8\]"),
        (torch.zeros(1, 3, 17, 8, 8), [4], "2 segments of 16 frames need one rate each"),
    ],
)
def test_what_is_no_video_or_no_rate_is_refused_with_the_remedy(stirred, video, rates, words):
    with pytest.raises(ValueError, match=words):
        stirred().encode(video, rates)


def test_a_saved_tokenizer_comes_back_bit_for_bit(stirred, tmp_path: Path):
    tokenizer = stirred(rates=(2, 8))
    print_ = save(tokenizer, str(tmp_path / "model"))
    again = load(str(tmp_path / "model"), expect=print_)
    assert again.config == tokenizer.config and fingerprint(again) == print_
    video = torch.rand(1, 3, 5, 16, 16)
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


@pytest.mark.parametrize("rates", [(4, 8), (8, 4), (4, 4)])
def test_batches_of_mixed_rates_have_gradients_with_and_without_recomputing(stirred, rates):
    tokenizer = stirred().train().requires_grad_(True)
    video = torch.rand(2, 3, 17, 16, 24)
    gradients = []
    for tokenizer.checkpointing in (False, True):
        tokenizer.zero_grad()
        tokenizer.decode(tokenizer.encode(video, rates)).square().mean().backward()
        gradients.append([p.grad.clone() for p in tokenizer.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])
