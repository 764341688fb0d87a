"""The VAEs of Wan 2.1 and 2.2: what diffusers computes, streamed and causal; all layers, random weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from rushes.tokenizer.wan import WAN_22, WanConfig, WanVAE, load
from tests.tokenizer.conftest import write_wan

VERSIONS = ("2.1", "2.2")


def noise(frames: int, height: int = 16, width: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.fixture(scope="module")
def diffusers() -> ModuleType:
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module", params=VERSIONS)
def small(request, small_wan, small_wan_22) -> WanVAE:
    """Each version in turn."""
    return small_wan if request.param == "2.1" else small_wan_22


@pytest.fixture(scope="module")
def reference(diffusers, randomised, small):
    """The model of diffusers with random weights."""
    c = small.config
    about = {"base_dim": c.width, "z_dim": c.channels}
    about |= {"latents_mean": list(c.latent_mean), "latents_std": list(c.latent_std)}
    if c.residual:
        about |= {"decoder_base_dim": c.decoder_width, "is_residual": True, "patch_size": 2, "in_channels": 12}
        about |= {"out_channels": 12, "scale_factor_spatial": 16}
    return randomised(diffusers.AutoencoderKLWan(**about))


@pytest.fixture(scope="module")
def folder(reference, small, tmp_path_factory) -> Path:
    """The weights as diffusers writes them, of Wan 2.2 in several files."""
    path = tmp_path_factory.mktemp("wan")
    reference.save_pretrained(path, max_shard_size="100KB" if small.config.residual else "5GB")
    return path


@pytest.fixture(scope="module")
def loaded(folder) -> WanVAE:
    return load(str(folder))


@pytest.mark.parametrize("size", [(16, 32), (48, 32)])
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_moments_and_video_are_those_of_diffusers(reference, loaded, frames, size):
    video = noise(frames, *size)
    theirs = reference.encode(video).latent_dist
    mean, logvar = loaded.posterior(video)
    z = loaded.encode(video)
    again, raw = loaded.decode(z), z * loaded.latent_std + loaded.latent_mean
    assert mean.std() > 0.1 and logvar.std() > 0.1 and again.clamp(-1, 1).std() > 0.1
    torch.testing.assert_close(mean, theirs.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar, theirs.logvar, rtol=0, atol=1e-5)
    torch.testing.assert_close(again.clamp(-1, 1), reference.decode(raw).sample, rtol=0, atol=1e-5)


PUBLISHED_22 = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "patch_size": 2,
    "in_channels": 12, "out_channels": 12,
    "latents_mean": list(WAN_22.latent_mean), "latents_std": list(WAN_22.latent_std),
}  # fmt: skip
"""What the config.json of Wan2.2-TI2V-5B's VAE says."""


@pytest.mark.parametrize(("config", "about"), [(WanConfig(), {}), (WAN_22, PUBLISHED_22)])
def test_the_published_size_is_that_of_diffusers(diffusers, config, about):
    with torch.device("meta"):
        ours, theirs = WanVAE(config), diffusers.AutoencoderKLWan(**about)
    shapes, expected = ({name: t.shape for name, t in vae.state_dict().items()} for vae in (ours, theirs))
    assert shapes == expected
    assert config.latent_mean == tuple(theirs.config.latents_mean)
    assert config.latent_std == tuple(theirs.config.latents_std)


def test_latents_are_at_unit_variance_by_the_published_statistics(small):
    video = noise(5)
    config = small.config
    mean, std = (torch.tensor(numbers)[:, None, None, None] for numbers in (config.latent_mean, config.latent_std))
    torch.testing.assert_close(small.encode(video) * std + mean, small.posterior(video)[0])


def test_streamed_coding_equals_whole_coding_bit_for_bit(small):
    video = noise(13)
    mean, _ = small.posterior(video)
    caches, moments = {}, []
    for chunk in (video[:, :, :1], *video[:, :, 1:].split(4, dim=2)):
        out, caches = small.encode_chunk(chunk, caches)
        moments.append(out)
    assert torch.equal(torch.cat(moments, dim=2).chunk(2, dim=1)[0], mean)
    z = small.normed(mean)
    caches, frames = {}, []
    for latent in z.split(1, dim=2):
        out, caches = small.decode_chunk(latent, caches)
        frames.append(out)
    assert [part.shape[2] for part in frames] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(frames, dim=2), small.decode(z))


