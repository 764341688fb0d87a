"""Which clips stand together in which pack of which step: a pure function of index, settings and number of the round.

The clips of an epoch in random order, one epoch behind the other, are one endless row; a round is a piece of it that
is packed on its own: of a small set several epochs, so that half-full packs at its end do not matter, of a large one a
part of an epoch, so that a plan takes a moment and a resume begins at once. Nothing depends on ranks or workers.

Random numbers belong to a clip and not to a place in a run: whatever is drawn for a window of a clip is keyed by (seed,
clip, epoch, window) and by what it is for. So it does not depend on what stands beside it in a pack, nor on where a run
was broken off. Philox: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit import cost
from rushes.dit.config import TrainConfig
from rushes.dit.index import Index, Integers, LatentError

STEPS_OF_ROUND = 128
"""Steps of a round at least, of which the last one may be half full."""
MOST_EPOCHS = 1024
"""Epochs of a round at most."""
MOST_WINDOWS = 65_536
"""Windows that are packed together at most, where they fill enough steps."""
VALIDATION = -1
"""The epoch of what is drawn for validation: the same each time."""
log = logging.getLogger(__name__)


def generator(purpose: str, *key: int | str) -> np.random.Generator:
    """Return the generator of a key. Equal keys give equal numbers; others have nothing to do with each other."""
    words = "\0".join([purpose, *map(str, key)])
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.blake2b(words.encode(), digest_size=16).digest()))
    )


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What the random numbers of a window of a clip are keyed by."""

    seed: int
    clip: str
    epoch: int
    window: int

    def generator(self, purpose: str) -> np.random.Generator:
        """Return the generator of what is drawn for one purpose."""
        return generator(purpose, self.seed, self.clip, self.epoch, self.window)


def noise(tickets: Sequence[Ticket], lengths: Sequence[int], width: int) -> Float[Tensor, "n width"]:
    """Return normal noise for the tokens of windows, one behind the other."""
    found = np.empty((sum(lengths), width), np.float32)
    for ticket, length, end in zip(tickets, lengths, np.cumsum(lengths), strict=True):
        ticket.generator("noise").standard_normal(dtype=np.float32, out=found[end - length : end])
    return torch.from_numpy(found)


def drawn(tickets: Sequence[Ticket], count: int) -> tuple[Float[Tensor, " clips"], Float[Tensor, "clips count"]]:
    """Return a normal number for each window, from which its time is made, and some in [0, 1), by which its condition
    is thinned.
    """
    dice = [ticket.generator("time and condition") for ticket in tickets]
    normals = [one.standard_normal(dtype=np.float32) for one in dice]
    return torch.tensor(normals), torch.from_numpy(np.stack([one.random(count, dtype=np.float32) for one in dice]))


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What is packed: clips, or of a clip longer than a pack windows of whole segments, all of which are seen."""

    clip: Integers
    """Row of each window's clip in the index."""
    number: Integers
    """Number of the window in its clip, from 0."""
    first: Integers
    """Its first segment, counted from the first of its clip."""
    last: Integers
    """Behind its last segment."""
    tokens: Integers
    """Its tokens."""
    pairs: np.ndarray
    """Pairs of its tokens that see each other, on the average of blocks."""
    seconds: np.ndarray
    """Its length."""

    def __len__(self) -> int:
        return len(self.clip)


@dataclass(frozen=True, kw_only=True)
class Round:
    """The packs of a round, in steps of as many packs as there are `TrainConfig.packs`."""

    window: Integers
    """Windows of all packs, one pack behind the other."""
    epoch: Integers
    """Epoch in which each is seen."""
    begin: Integers
    """Where each pack begins, and behind the last one their number, [packs + 1]."""
    steps: Integers
    """Packs of each step, [steps, packs of a step]; -1 in the last step where there are too few."""

    def pack(self, number: int) -> slice:
        """Return where the windows of a pack stand."""
        return slice(int(self.begin[number]), int(self.begin[number + 1]))


def cropped(cells: Integers, max_cells: int) -> Integers:
    """Return the cells that a crop leaves of latents [clips, 2]; 0 crops nothing."""
    return np.minimum(cells, max_cells) if max_cells else cells


