"""Segments coded jointly: the latents of a segment describe it together, the first what stays, later ones what changes.

There is a linear code: the cosine transform of a segment over its frames and over the pixels of each cell. Its
coefficients have ranks, by one rule for all footage, and latent j of a segment holds those of the ranks j·channels and
up. So a coarser rate holds a prefix of what a finer one holds. The network corrects the coefficients, from features
transformed over time likewise, and corrects the video that they give. The code itself is not trained.

Legend: b batch, s segment, f frame of a segment, k frequency, n latent of a segment; t = s·f. A segment that a cut or
the end makes short has fewer frequencies, which take the places of the nearest ones of a whole segment.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushes.tokenizer.config import PATCH, TokenizerConfig
from rushes.tokenizer.layers import Caches, NextCaches, RateNorm, Video, each_frame, haar
from rushes.tokenizer.trunk import Blocks, SpaceDecoder, SpaceEncoder

Segments = Float[Tensor, "b s c h w"]
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
"""Light and two differences of colours, of equal energy to red, green and blue."""
CORRECTION = 0.1
"""Share of what the last layers say that counts: corrections of the linear code are small, steps of Adam are not."""
COLOUR_SHARES = (1.0, 0.1, 0.03)
"""Energy of each of the three in real footage, as a share of that of light."""


def cosines(n: int) -> Float[np.ndarray, "n n"]:
    """Return the cosine transform (DCT-II) of n samples, a row for each frequency; the rows have a mean square of 1."""
    k, at = np.arange(n)[:, None], np.arange(n) + 0.5
    return np.cos(np.pi / n * k * at) * np.where(k, 2**0.5, 1)


def spread(segment: int, space: int) -> Float[np.ndarray, "segment bands"]:
    """Return the standard deviation that each coefficient is expected to have: frequency over time, band in the cell.

    Energy falls with the square of the frequency over time and with the cube of that in the picture: what kept most of
    the films that tokenizers are trained on here. Films held out lose 0.2 to 1.7 dB less by it, at 1 to 8 latents, than
    by the order of the energies in those films, and varied ones as much (tests/bench/test_trunks.py).
    """
    over_time = (1 + 16 / segment * np.arange(segment)) ** -2.0
    side = 8 / space * np.arange(space)
    in_picture = (1 + np.hypot(side[:, None], side).ravel()) ** -3.0
    energy = np.einsum("k,p,c->kpc", over_time, in_picture, COLOUR_SHARES)
    return space / 2 * np.sqrt(energy).reshape(segment, -1)


@cache
def ranking(segment: int, space: int, ranks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return frequency and band of the coefficients of the highest spread, falling; there may be fewer than `ranks`."""
    best = np.argsort(-spread(segment, space).ravel(), kind="stable")[:ranks].tolist()
    return tuple(one // (3 * space**2) for one in best), tuple(one % (3 * space**2) for one in best)


def places(frames: int, segment: int) -> list[int]:
    """Return the frequency of a whole segment that is nearest to each frequency of one with so many frames."""
    return [(2 * k * segment + frames) // (2 * frames) for k in range(frames)]


@cache
def held(config: TokenizerConfig, frames: int, latents: int) -> list[int]:
    """Return the ranks that the latents of a segment of so many frames hold, in order, `channels` for each latent.

    Ranks of frequencies that a short segment does not have are passed over, and fill up what is left at the end.
    """
    there, count = set(places(frames, config.segment)), ranks_of(config)
    frequencies = ranking(config.segment, config.space, count)[0]
    known = [rank for rank, frequency in enumerate(frequencies) if frequency in there]
    return [*known, *sorted(set(range(count)) - set(known))][: latents * config.channels]


def ranks_of(config: TokenizerConfig) -> int:
    """Return how many numbers of a cell a whole segment has at the lowest rate."""
    return config.channels * config.segment // config.rates[0]


def split(config: TokenizerConfig, frames: int) -> tuple[int, int]:
    """Return the number of segments in a chunk of so many frames, and the frames of each.

    Raises ValueError where these are neither whole segments nor one short one.
    """
    if frames > config.segment and frames % config.segment:
        raise ValueError(
            f"{frames} frames at once are no whole segments of {config.segment}; give a short segment by itself"
        )
    count = max(1, frames // config.segment)
    return count, frames // count


class CoarseIn(nn.Module):
    """The linear code, from video to coefficients of about unit variance each; nothing in it is learned."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config

    def forward(self, x: Float[Tensor, "b s f c h w"]) -> Segments:
        """Return the coefficients of segments, a channel for each rank; 0 where a short one lacks the frequency."""
        b, s, frames = x.shape[:3]
        code = _code(self.config, frames, x.device)
        bands = F.conv2d(x.flatten(0, 2), code.cells, stride=self.config.space).unflatten(0, (b * s, frames))
        found = torch.einsum("kf,nfcij->nkcij", code.waves / frames, bands) / code.std
        empty = x.new_zeros(b * s, ranks_of(self.config), *found.shape[-2:])
        return empty.index_copy(1, code.ranks, found.flatten(1, 2)[:, code.places]).unflatten(0, (b, s))


class CoarseOut(nn.Module):
    """The linear code, from coefficients back to video."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config

    def forward(self, z: Segments, frames: int) -> Float[Tensor, "b t c h w"]:
        """Return the video of the coefficients of segments of so many frames, in whole cells."""
        (b, s, _, h, w), code = z.shape, _code(self.config, frames, z.device)
        empty = z.new_zeros(b * s, frames * len(code.cells), h, w)
        known = empty.index_copy(1, code.places, z.flatten(0, 1)[:, code.ranks]).unflatten(1, (frames, -1))
        bands = torch.einsum("kf,nkcij->nfcij", code.waves, known * code.std).flatten(0, 1).flatten(2)
        pixels = torch.bmm(code.cells.flatten(1).T.expand(len(bands), -1, -1), bands)
        return F.pixel_shuffle(pixels.unflatten(2, (h, w)), self.config.space).unflatten(0, (b, s * frames))


class Code(NamedTuple):
    """What the linear code needs for segments of one length."""

    cells: Float[Tensor, "band c h w"]
    """What each band that is held at all sees of the pixels of a cell; they are orthonormal."""
    waves: Float[Tensor, "k f"]
    """What each frequency sees of the frames."""
    std: Float[Tensor, "k band 1 1"]
    ranks: Int[Tensor, " known"]
    """The ranks that there are, and beside each its place among the coefficients, the band inner."""
    places: Int[Tensor, " known"]


def _code(config: TokenizerConfig, frames: int, device: torch.device) -> Code:
    return Code(*(one.to(device) for one in _code_on_cpu(config, frames)))


@cache
@torch.inference_mode(False)  # what is made within it could not be used in training later
def _code_on_cpu(config: TokenizerConfig, frames: int) -> Code:
    line, there = cosines(config.space) / config.space**0.5, places(frames, config.segment)
    cells = np.einsum("ph,qw,cd->pqcdhw", line, line, COLOURS).reshape(-1, 3, config.space, config.space)
    frequencies, bands = ranking(config.segment, config.space, ranks_of(config))
    used = sorted(set(bands))
    known = [rank for rank, frequency in enumerate(frequencies) if frequency in there]
    at = [there.index(frequencies[rank]) * len(used) + used.index(bands[rank]) for rank in known]
    std = spread(config.segment, config.space)[there][:, used, None, None]
    return Code(
        cells=torch.tensor(cells[used], dtype=torch.float32),
        waves=_waves(frames),
        std=torch.tensor(std, dtype=torch.float32),
        ranks=torch.tensor(known),
        places=torch.tensor(at),
    )


def joint_codec(config: TokenizerConfig) -> tuple[nn.Module, nn.Module]:
    """Return the linear code that the network corrects, there and back."""
    return CoarseIn(config), CoarseOut(config)


@cache
@torch.inference_mode(False)  # what is made within it could not be used in training later
def _waves(frames: int) -> Float[Tensor, "k f"]:
    return torch.tensor(cosines(frames), dtype=torch.float32)


def shares(channels: int, segment: int) -> list[int]:
    """Return how many channels of a segment each frequency has: fewer with rising frequency, one at least."""
    weights = 1 / (1 + np.arange(segment) * 16 / segment)
    found = np.maximum(1, np.floor(channels * weights / weights.sum())).astype(int).tolist()
    return [found[0] + channels - sum(found), *found[1:]]


class OverTime(nn.Module):
    """The features of a segment's frames as one picture: their cosine transform, and a learned choice of each part."""

    def __init__(self, channels: int, outside: int, segment: int):
        super().__init__()
        self.segment, self.widths = segment, shares(outside, segment)
        self.parts = nn.ModuleList(nn.Conv2d(channels, width, 1) for width in self.widths)

    def forward(self, x: Video, segments: int) -> Segments:
        """Return one picture for each segment of a chunk; parts of frequencies that a short one lacks are 0."""
        x = x.unflatten(1, (segments, -1))
        b, s, frames, _, h, w = x.shape
        waves = torch.einsum("kf,bsfcij->kbscij", _waves(frames).to(x) / frames, x)
        there = dict(zip(places(frames, self.segment), waves, strict=True))
        return torch.cat(
            [
                each_frame(part, there[k]) if k in there else x.new_zeros(b, s, width, h, w)
                for k, (part, width) in enumerate(zip(self.parts, self.widths, strict=True))
            ],
            dim=2,
        )


class AlongTime(nn.Module):
    """The frames of a segment from one picture: the way back of `OverTime`."""

    def __init__(self, inside: int, channels: int, segment: int):
        super().__init__()
        self.segment, self.widths = segment, shares(inside, segment)
        self.parts = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=not k) for k, width in enumerate(self.widths))

    def forward(self, x: Segments, frames: int) -> Video:
        """Return the frames of segments of so many."""
        parts = x.split(self.widths, dim=2)
        waves = torch.stack([each_frame(self.parts[k], parts[k]) for k in places(frames, self.segment)])
        return torch.einsum("kf,kbscij->bsfcij", _waves(frames).to(waves), waves).flatten(1, 2)


class JointEncoder(SpaceEncoder):
    """From Haar subbands to the mean and log variance of the latents of whole segments."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        self.config, width = config, 2 * config.width
        self.over_time = OverTime(config.width, width, config.segment)
        self.segments = Blocks(width, config, "encoder.segments")
        self.norm = RateNorm(width, len(config.rates))
        self.leave = nn.Conv2d(width, 2 * ranks_of(config), 1)

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches) -> Video:
        """Return means and log variances, `2·channels` of them; `rate` is an index, `halvings` its logarithm."""
        segments, frames = split(self.config, x.shape[1])
        x = self.over_time(self.frames(x, rate, before, after), segments)
        x = self.segments(x, rate, before, after)
        mean, logvar = each_frame(self.leave, F.silu(self.norm(x, rate))).chunk(2, dim=2)
        return torch.cat([self._latents(one, frames, halvings) for one in (CORRECTION * mean, logvar)], dim=2)

    def exits(self) -> list[nn.Conv2d]:
        """Return the convolutions that give moments: half of the channels of each are means, half log variances."""
        return [self.leave]

    def coarse(self, codec: nn.Module, x: Video, halvings: int) -> Video:
        """Return the latents of the linear code."""
        segments, frames = split(self.config, x.shape[1])
        return self._latents(codec(x.unflatten(1, (segments, frames))), frames, halvings)

    def _latents(self, x: Segments, frames: int, halvings: int) -> Video:
        """Return the latents that hold numbers given by rank."""
        numbers = x[:, :, held(self.config, frames, frames >> halvings)]
        return rearrange(numbers, "b s (n c) h w -> b (s n) c h w", c=self.config.channels)


class JointDecoder(SpaceDecoder):
    """From the latents of whole segments to Haar subbands."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        self.config, width = config, 2 * config.width
        self.enter = nn.Conv2d(ranks_of(config), width, 1)
        self.segments = Blocks(width, config, "decoder.segments")
        self.along_time = AlongTime(width, config.width, config.segment)
        self.seen, self.levels = nn.Conv2d(3 * PATCH**2, self.leave.in_channels, 1), PATCH.bit_length() - 1

    def forward(
        self, z: Video, rate: int, doublings: int, before: Caches, after: NextCaches, still: Float[Tensor, "b t 3 h w"]
    ) -> Video:
        """Return Haar subbands at the full frame rate; `still` is the video of the linear code."""
        numbers, frames = self._ranked(z, doublings)
        x = self.segments(each_frame(self.enter, numbers), rate, before, after)
        seen = each_frame(self.seen, haar(still, self.levels))
        x = self.pictures(self.along_time(x, frames), rate, before, after, seen)
        return CORRECTION * self.subbands(x, rate)

    def coarse(self, codec: nn.Module, z: Video, doublings: int) -> Float[Tensor, "b t 3 h w"]:
        """Return the video of the linear code."""
        return codec(*self._ranked(z, doublings))

    def _ranked(self, z: Video, doublings: int) -> tuple[Segments, int]:
        """Return the numbers of latents by rank, 0 where they hold none, and the frames of each segment."""
        segments, frames = split(self.config, z.shape[1] << doublings)
        numbers = rearrange(z, "b (s n) c h w -> b s (n c) h w", s=segments)
        ranks = torch.tensor(held(self.config, frames, frames >> doublings), device=z.device)
        empty = z.new_zeros(*numbers.shape[:2], ranks_of(self.config), *z.shape[-2:])
        return empty.index_copy(2, ranks, numbers), frames