def test_longer_chunks_differ_by_rounding_alone(small):
    video = noise(17)
    mean, _ = small.posterior(video)
    first, caches = small.encode_chunk(video[:, :, :1], {})
    more, caches = small.encode_chunk(video[:, :, 1:9], caches)
    rest, _ = small.encode_chunk(video[:, :, 9:], caches)
    torch.testing.assert_close(torch.cat([first, more, rest], 2).chunk(2, dim=1)[0], mean, rtol=0, atol=1e-5)
    z = small.normed(mean)
    first, caches = small.decode_chunk(z[:, :, :1], {})
    rest, _ = small.decode_chunk(z[:, :, 1:], caches)
    torch.testing.assert_close(torch.cat([first, rest], 2), small.decode(z), rtol=0, atol=1e-5)


@pytest.mark.parametrize("changed", [1, 4, 5, 8, 12])
def test_a_changed_future_frame_moves_no_past_latent_and_no_past_frame(small, changed):
    video = noise(13)
    other = video.clone()
    other[:, :, changed:] = -other[:, :, changed:]
    z, moved = small.encode(video), small.encode(other)
    latent = -(-changed // 4)
    assert torch.equal(z[:, :, :latent], moved[:, :, :latent]) and not torch.equal(z[:, :, latent], moved[:, :, latent])
    start = 1 + 4 * (latent - 1)
    again, changed_again = small.decode(z), small.decode(moved)
    assert torch.equal(again[:, :, :start], changed_again[:, :, :start])
    assert not torch.equal(again[:, :, start], changed_again[:, :, start])


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 3, 8, 16, 16), "1 . 4·n"), ((1, 3, 5, 12, 16), "multiples of (8|16)")]
)
def test_what_would_lose_frames_or_pixels_is_refused(small, shape, said):
    with pytest.raises(ValueError, match=said):
        small.encode(torch.zeros(shape))


def test_a_chunk_that_would_shift_the_frames_is_refused(small):
    with pytest.raises(ValueError, match="first goes alone"):
        small.encode_chunk(noise(5), {})
    _, caches = small.encode_chunk(noise(1), {})
    with pytest.raises(ValueError, match="multiple of 4"):
        small.encode_chunk(noise(3), caches)


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


def original_22(name: str) -> str:
    """The name of a tensor in Wan2.2_VAE.pth, from its name in diffusers."""
    for way, blocks in (("down", 2), ("up", 3)):
        name = re.sub(rf"{way}_blocks\.(\d)\.resnets\.(\d)", rf"{way}samples.\1.{way}samples.\2", name)
        name = re.sub(rf"{way}_blocks\.(\d)\.{way}sampler", rf"{way}samples.\1.{way}samples.{blocks}", name)
    return original(name)


def test_the_original_file_is_read_as_diffusers_reads_it(diffusers, small_wan, tmp_path):
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = {original(name): tensor for name, tensor in small_wan.state_dict().items()}
    assert {"encoder.middle.1.to_qkv.weight", "decoder.upsamples.7.time_conv.bias", "conv2.bias"} <= weights.keys()
    torch.save(weights, tmp_path / "Wan2.1_VAE.pth")
    found = load(str(tmp_path / "Wan2.1_VAE.pth"), small_wan.config).state_dict()
    referee = convert_wan_vae_to_diffusers(weights)
    assert found.keys() == referee.keys()
    assert all(torch.equal(found[name], referee[name]) for name in found)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_original_file_of_wan_22_is_read_and_told_from_that_of_21(small_wan_22, tmp_path, suffix):
    weights = {original_22(name): tensor for name, tensor in small_wan_22.state_dict().items()}
    wanted = {
        "encoder.downsamples.1.downsamples.2.time_conv.weight", "decoder.upsamples.0.upsamples.3.resample.1.bias",
        "encoder.downsamples.1.downsamples.0.shortcut.weight", "decoder.upsamples.3.upsamples.2.residual.6.bias",
    }  # fmt: skip
    assert wanted <= weights.keys()
    path = tmp_path / f"Wan2.2_VAE.{suffix}"
    torch.save(weights, path) if suffix == "pth" else save_file(weights, path)
    found = load(str(path), small_wan_22.config)
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in small_wan_22.state_dict().items())
    with pytest.raises(ValueError, match=r"not a wan-2\.2 VAE of width 160 .*of another shape"):
        load(str(path))  # of a file without a config.json the published size is expected, of its own version


