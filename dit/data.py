"""Latent shards in, packed batches out.

A sample is KEY.npy (float16 [latents, channel, h, w]), KEY.json (rates and frames of segments, times, facts),
KEY.txt (caption).
Shards are untrusted: arrays are read without pickle and everything is checked against everything else.
"""

from __future__ import annotations

import io
import json
import logging
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import IterableDataset

from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.model import grid, patchify
from rushes.pipelines.store import shards

MEMBERS = ("npy", "json", "txt")
log = logging.getLogger(__name__)

OPEN_BATCHES = 8  # batches that are filled at the same time


class LatentError(ValueError):
    """A latent sample is damaged or does not belong here; the message names it and the remedy."""


@dataclass(kw_only=True)
class LatentClip:
    """One clip as the tokenizer left it."""

    key: str
    latents: Float[Tensor, "l c h w"]
    times_s: Float[Tensor, " l"]
    rates: tuple[int, ...]
    """Frames per latent of each segment."""
    counts: tuple[int, ...]
    """Latents of each segment."""
    caption: str
    facts: Mapping[str, Any]
    """The whole JSON: whatever was measured of the clip."""

    def tokens(self, patch: int) -> int:
        """Return the number of tokens of the clip."""
        length, _, h, w = self.latents.shape
        return length * -(-h // patch) * -(-w // patch)

    def leading(self, budget: int, patch: int) -> LatentClip:
        """Return as many leading segments as fit into `budget` tokens.

        The beginning is kept because the tokenizer is causal: what is generated begins where a decoder begins. Raises
        LatentError where not even the first segment fits.
        """
        each = self.tokens(patch) // len(self.latents)
        kept = int(np.searchsorted(np.cumsum(self.counts) * each, budget, side="right"))
        if kept == 0:
            raise LatentError(
                f"{self.key}: its first segment takes {self.counts[0] * each} tokens, more than tokens={budget}; "
                f"raise tokens, crop with max_cells, or encode smaller clips"
            )
        length = sum(self.counts[:kept])
        return replace(
            self,
            latents=self.latents[:length],
            times_s=self.times_s[:length],
            rates=self.rates[:kept],
            counts=self.counts[:kept],
        )

    def cropped(self, max_cells: int, dice: random.Random) -> LatentClip:
        """Return a random window of at most `max_cells` cells a side; 0 keeps the whole."""
        h, w = self.latents.shape[-2:]
        if not max_cells or max(h, w) <= max_cells:
            return self
        top, left = dice.randint(0, max(h - max_cells, 0)), dice.randint(0, max(w - max_cells, 0))
        return replace(self, latents=self.latents[..., top : top + max_cells, left : left + max_cells])


def parse(sample: Mapping[str, Any], fingerprint: str | None = None) -> LatentClip:
    """Return the clip of a shard's sample.

    Raises LatentError where array and JSON disagree, or the sample was made by a tokenizer of another fingerprint.
    """
    key = sample["__key__"]
    try:
        latents = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
        facts = json.loads(sample["json"])
        rates, times = tuple(int(r) for r in facts["rates"]), np.asarray(facts["times_s"], dtype=np.float64)
        counts = _counts([int(length) for length in facts["lengths"]], rates)
    except (KeyError, TypeError, ValueError) as error:
        raise LatentError(f"{key} is no latent sample ({error!r}); run `rushes latents` again") from error
    if latents.ndim != 4 or not len(latents) == len(times) == sum(counts) or not np.isfinite(latents).all():
        raise LatentError(
            f"{key}: {latents.shape} latents, {len(times)} times and {sum(counts)} latents by its rates; "
            f"they must agree and be finite; run `rushes latents` again"
        )
    if fingerprint is not None and facts.get("fingerprint") != fingerprint:
        raise LatentError(
            f"{key} was made by tokenizer {facts.get('fingerprint')}, not {fingerprint}; run `rushes latents` again"
        )
    return LatentClip(
        key=key,
        latents=torch.from_numpy(latents.astype(np.float32)),
        times_s=torch.from_numpy(times.astype(np.float32)),
        rates=rates,
        counts=counts,
        caption=sample["txt"].decode("utf-8", errors="replace").strip(),
        facts=facts,
    )


def require_same(model: str, trained: tuple[str, str], given: tuple[str, str], where: str) -> None:
    """Raise LatentError where a DiT meets another tokenizer than that whose latents it was trained on.

    Args:
        model: the DiT, for people.
        trained: name and fingerprint of the tokenizer whose latents it was trained on.
        given: the same of the one that it meets.
        where: what that one is, for people.
    """
    if trained[1] != given[1]:
        raise LatentError(
            f"the DiT in {model} knows the latents of the tokenizer {trained[0]} ({trained[1]}) alone, and {where} "
            f"{given[0]} ({given[1]}); give it those of its own tokenizer, or train another DiT in another folder"
        )


def _counts(lengths: Sequence[int], rates: Sequence[int]) -> tuple[int, ...]:
    if len(lengths) != len(rates) or min(rates, default=0) < 1:
        raise ValueError(f"{len(rates)} rates for {len(lengths)} segments")
    return tuple(-(-length // rate) for length, rate in zip(lengths, rates, strict=True))


@dataclass(kw_only=True)
class Packed:
    """A batch: the tokens of several clips, one clip behind the other."""

    tokens: Float[Tensor, "n token"]
    positions: Float[Tensor, "n 3"]
    rates: Float[Tensor, " n"]
    """Frames per latent, for each token."""
    orders: Float[Tensor, " n"]
    """Place of its latent in its segment, for each token."""
    seconds: Float[Tensor, " n"]
    """How long its latent lasts, for each token."""
    lengths: list[int]
    captions: list[str]
    facts: Float[Tensor, "clips facts"]
    """NaN where unknown."""
    keys: list[str]
    position: tuple[int, int] = (0, 0)
    """Round, and batches of it up to and with this one: where a resumed run goes on."""

    def to(self, device: torch.device) -> Packed:
        """Return the batch on a device."""
        tensors = ("tokens", "positions", "rates", "orders", "seconds", "facts")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def pack(clips: Sequence[LatentClip], config: DiTConfig) -> Packed:
    """Return clips of any lengths and sizes as one row of tokens."""
    p = config.patch
    tokens = [patchify(clip.latents, p) for clip in clips]
    told = [
        torch.cat([latents_told(clip.rates, clip.counts), durations(clip)[:, None]], dim=1).repeat_interleave(  # l 3
            len(row) // len(clip.latents), dim=0
        )
        for row, clip in zip(tokens, clips, strict=True)
    ]
    rates, orders, seconds = torch.cat(told).unbind(dim=1)
    return Packed(
        tokens=torch.cat(tokens),
        positions=torch.cat([grid(clip.times_s, p, *clip.latents.shape[-2:]) for clip in clips]),
        rates=rates,
        orders=orders,
        seconds=seconds,
        lengths=[len(one) for one in tokens],
        captions=[clip.caption for clip in clips],
        facts=facts_of([clip.facts for clip in clips], config.facts),
        keys=[clip.key for clip in clips],
    )


def latents_told(rates: Sequence[int], counts: Sequence[int]) -> Float[Tensor, "l 2"]:
    """Return the frames that each latent stands for, and its place in its segment, from those of the segments."""
    orders = np.concatenate([np.arange(count) for count in counts])
    return torch.from_numpy(np.stack([np.repeat(rates, counts), orders], axis=1)).float()


def durations(clip: LatentClip) -> Float[Tensor, " l"]:
    """Return how long each latent of a clip lasts, in seconds: up to the next; of the last its frames are counted."""
    frames = latents_told(clip.rates, clip.counts)[:, 0]
    gaps = clip.times_s.diff()
    frame_s = gaps.sum() / frames[:-1].sum() if len(gaps) else 1 / float(clip.facts.get("fps") or 24)
    left = max(float(clip.facts.get("frames") or math.inf) - float(frames[:-1].sum()), 1.0)
    return torch.cat([gaps, torch.as_tensor(min(float(frames[-1]), left) * frame_s)[None]])


def facts_of(clips: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Float[Tensor, "clips facts"]:
    """Return the named numbers of each clip, NaN for what is missing or no number."""

    def number(value: Any) -> float:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan

    return torch.tensor([[number(clip.get(name)) for name in names] for clip in clips]).reshape(len(clips), len(names))


def first_fit(clips: Iterable[LatentClip], budget: int, patch: int) -> Iterator[list[LatentClip]]:
    """Yield batches of at most `budget` tokens; each clip goes to the first open batch that has room for it.

    When none has, and enough are open, the fullest one is given out. The order of the clips alone decides.
    """
    waiting: list[tuple[int, list[LatentClip]]] = []
    for clip in clips:
        size = clip.tokens(patch)
        room = next((i for i, (filled, _) in enumerate(waiting) if filled + size <= budget), None)
        if room is not None:
            waiting[room] = (waiting[room][0] + size, [*waiting[room][1], clip])
            continue
        if len(waiting) == OPEN_BATCHES:
            yield waiting.pop(max(range(OPEN_BATCHES), key=lambda i: waiting[i][0]))[1]
        waiting.append((size, [clip]))
    yield from (batch for _, batch in waiting)


class Round(IterableDataset):
    """The batches of one or several epochs, for this rank and worker; equal for equal (seed, epochs).

    A set of few clips is packed several epochs at a time, for the last batches of a round are not full.
    """

    def __init__(self, root: str, config: TrainConfig, epochs: range, fingerprint: str):
        self.root, self.config, self.epochs, self.fingerprint = root, config, epochs, fingerprint

    def __iter__(self) -> Iterator[Packed]:
        model = self.config.model
        for batch in first_fit(self._clips(), self.config.tokens, model.patch):
            yield pack(batch, model)

    def _clips(self) -> Iterator[LatentClip]:
        config = self.config
        for epoch in self.epochs:
            for sample in shards.pipeline(
                self.root, members=MEMBERS, shuffle=config.shuffle, seed=config.seed, epoch=epoch
            ):
                clip = parse(sample, self.fingerprint)
                dice = random.Random(f"{config.seed} {epoch} {clip.key}")
                try:
                    yield clip.cropped(config.max_cells, dice).leading(config.tokens, config.model.patch)
                except LatentError as error:
                    log.warning("left out: %s", error)
