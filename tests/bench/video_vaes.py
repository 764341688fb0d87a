"""Published video VAEs as diffusers builds them, and ours, at 4×8×8 with 16 channels: one in a process of its own.

    python -m tests.bench.video_vaes wan 10        # about ten million parameters
    python -m tests.bench.video_vaes wan 0         # as wide as it was published

Prints one line of JSON: parameters, seconds of each round of encode + decode, peak memory above the model's own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.model import Tokenizer

FRAMES, SIDE, ROUNDS = 17, 128, 3
Build = Callable[[int], nn.Module]


def _ltx(width: int) -> nn.Module:
    from diffusers import AutoencoderKLLTXVideo

    widths = tuple(width * n for n in (1, 2, 4))  # patches of 2 × 2, two halvings of everything: 4×8×8
    each = {"layers_per_block": (4, 3, 3, 4), "spatio_temporal_scaling": (True, True, False)}
    return AutoencoderKLLTXVideo(
        latent_channels=16, block_out_channels=widths, decoder_block_out_channels=widths, patch_size=2,
        down_block_types=("LTXVideoDownBlock3D",) * 3, downsample_type=("conv",) * 3,
        decoder_layers_per_block=each["layers_per_block"], decoder_inject_noise=(False,) * 4,
        decoder_spatio_temporal_scaling=each["spatio_temporal_scaling"],
        upsample_residual=(False,) * 3, upsample_factor=(1,) * 3, **each,
    )  # fmt: skip


def _cosmos(width: int) -> nn.Module:
    from diffusers import AutoencoderKLCosmos

    return AutoencoderKLCosmos(
        latent_channels=16, encoder_block_out_channels=tuple(width * n for n in (1, 2, 4, 4)),
        decode_block_out_channels=tuple(width * n for n in (2, 4, 4, 4)), temporal_compression_ratio=4,
        latents_mean=None, latents_std=None,
    )  # fmt: skip


def _wan(width: int) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=width)


def _hunyuan(width: int) -> nn.Module:
    from diffusers import AutoencoderKLHunyuanVideo

    return AutoencoderKLHunyuanVideo(
        block_out_channels=tuple(width * n for n in (1, 2, 4, 4)), norm_num_groups=_groups(width)
    )


def _cogvideox(width: int) -> nn.Module:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=tuple(width * n for n in (1, 2, 2, 4)), norm_num_groups=_groups(width)
    )


class _OfWidth(TokenizerConfig):
    """Ours at a width between those of the dial."""

    _width = 0

    @property
    def width(self) -> int:
        """The width asked for, or the dial's."""
        return self._width or super().width


def _ours(rates: tuple[int, ...], size: Any) -> Build:
    def build(width: int) -> nn.Module:
        config = _OfWidth(size="base" if width == PUBLISHED["ours"] else size, rates=rates)
        object.__setattr__(config, "_width", 0 if width == PUBLISHED["ours"] else width)
        return Tokenizer(config)

    return build


PUBLISHED = {"ltx": 128, "cosmos": 128, "wan": 96, "hunyuan": 128, "cogvideox": 128, "ours": 480, "ours-fixed": 480}
"""Narrowest width of each as it was published; ours is the size base."""
BUILD: dict[str, Build] = {
    "ours": _ours((2, 4, 8, 16), "tiny"), "ours-fixed": _ours((4,), "tiny"),
    "ltx": _ltx, "cosmos": _cosmos, "wan": _wan, "hunyuan": _hunyuan, "cogvideox": _cogvideox,
}  # fmt: skip


def size_of(model: nn.Module) -> float:
    """Return millions of parameters."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def width_for(name: str, millions: float) -> int:
    """Return the width that brings a model nearest to so many parameters; 0 for the published one."""
    if not millions:
        return PUBLISHED[name]
    step = 8 if name.startswith("ours") else 4
    near = round((millions / size_of(BUILD[name](64))) ** 0.5 * 64 / step) * step  # they grow with the width squared
    widths = (near - step, near, near + step)
    return min(widths, key=lambda width: abs(size_of(BUILD[name](width)) - millions))


def _groups(width: int) -> int:
    """Return the groups of a group norm: 32 as published, fewer where a narrow width does not divide so."""
    return min(32, width & -width)


def coded(name: str, model: Any, video: Tensor) -> Tensor:
    """Return a clip encoded at four frames per latent and decoded."""
    if name.startswith("ours"):
        return model.decode(model.encode(video, 4))
    return model.decode(model.encode(video).latent_dist.mode()).sample


def peak_mib() -> float:
    """Return the most memory that was resident since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def built(name: str, millions: float) -> tuple[Any, int]:
    """Return a model of about so many parameters and its width, in a process that is to measure it on one core."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # what is tried must not widen this process
        width = apart.submit(width_for, name, millions).result()
    return BUILD[name](width).eval(), width


def main(name: str, millions: float) -> dict[str, Any]:
    """Measure one model."""
    model, width = built(name, millions)
    video = torch.rand(1, 3, FRAMES, SIDE, SIDE) * 2 - 1
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = peak_mib(), []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        out = coded(name, model, video)
        seconds.append(time.perf_counter() - begun)
    assert out.shape == video.shape, f"{name} gives {list(out.shape)}"
    return {
        "name": name,
        "width": width,
        "millions": size_of(model),
        "seconds": seconds[1:],
        "peak_mib": peak_mib() - before,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]))))