def test_a_folder_with_an_original_file_and_that_of_a_pipeline_are_read(small_wan, wan_folder, small_wan_22, tmp_path):
    torch.save({original(name): tensor for name, tensor in small_wan.state_dict().items()}, tmp_path / "Wan2.1_VAE.pth")
    (tmp_path / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')  # the transformer's, beside it
    assert torch.equal(load(str(tmp_path), small_wan.config).encode(noise(1)), small_wan.encode(noise(1)))
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "vae").symlink_to(wan_folder)
    assert torch.equal(load(str(tmp_path / "pipeline")).encode(noise(1)), small_wan_22.encode(noise(1)))


def written(tmp_path: Path, vae: WanVAE, **changes: torch.Tensor | None) -> str:
    weights = vae.state_dict() | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    path = tmp_path / "vae.safetensors"
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)
    return str(path)


def test_a_bare_file_or_an_index_gives_the_same_model_as_its_folder(loaded, folder, small):
    files = sorted(path.name for path in folder.glob("*"))
    (named,) = [name for name in files if name.endswith(("model.safetensors", ".index.json"))]
    assert len(files) > 3 if small.config.residual else len(files) == 2
    bare = load(str(folder / named), small.config)
    assert torch.equal(bare.encode(noise(5)), loaded.encode(noise(5)))


def test_an_index_without_its_parts_names_them_and_the_remedy(small_wan_22, tmp_path):
    folder = write_wan(small_wan_22, tmp_path)
    (tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"and of these \S+-00002-of-00002\.safetensors are not.*hf down"):
        load(folder)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match=r"of these \.\./\.\./elsewhere\.safetensors are not beside it"):
        load(folder)
    index.write_text("{}")
    with pytest.raises(ValueError, match="is no index of weights"):
        load(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_of_the_other_version_are_refused(small_wan, small_wan_22, tmp_path, version):
    right, other = (small_wan, small_wan_22) if version == "2.1" else (small_wan_22, small_wan)
    folder = write_wan(right, tmp_path)
    described = (tmp_path / "config.json").read_text()
    write_wan(other, tmp_path)
    (tmp_path / "config.json").write_text(described)
    with pytest.raises(ValueError, match=rf"weights of {other.config.name}, but {right.config.name} was asked"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__conv_in__bias": None}, "1 missing: encoder.conv_in.bias"),
        ({"extra": torch.zeros(1)}, "1 unexpected: extra"),
        ({"quant_conv__bias": torch.zeros(3)}, r"1 of another shape: quant_conv.bias \[3\] for \[8\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(small_wan, tmp_path, changes, said):
    with pytest.raises(ValueError, match=f"not a wan-2.1 VAE of width 8 .*: {said}"):
        load(written(tmp_path, small_wan, **changes), small_wan.config)


def test_weights_of_another_size_name_the_first_few(small_wan, tmp_path):
    with pytest.raises(ValueError, match=r"of another shape: (\S+ \[.*?\] for \[.*?\], ){3}…"):
        load(written(tmp_path, small_wan), replace(small_wan.config, width=4))


def test_a_damaged_file_is_refused(tmp_path):
    for name in ("vae.safetensors", "vae.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match="damaged or holds more than tensors"):
            load(str(tmp_path / name))
    (tmp_path / "config.json").write_text("{")
    write_to = tmp_path / "diffusion_pytorch_model.safetensors"
    write_to.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load(str(tmp_path))


def test_missing_weights_say_which_and_how_they_are_got(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"there is no file \S+absent\.pth; get the weights with `hf download Wan-AI/"):
        load(str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match=r"holds none of diffusion_pytorch_model\.safetensors, .*Wan2\.2_VAE\.pth; "):
        load(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"wan:someone/weights is no folder here, and the hub did not give it"):
        load("someone/weights")


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
        ({"_class_name": "AutoencoderKLWan", "temperal_downsample": [True, True, True]}, "it is another model"),
    ],
)
def test_the_folder_of_another_model_is_refused(small_wan, tmp_path, about, said):
    save_file(load_file(written(tmp_path, small_wan)), tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=said):
        load(str(tmp_path))
