"""Segments coded jointly: the latents of a segment describe it together, the first what stays, later ones what changes.

There is a linear code: the cosine transform of a segment over its frames, and over each cell of the picture and its
neighbours' seams (a lapped transform). Which of its coefficients a cell keeps, and in which order, is its mode's, one
of nine, as video codecs choose one for each block: three for how fast it moves, each for three directions of detail.
The first number of a cell is its mode; number i+1 is the coefficient of rank i. Latent j of a segment holds the numbers
j·channels and up, so a coarser rate holds a prefix of what a finer one holds. The network corrects the numbers, from
features transformed over time likewise, and corrects the video that they give. The code itself is not trained.

Legend: b batch, s segment, f frame of a segment, k frequency, n latent of a segment, m mode, u coefficient that some
mode keeps; t = s·f. A segment that a cut or the end makes short has fewer frequencies, which take the places of the
nearest ones of a whole segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushes.tokenizer.config import KNOWN_RATES, PATCH, TokenizerConfig
from rushes.tokenizer.layers import Caches, NextCaches, RateNorm, Video, each_frame, haar, next_caches
from rushes.tokenizer.trunk import Blocks, SpaceDecoder, SpaceEncoder

Segments = Float[Tensor, "b s c h w"]
Modes = Int[Tensor, "b s h w"]
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
"""Light and two differences of colours, of equal energy to red, green and blue."""
CORRECTION = 0.1
"""Share of what the last layers say that counts: corrections of the linear code are small, steps of Adam are not."""
AT_ONCE = 4
"""Frames whose pictures are made together on a CPU: no slower than a segment's, and in a third of the memory."""
COLOUR_SHARES = (1.0, 0.1, 0.03)
"""Energy of each of the three in real footage, as a share of that of light."""


class Speed(NamedTuple):
    """How fast what is in a cell changes."""

    falls: float
    """Power of the frequency over time with which what counts falls: the order of the coefficients."""
    energy: float
    """Energy of the coefficients in films that tokenizers are trained on here, and the powers with which it falls with
    the frequency over time and in the picture: their scale."""
    over_time: float
    in_picture: float


SPEEDS = (Speed(9.0, 30.0, 10.1, 4.9), Speed(2.8, 8.3, 3.5, 4.7), Speed(1.0, 2.9, 1.5, 3.9))
"""What stands, what moves, and what changes quickly."""
SHAPES = (1.0, 1.6, 1 / 1.6)
"""How much faster energy falls down the picture than across it: details of no direction, then of either one."""
FLAT_ENERGY = (49.0, 9.0, 2.5)
"""Energy of the mean of a cell over its pixels and all frames, for each of the three colours."""
MODES = tuple(product(SPEEDS, SHAPES))
PLAIN = 3
"""The mode whose coefficients have their places in the latents first; those of others keep to these places."""
RELUCTANCE = 0.2
"""How much less, as a logarithm over all rates, a mode's errors must be than those of the first, that it is taken."""
FAINT = 0.025
"""Squared error of a cell in a frame, at sides of 8 pixels, beneath which nobody sees what a mode would better."""


def cosines(n: int) -> Float[np.ndarray, "n n"]:
    """Return the cosine transform (DCT-II) of n samples, a row for each frequency; the rows have a mean square of 1."""
    k, at = np.arange(n)[:, None], np.arange(n) + 0.5
    return np.cos(np.pi / n * k * at) * np.where(k, 2**0.5, 1)


def seam(space: int) -> Float[np.ndarray, "space space"]:
    """Return what is done to the pixels on both sides of a seam of cells before the cosine transform: a lapped one.

    It is orthonormal, so its transpose undoes it. Source: type II of Tran, Liang and Tu, Lapped transform via
    time-domain pre- and post-filtering (2003). Kept coefficients hold 0.5 to 0.7 dB more at any count than without it.
    """
    half = space // 2
    one, turned = np.eye(half), np.eye(half)[::-1]
    second = cosines(half) / half**0.5
    at = np.arange(half) + 0.5
    fourth = np.cos(np.pi / half * at[:, None] * at) * (2 / half) ** 0.5
    butterflies = np.block([[one, turned], [turned, -one]])
    inner = np.block([[one, 0 * one], [0 * one, turned @ second.T @ fourth @ turned]])
    return butterflies @ inner @ butterflies / 2


