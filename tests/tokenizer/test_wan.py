"""The Wan 2.1 VAE: what diffusers computes, streamed and causal; all layers, small widths, random weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from rushes.tokenizer.wan import WanConfig, WanVAE, load

SMALL = WanConfig(width=8, channels=4, latent_mean=(0.1, -0.2, 0.3, 0.4), latent_std=(1.5, 0.5, 2.0, 1.0))


def noise(frames: int, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def reference(diffusers, randomised):
    """The model of diffusers with random weights."""
    about = {"base_dim": SMALL.width, "z_dim": SMALL.channels}
    about |= {"latents_mean": list(SMALL.latent_mean), "latents_std": list(SMALL.latent_std)}
    return randomised(diffusers.AutoencoderKLWan(**about))


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory) -> Path:
    """The weights as diffusers writes them."""
    path = tmp_path_factory.mktemp("wan")
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder) -> WanVAE:
    return load(str(folder))


@pytest.mark.parametrize("size", [(16, 24), (40, 32)])
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_moments_and_video_are_those_of_diffusers(reference, loaded, frames, size):
    video = noise(frames, *size)
    theirs = reference.encode(video).latent_dist
    mean, logvar = loaded.posterior(video)
    z = loaded.encode(video)
    again, raw = loaded.decode(z), z * loaded.latent_std + loaded.latent_mean
    assert mean.std() > 0.1 and logvar.std() > 0.1 and 0.1 < again.std() < 1
    torch.testing.assert_close(mean, theirs.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar, theirs.logvar, rtol=0, atol=1e-5)
    torch.testing.assert_close(again.clamp(-1, 1), reference.decode(raw).sample, rtol=0, atol=1e-5)


def test_the_published_size_is_that_of_diffusers(diffusers):
    with torch.device("meta"):
        ours, theirs = WanVAE(), diffusers.AutoencoderKLWan()
    shapes, expected = ({name: t.shape for name, t in vae.state_dict().items()} for vae in (ours, theirs))
    assert shapes == expected
    assert WanConfig().latent_mean == tuple(theirs.config.latents_mean)
    assert WanConfig().latent_std == tuple(theirs.config.latents_std)


def test_latents_are_at_unit_variance_by_the_published_statistics(small_wan):
    video = noise(5)
    mean, std = (torch.tensor(numbers)[:, None, None, None] for numbers in (SMALL.latent_mean, SMALL.latent_std))
    torch.testing.assert_close(small_wan.encode(video) * std + mean, small_wan.posterior(video)[0])


def test_streamed_coding_equals_whole_coding_bit_for_bit(small_wan):
    video = noise(13)
    mean, _ = small_wan.posterior(video)
    caches, moments = {}, []
    for chunk in (video[:, :, :1], *video[:, :, 1:].split(4, dim=2)):
        out, caches = small_wan.encode_chunk(chunk, caches)
        moments.append(out)
    assert torch.equal(torch.cat(moments, dim=2).chunk(2, dim=1)[0], mean)
    z = small_wan.normed(mean)
    caches, frames = {}, []
    for latent in z.split(1, dim=2):
        out, caches = small_wan.decode_chunk(latent, caches)
        frames.append(out)
    assert [part.shape[2] for part in frames] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(frames, dim=2), small_wan.decode(z))


def test_longer_chunks_differ_by_rounding_alone(small_wan):
    video = noise(17)
    mean, _ = small_wan.posterior(video)
    first, caches = small_wan.encode_chunk(video[:, :, :1], {})
    more, caches = small_wan.encode_chunk(video[:, :, 1:9], caches)
    rest, _ = small_wan.encode_chunk(video[:, :, 9:], caches)
    torch.testing.assert_close(torch.cat([first, more, rest], 2).chunk(2, dim=1)[0], mean, rtol=0, atol=1e-5)
    z = small_wan.normed(mean)
    first, caches = small_wan.decode_chunk(z[:, :, :1], {})
    rest, _ = small_wan.decode_chunk(z[:, :, 1:], caches)
    torch.testing.assert_close(torch.cat([first, rest], 2), small_wan.decode(z), rtol=0, atol=1e-5)


@pytest.mark.parametrize("changed", [1, 4, 5, 8, 12])
def test_a_changed_future_frame_moves_no_past_latent_and_no_past_frame(small_wan, changed):
    video = noise(13)
    other = video.clone()
    other[:, :, changed:] = -other[:, :, changed:]
    z, moved = small_wan.encode(video), small_wan.encode(other)
    latent = -(-changed // 4)
    assert torch.equal(z[:, :, :latent], moved[:, :, :latent]) and not torch.equal(z[:, :, latent], moved[:, :, latent])
    start = 1 + 4 * (latent - 1)
    again, changed_again = small_wan.decode(z), small_wan.decode(moved)
    assert torch.equal(again[:, :, :start], changed_again[:, :, :start])
    assert not torch.equal(again[:, :, start], changed_again[:, :, start])


@pytest.mark.parametrize(("shape", "said"), [((1, 3, 8, 16, 16), "1 . 4·n"), ((1, 3, 5, 12, 16), "multiples of 8")])
def test_what_would_lose_frames_or_pixels_is_refused(small_wan, shape, said):
    with pytest.raises(ValueError, match=said):
        small_wan.encode(torch.zeros(shape))


def test_a_chunk_that_would_shift_the_frames_is_refused(small_wan):
    with pytest.raises(ValueError, match="first goes alone"):
        small_wan.encode_chunk(noise(5), {})
    _, caches = small_wan.encode_chunk(noise(1), {})
    with pytest.raises(ValueError, match="multiple of 4"):
        small_wan.encode_chunk(noise(3), caches)


def original(name: str) -> str:
    """The name of a tensor in Wan2.1_VAE.pth, from its name in diffusers."""
    name = re.sub(r"^quant_conv", "conv1", name)
    name = re.sub(r"^post_quant_conv", "conv2", name)
    for ours, theirs in [("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2")]:
        name = re.sub(rf"^(..coder)\.{ours}\.", rf"\1.{theirs}.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", name)
    name = name.replace("mid_block.attentions.0", "middle.1").replace("down_blocks", "downsamples")
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", name)
    if re.search(r"middle\.[02]|samples", name):
        for ours, theirs in [("norm1", "0"), ("conv1", "2"), ("norm2", "3"), ("conv2", "6")]:
            name = name.replace(f".{ours}.", f".residual.{theirs}.")
    return name.replace("conv_shortcut", "shortcut")


def test_the_original_file_is_read_as_diffusers_reads_it(diffusers, small_wan, tmp_path):
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = {original(name): tensor for name, tensor in small_wan.state_dict().items()}
    assert {"encoder.middle.1.to_qkv.weight", "decoder.upsamples.7.time_conv.bias", "conv2.bias"} <= weights.keys()
    torch.save(weights, tmp_path / "Wan2.1_VAE.pth")
    found = load(str(tmp_path / "Wan2.1_VAE.pth"), SMALL).state_dict()
    referee = convert_wan_vae_to_diffusers(weights)
    assert found.keys() == referee.keys()
    assert all(torch.equal(found[name], referee[name]) for name in found)


def written(tmp_path: Path, vae: WanVAE, **changes: torch.Tensor | None) -> str:
    weights = vae.state_dict() | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    path = tmp_path / "vae.safetensors"
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)
    return str(path)


def test_a_bare_file_gives_the_same_model_as_its_folder(loaded, folder):
    bare = load(str(folder / "diffusion_pytorch_model.safetensors"), SMALL)
    assert torch.equal(bare.encode(noise(5)), loaded.encode(noise(5)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__conv_in__bias": None}, "1 missing: encoder.conv_in.bias"),
        ({"extra": torch.zeros(1)}, "1 unexpected: extra"),
        ({"quant_conv__bias": torch.zeros(3)}, r"1 of another shape: quant_conv.bias \[3\] for \[8\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(small_wan, tmp_path, changes, said):
    with pytest.raises(ValueError, match=f"not a Wan 2.1 VAE of width 8 .*: {said}"):
        load(written(tmp_path, small_wan, **changes), SMALL)


def test_weights_of_another_size_name_the_first_few(small_wan, tmp_path):
    with pytest.raises(ValueError, match=r"of another shape: (\S+ \[.*?\] for \[.*?\], ){3}…"):
        load(written(tmp_path, small_wan), replace(SMALL, width=4))


def test_a_damaged_file_is_refused(tmp_path):
    for name in ("vae.safetensors", "vae.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match="damaged or holds more than tensors"):
            load(str(tmp_path / name))
    with pytest.raises(ValueError, match="does not exist"):
        load(str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match=r"holds no diffusion_pytorch_model\.safetensors"):
        load(str(tmp_path))


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch.save({"weights": Path("anything")}, tmp_path / "vae.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        load(str(tmp_path / "vae.pth"))
    torch.save([1, 2], tmp_path / "vae.pth")
    with pytest.raises(ValueError, match="no tensors by name"):
        load(str(tmp_path / "vae.pth"))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"_class_name": "AutoencoderKLHunyuanVideo"}, "AutoencoderKLWan was expected"),
        ({"_class_name": "AutoencoderKLWan", "is_residual": True}, "another VAE than Wan 2.1's"),
    ],
)
def test_the_folder_of_another_model_is_refused(small_wan, tmp_path, about, said):
    save_file(load_file(written(tmp_path, small_wan)), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=said):
        load(str(tmp_path))