def windows(index: Index, config: TrainConfig) -> tuple[Windows, Windows]:
    """Return what is trained on, and what is held out.

    Clips with a segment that is larger than a pack are left out, which is logged. Raises LatentError where none is
    left to train on.
    """
    cells = (-(-cropped(index.cells, config.max_cells) // config.model.patch)).prod(axis=1)
    tokens = index.counts * np.repeat(cells, np.diff(index.first))
    rows = _fitting(index, np.maximum.reduceat(tokens, index.first[:-1]), config.tokens)
    if not len(rows):
        raise LatentError(f"{index.root} has no clip that fits; raise tokens, or crop with max_cells")
    held = index.held(rows, config.holdout)
    behind = _behind(tokens), _behind(index.seconds)
    found = _windows(index, rows[~held], *behind, cells, config), _windows(index, rows[held], *behind, cells, config)
    cuts = sum(len(one) for one in found) - len(rows)
    if cuts:
        log.info("windows   %d clips of up to %d tokens, cut %d times: all are seen", len(rows), config.tokens, cuts)
    return found


def _behind(values: np.ndarray) -> np.ndarray:
    """Return the sum of all values before each, and of all at the end."""
    return np.concatenate([[0], np.cumsum(values)])


def _windows(
    index: Index, rows: Integers, behind: Integers, seconds: np.ndarray, cells: Integers, config: TrainConfig
) -> Windows:
    row, number, first, last = _cut(rows, index.first[rows], index.first[rows + 1], behind, config.tokens)
    tokens = behind[last] - behind[first]
    return Windows(
        clip=row, number=number, first=first - index.first[row], last=last - index.first[row], tokens=tokens,
        pairs=cost.pairs(config.model, tokens // cells[row], cells[row]), seconds=seconds[last] - seconds[first],
    )  # fmt: skip


def _fitting(index: Index, largest: Integers, budget: int) -> Integers:
    out = np.flatnonzero(largest > budget)
    if len(out):
        log.warning(
            "left out: %d of %d clips, such as %s, of which a segment takes %d tokens, more than tokens=%d; raise "
            "tokens, crop with max_cells, or encode smaller clips",
            len(out), len(index), index.key(out[0]), largest[out[0]], budget,
        )  # fmt: skip
    return np.flatnonzero(largest <= budget)


def _cut(
    rows: Integers, first: Integers, last: Integers, behind: Integers, budget: int
) -> tuple[Integers, Integers, Integers, Integers]:
    """Return clip, number, first segment and end of each window: as many whole segments as the budget holds.

    All clips take their next window at once.
    """
    found, number = [], 0
    while len(rows):
        end = last.copy()
        long = np.flatnonzero(behind[last] - behind[first] > budget)
        end[long] = np.searchsorted(behind, behind[first[long]] + budget, side="right") - 1
        found.append((rows, np.full(len(rows), number), first, end))
        rows, first, last, number = rows[long], end[long], last[long], number + 1
    row, numbers, begin, end = (np.concatenate(column) for column in zip(*found, strict=True)) if found else [rows] * 4
    order = np.lexsort((numbers, row))
    return row[order], numbers[order], begin[order], end[order]


def pair_cost(config: TrainConfig) -> float:
    """Return what a pair of tokens that see each other costs, in tokens that see none; by FLOPs where it is not set."""
    return config.pair_cost or cost.pair_flops(config.model) / cost.token_flops(config.model)


def costs(found: Windows, window: Integers, pack: Integers, pair: float) -> np.ndarray:
    """Return the cost of each pack, from the windows in it: of their tokens, and of the pairs that see each other."""
    return np.bincount(pack, found.tokens[window] + pair * found.pairs[window])


def plan(found: Windows, config: TrainConfig, number: int) -> Round:
    """Return the packs of a round.

    Within a round the longest windows are packed first, each where it leaves least room (best fit decreasing). The
    packs of a step are of like cost, so that no rank waits for another.
    """
    window, epoch = _row(found, config, number)
    order = np.argsort(-found.tokens[window], kind="stable")
    window, epoch = window[order], epoch[order]
    pack = best_fit(found.tokens[window].tolist(), config.tokens)
    order = np.argsort(pack, kind="stable")
    window, epoch, pack = window[order], epoch[order], pack[order]
    each = max(config.packs, 1)
    like = np.argsort(-costs(found, window, pack, pair_cost(config)), kind="stable")
    steps = np.concatenate([like, np.full(-len(like) % each, -1)]).reshape(-1, each)
    dice = generator("steps", config.seed, number)
    begin = np.concatenate([[0], np.cumsum(np.bincount(pack))])
    return Round(window=window, epoch=epoch, begin=begin, steps=dice.permutation(steps))


def best_fit(sizes: Sequence[int], budget: int) -> Integers:
    """Return the pack of each size: of the packs with room for it that with least, else a new one."""
    rooms: list[int] = []  # different rooms of open packs, rising
    with_room: dict[int, list[int]] = {}
    found, packs = np.empty(len(sizes), np.int64), 0
    for place, size in enumerate(sizes):
        at = bisect_left(rooms, size)
        if at == len(rooms):
            room, pack, packs = budget, packs, packs + 1
        else:
            room = rooms[at]
            pack = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        found[place] = pack
        left = room - size
        if left in with_room:
            with_room[left].append(pack)
        elif left:
            with_room[left] = [pack]
            insort(rooms, left)
    return found


def _row(found: Windows, config: TrainConfig, number: int) -> tuple[Integers, Integers]:
    """Return the windows of a round in random order, and the epoch of each."""
    epochs, parts = _extent(found, config)
    pieces = []
    for epoch in range(number * epochs, (number + 1) * epochs) if parts == 1 else [number // parts]:
        order = generator("order", config.seed, epoch).permutation(len(found))
        pieces.append((np.array_split(order, parts)[number % parts], epoch))
    return np.concatenate([piece for piece, _ in pieces]), np.repeat(
        [e for _, e in pieces], [len(p) for p, _ in pieces]
    )


def _extent(found: Windows, config: TrainConfig) -> tuple[int, int]:
    """Return the epochs of a round, and the rounds of an epoch; one of them is 1."""
    steps = found.tokens.sum() / config.tokens / max(config.packs, 1)
    epochs = min(max(1, round(STEPS_OF_ROUND / steps)), MOST_EPOCHS)
    return epochs, max(1, min(int(steps // STEPS_OF_ROUND), -(-len(found) // MOST_WINDOWS)))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A pack that is to be read: all that a worker must know."""

    clips: Integers
    """Rows in the index."""
    numbers: Integers
    """Numbers of the windows."""
    segments: Integers
    """First segment of each window, and behind its last, [windows, 2]."""
    epochs: Integers
    """Epochs in which they are seen."""
    duration_s: float
    """Length of all together."""
    weight: int
    """0 for a pack that only keeps a rank company in a step for which there are too few."""
    position: tuple[int, int] | None
    """Round and step where training goes on behind this pack; None within a step."""


def asked(found: Windows, config: TrainConfig, start: tuple[int, int], rank: int, world: int) -> Iterator[Asked]:
    """Yield the packs of one of `world` ranks without end, from a round and a step in it."""
    number, step = start
    while True:
        planned = plan(found, config, number)
        while step < len(planned.steps):
            row, step = planned.steps[step], step + 1
            for turn in range(rank, len(row), world):
                here = planned.pack(row[turn] if row[turn] >= 0 else row[0])
                position = (number, step) if turn + world >= len(row) else None
                yield _ask(found, planned.window[here], planned.epoch[here], int(row[turn] >= 0), position)
        number, step = number + 1, 0


def fixed(found: Windows, config: TrainConfig, most: int) -> list[Asked]:
    """Return up to `most` packs to validate on: the same whenever they are asked for, as what is drawn for them."""
    order = generator("validation", config.seed).permutation(len(found))
    window = order[: max(1, int(np.searchsorted(np.cumsum(found.tokens[order]), most * config.tokens, side="right")))]
    window = window[np.argsort(-found.tokens[window], kind="stable")]
    pack = best_fit(found.tokens[window].tolist(), config.tokens)
    planned = [window[pack == number] for number in range(min(most, pack.max() + 1))]
    return [_ask(found, one, np.full(len(one), VALIDATION), 1, None) for one in planned]


def _ask(found: Windows, window: Integers, epoch: Integers, weight: int, position: tuple[int, int] | None) -> Asked:
    return Asked(
        clips=found.clip[window], numbers=found.number[window],
        segments=np.stack([found.first[window], found.last[window]], axis=1), epochs=epoch,
        duration_s=float(found.seconds[window].sum()), weight=weight, position=position,
    )  # fmt: skip
