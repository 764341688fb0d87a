"""The Wan 2.1 video VAE (arXiv 2503.20314, §4.1), for inference with its published weights.

Every layer looks back through caches that are passed in and out, never over the whole clip, so the model streams: the
first frame has a latent of its own, then every four frames have one. Coded whole is coded chunk by chunk.

    vae = load("Wan2.1_VAE.pth")
    video b 3 1+4n h w in [-1, 1] ─► encode ─► z: b 16 1+n h/8 w/8 ─► decode ─► video b 3 1+4n h w
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.layers import Caches
from rushes.tokenizer.pretrained import LOGVAR_RANGE, check_class, check_video, fill, read

Video = Float[Tensor, "b c t h w"]
_HALVES_TIME = (False, True, True)  # at each halving of the sides, on the way in
# fmt: off
_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
         0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """The size of the model; the defaults are the published one's."""

    width: int = 96
    """Channels at the full size of the picture."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels in units of `width` at the full size, 1/2, 1/4 and 1/8."""
    blocks: int = 2
    """Residual blocks of each size in the encoder; the decoder has one more."""
    channels: int = 16
    """Channels of a latent."""
    latent_mean: tuple[float, ...] = _MEAN
    """Mean of each channel of a latent over the model's training data."""
    latent_std: tuple[float, ...] = _STD
    """Standard deviation of each channel."""

    def __post_init__(self) -> None:
        if len(self.multipliers) != len(_HALVES_TIME) + 1:
            raise ValueError(f"multipliers {self.multipliers}: the Wan VAE has {len(_HALVES_TIME) + 1} sizes")
        if not len(self.latent_mean) == len(self.latent_std) == self.channels:
            raise ValueError(f"latent_mean and latent_std need one number for each of the {self.channels} channels")


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of one position, with a gain."""

    def __init__(self, channels: int, axes: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Float[Tensor, "b c *positions"]) -> Float[Tensor, "b c *positions"]:
        """Return the normed tensor; the norm is taken in full precision."""
        return F.normalize(x.float(), dim=1).to(x.dtype) * len(self.gamma) ** 0.5 * self.gamma


class CausalConv(nn.Conv3d):
    """Convolution over this frame and the two before; before the first frame stand zeros, in time as in space."""

    name: str

    def __init__(self, inside: int, outside: int, kernel: tuple[int, int, int] = (3, 3, 3)):
        super().__init__(inside, outside, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:  # type: ignore[override]
        """Return the convolved chunk; two past frames come from `before`, the last two go to `after`."""
        past = before[self.name] if self.name in before else torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2, -1, -1)
        seen = torch.cat([past, x], dim=2)
        after[self.name] = seen[:, :, -2:].clone()  # a view would keep the whole chunk in memory
        return super().forward(seen)


class Residual(nn.Module):
    """Residual block of two causal convolutions."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(inside, 3), ChannelNorm(outside, 3)
        self.conv1, self.conv2 = CausalConv(inside, outside), CausalConv(outside, outside)
        self.conv_shortcut = nn.Conv3d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk after the block."""
        y = self.conv1(F.silu(self.norm1(x)), before, after)
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(y)), before, after)


class Attention(nn.Module):
    """Self-attention with one head among the positions of one frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Video) -> Video:
        """Return the chunk after attention within each frame."""
        t, h = x.shape[2], x.shape[3]
        frames = self.to_qkv(self.norm(rearrange(x, "b c t h w -> (b t) c h w")))
        q, k, v = rearrange(frames, "n (three c) h w -> three n 1 (h w) c", three=3)
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "n 1 (h w) c -> n c h w", h=h)
        return x + rearrange(self.proj(y), "(b t) c h w -> b c t h w", t=t)


class Middle(nn.Module):
    """Residual block, attention, residual block at the smallest size."""

    def __init__(self, channels: int):
        super().__init__()
        self.resnets = nn.ModuleList(Residual(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels)])

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk after all three."""
        x = self.attentions[0](self.resnets[0](x, before, after))
        return self.resnets[1](x, before, after)


class Down(nn.Module):
    """Halves the sides and, with `time`, the frame rate after the first frame."""

    name: str

    def __init__(self, channels: int, *, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the smaller chunk; a pair of frames is joined with the frame before it, which is the cache."""
        x = _each_frame(self.resample, x)
        if self.time_conv is None:
            return x
        after[self.name] = x[:, :, -1:].clone()
        return self.time_conv(torch.cat([before[self.name], x], dim=2)) if self.name in before else x


