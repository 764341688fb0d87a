"""Clip shards of real footage, small enough to train on in a test."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from safetensors.torch import save_file

from rushes.pipelines.store import shards
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.hunyuan import HunyuanConfig, HunyuanVAE
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.wan import WAN_22, WanConfig, WanVAE


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def excerpt(path: Path, start: int, frames: int, width: int, height: int) -> bytes:
    out = io.BytesIO()
    with av.open(str(path)) as source, av.open(out, "w", format="mp4") as target:
        stream = target.add_stream("libx264", rate=25, options={"crf": "14", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i, frame in enumerate(source.decode(video=0)):
            if start <= i < start + frames:
                small = frame.reformat(width, height, "yuv420p")
                small.pts, small.time_base, small.pict_type = i - start, Fraction(1, 25), 0
                target.mux(stream.encode(small))
            if i >= start + frames:
                break
        target.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture(scope="session")
def clip_bytes(bikes: Path) -> bytes:
    """37 frames of street traffic, 128×56."""
    return excerpt(bikes, 80, 37, 128, 56)


@pytest.fixture(scope="session")
def write_clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, bytes]], str]:
    """Writes a set of clip shards and returns its root."""

    def write(clips: dict[str, bytes]) -> str:
        root = str(tmp_path_factory.mktemp("shards"))
        samples = []
        for name, data in clips.items():
            key = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-000000000"
            facts = json.dumps({"key": key, "caption": name, "camera": "static"}).encode()
            samples.append(shards.Sample(key, [("mp4", data), ("json", facts), ("txt", name.encode())]))
        info = shards.write_shard(root, "b", "clips", 0, samples)
        shards.write_manifest(root, [info], kind="clips", fingerprint="test")
        return root

    return write


@pytest.fixture(scope="session")
def clip_shards(bikes: Path, bunny: Path, write_clips: Callable[[dict[str, bytes]], str]) -> str:
    """Five clips of two films."""
    clips = {f"bikes {i}": excerpt(bikes, 40 * i, 24, 128, 56) for i in range(3)}
    clips |= {f"bunny {i}": excerpt(bunny, 40 * i, 24, 128, 72) for i in range(2)}
    return write_clips(clips)


@pytest.fixture
def stirred() -> Callable[..., Tokenizer]:
    """Makes a tokenizer none of whose layers is zero, so that a law that it keeps is kept for a reason."""

    def make(**settings) -> Tokenizer:
        torch.manual_seed(0)
        tokenizer = Tokenizer(TokenizerConfig(**settings)).eval().requires_grad_(False)
        for parameter in tokenizer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        return tokenizer

    return make


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Gives every layer random weights that neither vanish nor grow, so that an equality holds for a reason."""
    chance = torch.Generator().manual_seed(0)
    for name, parameter in model.requires_grad_(False).named_parameters():
        noise = torch.randn(parameter.shape, generator=chance)
        gain = "norm" in name and not name.endswith("bias")
        parameter.copy_(1 + 0.2 * noise if gain else noise * (0.1 if noise.ndim == 1 else noise[0].numel() ** -0.5))
    return model.eval()


@pytest.fixture(scope="session")
def randomised() -> Callable[[torch.nn.Module], torch.nn.Module]:
    return randomise


STATISTICS = {"channels": 4, "latent_mean": (0.1, -0.2, 0.3, 0.4), "latent_std": (1.5, 0.5, 2.0, 1.0)}


@pytest.fixture(scope="session")
def small_wan() -> WanVAE:
    """All layers of the Wan 2.1 VAE, a twelfth of its width."""
    return randomise(WanVAE(WanConfig(width=8, **STATISTICS)))


def wan_22() -> WanVAE:
    """All layers of the Wan 2.2 VAE, a twentieth of its width, with random weights."""
    return randomise(WanVAE(replace(WAN_22, width=8, decoder_width=16, **STATISTICS)))


@pytest.fixture(scope="session")
def small_wan_22() -> WanVAE:
    return wan_22()


@pytest.fixture(scope="session")
def wan_folder(small_wan_22, tmp_path_factory) -> str:
    """A Wan 2.2 VAE as diffusers writes it, in two files and an index."""
    return write_wan(small_wan_22, tmp_path_factory.mktemp("wan22"))


def write_wan(vae: WanVAE, folder: Path) -> str:
    """Write a Wan VAE as diffusers does, in two files and an index, and return the folder."""
    c, names = vae.config, sorted(vae.state_dict())
    about = {
        "_class_name": "AutoencoderKLWan", "base_dim": c.width, "decoder_base_dim": c.decoder_width or None,
        "z_dim": c.channels, "dim_mult": c.multipliers, "num_res_blocks": c.blocks, "is_residual": c.residual,
        "patch_size": c.patch if c.residual else None, "latents_mean": c.latent_mean, "latents_std": c.latent_std,
        "temperal_downsample": [False, True, True],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about))
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: vae.state_dict()[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return str(folder)


@pytest.fixture(scope="session")
def small_hunyuan() -> HunyuanVAE:
    """All layers of the HunyuanVideo VAE, a sixteenth of its width."""
    return randomise(HunyuanVAE(HunyuanConfig(widths=(8, 16, 32, 32), channels=4, groups=2)))
