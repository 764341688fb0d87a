"""The tokenizer: a causal 3D VAE whose every 16-frame segment has its own number of latents.

One trunk serves all rates. The picture is Haar-patched to a quarter of its sides; convolutions take it to 1/8; then the
frames of a segment are transformed over time and coded jointly, in as many latents as its rate asks for
(`tokenizer.joint`). A segment's latents and frames depend on it and on earlier ones only, any number of frames goes in
and comes out, and a clip coded segment by segment with caches is the clip coded whole, for that is how it is coded
whole.

    video b 3 t h w in [-1, 1] ─► encode(video, rates) ─► Latents z: b Σn C h/8 w/8 ─► decode ─► video b 3 t h w

A cut inside a segment starts a new one, so segments may be short; the last latent of a short one stands for fewer
frames.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rushes.pipelines.store import storage
from rushes.tokenizer.config import PATCH, TokenizerConfig
from rushes.tokenizer.joint import CoarseIn
from rushes.tokenizer.layers import Caches, haar, next_caches, unhaar, zeroed
from rushes.tokenizer.shipped import folder_of
from rushes.tokenizer.variants import SYSTEMS

LOGVAR_RANGE = (-20.0, 4.0)
OVERSHOOT = 0.1
"""Share of the range by which values may lie outside: bicubic and Lanczos resizing ring."""
Scale = Literal["", "-1..1", "0..1", "0..255"]
"""What black and white are in a video; empty lets `in_range` tell."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The latents of a clip, ragged in time: segment i has one for every `rates[i]` of its frames."""

    z: Float[Tensor, "b n c h w"]
    """Latents of all segments in order, about zero mean and unit variance for each channel."""
    rates: tuple[int, ...]
    """Frames per latent of each segment."""
    lengths: tuple[int, ...]
    """Frames of each segment; where a rate does not divide them, the last latent stands for fewer frames."""
    height: int
    """Height of the clip in pixels; latents cover it rounded up to whole cells."""
    width: int
    """Width of the clip in pixels."""