class Up(nn.Module):
    """Doubles the sides, halves the channels and, with `time`, doubles the frame rate after the first frame."""

    def __init__(self, channels: int, *, time: bool):
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(channels, channels // 2, 3, padding=1)
        )
        self.time_conv = CausalConv(channels, 2 * channels, (3, 1, 1)) if time else None

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the larger chunk. The first frame passes and leaves no trace: to the second, zeros went before."""
        if self.time_conv is not None and self.time_conv.name in before:
            x = rearrange(self.time_conv(x, before, after), "b (p c) t h w -> b c (t p) h w", p=2)
        elif self.time_conv is not None:
            after[self.time_conv.name] = torch.zeros_like(x).repeat(1, 1, 2, 1, 1)
        return _each_frame(self.resample, x)


class Encoder(nn.Module):
    """From pixels to the moments of latents, before their last mixing."""

    def __init__(self, config: WanConfig):
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.conv_in = CausalConv(3, config.width)
        stages: list[nn.Module] = []
        for i, (inside, outside) in enumerate(pairwise([config.width, *widths])):
            stages += [Residual(inside if block == 0 else outside, outside) for block in range(config.blocks)]
            stages += [Down(outside, time=time) for time in _HALVES_TIME[i : i + 1]]
        self.down_blocks = nn.ModuleList(stages)
        self.mid_block = Middle(widths[-1])
        self.norm_out = ChannelNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 2 * config.channels)

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the moments of a chunk."""
        x = self.conv_in(x, before, after)
        for stage in [*self.down_blocks, self.mid_block]:
            x = stage(x, before, after)
        return self.conv_out(F.silu(self.norm_out(x)), before, after)


class UpStage(nn.Module):
    """The blocks of one size in the decoder, then the step to the next size."""

    def __init__(self, inside: int, outside: int, blocks: int, *, time: bool | None):
        super().__init__()
        self.resnets = nn.ModuleList(Residual(inside if i == 0 else outside, outside) for i in range(blocks))
        self.upsamplers = nn.ModuleList([Up(outside, time=time)] if time is not None else [])

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk at the next size."""
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(x, before, after)
        return x


class Decoder(nn.Module):
    """From latents to pixels."""

    def __init__(self, config: WanConfig):
        super().__init__()
        widths = [config.width * multiplier for multiplier in reversed(config.multipliers)]
        insides = [widths[0], *(width // 2 for width in widths[:-1])]  # the step between sizes halves the channels
        self.conv_in = CausalConv(config.channels, widths[0])
        self.mid_block = Middle(widths[0])
        steps = zip(insides, widths, (*reversed(_HALVES_TIME), None), strict=True)
        self.up_blocks = nn.ModuleList(UpStage(one, other, config.blocks + 1, time=time) for one, other, time in steps)
        self.norm_out = ChannelNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 3)

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the frames of a chunk."""
        x = self.conv_in(x, before, after)
        for stage in [self.mid_block, *self.up_blocks]:
            x = stage(x, before, after)
        return self.conv_out(F.silu(self.norm_out(x)), before, after)


