"""The video VAEs of Wan 2.1 (arXiv 2503.20314, §4.1) and Wan 2.2, for inference with their published weights.

Every layer looks back through caches that are passed in and out, never over the whole clip, so the model streams: the
first frame has a latent of its own, then every four frames have one. Coded whole is coded chunk by chunk. The VAE of
Wan 2.2 patches the picture to half its sides first, and each of its sizes has a way around without weights: means on
the way in, copies on the way out.

    vae = load("Wan2.1_VAE.pth")
    video b 3 1+4n h w in [-1, 1] ─► encode ─► z: b 16 1+n h/8 w/8 ─► decode ─► video b 3 1+4n h w
    vae = load("Wan2.2_VAE.pth")   # z: b 48 1+n h/16 w/16
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.layers import Caches
from rushes.tokenizer.pretrained import LOGVAR_RANGE, Source, check_class, check_video, fill, read
from rushes.tokenizer.wan_names import renamed

Video = Float[Tensor, "b c t h w"]
_HALVES_TIME = (False, True, True)  # at each halving of the sides, on the way in
# fmt: off
_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
         0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
_MEAN_22 = (-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
            0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
            -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
            -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667)
_STD_22 = (0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
           0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
           0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
           0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744)
# fmt: on
SOURCE = Source(
    kind="wan",
    model="AutoencoderKLWan",
    files=("Wan2.1_VAE.pth", "Wan2.2_VAE.pth"),
    get="`hf download Wan-AI/Wan2.2-TI2V-5B Wan2.2_VAE.pth --local-dir DIR`, or Wan-AI/Wan2.1-T2V-14B Wan2.1_VAE.pth",
)
"""Where the published weights come from."""


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """The size of the model; the defaults are those of Wan 2.1, `WAN_22` has those of Wan 2.2."""

    width: int = 96
    """Channels at the full size of the picture, or of its patches."""
    decoder_width: int = 0
    """The same in the decoder; 0 means as in the encoder."""
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
    residual: bool = False
    """Whether each size has a way around it, as in Wan 2.2."""
    patch: int = 1
    """Pixels of a side that are folded into channels first."""

    @property
    def name(self) -> str:
        """The version whose layers these are."""
        return "wan-2.2" if self.residual else "wan-2.1"

    def __post_init__(self) -> None:
        if len(self.multipliers) != len(_HALVES_TIME) + 1:
            raise ValueError(f"multipliers {self.multipliers}: the Wan VAE has {len(_HALVES_TIME) + 1} sizes")
        if not len(self.latent_mean) == len(self.latent_std) == self.channels:
            raise ValueError(f"latent_mean and latent_std need one number for each of the {self.channels} channels")


WAN_22 = WanConfig(
    width=160, decoder_width=256, channels=48, latent_mean=_MEAN_22, latent_std=_STD_22, residual=True, patch=2
)


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
    """Doubles the sides and, with `time`, the frame rate after the first frame."""

    def __init__(self, channels: int, outside: int, *, time: bool):
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(channels, outside, 3, padding=1)
        )
        self.time_conv = CausalConv(channels, 2 * channels, (3, 1, 1)) if time else None

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the larger chunk. The first frame passes and leaves no trace: to the second, zeros went before."""
        if self.time_conv is not None and self.time_conv.name in before:
            x = rearrange(self.time_conv(x, before, after), "b (p c) t h w -> b c (t p) h w", p=2)
        elif self.time_conv is not None:
            after[self.time_conv.name] = torch.zeros_like(x).repeat(1, 1, 2, 1, 1)
        return _each_frame(self.resample, x)


class ResidualDown(nn.Module):
    """The blocks of one size in the encoder of Wan 2.2 and the step to the next size; means of the input go around."""

    def __init__(self, inside: int, outside: int, blocks: int, *, time: bool | None):
        super().__init__()
        self.resnets = _residuals(inside, outside, blocks)
        self.downsampler = Down(outside, time=time) if time is not None else None
        self.outside, self.factors = outside, (1 + bool(time), 1 + (time is not None))

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk at the next size."""
        around = _means(x, self.outside, *self.factors)
        for layer in [*self.resnets, *([self.downsampler] if self.downsampler else [])]:
            x = layer(x, before, after)
        return x + around


class ResidualUp(nn.Module):
    """The blocks of one size in the decoder of Wan 2.2 and the step to the next; copies of the input go around."""

    def __init__(self, inside: int, outside: int, blocks: int, *, time: bool | None):
        super().__init__()
        self.resnets = _residuals(inside, outside, blocks)
        self.upsampler = Up(outside, outside, time=time) if time is not None else None
        self.outside, self.times = outside, 1 + bool(time)

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk at the next size; the first frame stays one, as in `Up`."""
        y = x
        for layer in self.resnets:
            y = layer(y, before, after)
        if self.upsampler is None:
            return y
        y = self.upsampler(y, before, after)
        return y + _copies(x, self.outside, self.times)[:, :, -y.shape[2] :]


