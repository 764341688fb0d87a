"""A tokenizer with the face of diffusers' video VAEs, so that other people's code takes ours or a frozen one.

    vae = VideoVAE.from_pretrained("RUN/tokenizer/model", rate=8)     # or "shipped", "wan:PATH", "hunyuan:PATH"
    z = vae.encode(video).latent_dist.mode()                          # b c n h w; video b 3 1+8n h w in [-1, 1]
    z = (z - mean) / std                                              # of vae.config.latents_mean and .latents_std
    video = vae.decode(z * std + mean).sample                         # as many frames as went in

One rate holds for the whole clip, and the first frame has a latent of its own, as generators expect: a clip of
1 + rate·n frames is 1 + n latents. Ours codes it so as if a cut followed the first frame. Rates by segment, other
numbers of frames and other sides are for `tokenizer.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.codec import AnyTokenizer, load
from rushes.tokenizer.frozen import FrozenTokenizer
from rushes.tokenizer.model import Latents, segment_lengths
from rushes.tokenizer.pretrained import check_video

Video = Float[Tensor, "b 3 t h w"]
Moments = Float[Tensor, "b c n h w"]


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """What generators read of a VAE, by the names that it has in diffusers."""

    z_dim: int
    """Channels of a latent."""
    latents_mean: list[float]
    """Mean of each channel over the training data, which a generator takes from the latents."""
    latents_std: list[float]
    """Standard deviation of each channel, by which it divides them then."""
    scaling_factor: float
    """By what the latents are multiplied instead, of models that have one number for all channels; else 1."""
    scale_factor_temporal: int
    """Frames of a latent, after the first."""
    scale_factor_spatial: int
    """Pixels of a side for one latent cell."""

    @property
    def latent_channels(self) -> int:
        """The channels of a latent, by the other name that they have."""
        return self.z_dim


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The distribution of the latents of a clip: a normal one for each value."""

    mean: Moments
    logvar: Moments

    @property
    def std(self) -> Moments:
        """Standard deviations."""
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Moments:
        """Variances."""
        return torch.exp(self.logvar)

    def mode(self) -> Moments:
        """Return the likeliest latents."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Moments:
        """Return latents drawn at random; equal seeds give equal ones, on whatever device the generator is."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + self.std * noise.to(self.mean.device)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What `encode` returns."""

    latent_dist: Posterior


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What `decode` returns."""

    sample: Video


class VideoVAE(nn.Module):
    """See the module's docstring."""

    def __init__(self, tokenizer: AnyTokenizer, rate: int = 4):
        super().__init__()
        have = tokenizer.config.rates[:1] if isinstance(tokenizer, FrozenTokenizer) else tokenizer.config.rates
        if rate not in have:
            raise ValueError(f"rate={rate} frames per latent for a whole clip: this tokenizer has {list(have)}")
        self.tokenizer, self.rate = tokenizer, rate
        self.config = VAEConfig(
            z_dim=tokenizer.config.channels,
            latents_mean=tokenizer.latent_mean.tolist(),
            latents_std=tokenizer.latent_std.tolist(),
            scaling_factor=tokenizer.vae.scaling if isinstance(tokenizer, FrozenTokenizer) else 1.0,
            scale_factor_temporal=rate,
            scale_factor_spatial=tokenizer.config.space,
        )
        self.temporal_compression_ratio, self.spatial_compression_ratio = rate, tokenizer.config.space

    @classmethod
    def from_pretrained(
        cls, name: str, subfolder: str = "", *, rate: int = 4, torch_dtype: torch.dtype | None = None
    ) -> VideoVAE:
        """Return a tokenizer with this face, in evaluation mode on the CPU.

        Args:
            name: what `codec.load` takes.
            subfolder: below it, such as `vae`.
            rate: frames of a latent.
            torch_dtype: precision of the weights; None keeps float32.

        Raises:
            ValueError: there is no such tokenizer, or it does not have that rate.
        """
        vae = cls(load(f"{name.rstrip('/')}/{subfolder}" if subfolder else name), rate)
        return vae.to(torch_dtype) if torch_dtype is not None else vae

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tokenizer.latent_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.tokenizer.latent_mean.dtype

    @torch.no_grad()
    def encode(self, x: Video, return_dict: bool = True) -> Any:
        """Return the posterior of a clip's latents, `.latent_dist`, or a tuple of it, before they are normed.

        Raises ValueError unless the frames are 1 + rate·n and the sides whole cells.
        """
        check_video(x, self.rate, self.config.scale_factor_spatial)
        if isinstance(self.tokenizer, FrozenTokenizer):
            mean, logvar = self.tokenizer.vae.posterior(x)
        else:
            lengths = self._lengths(x.shape[2])
            both = self.tokenizer.posterior(x, (self.rate,) * len(lengths), lengths)
            mean, logvar = (moment.transpose(1, 2) for moment in both)
        found = Posterior(mean=mean, logvar=logvar)
        return Encoded(latent_dist=found) if return_dict else (found,)

    @torch.no_grad()
    def decode(self, z: Moments, return_dict: bool = True) -> Any:
        """Return the 1 + rate·(n − 1) frames of n latents, `.sample`, or a tuple of them, in [-1, 1]."""
        space = self.config.scale_factor_spatial
        mean, std = (moment[:, None, None, None] for moment in (self.tokenizer.latent_mean, self.tokenizer.latent_std))
        normed = (z - mean) / std
        if isinstance(self.tokenizer, FrozenTokenizer):
            video = self.tokenizer.vae.decode(normed)
        else:
            lengths = self._lengths(1 + self.rate * (z.shape[2] - 1))
            height, width = (side * space for side in z.shape[-2:])
            rates = (self.rate,) * len(lengths)
            video = self.tokenizer.decode(
                Latents(z=normed.transpose(1, 2), rates=rates, lengths=lengths, height=height, width=width)
            )
        video = video.clamp(-1, 1)
        return Decoded(sample=video) if return_dict else (video,)

    def _lengths(self, frames: int) -> tuple[int, ...]:
        return segment_lengths(frames, self.tokenizer.config.segment, cuts=[1])