class WanVAE(nn.Module):
    """Encoder and decoder; see `load`."""

    factor_t = 2 ** sum(_HALVES_TIME)
    factor_s = 2 ** len(_HALVES_TIME)
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: WanConfig | None = None):
        super().__init__()
        config = config or WanConfig()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant_conv = nn.Conv3d(config.channels, config.channels, 1)
        for buffer in ("latent_mean", "latent_std"):
            values = torch.tensor(getattr(config, buffer))[:, None, None, None]
            self.register_buffer(buffer, values, persistent=False)
        for name, module in self.named_modules():
            if isinstance(module, CausalConv | Down):
                module.name = name  # its caches are called by its place

    def encode(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c n y x"]:
        """Return the latents of a clip, the posterior's means at zero mean and unit variance over training data.

        Raises:
            ValueError: the frames are not 1 + 4n, or the sides no multiples of 8.
        """
        return self.normed(self.posterior(video)[0])

    def decode(self, z: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b 3 t h w"]:
        """Return the 1 + 4(n - 1) frames of latents; not clamped to [-1, 1]."""
        caches: Caches = {}
        out = []
        for latent in z.split(1, dim=2):
            frames, caches = self.decode_chunk(latent, caches)
            out.append(frames)
        return torch.cat(out, dim=2)

    def posterior(
        self, video: Float[Tensor, "b 3 t h w"]
    ) -> tuple[Float[Tensor, "b c n y x"], Float[Tensor, "b c n y x"]]:
        """Return mean and log variance of the latents as the model itself has them; errors as `encode`."""
        check_video(video, self.factor_t, self.factor_s)
        caches: Caches = {}
        out = []
        for chunk in (video[:, :, :1], *video[:, :, 1:].split(self.factor_t, dim=2)):
            if chunk.shape[2]:
                moments, caches = self.encode_chunk(chunk, caches)
                out.append(moments)
        mean, logvar = torch.cat(out, dim=2).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def encode_chunk(
        self, video: Float[Tensor, "b 3 t h w"], caches: Caches
    ) -> tuple[Float[Tensor, "b c2 n y x"], Caches]:
        """Return the moments of a chunk and the caches for the next: the streaming step.

        Args:
            video: the first frame alone, later a multiple of four frames.
            caches: empty for the first frame.

        Raises:
            ValueError: the chunk has another number of frames.
        """
        _check_chunk(video.shape[2], self.factor_t, caches)
        after: dict[str, Tensor] = {}
        return self.quant_conv(self.encoder(video, caches, after)), after

    def decode_chunk(self, z: Float[Tensor, "b c n y x"], caches: Caches) -> tuple[Float[Tensor, "b 3 t h w"], Caches]:
        """Return the frames of latents and the caches for the next: the first latent alone, later any number."""
        _check_chunk(z.shape[2], 1, caches)
        after: dict[str, Tensor] = {}
        x = self.post_quant_conv(z * self.latent_std + self.latent_mean)
        return self.decoder(x, caches, after), after

    def normed(self, mean: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b c n y x"]:
        """Return latents shifted and scaled to the zero mean and unit variance that generators want."""
        return (mean - self.latent_mean) / self.latent_std


def _each_frame(layer: nn.Module, x: Video) -> Video:
    y = layer(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2])


def _check_chunk(length: int, unit: int, caches: Caches) -> None:
    if length % unit if caches else length != 1:
        wanted = f"a multiple of {unit}" if caches else "1: the first goes alone"
        raise ValueError(f"a chunk of {length} where its length should be {wanted}")


def load(path: str, config: WanConfig | None = None) -> WanVAE:
    """Return the Wan 2.1 VAE with the weights of a file, in evaluation mode on the CPU.

    Args:
        path: the folder of diffusers' `AutoencoderKLWan`, its .safetensors file, or the original `Wan2.1_VAE.pth`.
        config: size of the model; None takes what a folder's config.json says, and for a file the published size.

    Raises:
        ValueError: no weights are there, or they are another model's; the message names what is missing or too much.
    """
    weights, about = read(path)
    check_class(about, "AutoencoderKLWan", path)
    config = config or _described(about, path)
    if "decoder.middle.0.residual.0.gamma" in weights:
        weights = {_renamed(name, config.blocks): tensor for name, tensor in weights.items()}
    expected = f"a Wan 2.1 VAE of width {config.width} (AutoencoderKLWan of diffusers, or Wan2.1_VAE.pth)"
    return fill(WanVAE(config), weights, expected=expected, path=path)


def _described(about: Mapping[str, Any], path: str) -> WanConfig:
    """Return the size that a diffusers config.json gives, for what it leaves out the published one."""
    if about.get("is_residual") or about.get("temperal_downsample", list(_HALVES_TIME)) != list(_HALVES_TIME):
        raise ValueError(f"{path} holds another VAE than Wan 2.1's, such as that of Wan 2.2; it cannot be read")
    published = WanConfig()
    return WanConfig(
        width=about.get("base_dim", published.width),
        multipliers=tuple(about.get("dim_mult", published.multipliers)),
        blocks=about.get("num_res_blocks", published.blocks),
        channels=about.get("z_dim", published.channels),
        latent_mean=tuple(about.get("latents_mean", published.latent_mean)),
        latent_std=tuple(about.get("latents_std", published.latent_std)),
    )


_ORIGINAL = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.downsamples\.", ".down_blocks."),
]


def _renamed(name: str, blocks: int) -> str:
    """Return the name in diffusers of a tensor that the original file calls `name`."""
    for pattern, replacement in _ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.upsamples\.(\d+)\.", lambda found: _up_block(int(found[1]), blocks), name)


def _up_block(index: int, blocks: int) -> str:
    """Return where a layer of the decoder's flat list stands: each size has `blocks + 1` of them and then its step."""
    stage, layer = divmod(index, blocks + 2)
    return f".up_blocks.{stage}." + ("upsamplers.0." if layer == blocks + 1 else f"resnets.{layer}.")