class Encoder(nn.Module):
    """From pixels to the moments of latents, before their last mixing."""

    def __init__(self, config: WanConfig):
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.conv_in = CausalConv(3 * config.patch**2, config.width)
        stages: list[nn.Module] = []
        for inside, outside, time in zip([config.width, *widths], widths, (*_HALVES_TIME, None), strict=False):
            if config.residual:
                stages.append(ResidualDown(inside, outside, config.blocks, time=time))
                continue
            stages += _residuals(inside, outside, config.blocks)
            stages += [Down(outside, time=time)] if time is not None else []
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
    """The blocks of one size in the decoder, then the step to the next size, which halves the channels."""

    def __init__(self, inside: int, outside: int, blocks: int, *, time: bool | None):
        super().__init__()
        self.resnets = _residuals(inside, outside, blocks)
        self.upsamplers = nn.ModuleList([Up(outside, outside // 2, time=time)] if time is not None else [])

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the chunk at the next size."""
        for layer in [*self.resnets, *self.upsamplers]:
            x = layer(x, before, after)
        return x


class Decoder(nn.Module):
    """From latents to pixels."""

    def __init__(self, config: WanConfig):
        super().__init__()
        width = config.decoder_width or config.width
        widths = [width * multiplier for multiplier in reversed(config.multipliers)]
        stage, halved = (ResidualUp, 1) if config.residual else (UpStage, 2)
        insides = [widths[0], *(width // halved for width in widths[:-1])]
        self.conv_in = CausalConv(config.channels, widths[0])
        self.mid_block = Middle(widths[0])
        steps = zip(insides, widths, (*reversed(_HALVES_TIME), None), strict=True)
        self.up_blocks = nn.ModuleList(stage(one, other, config.blocks + 1, time=time) for one, other, time in steps)
        self.norm_out = ChannelNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 3 * config.patch**2)

    def forward(self, x: Video, before: Caches, after: dict[str, Tensor]) -> Video:
        """Return the frames of a chunk."""
        x = self.conv_in(x, before, after)
        for stage in [self.mid_block, *self.up_blocks]:
            x = stage(x, before, after)
        return self.conv_out(F.silu(self.norm_out(x)), before, after)


class WanVAE(nn.Module):
    """Encoder and decoder; see `load`."""

    factor_t = 2 ** sum(_HALVES_TIME)
    piece = 0  # it streams without end
    scaling = 1.0  # its statistics do it, channel by channel
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: WanConfig | None = None):
        super().__init__()
        self.config = config = config or WanConfig()
        self.factor_s = config.patch * 2 ** len(_HALVES_TIME)
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
            ValueError: the frames are not 1 + 4n, or the sides no multiples of 8 (of Wan 2.2, of 16).
        """
        return self.normed(self.posterior(video)[0])

    def decode(self, z: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b 3 t h w"]:
        """Return the 1 + 4(n - 1) frames of latents; not clamped to [-1, 1]."""
        return torch.cat(list(self.stream_decode([z])), dim=2)

    def posterior(
        self, video: Float[Tensor, "b 3 t h w"]
    ) -> tuple[Float[Tensor, "b c n y x"], Float[Tensor, "b c n y x"]]:
        """Return mean and log variance of the latents as the model itself has them; errors as `encode`."""
        check_video(video, self.factor_t, self.factor_s)
        rest = [video[:, :, 1:]] if video.shape[2] > 1 else []
        mean, logvar = torch.cat(list(self._moments([video[:, :, :1], *rest])), dim=2).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def stream_encode(self, chunks: Iterable[Float[Tensor, "b 3 t h w"]]) -> Iterator[Float[Tensor, "b c n y x"]]:
        """Yield the latents of each chunk of a clip as it arrives: the first frame alone, then multiples of four."""
        for moments in self._moments(chunks):
            yield self.normed(moments.chunk(2, dim=1)[0])

    def stream_decode(self, chunks: Iterable[Float[Tensor, "b c n y x"]]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
        """Yield the frames of each chunk of latents as it arrives; one latent is at work at a time."""
        caches: Caches = {}
        for chunk in chunks:
            out = []
            for latent in chunk.split(1, dim=2):
                frames, caches = self.decode_chunk(latent, caches)
                out.append(frames)
            yield torch.cat(out, dim=2)

    def _moments(self, chunks: Iterable[Video]) -> Iterator[Video]:
        """Yield the moments of each chunk, a latent's frames at work at a time."""
        caches: Caches = {}
        for chunk in chunks:
            out = []
            for frames in chunk.split(self.factor_t, dim=2):
                moments, caches = self.encode_chunk(frames, caches)
                out.append(moments)
            yield torch.cat(out, dim=2)

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
        p = self.config.patch
        folded = rearrange(video, "b c t (h q) (w r) -> b (c r q) t h w", q=p, r=p)
        return self.quant_conv(self.encoder(folded, caches, after)), after

    def decode_chunk(self, z: Float[Tensor, "b c n y x"], caches: Caches) -> tuple[Float[Tensor, "b 3 t h w"], Caches]:
        """Return the frames of latents and the caches for the next: the first latent alone, later any number."""
        _check_chunk(z.shape[2], 1, caches)
        after: dict[str, Tensor] = {}
        x = self.decoder(self.post_quant_conv(z * self.latent_std + self.latent_mean), caches, after)
        p = self.config.patch
        return rearrange(x, "b (c r q) t h w -> b c t (h q) (w r)", q=p, r=p), after

    def normed(self, mean: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b c n y x"]:
        """Return latents shifted and scaled to the zero mean and unit variance that generators want."""
        return (mean - self.latent_mean) / self.latent_std


def _residuals(inside: int, outside: int, blocks: int) -> nn.ModuleList:
    return nn.ModuleList(Residual(inside if i == 0 else outside, outside) for i in range(blocks))


def _means(x: Video, channels: int, time: int, side: int) -> Video:
    """Return frames and pixels folded into channels, then means of neighbouring ones so that `channels` are left.

    The first frame alone has a frame of zeros before it where two make one.
    """
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    folded = rearrange(x, "b c (t f) (h p) (w q) -> b (c f p q) t h w", f=time, p=side, q=side)
    return rearrange(folded, "b (c g) t h w -> b c g t h w", c=channels).mean(dim=2)


def _copies(x: Video, channels: int, time: int) -> Video:
    """Return channels copied, then unfolded to frames and to twice the sides, so that `channels` are left."""
    x = x.repeat_interleave(channels * time * 4 // x.shape[1], dim=1)
    return rearrange(x, "b (c f p q) t h w -> b c (t f) (h p) (w q)", f=time, p=2, q=2)


def _each_frame(layer: nn.Module, x: Video) -> Video:
    y = layer(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2])


def _check_chunk(length: int, unit: int, caches: Caches) -> None:
    if length % unit if caches else length != 1:
        wanted = f"a multiple of {unit}" if caches else "1: the first goes alone"
        raise ValueError(f"a chunk of {length} where its length should be {wanted}")


def load(path: str, config: WanConfig | None = None) -> WanVAE:
    """Return a Wan VAE with the weights of a file, in evaluation mode on the CPU; the weights tell the version.

    Args:
        path: what `pretrained.read` takes: the folder of diffusers' `AutoencoderKLWan`, its .safetensors file, the
            original `Wan2.1_VAE.pth` or `Wan2.2_VAE.pth`, or a hub's name for one of them.
        config: size of the model; None takes what a folder's config.json says, and for a file the published size.

    Raises:
        ValueError: no weights are there, or they are another model's or another version's; the message names what is
            missing or too much.
    """
    weights, about = read(path, SOURCE)
    check_class(about, SOURCE.model, path)
    found = WAN_22 if any(name.startswith(_ONLY_22) for name in weights) else WanConfig()
    config = config or _described(about, found, path)
    if config.name != found.name and any(name.startswith("decoder.") for name in weights):
        raise ValueError(
            f"{path} holds the weights of {found.name}, but {config.name} was asked for or is what its config.json "
            "describes; give the weights of that version, or the folder with their own config.json"
        )
    if "decoder.middle.0.residual.0.gamma" in weights:
        weights = {renamed(name, config.blocks): tensor for name, tensor in weights.items()}
    expected = f"a {config.name} VAE of width {config.width} ({SOURCE.model}, or {' or '.join(SOURCE.files)})"
    return fill(WanVAE(config), weights, expected=expected, path=path)


_ONLY_22 = ("encoder.down_blocks.0.resnets.", "encoder.downsamples.0.downsamples.")


def _described(about: Mapping[str, Any], published: WanConfig, path: str) -> WanConfig:
    """Return the size that a diffusers config.json gives, for what it leaves out the published one."""
    if about.get("temperal_downsample", list(_HALVES_TIME)) != list(_HALVES_TIME):
        raise ValueError(
            f"{path} halves time in the steps {about['temperal_downsample']}, and the VAEs of Wan 2.1 and 2.2 in "
            f"{list(_HALVES_TIME)}; it is another model"
        )
    return WanConfig(
        width=about.get("base_dim", published.width),
        decoder_width=about.get("decoder_base_dim", published.decoder_width) or 0,
        multipliers=tuple(about.get("dim_mult", published.multipliers)),
        blocks=about.get("num_res_blocks", published.blocks),
        channels=about.get("z_dim", published.channels),
        latent_mean=tuple(about.get("latents_mean", published.latent_mean)),
        latent_std=tuple(about.get("latents_std", published.latent_std)),
        residual=bool(about.get("is_residual", published.residual)),
        patch=about.get("patch_size", published.patch) or 1,
    )