def segment_lengths(frames: int, segment: int, cuts: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the frames of each segment of a clip: at most `segment`, fewer before a cut and at the end.

    Args:
        frames: of the clip.
        segment: most frames of a segment.
        cuts: first frames of new shots; each begins a segment.
    """
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < frames}), frames]
    return tuple(min(segment, stop - at) for start, stop in pairwise(edges) for at in range(start, stop, segment))


def counts(lengths: Sequence[int], rates: Sequence[int]) -> list[int]:
    """Return the number of latents of each segment. Raises ValueError unless there is one rate for each segment."""
    if len(rates) != len(lengths):
        raise ValueError(f"{len(rates)} rates for {sum(lengths)} frames: {len(lengths)} segments need one rate each")
    return [-(-length // rate) for length, rate in zip(lengths, rates, strict=True)]


class Tokenizer(nn.Module):
    """Encoder and decoder, and beside them a linear codec from which training starts.

    Encoder and decoder add to it and start at zero, so that a fresh tokenizer is a coarse but working one.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        system = SYSTEMS[config.variant]
        self.encoder, self.decoder = system.encoder(config), system.decoder(config)
        self.coarse_in, self.coarse_out = system.codec(config)
        self.register_buffer("latent_mean", torch.zeros(config.channels))
        self.register_buffer("latent_std", torch.ones(config.channels))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        zeroed(self.decoder.leave)
        for layer in self.encoder.exits():
            zeroed(layer).bias[layer.out_channels // 2 :] = torch.as_tensor(self.encoder.faint)  # type: ignore[index]

    def encode(
        self,
        video: Float[Tensor, "b 3 t h w"] | UInt8[Tensor, "b 3 t h w"],
        rates: Sequence[int] | int | None = None,
        *,
        cuts: Iterable[int] = (),
        scale: Scale = "",
        at_once: int = 1,
    ) -> Latents:
        """Return the latents of a clip (the posterior's means).

        Args:
            video: RGB, any number of frames and any size; sides are padded to whole cells.
            rates: frames per latent of each segment, one for all, or None for the lowest.
            cuts: first frames of new shots; each begins a segment.
            scale: what black and white are; see `in_range` for what is told without it.
            at_once: neighbouring segments of equal rate that are computed together: faster on a GPU, more memory.

        Raises:
            ValueError: this is no RGB video, its range is doubtful, or a rate is not one of this tokenizer's.
        """
        video = in_range(video, scale)
        lengths = segment_lengths(video.shape[2], self.config.segment, cuts)
        chosen = self.rates_of(lengths, rates)
        mean, _ = self.posterior(video, chosen, lengths, at_once=at_once)
        height, width = video.shape[-2:]
        return Latents(z=self.normed(mean), rates=chosen, lengths=lengths, height=height, width=width)

    def decode(self, latents: Latents, *, at_once: int = 1) -> Float[Tensor, "b 3 t h w"]:
        """Return the video of latents, with exactly the frames and the size that went in; not clamped to [-1, 1]."""
        numbers = counts(latents.lengths, latents.rates)
        if latents.z.shape[1] != sum(numbers):
            raise ValueError(
                f"{latents.z.shape[1]} latents, but rates {latents.rates} and {sum(latents.lengths)} frames "
                f"mean {sum(numbers)}"
            )
        caches: Caches = {}
        out = []
        start = 0
        for rate, run in _runs(latents.lengths, latents.rates, at_once, self.config.segment):
            n = sum(numbers[i] for i in run)
            frames, caches = self.decode_chunk(latents.z[:, start : start + n], rate, caches)
            start += n
            out.append(frames[:, :, : sum(latents.lengths[i] for i in run)])
        return torch.cat(out, dim=2)[..., : latents.height, : latents.width]

    def posterior(
        self,
        video: Float[Tensor, "b 3 t h w"],
        rates: Sequence[int],
        lengths: Sequence[int] | None = None,
        *,
        at_once: int = 1,
    ) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n c h w"]]:
        """Return mean and log variance of the latents before they are normed to unit variance.

        Args:
            video: in [-1, 1].
            rates: of each segment.
            lengths: frames of each segment; None where only the last may be short.
            at_once: see `encode`.
        """
        _check_video(video)
        lengths = segment_lengths(video.shape[2], self.config.segment) if lengths is None else lengths
        counts(lengths, rates)
        caches: Caches = {}
        out, start = [], 0
        for rate, run in _runs(lengths, rates, at_once, self.config.segment):
            stop = start + sum(lengths[i] for i in run)
            moments, caches = self.encode_chunk(video[:, :, start:stop], rate, caches)
            out.append(moments)
            start = stop
        mean, logvar = torch.cat(out, dim=1).chunk(2, dim=2)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    @torch.no_grad()
    def foreseen(self, segment: Float[Tensor, "1 3 t h w"]) -> list[float]:
        """Return what a segment loses at each rate by the linear code alone, as `rates.measure` counts it: cheap.

        Raises ValueError where the variant has no code that could tell.
        """
        if not isinstance(self.coarse_in, CoarseIn):
            raise ValueError(f"a tokenizer of the variant {self.config.variant} foresees nothing; measure")
        frames, found = segment.shape[2], {}
        for rate in self.config.rates:
            length = frames + -frames % rate
            if length not in found:
                counts_ = [max(1, length // one) for one in self.config.rates]
                x = rearrange(_pad(segment, rate, self.config.space), "b c t h w -> b 1 t c h w")
                found[length] = (self.coarse_in.losses(x, counts_)[0, 0] * frames / length).tolist()
        return [found[frames + -frames % rate][i] for i, rate in enumerate(self.config.rates)]

    def encode_chunk(
        self, video: Float[Tensor, "b 3 t h w"], rate: int, caches: Caches
    ) -> tuple[Float[Tensor, "b n c2 h w"], Caches]:
        """Return the moments of whole segments of one rate and the caches for the next chunk: the streaming step."""
        index, halvings = self.config.rates.index(rate), rate.bit_length() - 1
        if self.checkpointing and self.training:
            return checkpoint(self._encode, video, index, halvings, caches, use_reentrant=False)
        return self._encode(video, index, halvings, caches)

    def decode_chunk(
        self, z: Float[Tensor, "b n c h w"], rate: int, caches: Caches
    ) -> tuple[Float[Tensor, "b 3 t h w"], Caches]:
        """Return the frames of the latents of whole segments of one rate, in whole cells, and the next caches."""
        index, doublings = self.config.rates.index(rate), rate.bit_length() - 1
        if self.checkpointing and self.training:
            return checkpoint(self._decode, z, index, doublings, caches, use_reentrant=False)
        return self._decode(z, index, doublings, caches)

    def _encode(self, video: Tensor, index: int, halvings: int, before: Caches) -> tuple[Tensor, Caches]:
        after = next_caches()
        x = rearrange(_pad(video, self.config.rates[index], self.config.space), "b c t h w -> b t c h w")
        with _exactly(x):
            coarse = self.encoder.coarse(self.coarse_in, x, halvings)
        moments = self.encoder(haar(x, PATCH.bit_length() - 1), index, halvings, before, after, coarse)
        mean, logvar = moments.chunk(2, dim=2)
        return torch.cat([mean + coarse, logvar], dim=2), after

    def _decode(self, z: Tensor, index: int, doublings: int, before: Caches) -> tuple[Tensor, Caches]:
        after = next_caches()
        z = z * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        with _exactly(z):
            still = self.decoder.coarse(self.coarse_out, z, doublings)
        fine = self.decoder(z, index, doublings, before, after, still)
        with _exactly(z):
            video = still + unhaar(fine.float(), PATCH.bit_length() - 1)
        return rearrange(video, "b t c h w -> b c t h w"), after

    def normed(self, mean: Float[Tensor, "b n c h w"]) -> Float[Tensor, "b n c h w"]:
        """Return latents shifted and scaled to the zero mean and unit variance that generators want."""
        return (mean - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def new_parameters(self) -> list[str]:
        """Return the names of the parameters that growing adds to those of a tokenizer of four frames per latent."""
        return [name for name, _ in self.named_parameters() if ".grown_" in name]

    def rates_of(self, lengths: Sequence[int], rates: Sequence[int] | int | None) -> tuple[int, ...]:
        """Return one rate for each segment. Raises ValueError for a rate that this tokenizer does not have."""
        return rates_for(lengths, rates, self.config.rates, "this tokenizer")


def rates_for(
    lengths: Sequence[int], rates: Sequence[int] | int | None, known: Sequence[int], whose: str
) -> tuple[int, ...]:
    """Return one rate for each segment: those given, one for all, or with None the lowest that there is.

    Raises ValueError for a rate that is not known, naming whose rates those are.
    """
    if rates is None or isinstance(rates, int):
        rates = [rates or known[0]] * len(lengths)
    unknown = sorted(set(rates) - set(known))
    if unknown:
        raise ValueError(f"rates {unknown} are unknown to {whose}; it has {list(known)}")
    counts(lengths, rates)
    return tuple(rates)


def stream_encode(
    tokenizer: Tokenizer, segments: Iterable[tuple[Float[Tensor, "b 3 t h w"], int]]
) -> Iterator[Float[Tensor, "b n c h w"]]:
    """Yield the latents of each segment and rate as it arrives, in memory that does not grow with the video."""
    caches: Caches = {}
    for video, rate in segments:
        _check_video(video)
        moments, caches = tokenizer.encode_chunk(video, rate, caches)
        yield tokenizer.normed(moments.chunk(2, dim=2)[0])


def stream_decode(
    tokenizer: Tokenizer, segments: Iterable[tuple[Float[Tensor, "b n c h w"], int]]
) -> Iterator[Float[Tensor, "b 3 t h w"]]:
    """Yield the frames of each segment's latents and rate as they arrive, padded to whole cells and latents."""
    caches: Caches = {}
    for z, rate in segments:
        video, caches = tokenizer.decode_chunk(z, rate, caches)
        yield video


def stream_again(
    tokenizer: Tokenizer, segments: Iterable[tuple[Float[Tensor, "b 3 t h w"], int]]
) -> Iterator[Float[Tensor, "b 3 t h w"]]:
    """Yield the reconstruction of each segment and rate as it arrives, with its frames and size, in [-1, 1]."""
    encoding: Caches = {}
    decoding: Caches = {}
    for video, rate in segments:
        moments, encoding = tokenizer.encode_chunk(video, rate, encoding)
        again, decoding = tokenizer.decode_chunk(tokenizer.normed(moments.chunk(2, dim=2)[0]), rate, decoding)
        t, h, w = video.shape[2:]
        yield again[:, :, :t, :h, :w].clamp(-1, 1)


def _runs(lengths: Sequence[int], rates: Sequence[int], at_once: int, segment: int) -> Iterator[tuple[int, list[int]]]:
    """Yield (rate, segments) of neighbours with the same rate, at most `at_once` of them; a short one is by itself."""
    run: list[int] = []
    for i, rate in enumerate(rates):
        if run and (rate != rates[run[0]] or len(run) == at_once or min(lengths[run[-1]], lengths[i]) < segment):
            yield rates[run[0]], run
            run = []
        run.append(i)
    if run:
        yield rates[run[0]], run


def _exactly(x: Tensor) -> torch.autocast:
    """Return a context without half precision, which would show as banding."""
    return torch.autocast(x.device.type, enabled=False)


def _pad(video: Tensor, rate: int, cell: int) -> Tensor:
    """Repeat the last frame, column and row up to whole latents and cells."""
    t, h, w = video.shape[2:]
    return (
        F.pad(video, (0, -w % cell, 0, -h % cell, 0, -t % rate), mode="replicate")
        if (t % rate or h % cell or w % cell)
        else video
    )


def in_range(video: Tensor, scale: Scale = "") -> Float[Tensor, "b 3 t h w"]:
    """Return a video in [-1, 1].

    8-bit video is converted. Floating point is in [-1, 1] unless `scale` says otherwise; a little overshoot, as
    resizing leaves it, is let pass.

    Raises:
        ValueError: this is no RGB video, it holds NaN, or its values do not fit the scale. Without a scale also for
            floating point without a negative value: from 0 to 1, or from −1 to 1 and nothing dark in it?
    """
    if video.dtype == torch.uint8 and scale in ("", "0..255"):
        video = video.float() / 127.5 - 1
        scale = "-1..1"
    _check_video(video)
    low, high = (float(edge) for edge in torch.aminmax(video))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("the video holds NaN or infinity; look at what made it, before the tokenizer spreads it")
    if scale == "" and low >= 0:
        raise ValueError(
            f"the video has values from {low:.3g} to {high:.3g}, none negative: give scale='0..1', '0..255' or '-1..1'"
        )
    least, most = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}.get(scale, (-1.0, 1.0))
    video = (video - least) * (2 / (most - least)) - 1 if scale in ("0..1", "0..255") else video
    slack = OVERSHOOT * (most - least)
    if low < least - slack or high > most + slack:
        raise ValueError(
            f"the video has values from {low:.3g} to {high:.3g}, expected {least:g} to {most:g}; "
            f"give the scale that it has: '-1..1', '0..1' or '0..255'"
        )
    return video


def _check_video(video: Tensor) -> None:
    if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point() or 0 in video.shape:
        hint = "for 8-bit frames divide by 127.5 and subtract 1"
        if video.ndim == 5 and video.shape[1] == 4:
            hint = "lay pictures with an alpha channel over a background first, or drop it: video[:, :3]"
        raise ValueError(
            f"a video is floating point [batch, 3, frames, height, width] in [-1, 1], "
            f"not {video.dtype} {list(video.shape)}; {hint}"
        )


def grow(start: Tokenizer) -> Tokenizer:
    """Return a tokenizer of rates 8 and 16 besides, grown from a trained one whose highest rate is 4.

    At the new rates it codes, at first, every second or fourth frame as the given one would, and holds it.

    Raises:
        ValueError: the given one is no `fixed-4x8x8`, or its segments are too short for 16.
    """
    given = start.config
    if given.variant != "fixed-4x8x8":
        raise ValueError(
            f"a tokenizer of variant {given.variant!r} cannot be grown; train one of --model.variant fixed-4x8x8 first"
        )
    grown = Tokenizer(replace(given, variant="grown-16x", rates=(*given.rates, 8, 16)))
    missing, _ = grown.load_state_dict(start.state_dict(), strict=False)
    assert set(missing) == set(grown.new_parameters())
    return grown


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return 12 hex digits that change with any weight or setting; every latent shard carries them."""
    settings = asdict(tokenizer.config)
    if settings["variant"] == "adaptive":  # tokenizers saved before there were variants keep their fingerprints
        del settings["variant"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def save(tokenizer: Tokenizer, path: str) -> str:
    """Write `model.safetensors` and `config.json` to a folder or an object-store prefix; return the fingerprint."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tokenizer.state_dict().items()}
    about = {"kind": "rushes-tokenizer", "config": asdict(tokenizer.config), "fingerprint": fingerprint(tokenizer)}
    storage.write_bytes(f"{path.rstrip('/')}/model.safetensors", tensors_to(weights))
    storage.write_bytes(f"{path.rstrip('/')}/config.json", json.dumps(about, indent=2).encode())
    return str(about["fingerprint"])


def load(path: str, expect: str | None = None) -> Tokenizer:
    """Return a saved tokenizer, in evaluation mode on the CPU.

    Args:
        path: folder or object-store prefix that `save` wrote, or `shipped`.
        expect: fingerprint that it must have, such as the one that latents carry.

    Raises:
        ValueError: no tokenizer is there, its weights fit another configuration, or it is not the expected one.
    """
    root = folder_of(path)
    if not storage.exists(f"{root}/config.json"):
        raise ValueError(
            f"{path} holds no tokenizer (no config.json); train one with `rushes tokenizer train`, or take `shipped`"
        )
    about = json.loads(storage.read_bytes(f"{root}/config.json"))
    if about.get("kind") != "rushes-tokenizer":
        raise ValueError(f"{root}/config.json describes {about.get('kind', 'something else')}, not a tokenizer")
    tokenizer = Tokenizer(TokenizerConfig(**about["config"]))
    try:
        weights = tensors_from(storage.read_bytes(f"{root}/model.safetensors"))
        if "encoder.time_down.0.conv.weight" in weights and tokenizer.config.variant == "adaptive":
            raise ValueError(
                f"the tokenizer in {path} was made when segments were not yet coded jointly; train it anew"
            )
        tokenizer.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        size = tokenizer.config.size
        raise ValueError(f"the weights in {path} are damaged or of another size than {size}: {error}") from error
    found = fingerprint(tokenizer)
    for wanted, whose in ((about["fingerprint"], "its config.json"), (expect, "the latents")):
        if wanted is not None and found != wanted:
            raise ValueError(
                f"the tokenizer in {path} has fingerprint {found}, {whose} say {wanted}; "
                f"use the tokenizer that made them, or make the latents again"
            )
    return tokenizer.eval().requires_grad_(False)