def merit(segment: int, space: int, speed: Speed, shape: float) -> Float[np.ndarray, "segment bands"]:
    """Return by what coefficients are put in order in a mode, most first: frequency over time, band in the cell.

    It falls with a power of the frequency over time and with another in the picture, in which the mode may have a
    direction: what kept most of the films that tokenizers are trained on here. Orders learned from the energies in
    those films lose up to 1.7 dB more in films held out (tests/bench/test_trunks.py).
    """
    return _falling(segment, space, shape, COLOUR_SHARES, speed.falls, 3.5)


def variance(segment: int, space: int, speed: Speed, shape: float) -> Float[np.ndarray, "segment bands"]:
    """Return the variance that each coefficient is expected to have in a mode: frequency over time, band in the cell.

    Within a factor of 2.7 for two coefficients of three, in films that tokenizers are trained on here.
    """
    found = speed.energy * _falling(segment, space, shape, (1.0, 0.05, 0.03), speed.over_time, speed.in_picture)
    found[0, :3] = FLAT_ENERGY
    return found * (space / 8) ** 2


def _falling(
    segment: int, space: int, shape: float, colours: tuple[float, ...], over_time: float, in_picture: float
) -> Float[np.ndarray, "segment bands"]:
    """Return 1 for what is flat and stands, and less the higher the frequencies are."""
    frequency, side = 1 + 16 / segment * np.arange(segment), 8 / space * np.arange(space)
    detail = 1 + np.hypot(side[:, None] * shape, side / shape).ravel()
    return np.einsum("k,p,c->kpc", frequency**-over_time, detail**-in_picture, colours).reshape(segment, -1)


