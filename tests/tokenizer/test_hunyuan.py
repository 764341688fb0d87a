"""The HunyuanVideo VAE: what diffusers computes, whole clips; all layers, small widths, random weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rushes.tokenizer.hunyuan import HunyuanConfig, HunyuanVAE, load

SMALL = HunyuanConfig(widths=(8, 16, 32, 32), channels=4, groups=2)


def noise(frames: int, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def reference(diffusers, randomised):
    """The model of diffusers with random weights; it would cut clips above 16 frames into overlapping pieces."""
    model = diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=SMALL.widths, latent_channels=SMALL.channels, norm_num_groups=SMALL.groups
    )
    model.use_framewise_encoding = model.use_framewise_decoding = False
    return randomised(model)


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory) -> Path:
    """The weights as diffusers writes them."""
    path = tmp_path_factory.mktemp("hunyuan")
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder) -> HunyuanVAE:
    return load(str(folder))


@pytest.mark.parametrize("size", [(16, 24), (40, 32)])
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_moments_and_video_are_those_of_diffusers(reference, loaded, frames, size):
    video = noise(frames, *size)
    theirs = reference.encode(video).latent_dist
    mean, logvar = loaded.posterior(video)
    z = loaded.encode(video)
    again = loaded.decode(z)
    assert mean.std() > 0.1 and logvar.std() > 0.1 and again.std() > 0.1
    torch.testing.assert_close(mean, theirs.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar, theirs.logvar, rtol=0, atol=1e-5)
    torch.testing.assert_close(again, reference.decode(z / SMALL.scaling).sample, rtol=0, atol=1e-5)


def test_in_double_precision_no_difference_is_left(reference, loaded):
    exact, video = deepcopy(reference).double(), noise(9).double()
    vae = deepcopy(loaded).double()
    theirs = exact.encode(video).latent_dist
    torch.testing.assert_close(vae.posterior(video)[0], theirs.mean, rtol=0, atol=1e-12)
    again = vae.decode(theirs.mean * SMALL.scaling)
    torch.testing.assert_close(again, exact.decode(theirs.mean).sample, rtol=0, atol=1e-12)


def test_the_published_size_is_that_of_diffusers(diffusers):
    with torch.device("meta"):
        ours, theirs = HunyuanVAE(), diffusers.AutoencoderKLHunyuanVideo()
    shapes, expected = ({name: t.shape for name, t in vae.state_dict().items()} for vae in (ours, theirs))
    assert shapes == expected and ours.scaling == theirs.config.scaling_factor


def test_latents_are_scaled_as_published(small_hunyuan):
    video = noise(5)
    torch.testing.assert_close(small_hunyuan.encode(video), small_hunyuan.posterior(video)[0] * 0.476986)


def moved(vae: HunyuanVAE, changed: int) -> torch.Tensor:
    """How far each latent moves when all frames from one on are changed."""
    video = noise(13)
    other = video.clone()
    other[:, :, changed:] = -0.5 * other[:, :, changed:]
    return (vae.encode(video) - vae.encode(other)).abs().amax(dim=(0, 1, 3, 4))


@pytest.mark.parametrize("changed", [1, 4, 5, 8, 12])
def test_without_the_norms_a_changed_future_frame_moves_no_past_latent(small_hunyuan, monkeypatch, changed):
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", lambda norm, x: x)
    latent = -(-changed // 4)
    assert moved(small_hunyuan, changed)[:latent].max() == 0 < moved(small_hunyuan, changed)[latent]


def test_the_norms_look_over_the_whole_clip_so_it_cannot_stream(small_hunyuan):
    assert moved(small_hunyuan, 12)[0] > 1e-4


@pytest.mark.parametrize(("shape", "said"), [((1, 3, 8, 16, 16), "1 . 4·n"), ((1, 3, 5, 12, 16), "multiples of 8")])
def test_what_would_lose_frames_or_pixels_is_refused(small_hunyuan, shape, said):
    with pytest.raises(ValueError, match=said):
        small_hunyuan.encode(torch.zeros(shape))


def test_the_original_file_is_read(small_hunyuan, tmp_path):
    torch.save({"state_dict": small_hunyuan.state_dict()}, tmp_path / "pytorch_model.pt")
    found = load(str(tmp_path / "pytorch_model.pt"), SMALL)
    assert torch.equal(found.encode(noise(5)), small_hunyuan.encode(noise(5)))


def test_weights_that_do_not_fit_are_refused_by_name(small_hunyuan, small_wan, tmp_path):
    weights = small_hunyuan.state_dict()
    del weights["decoder.conv_out.conv.bias"]
    torch.save(weights, tmp_path / "pytorch_model.pt")
    with pytest.raises(ValueError, match=r"not a HunyuanVideo VAE .*1 missing: decoder\.conv_out\.conv\.bias"):
        load(str(tmp_path / "pytorch_model.pt"), SMALL)
    torch.save(small_wan.state_dict(), tmp_path / "pytorch_model.pt")
    with pytest.raises(ValueError, match=r"missing: (\S+, ){3}…; \d+ unexpected: "):
        load(str(tmp_path / "pytorch_model.pt"), SMALL)
