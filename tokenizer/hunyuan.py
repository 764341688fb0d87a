"""The HunyuanVideo 1.0 video VAE (arXiv 2412.03603, §4.1), for inference with its published weights.

Whole clips only. Its convolutions look back alone and its attention sees this frame and earlier ones, but its group
norms take their statistics over all frames, so a later frame moves every earlier latent: no cache can stream it
exactly, and it is not strictly causal. Attention over all past frames would need a cache that grows with the clip.
Cutting a long clip into overlapping pieces, as its pipelines do, gives other latents; that is not done here. So that
memory stays bounded, `tokenizer.frozen` codes a long clip in pieces of 1 + 64 frames, each as a clip of its own.

    vae = load("hunyuan-video-t2v-720p/vae/pytorch_model.pt")
    video b 3 1+4n h w in [-1, 1] ─► encode ─► z: b 16 1+n h/8 w/8 ─► decode ─► video b 3 1+4n h w
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.pretrained import LOGVAR_RANGE, Source, check_class, check_video, fill, read

Video = Float[Tensor, "b c t h w"]
Factors = tuple[int, int, int]
_DOWN: tuple[Factors, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))  # of time, height, width between the sizes
_UP = _DOWN  # the way out is not mirrored: here, too, the first step leaves time alone
SOURCE = Source(
    kind="hunyuan",
    model="AutoencoderKLHunyuanVideo",
    files=("pytorch_model.pt",),
    get="`hf download hunyuanvideo-community/HunyuanVideo --include 'vae/*' --local-dir DIR`",
)
"""Where the published weights come from."""


@dataclass(frozen=True, kw_only=True)
class HunyuanConfig:
    """The size of the model; the defaults are the published one's."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels at the full size of the picture, 1/2, 1/4 and 1/8."""
    blocks: int = 2
    """Residual blocks of each size in the encoder; the decoder has one more."""
    channels: int = 16
    """Channels of a latent."""
    groups: int = 32
    """Groups of the norms."""
    scaling: float = 0.476986
    """What latents are multiplied by for about unit variance."""
    name = "hunyuan-video"

    def __post_init__(self) -> None:
        if len(self.widths) != len(_DOWN) + 1 or any(width % self.groups for width in self.widths):
            raise ValueError(f"widths {self.widths} should be {len(_DOWN) + 1} multiples of groups {self.groups}")


