"""Others' frozen VAEs as tokenizers, with an adaptive frame rate without training: what DLFR-VAE (arXiv 2502.11897) is
after.

Such a VAE codes the first frame of a clip alone and then `factor_t` frames at a time, so the first segment is one frame
and the others are 16. A segment of stride s keeps every s-th frame, always its last; what all segments keep goes
through the VAE as one clip, so a latent stands for 4, 8 or 16 frames and none reaches over two segments. What was
dropped comes back by linear interpolation in time between the decoded frames around it. That is the honest baseline
without training: it blends where things move, and a learned interpolator would do better. The frame before a segment is
always kept, so with a causal VAE no segment's frames need a later one. The VAE is not told of strides: to it, the
picture moves faster where a stride is longer. At stride 1 the latents are those of the VAE itself. Cuts are not looked
for: the VAE was trained to go on over them.

A VAE that cannot stream codes pieces of `piece` frames, each after a frame that it codes alone, so that memory stays
bounded.

    tokenizer = FrozenTokenizer(wan.load("Wan2.2_VAE.pth"))
    latents = tokenizer.encode(video, rates=8)      # or one rate for each of `lengths`
    video = tokenizer.decode(latents)               # as many frames as went in
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, cycle, islice, repeat, tee
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rushes.tokenizer.hunyuan import HunyuanVAE
from rushes.tokenizer.model import Latents, Scale, counts, in_range, rates_for
from rushes.tokenizer.wan import WanVAE

STRIDES = (1, 2, 4)  # frames to one kept frame
Coded = tuple[Float[Tensor, "b n c h w"], int]
"""Latents of a segment, and its frames per latent."""
Shown = tuple[Float[Tensor, "b 3 t h w"], int]
"""Video of a segment, and its frames per latent."""
FrozenVAE = WanVAE | HunyuanVAE
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class FrozenConfig:
    """What a frozen VAE is as a tokenizer."""

    rates: tuple[int, ...]
    """Frames per latent among which each segment may choose, ascending."""
    segment: int
    """Frames of a segment after the first frame."""
    channels: int
    """Channels of a latent."""
    space: int
    """Pixels of a side for one latent cell."""

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the latents of a picture of so many pixels."""
        return -(-height // self.space), -(-width // self.space)


class FrozenTokenizer(nn.Module):
    """A frozen VAE with the face of `tokenizer.model.Tokenizer`: latents `b n c h w` at zero mean and unit variance."""

    def __init__(self, vae: FrozenVAE):
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.name = vae.config.name
        self.config = FrozenConfig(
            rates=tuple(vae.factor_t * stride for stride in STRIDES),
            segment=vae.factor_t * STRIDES[-1],
            channels=vae.config.channels,
            space=vae.factor_s,
        )

    @property
    def latent_mean(self) -> Float[Tensor, " c"]:
        """What is taken from each channel of the model's own latents."""
        return self.vae.latent_mean.flatten()

    @property
    def latent_std(self) -> Float[Tensor, " c"]:
        """What each channel is divided by then."""
        return self.vae.latent_std.flatten()

    def fingerprint(self) -> str:
        """Return 12 hex digits that change with any weight or setting; every latent shard carries them."""
        digest = hashlib.sha256(json.dumps([self.name, asdict(self.vae.config)], sort_keys=True).encode())
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def ahead(self) -> Iterator[int]:
        """Yield the frames of each segment of a clip without end: the first frame, 16, 16, …; so for each piece."""
        if self.vae.piece:
            return cycle([1, *[self.config.segment] * (self.vae.piece // self.config.segment)])
        return chain([1], repeat(self.config.segment))

    def lengths(self, frames: int) -> tuple[int, ...]:
        """Return the frames of each segment of a clip; the last may be short."""
        found: list[int] = []
        for length in self.ahead():
            if frames <= 0:
                break
            found.append(min(length, frames))
            frames -= length
        return tuple(found)

    def rates_of(self, lengths: Sequence[int], rates: Sequence[int] | int | None) -> tuple[int, ...]:
        """Return one rate for each segment. Raises ValueError for a rate that no stride makes."""
        return rates_for(lengths, rates, self.config.rates, self.name)

    def encode(
        self, video: Float[Tensor, "b 3 t h w"], rates: Sequence[int] | int | None = None, *, scale: Scale = ""
    ) -> Latents:
        """Return the latents of a clip of any number of frames and any size (the posterior's means).

        Args:
            video: RGB; sides are padded to whole cells by repeating the border.
            rates: frames per latent of each of `lengths`, one for all, or None for the lowest.
            scale: what black and white are; see `model.in_range` for what is told without it.

        Raises:
            ValueError: this is no RGB video, its range is doubtful, or a rate is none that the VAE has.
        """
        video = in_range(video, scale)
        lengths = self.lengths(video.shape[2])
        chosen = self.rates_of(lengths, rates)
        z = torch.cat(list(self.stream_encode(zip(video.split(lengths, dim=2), chosen, strict=True))), dim=1)
        return Latents(z=z, rates=chosen, lengths=lengths, height=video.shape[-2], width=video.shape[-1])

    def decode(self, latents: Latents) -> Float[Tensor, "b 3 t h w"]:
        """Return the video of latents, with exactly the frames and the size that went in; not clamped to [-1, 1].

        Raises:
            ValueError: the number of latents does not fit rates and lengths, or the segments are another tokenizer's.
        """
        numbers, lengths = counts(latents.lengths, latents.rates), self.lengths(sum(latents.lengths))
        found, wanted = tuple(latents.z.shape[1:3]), (sum(numbers), self.config.channels)
        if found != wanted or latents.lengths != lengths:
            raise ValueError(
                f"{found[0]} latents of {found[1]} channels for segments of {latents.lengths} frames at rates "
                f"{latents.rates}: {self.name} makes {wanted[0]} of {wanted[1]} for segments of {lengths} frames"
            )
        videos = self.stream_decode(zip(latents.z.split(numbers, dim=1), latents.rates, strict=True))
        shown = [video[:, :, :length] for video, length in zip(videos, latents.lengths, strict=True)]
        return torch.cat(shown, dim=2)[..., : latents.height, : latents.width]

    def stream_encode(self, segments: Iterable[Shown]) -> Iterator[Float[Tensor, "b n c h w"]]:
        """Yield the latents of each segment and rate as it arrives, of a VAE in pieces as its piece is complete.

        Raises ValueError where the segments do not have the frames of `ahead`.
        """
        for piece in self._pieces(segments):
            for z in self.vae.stream_encode(self._thinned(piece)):
                yield z.transpose(1, 2)

    def stream_decode(self, segments: Iterable[Coded]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
        """Yield the frames of each segment's latents and rate as they arrive, padded to whole cells and latents."""
        for piece in self._pieces(segments):
            coded, also = tee(piece)
            last: Tensor | None = None
            frames = self.vae.stream_decode(z.transpose(1, 2) for z, _ in coded)
            for video, (_, rate) in zip(frames, also, strict=True):
                yield video if last is None else _spread(last, video, rate // self.vae.factor_t)
                last = video[:, :, -1:]

    def stream_again(self, segments: Iterable[Shown]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
        """Yield the reconstruction of each segment and rate as it arrives, with its frames and size, in [-1, 1]."""
        given, rated, sized = tee(segments, 3)
        coded = zip(self.stream_encode(given), (rate for _, rate in rated), strict=True)
        for again, (video, _) in zip(self.stream_decode(coded), sized, strict=True):
            t, h, w = video.shape[2:]
            yield again[:, :, :t, :h, :w].clamp(-1, 1)

    def _pieces(self, segments: Iterable[Item]) -> Iterator[Iterator[Item]]:
        """Yield the segments of each clip that the VAE sees: all, or of a VAE in pieces those of each piece."""
        rest = iter(segments)
        number = 1 + self.vae.piece // self.config.segment if self.vae.piece else None
        for first in rest:
            yield chain([first], islice(rest, None if number is None else number - 1))

    def _thinned(self, piece: Iterable[Shown]) -> Iterator[Float[Tensor, "b 3 k h w"]]:
        """Yield what is kept of each segment of a piece, in whole cells and latents."""
        space = self.config.space
        for number, (video, rate) in enumerate(piece):
            t, h, w = video.shape[2:]
            if t != 1 and (number == 0 or t > self.config.segment):
                raise ValueError(
                    f"a segment of {t} frames where {self.name} codes {'one' if number == 0 else self.config.segment}; "
                    "cut the clip as `lengths` says"
                )
            stride = rate // self.vae.factor_t
            sides = (0, -w % space, 0, -h % space, 0, -t % rate if number else 0)
            filled = F.pad(video, sides, mode="replicate") if any(sides) else video
            yield filled[:, :, stride - 1 :: stride] if number else filled


def _spread(
    last: Float[Tensor, "b c 1 h w"], video: Float[Tensor, "b c k h w"], stride: int
) -> Float[Tensor, "b c t h w"]:
    """Return `stride` frames for each one, which stands last among them: linear in time after the one before."""
    if stride == 1:
        return video
    left = torch.cat([last, video[:, :, :-1]], dim=2).repeat_interleave(stride, dim=2)
    right = video.repeat_interleave(stride, dim=2)
    share = (torch.arange(1, stride + 1, device=video.device).to(video) / stride).repeat(video.shape[2])
    return torch.lerp(left, right, share[:, None, None])