def places(frames: int, segment: int) -> list[int]:
    """Return the frequency of a whole segment that is nearest to each frequency of one with so many frames."""
    return [(2 * k * segment + frames) // (2 * frames) for k in range(frames)]


def numbers_of(config: TokenizerConfig) -> int:
    """Return how many numbers of a cell a whole segment has at the lowest rate; the first is the mode."""
    return config.channels * config.segment // config.rates[0]


@cache
def kept(config: TokenizerConfig) -> tuple[tuple[int, ...], ...]:
    """Return the coefficients that each mode keeps of a whole segment, best first; each is bands·frequency + band.

    Where there are more numbers than coefficients, those that follow stand for none: the network has them.
    """
    count, total = numbers_of(config) - 1, config.segment * 3 * config.space**2
    orders = (np.argsort(-merit(config.segment, config.space, *mode).ravel(), kind="stable") for mode in MODES)
    return tuple((*order[:count].tolist(), *range(total, count)) for order in orders)


@cache
def union(config: TokenizerConfig) -> list[int]:
    """Return the coefficients that some mode keeps, ascending: the channels of a segment within the network."""
    return sorted(set().union(*kept(config)))


@cache
def held(config: TokenizerConfig, frames: int) -> Int[np.ndarray, "m number"]:
    """Return where among `union` each mode finds the numbers of the latents of a segment of so many frames, in order.

    Coefficients of frequencies that a short segment does not have are passed over, and fill up what is left at the end.
    A latent's coefficients stand at the channels where other modes have them: a channel means the same where it can.
    """
    bands, there = 3 * config.space**2, set(places(frames, config.segment))
    index = {one: i for i, one in enumerate(union(config))}
    channels: dict[int, int] = {}
    found = np.zeros((len(MODES), numbers_of(config) - 1), dtype=np.int64)
    for mode in sorted(range(len(MODES)), key=lambda mode: mode != PLAIN):
        known = [one for one in kept(config)[mode] if one // bands in there]
        order = [*known, *(one for one in kept(config)[mode] if one // bands not in there)]
        for start in range(0, len(order) + 1, config.channels):
            first = max(start, 1)  # the first number of the first latent is the mode
            latent = order[first - 1 : start + config.channels - 1]
            free, others = list(range(first - start, config.channels)), []
            for one in latent:
                if one in channels and channels[one] in free:
                    free.remove(channels[one])
                    found[mode, start + channels[one] - 1] = index[one]
                else:
                    others.append(one)
            for one, channel in zip(others, free, strict=True):
                channels.setdefault(one, channel)
                found[mode, start + channel - 1] = index[one]
    return found


NOISE = 1e-5
"""Variance with which each coefficient is drawn at first: of a fine detail it is more than of what is flat, in the
picture the same, where it is 58 dB down if all numbers are drawn."""
NATURAL = 0.5
"""Power of a coefficient's expected deviation that its number keeps. With 1, numbers would be as large as what they are
in the picture; with 0 all were of unit variance, and a generator learned noise-like details before what is seen first.
"""
MODE_LOGVAR = -8.0
"""Log variance of the number that stands for a mode; its noise must not turn it into that of another."""


def levels() -> Float[Tensor, " m"]:
    """Return the number that stands for each mode, of zero mean and unit variance where all are as frequent."""
    at = torch.arange(len(MODES)) - (len(MODES) - 1) / 2
    return at / at.square().mean().sqrt()


def modes_in(z: Float[Tensor, "b s number h w"]) -> Modes:
    """Return the modes of the cells of segments, from the numbers of their latents."""
    return (z[:, :, :1] - levels().to(z)[:, None, None]).abs().argmin(dim=2)


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

    def forward(self, x: Float[Tensor, "b s f c h w"]) -> tuple[Segments, Modes]:
        """Return the coefficients of segments that some mode keeps, 0 where a short one lacks the frequency; and modes.

        The mode of a cell is that of the least errors: their logarithms are added for its rates and all higher ones.
        """
        coefficients, energy = self._seen(x)
        modes = self._best(coefficients, energy, x.shape[2])
        return coefficients / _code(self.config, x.shape[2], x.device).std, modes

    def losses(self, x: Float[Tensor, "b s f c h w"], latents: Sequence[int]) -> Float[Tensor, "b s latents"]:
        """Return the squared error of segments in so many latents each, mean over pixels, summed over frames.

        It is the energy of the coefficients that they do not hold, for the transform is orthonormal: exact, but for
        what the network betters and for the range in which pixels are shown.
        """
        coefficients, energy = self._seen(x)
        code = _code(self.config, x.shape[2], x.device)
        numbers = _by_cell(code.numbers, self._best(coefficients, energy, x.shape[2]), code.numbers.shape[1])
        held_ = coefficients.gather(2, numbers).square().sum(dim=(3, 4)).cumsum(dim=2) * x.shape[2]
        whole, pixels = energy.sum(dim=(2, 3))[..., None], 3 * x.shape[-2] * x.shape[-1]
        within = [count * self.config.channels - 2 for count in latents]  # the first number is the mode
        return (whole - held_[..., within]).clamp(min=0) / pixels

    def _seen(self, x: Float[Tensor, "b s f c h w"]) -> tuple[Segments, Float[Tensor, "b s h w"]]:
        """Return the coefficients of segments that some mode keeps, and the energy of each cell in all its frames."""
        (b, s, frames), space, code = x.shape[:3], self.config.space, _code(self.config, x.shape[2], x.device)
        x = _over_seams(x.flatten(0, 2), code.seam)
        energy = F.avg_pool2d(x.square().sum(dim=1), space).unflatten(0, (b, s, frames)).sum(dim=2) * space**2
        bands = F.conv2d(x, code.cells, stride=space).unflatten(0, (b * s, frames))
        found = torch.einsum("kf,nfcij->nkcij", code.waves / frames, bands).flatten(1, 2)[:, code.places]
        empty = x.new_zeros(b * s, len(union(self.config)), *found.shape[-2:])
        return empty.index_copy(1, code.known, found).unflatten(0, (b, s)), energy

    def _best(self, coefficients: Segments, energy: Float[Tensor, "b s h w"], frames: int) -> Modes:
        squares, faint = coefficients.square() * frames, FAINT * frames * (self.config.space / 8) ** 2
        rates = [rate for rate in KNOWN_RATES if rate >= self.config.rates[0]]  # of any that this one may grow to have
        counts = sorted({-(-frames // rate) * self.config.channels - 1 for rate in rates})
        cost = energy.new_zeros(len(MODES), *energy.shape)
        cost[1:] += RELUCTANCE
        for mode, order in enumerate(torch.from_numpy(held(self.config, frames)).to(energy.device)):
            left, start = energy, 0
            for count in counts:
                left = left - squares[:, :, order[start:count]].sum(dim=2)
                cost[mode] += (left.clamp(min=0) + faint).log()
                start = count
        return cost.argmin(dim=0)


class CoarseOut(nn.Module):
    """The linear code, from coefficients back to video."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config

    def forward(self, z: Segments, frames: int) -> Float[Tensor, "b t c h w"]:
        """Return the video of the coefficients of segments of so many frames, in whole cells."""
        (b, s, _, h, w), code = z.shape, _code(self.config, frames, z.device)
        empty = z.new_zeros(b * s, frames * len(code.cells), h, w)
        known = empty.index_copy(1, code.places, (z * code.std).flatten(0, 1)[:, code.known]).unflatten(1, (frames, -1))
        bands = torch.einsum("kf,nkcij->nfcij", code.waves, known).flatten(0, 1).flatten(2)
        pixels = torch.bmm(code.cells.flatten(1).T.expand(len(bands), -1, -1), bands)
        video = F.pixel_shuffle(pixels.unflatten(2, (h, w)), self.config.space)
        return _over_seams(video, code.seam.T).unflatten(0, (b, s * frames))


def _over_seams(x: Float[Tensor, "n c h w"], seam: Float[Tensor, "space space"]) -> Float[Tensor, "n c h w"]:
    """Return pictures of which the pixels around each seam of cells went through a matrix, along both sides."""
    half = len(seam) // 2
    for _ in range(2):
        if x.shape[3] > len(seam):
            inner = (x[..., half:-half].unflatten(3, (-1, len(seam))) @ seam.T).flatten(3)
            x = torch.cat([x[..., :half], inner, x[..., -half:]], dim=3)
        x = x.transpose(2, 3)
    return x


class Code(NamedTuple):
    """What the linear code needs for segments of one length."""

    seam: Float[Tensor, "space space"]
    cells: Float[Tensor, "band c h w"]
    """What each band that is held at all sees of the pixels of a cell; they are orthonormal."""
    waves: Float[Tensor, "k f"]
    """What each frequency sees of the frames."""
    std: Float[Tensor, "u 1 1"]
    known: Int[Tensor, " known"]
    """The coefficients that there are, among `union`, and beside each its place among k and band, the band inner."""
    places: Int[Tensor, " known"]
    gains: Float[Tensor, "m number"]
    """What coefficients in units of `std` are multiplied by to be numbers of each mode."""
    scale: Float[Tensor, "m number"]
    """The standard deviation that numbers of each mode are expected to have."""
    numbers: Int[Tensor, "m number"]
    """`held`."""


def _code(config: TokenizerConfig, frames: int, device: torch.device) -> Code:
    return Code(*(one.to(device) for one in _code_on_cpu(config, frames)))


@cache
@torch.inference_mode(False)  # what is made within it could not be used in training later
def _code_on_cpu(config: TokenizerConfig, frames: int) -> Code:
    line, there = cosines(config.space) / config.space**0.5, places(frames, config.segment)
    cells = np.einsum("ph,qw,cd->pqcdhw", line, line, COLOURS).reshape(-1, 3, config.space, config.space)
    every, bands, total = union(config), 3 * config.space**2, config.segment * 3 * config.space**2
    used = sorted({one % bands for one in every if one < total})
    known = [i for i, one in enumerate(every) if one < total and one // bands in there]
    at = [there.index(every[i] // bands) * len(used) + used.index(every[i] % bands) for i in known]
    stds = np.ones((len(MODES), len(every)))
    for mode, given in enumerate(MODES):
        flat = variance(config.segment, config.space, *given).ravel() ** 0.5
        stds[mode] = [flat[one] if one < total else 1 for one in every]
    numbers = held(config, frames)
    own = np.take_along_axis(stds, numbers, axis=1)
    scale = own**NATURAL
    return Code(
        seam=torch.tensor(seam(config.space), dtype=torch.float32),
        cells=torch.tensor(cells[used], dtype=torch.float32),
        waves=_waves(frames),
        std=torch.tensor(stds[PLAIN], dtype=torch.float32)[:, None, None],
        known=torch.tensor(known),
        places=torch.tensor(at),
        gains=torch.tensor(stds[PLAIN][numbers] / own * scale, dtype=torch.float32),
        scale=torch.tensor(scale, dtype=torch.float32),
        numbers=torch.from_numpy(numbers),
    )


def few_at_once(layers: Callable[..., Video], videos: Sequence[Video], before: Caches, after: NextCaches) -> Video:
    """Return what layers that look back make of videos frame by frame: on a CPU, without gradients, few at a time.

    Args:
        layers: takes the videos and what is kept of frames before and after, as the layers of `tokenizer.layers` do.
        videos: of as many frames each.
        before: what is kept of frames before.
        after: what is to be kept.
    """
    some = AT_ONCE if videos[0].device.type == "cpu" and not torch.is_grad_enabled() else videos[0].shape[1]
    out, left = [], before
    for parts in zip(*(video.split(some, dim=1) for video in videos), strict=True):
        known, left = left, next_caches()
        out.append(layers(*parts, known, left))
    after.update(left)
    return torch.cat(out, dim=1) if len(out) > 1 else out[0]


def joint_codec(config: TokenizerConfig) -> tuple[nn.Module, nn.Module]:
    """Return the linear code that the network corrects, there and back."""
    return CoarseIn(config), CoarseOut(config)


def numbers_from(
    config: TokenizerConfig, x: Segments, modes: Modes, frames: int, latents: int, *, scaled: bool = False
) -> Float[Tensor, "b s number h w"]:
    """Return the numbers of a cell's latents but the first, its mode, from those of all coefficients.

    Args:
        config: of the tokenizer.
        x: a channel for each coefficient of `union`.
        modes: of the cells.
        frames: of each segment.
        latents: of each segment.
        scaled: whether they are coefficients in units of `Code.std`, of which numbers are to be made.
    """
    code, count = _code(config, frames, x.device), latents * config.channels - 1
    found = x.gather(2, _by_cell(code.numbers, modes, count))
    return found * _by_cell(code.gains, modes, count).to(x) if scaled else found


def _by_cell(table: Tensor, modes: Modes, count: int) -> Tensor:
    """Return the first numbers of a table's row for the mode of each cell."""
    return rearrange(table[:, :count][modes], "b s h w n -> b s n h w")


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
        self.modes = nn.Embedding(len(MODES), width)
        self.leave = nn.Conv2d(width, 2 * len(union(config)), 1)
        self.faint = math.log(NOISE) - 2 * _code(config, config.segment, torch.device("cpu")).std[:, 0, 0].log()

    def forward(self, x: Video, rate: int, halvings: int, before: Caches, after: NextCaches, coarse: Video) -> Video:
        """Return means and log variances, `2·channels` of them; `rate` is an index, `halvings` its logarithm.

        Modes stand in `coarse`, the latents of the linear code, and nothing is added to them.
        """
        segments, frames = split(self.config, x.shape[1])
        modes = modes_in(coarse.unflatten(1, (segments, -1))[:, :, 0])
        x = few_at_once(lambda x, before, after: self.frames(x, rate, before, after), (x,), before, after)
        x = self.over_time(x, segments)
        x = self.segments(x + _embedded(self.modes, modes), rate, before, after)
        mean, logvar = each_frame(self.leave, F.silu(self.norm(x, rate))).chunk(2, dim=2)
        mean = numbers_from(self.config, mean, modes, frames, frames >> halvings)
        logvar = numbers_from(self.config, logvar, modes, frames, frames >> halvings)
        code, count = _code(self.config, frames, x.device), mean.shape[2]
        mean = mean * _by_cell(code.scale, modes, count).to(mean)
        logvar = logvar + 2 * _by_cell(code.gains, modes, count).log()
        return torch.cat([self._rows(CORRECTION * mean, 0.0), self._rows(logvar, MODE_LOGVAR)], dim=2)

    def exits(self) -> list[nn.Conv2d]:
        """Return the convolutions that give moments: half of the channels of each are means, half log variances."""
        return [self.leave]

    def coarse(self, codec: nn.Module, x: Video, halvings: int) -> Video:
        """Return the latents of the linear code."""
        segments, frames = split(self.config, x.shape[1])
        coefficients, modes = codec(x.unflatten(1, (segments, frames)))
        numbers = numbers_from(self.config, coefficients, modes, frames, frames >> halvings, scaled=True)
        return self._rows(numbers, levels().to(numbers)[modes][:, :, None])

    def _rows(self, numbers: Float[Tensor, "b s number h w"], first: Tensor | float) -> Video:
        """Return the latents of a cell from its numbers, and what stands first."""
        first = torch.as_tensor(first).to(numbers).expand_as(numbers[:, :, :1])
        return rearrange(torch.cat([first, numbers], dim=2), "b s (n c) h w -> b (s n) c h w", c=self.config.channels)


class JointDecoder(SpaceDecoder):
    """From the latents of whole segments to Haar subbands."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        self.config, width = config, 2 * config.width
        self.modes = nn.Embedding(len(MODES), width)
        self.enter = nn.Conv2d(len(union(config)), width, 1)
        self.segments = Blocks(width, config, "decoder.segments")
        self.along_time = AlongTime(width, config.width, config.segment)
        self.seen, self.levels = nn.Conv2d(3 * PATCH**2, self.leave.in_channels, 1), PATCH.bit_length() - 1

    def forward(
        self, z: Video, rate: int, doublings: int, before: Caches, after: NextCaches, still: Float[Tensor, "b t 3 h w"]
    ) -> Video:
        """Return Haar subbands at the full frame rate; `still` is the video of the linear code."""
        coefficients, modes, frames = self._read(z, doublings)
        x = each_frame(self.enter, coefficients) + _embedded(self.modes, modes)
        x = self.segments(x, rate, before, after)

        def pictures(x: Video, still: Video, before: Caches, after: NextCaches) -> Video:
            seen = each_frame(self.seen, haar(still, self.levels))
            return CORRECTION * self.subbands(self.pictures(x, rate, before, after, seen), rate)

        return few_at_once(pictures, (self.along_time(x, frames), still), before, after)

    def coarse(self, codec: nn.Module, z: Video, doublings: int) -> Float[Tensor, "b t 3 h w"]:
        """Return the video of the linear code."""
        coefficients, _, frames = self._read(z, doublings)
        return codec(coefficients, frames)

    def _read(self, z: Video, doublings: int) -> tuple[Segments, Modes, int]:
        """Return the coefficients that latents hold, 0 where they hold none, the modes, and frames of a segment."""
        segments, frames = split(self.config, z.shape[1] << doublings)
        numbers = rearrange(z, "b (s n) c h w -> b s (n c) h w", s=segments)
        modes, numbers = modes_in(numbers), numbers[:, :, 1:]
        code, count = _code(self.config, frames, z.device), numbers.shape[2]
        numbers = numbers / _by_cell(code.gains, modes, count).to(z)
        empty = z.new_zeros(*z.shape[:1], segments, len(union(self.config)), *z.shape[-2:])
        return empty.scatter(2, _by_cell(code.numbers, modes, count), numbers), modes, frames


def _embedded(embedding: nn.Embedding, modes: Modes) -> Segments:
    """Return what an embedding has learned of the modes of the cells."""
    return rearrange(embedding(modes), "b s h w c -> b s c h w")