class CausalConv(nn.Module):
    """Convolution over this frame and earlier ones; beyond the first frame and the borders stand their copies."""

    def __init__(self, inside: int, outside: int, kernel: int = 3, stride: Factors = (1, 1, 1)):
        super().__init__()
        self.conv = nn.Conv3d(inside, outside, kernel, stride)
        self.padding = (*[kernel // 2] * 4, kernel - 1, 0)

    def forward(self, x: Video) -> Video:
        """Return the convolved clip."""
        return self.conv(F.pad(x, self.padding, mode="replicate"))


class Residual(nn.Module):
    """Residual block of two causal convolutions."""

    def __init__(self, inside: int, outside: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inside, eps=1e-6), nn.GroupNorm(groups, outside, eps=1e-6)
        self.conv1, self.conv2 = CausalConv(inside, outside), CausalConv(outside, outside)
        self.conv_shortcut = CausalConv(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Video) -> Video:
        """Return the clip after the block."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    """Self-attention with one head: a position sees all positions of its frame and of earlier frames."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Video) -> Video:
        """Return the clip after attention, computed frame by frame: the mask would be as large as all pairs."""
        t, h, w = x.shape[2:]
        tokens = rearrange(self.group_norm(x), "b c t h w -> b 1 (t h w) c")
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        seen = range(h * w, t * h * w + 1, h * w)
        out = [
            F.scaled_dot_product_attention(frame, k[:, :, :end], v[:, :, :end])
            for frame, end in zip(q.split(h * w, dim=2), seen, strict=True)
        ]
        y = self.to_out[0](torch.cat(out, dim=2))
        return x + rearrange(y, "b 1 (t h w) c -> b c t h w", t=t, h=h)


class Middle(nn.Module):
    """Residual block, attention, residual block at the smallest size."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList(Residual(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups)])

    def forward(self, x: Video) -> Video:
        """Return the clip after all three."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Down(nn.Module):
    """Convolution with a stride; the first frame stays by itself."""

    def __init__(self, channels: int, factors: Factors):
        super().__init__()
        self.conv = CausalConv(channels, channels, stride=factors)

    def forward(self, x: Video) -> Video:
        """Return the smaller clip."""
        return self.conv(x)


class Up(nn.Module):
    """Repeats positions in space, and in time all frames but the first, then convolves."""

    def __init__(self, channels: int, factors: Factors):
        super().__init__()
        self.conv = CausalConv(channels, channels)
        self.factors = factors

    def forward(self, x: Video) -> Video:
        """Return the larger clip."""
        time, height, width = self.factors
        later = x[:, :, 1:].repeat_interleave(time, dim=2)
        frames = torch.cat([x[:, :, :1], later], dim=2)
        return self.conv(frames.repeat_interleave(height, dim=3).repeat_interleave(width, dim=4))


class DownStage(nn.Module):
    """The blocks of one size in the encoder, then the step to the next size."""

    def __init__(self, inside: int, outside: int, config: HunyuanConfig, factors: Factors | None):
        super().__init__()
        self.resnets = _residuals(inside, outside, config.blocks, config.groups)
        self.downsamplers = nn.ModuleList([Down(outside, factors)] if factors else [])

    def forward(self, x: Video) -> Video:
        """Return the clip at the next size."""
        return _through([*self.resnets, *self.downsamplers], x)


class UpStage(nn.Module):
    """The blocks of one size in the decoder, then the step to the next size."""

    def __init__(self, inside: int, outside: int, config: HunyuanConfig, factors: Factors | None):
        super().__init__()
        self.resnets = _residuals(inside, outside, config.blocks + 1, config.groups)
        self.upsamplers = nn.ModuleList([Up(outside, factors)] if factors else [])

    def forward(self, x: Video) -> Video:
        """Return the clip at the next size."""
        return _through([*self.resnets, *self.upsamplers], x)


class Encoder(nn.Module):
    """From pixels to the moments of latents, before their last mixing."""

    def __init__(self, config: HunyuanConfig):
        super().__init__()
        insides = (config.widths[0], *config.widths[:-1])
        self.conv_in = CausalConv(3, config.widths[0])
        steps = zip(insides, config.widths, (*_DOWN, None), strict=True)
        self.down_blocks = nn.ModuleList(DownStage(one, other, config, factors) for one, other, factors in steps)
        self.mid_block = Middle(config.widths[-1], config.groups)
        self.conv_norm_out = nn.GroupNorm(config.groups, config.widths[-1], eps=1e-6)
        self.conv_out = CausalConv(config.widths[-1], 2 * config.channels)

    def forward(self, x: Video) -> Video:
        """Return the moments of a clip."""
        x = _through([self.conv_in, *self.down_blocks, self.mid_block], x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """From latents to pixels."""

    def __init__(self, config: HunyuanConfig):
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = CausalConv(config.channels, widths[0])
        self.mid_block = Middle(widths[0], config.groups)
        steps = zip((widths[0], *widths[:-1]), widths, (*_UP, None), strict=True)
        self.up_blocks = nn.ModuleList(UpStage(one, other, config, factors) for one, other, factors in steps)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = CausalConv(widths[-1], 3)

    def forward(self, x: Video) -> Video:
        """Return the frames of a clip."""
        x = _through([self.conv_in, self.mid_block, *self.up_blocks], x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class HunyuanVAE(nn.Module):
    """Encoder and decoder; see `load`."""

    factor_t = prod(time for time, _, _ in _DOWN)
    factor_s = prod(height for _, height, _ in _DOWN)
    piece = 64  # frames after the first that are coded as one clip, for the sake of memory
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: HunyuanConfig | None = None):
        super().__init__()
        self.config = config = config or HunyuanConfig()
        self.scaling = config.scaling
        stats = {"latent_mean": 0.0, "latent_std": 1 / config.scaling}
        for buffer, value in stats.items():
            self.register_buffer(buffer, torch.full((config.channels, 1, 1, 1), value), persistent=False)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv3d(config.channels, config.channels, 1)

    def encode(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c n y x"]:
        """Return the latents of a clip, the posterior's means scaled to about unit variance.

        Raises:
            ValueError: the frames are not 1 + 4n, or the sides no multiples of 8.
        """
        return self.posterior(video)[0] * self.scaling

    def decode(self, z: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b 3 t h w"]:
        """Return the 1 + 4(n - 1) frames of latents; not clamped to [-1, 1]."""
        return self.decoder(self.post_quant_conv(z / self.scaling))

    def stream_encode(self, chunks: Iterable[Float[Tensor, "b 3 t h w"]]) -> Iterator[Float[Tensor, "b c n y x"]]:
        """Yield the latents of each chunk of a piece, once all of it is there: the first frame, then the others."""
        held = list(chunks)
        numbers = [-(-chunk.shape[2] // self.factor_t) for chunk in held]
        yield from self.encode(torch.cat(held, dim=2)).split(numbers, dim=2)

    def stream_decode(self, chunks: Iterable[Float[Tensor, "b c n y x"]]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
        """Yield the frames of each chunk of latents of a piece, once all of it is there."""
        held = list(chunks)
        later = [self.factor_t * chunk.shape[2] for chunk in held[1:]]
        yield from self.decode(torch.cat(held, dim=2)).split([1, *later], dim=2)

    def posterior(
        self, video: Float[Tensor, "b 3 t h w"]
    ) -> tuple[Float[Tensor, "b c n y x"], Float[Tensor, "b c n y x"]]:
        """Return mean and log variance of the latents as the model itself has them; errors as `encode`."""
        check_video(video, self.factor_t, self.factor_s)
        mean, logvar = self.quant_conv(self.encoder(video)).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)


def _residuals(inside: int, outside: int, blocks: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(inside if i == 0 else outside, outside, groups) for i in range(blocks))


def _through(layers: list[nn.Module], x: Video) -> Video:
    for layer in layers:
        x = layer(x)
    return x


def load(path: str, config: HunyuanConfig | None = None) -> HunyuanVAE:
    """Return the HunyuanVideo VAE with the weights of a file, in evaluation mode on the CPU.

    Args:
        path: what `pretrained.read` takes: the folder of diffusers' `AutoencoderKLHunyuanVideo`, its .safetensors file,
            or the original `pytorch_model.pt`, whose tensors bear the same names: diffusers' converter renames none.
        config: size of the model; None takes what a folder's config.json says, and for a file the published size.

    Raises:
        ValueError: no weights are there, or they are another model's; the message names what is missing or too much.
    """
    weights, about = read(path, SOURCE)
    check_class(about, SOURCE.model, path)
    config = config or _described(about)
    expected = f"a HunyuanVideo VAE of widths {config.widths} ({SOURCE.model}, or its pytorch_model.pt)"
    return fill(HunyuanVAE(config), weights, expected=expected, path=path)


def _described(about: Mapping[str, Any]) -> HunyuanConfig:
    """Return the size that a diffusers config.json gives, for what it leaves out the published one."""
    published = HunyuanConfig()
    return HunyuanConfig(
        widths=tuple(about.get("block_out_channels", published.widths)),
        blocks=about.get("layers_per_block", published.blocks),
        channels=about.get("latent_channels", published.channels),
        groups=about.get("norm_num_groups", published.groups),
        scaling=about.get("scaling_factor", published.scaling),
    )
