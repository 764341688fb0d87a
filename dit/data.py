"""Latent shards in, packed batches out.

A sample is KEY.npy (float16 [latents, channel, h, w]) and KEY.json (rates and frames of segments, times, facts), beside
KEY.txt (caption), which the JSON holds, too.
Shards are untrusted: arrays are read without pickle and everything is checked against everything else.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rushes.dit import known
from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.index import Index, LatentError
from rushes.dit.model import Condition, grid, patchify
from rushes.dit.plan import Asked, Ticket, Windows, asked, drawn
from rushes.dit.text import Embedded
from rushes.pipelines.store import storage

HEAD_BYTES = 1024
"""Of a .npy file, in which its header ends."""
REQUESTS = 8
"""Clips that are asked of an object store at the same time."""


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
        return len(self.latents) * math.prod(self.sides(patch))

    def sides(self, patch: int) -> tuple[int, int]:
        """Return rows and columns of the tokens of a latent."""
        h, w = self.latents.shape[-2:]
        return -(-h // patch), -(-w // patch)

    def window(self, first: int, last: int) -> LatentClip:
        """Return the segments from `first` up to `last`, which is left out."""
        begin, end = sum(self.counts[:first]), sum(self.counts[:last])
        before = sum(count * rate for count, rate in zip(self.counts[:first], self.rates[:first], strict=True))
        frames = {"frames": self.facts["frames"] - before} if first and "frames" in self.facts else {}
        return replace(
            self,
            facts={**self.facts, **frames},
            latents=self.latents[begin:end],
            times_s=self.times_s[begin:end],
            rates=self.rates[first:last],
            counts=self.counts[first:last],
        )

    def cropped(self, max_cells: int, ticket: Ticket) -> LatentClip:
        """Return a random window of at most `max_cells` cells a side; 0 keeps the whole."""
        h, w = self.latents.shape[-2:]
        if not max_cells or max(h, w) <= max_cells:
            return self
        dice = ticket.generator("crop")
        top, left = (int(dice.integers(max(side - max_cells, 0) + 1)) for side in (h, w))
        return replace(self, latents=self.latents[..., top : top + max_cells, left : left + max_cells])


def parse(sample: Mapping[str, Any], fingerprint: str | None = None) -> LatentClip:
    """Return the clip of a shard's sample.

    Raises LatentError where array and JSON disagree, or the sample was made by a tokenizer of another fingerprint.
    """
    key = sample["__key__"]
    try:
        latents, facts = _array(sample["npy"]), json.loads(bytes(sample["json"]))
        rates, times = tuple(int(r) for r in facts["rates"]), np.asarray(facts["times_s"], dtype=np.float64)
        counts = _counts([int(length) for length in facts["lengths"]], rates)
    except (KeyError, TypeError, ValueError) as error:
        raise LatentError(f"{key} is no latent sample ({error!r}); run `rushes latents` again") from error
    if latents.ndim != 4 or not len(latents) == len(times) == sum(counts) or not _finite(latents):
        raise LatentError(
            f"{key}: {latents.shape} latents, {len(times)} times and {sum(counts)} latents by its rates; "
            f"they must agree and be finite; run `rushes latents` again"
        )
    if facts.get("key", key) != key:
        raise LatentError(f"{key}: the shard holds {facts['key']} in its place; run `rushes latents` again")
    if fingerprint is not None and facts.get("fingerprint") != fingerprint:
        raise LatentError(
            f"{key} was made by tokenizer {facts.get('fingerprint')}, not {fingerprint}; run `rushes latents` again"
        )
    return LatentClip(
        key=key,
        latents=torch.from_numpy(latents),
        times_s=torch.from_numpy(times.astype(np.float32)),
        rates=rates,
        counts=counts,
        caption=str(facts.get("caption", "")).strip(),
        facts=facts,
    )


def _array(data: bytes | memoryview) -> npt.NDArray[np.float16]:
    """Return the array of a .npy file, a view of its bytes if these may be written; `np.load` reads it in pieces."""
    head = io.BytesIO(data[:HEAD_BYTES])
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("no .npy file of version 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(head)
    if dtype != np.float16 or by_columns:
        raise ValueError(f"an array of {dtype}, not float16")
    own = data if isinstance(data, memoryview) and not data.readonly else memoryview(bytearray(data))
    return np.frombuffer(own, np.float16, math.prod(shape), head.tell()).reshape(shape)


def _finite(latents: npt.NDArray[np.float16]) -> bool:
    """Whether all numbers are finite, by their bits: `np.isfinite` takes six times as long, longer than reading them.

    Bits of an exponent of all ones are the highest, of positive numbers as signed integers, of negative as unsigned.
    """
    return not latents.size or (latents.view(np.int16).max() < 0x7C00 and latents.view(np.uint16).max() < 0xFC00)


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
    """The tokens of several clips, one clip behind the other."""

    values: Float[Tensor, " values"]
    """The latents of all clips, as they were stored: half the bytes, and cut into tokens where the network is."""
    shapes: list[tuple[int, ...]]
    """[latents, channels, h, w] of each clip."""
    patch: int
    """Side of a token in latent cells."""
    times_s: Float[Tensor, " latents"]
    """The time of each latent of all clips."""
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

    @property
    def tokens(self) -> Float[Tensor, "n token"]:
        """The tokens, made anew each time."""
        clips = self.values.split([math.prod(shape) for shape in self.shapes])
        return torch.cat(
            [patchify(one.view(shape).float(), self.patch) for one, shape in zip(clips, self.shapes, strict=True)]
        )

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """(Seconds, y, x) of each token, made anew each time."""
        times_s = self.times_s.split([shape[0] for shape in self.shapes])
        where = zip(times_s, self.shapes, strict=True)
        return torch.cat([grid(one, self.patch, *shape[-2:]) for one, shape in where])

    def to(self, device: torch.device) -> Packed:
        """Return the clips on a device."""
        names = ("values", "times_s", "rates", "orders", "seconds", "facts")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(kw_only=True)
class Batch:
    """A pack in training: the clips, what is known of them, and what is drawn for them."""

    packed: Packed
    condition: Condition
    """Captions, facts, and which tokens are given."""
    tickets: list[Ticket]
    """What the random numbers of each clip are keyed by."""
    normals: Float[Tensor, " clips"]
    """From which the time of each clip is made."""
    uniforms: Float[Tensor, "clips draws"]
    """By which the condition of each clip is thinned, and last whether its time is uniform."""
    duration_s: float
    """Length of all clips together."""
    weight: int
    """0 where the batch is there for company only; see `plan.Asked`."""
    position: tuple[int, int] | None
    """Round and step where training goes on behind this batch; None within a step."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        names = ("packed", "condition", "normals", "uniforms")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def pack(clips: Sequence[LatentClip], config: DiTConfig) -> Packed:
    """Return clips of any lengths and sizes as one row of tokens."""
    p = config.patch
    lengths = [clip.tokens(p) for clip in clips]
    told = [
        torch.cat([latents_told(clip.rates, clip.counts), durations(clip)[:, None]], dim=1).repeat_interleave(  # l 3
            length // len(clip.latents), dim=0
        )
        for length, clip in zip(lengths, clips, strict=True)
    ]
    rates, orders, seconds = torch.cat(told).unbind(dim=1)
    return Packed(
        values=torch.cat([clip.latents.reshape(-1) for clip in clips]),
        shapes=[tuple(clip.latents.shape) for clip in clips],
        patch=p,
        times_s=torch.cat([clip.times_s for clip in clips]),
        rates=rates,
        orders=orders,
        seconds=seconds,
        lengths=lengths,
        captions=[clip.caption for clip in clips],
        facts=facts_of([clip.facts for clip in clips], config.facts),
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


class Packs(Dataset[Batch]):
    """Reads the packs of a plan, each by the byte offsets of its clips."""

    def __init__(self, index: Index, texts: Embedded, config: TrainConfig):
        self.index, self.texts, self.config = index, texts, config

    def __getitem__(self, wanted: Asked) -> Batch:
        """Return a pack; all that is random in it follows from seed, clips, epochs and windows.

        Raises LatentError where a clip is not what the index says of it.
        """
        config = self.config
        columns = (column.tolist() for column in (wanted.clips, wanted.epochs, wanted.numbers))
        tickets = [
            Ticket(seed=config.seed, clip=self.index.key(row), epoch=epoch, window=number)
            for row, epoch, number in zip(*columns, strict=True)
        ]
        clips = [
            clip.window(first, last).cropped(config.max_cells, ticket)
            for clip, (first, last), ticket in zip(self._read(wanted), wanted.segments.tolist(), tickets, strict=True)
        ]
        packed = pack(clips, config.model)
        given = [
            known.drawn(ticket, clip.counts, *clip.sides(config.model.patch), config.known)
            for ticket, clip in zip(tickets, clips, strict=True)
        ]
        normals, uniforms = drawn(tickets, 4 + len(config.model.facts) + 1)
        return Batch(
            packed=packed,
            condition=replace(self._known(wanted, packed.facts), known=torch.cat(given)),
            tickets=tickets,
            normals=normals,
            uniforms=uniforms,
            duration_s=wanted.duration_s,
            weight=wanted.weight,
            position=wanted.position,
        )

    def _known(self, wanted: Asked, facts: Float[Tensor, "clips facts"]) -> Condition:
        texts = [self.texts[number] for number in self.index.caption[wanted.clips].tolist()]
        words, pooled = zip(*texts, strict=True)
        lengths = tuple(map(len, words))
        return Condition(words=torch.cat(words), word_lengths=lengths, pooled=torch.stack(pooled), facts=facts)

    def _read(self, wanted: Asked) -> Iterator[LatentClip]:
        rows = wanted.clips.tolist()
        if storage.is_local(self.index.root):
            yield from map(self._clip, rows)
        else:
            with ThreadPoolExecutor(REQUESTS) as pool:
                yield from pool.map(self._clip, rows)

    def _clip(self, row: int) -> LatentClip:
        clip = parse(self.index.read(row), self.index.fingerprint)
        told = slice(*self.index.first[row : row + 2].tolist())
        if (*clip.latents.shape[-2:], *clip.counts) != (*self.index.cells[row], *self.index.counts[told]):
            raise LatentError(f"{clip.key} is not what its side-car says; run `rushes latents` again")
        return clip


class Order(Sampler[Asked]):
    """The packs of one rank without end, from where training stands when it is asked."""

    def __init__(self, found: Windows, config: TrainConfig, start: tuple[int, int], rank: int, world: int):
        self.found, self.config, self.start, self.rank, self.world = found, config, start, rank, world

    def __iter__(self) -> Iterator[Asked]:
        """Yield what is to be read."""
        yield from asked(self.found, self.config, self.start, self.rank, self.world)


def loader(
    packs: Packs, found: Windows, start: tuple[int, int] = (0, 0), rank: int = 0, world: int = 1
) -> DataLoader[Batch]:
    """Return the packs of one rank without end, from a round and a step in it. Workers change nothing but the pace."""
    order = Order(found, packs.config, start, rank, world)
    return DataLoader(packs, batch_size=None, sampler=order, num_workers=packs.config.workers)
