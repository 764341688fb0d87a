"""What a clip that is asked for is made of: its segments, their rates under a token budget, and its windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit.config import SampleConfig
from rushes.dit.sources import Given
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.model import counts
from rushes.tokenizer.rates import latent_times, plainest

Window = tuple[int, int, int]
"""First segment that is looked at, first that is made, and behind the last."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The latents of the clip to be: how many, how large, when, and which of them are given."""

    lengths: tuple[int, ...]
    """Frames of each segment."""
    height: int
    width: int
    fps: float
    rates: tuple[int, ...]
    """Frames per latent of each segment."""
    counts: tuple[int, ...]
    """Latents of each segment."""
    cells: tuple[int, int]
    """Latent cells in height and width."""
    grid: tuple[int, int] = (0, 0)
    """Rows and columns of tokens of a latent."""
    known: tuple[bool, ...] = ()
    """Whether latents of each segment are given, all of them or those outside a box."""

    @property
    def times_s(self) -> Float[Tensor, " l"]:
        """The time of each latent, as the tokenizer counts it."""
        frames_s = [frame / self.fps for frame in range(sum(self.lengths))]
        return torch.tensor(latent_times(frames_s, self.rates, self.lengths))

    @property
    def tokens(self) -> int:
        """Tokens of the clip, those that are given among them: what it takes of a budget."""
        return sum(self.counts) * math.prod(self.grid)

    def part(self, first: int, last: int) -> Plan:
        """Return the segments from `first` up to `last`, which is left out, as a clip of their own."""
        names = ("lengths", "rates", "counts", "known")
        return replace(self, **{name: getattr(self, name)[first:last] for name in names})


def plan(config: SampleConfig, tokenizer: AnyTokenizer, patch: int, given: Given) -> Plan:
    """Return the latents that a clip of this length and size takes.

    Raises ValueError for odd sides, rates that the tokenizer has not, a budget that is not met exactly, and where what
    is given is too short or leaves nothing to generate.
    """
    if config.height % 2 or config.width % 2:
        raise ValueError(f"{config.width}×{config.height} must have even sides, which video codecs want")
    lengths, known = _segments(config, tokenizer, given)
    cells = tokenizer.config.cells(config.height, config.width)
    grid = -(-cells[0] // patch), -(-cells[1] // patch)
    if config.budget:
        rates = spend(lengths, tokenizer.config.rates, config.budget, math.prod(grid))
    else:
        rates = tokenizer.rates_of(lengths, config.rates or config.rate)
    known_rates = tokenizer.config.rates  # a short segment is told of as `rushes latents` does
    rates = tuple(plainest(known_rates, length, rate) for length, rate in zip(lengths, rates, strict=True))
    return Plan(
        lengths=lengths,
        height=config.height,
        width=config.width,
        fps=config.fps,
        rates=rates,
        counts=tuple(counts(lengths, rates)),
        cells=cells,
        grid=grid,
        known=known,
    )


def _segments(config: SampleConfig, tokenizer: AnyTokenizer, given: Given) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the frames of each segment, and whether it is given."""
    frames, segment = max(1, round(config.seconds * config.fps)), tokenizer.config.segment
    if given.box:
        assert given.head is not None
        lengths = codecs.lengths_of(tokenizer, min(frames, given.head.frames))
        return lengths, (True,) * len(lengths)
    begin = _begin(tokenizer, given)
    if given.tail and given.tail.frames < segment and not given.tail.is_picture:
        raise ValueError(f"{given.tail} has fewer than the {segment} frames of a segment; give more, or a picture")
    lengths, known = _laid(tokenizer, given, begin, frames)
    if all(known):
        longer = (_laid(tokenizer, given, begin, frames + more) for more in range(8 * segment))
        enough = next(more for more, laid in enumerate(longer) if (segment, False) in zip(*laid, strict=False))
        raise ValueError(
            f"seconds={config.seconds:g} leave nothing to generate beside {given}; ask for "
            f"{_seconds(frames + enough, config.fps)} or more"
        )
    return lengths, known


def _begin(tokenizer: AnyTokenizer, given: Given) -> tuple[int, ...]:
    """Return the segments that are shown before what is asked for. Raises ValueError for too short a head."""
    head, segment = given.head, tokenizer.config.segment
    if head is None or (head.is_picture and not given.goes_on):
        return ()
    if given.goes_on:
        begin = _whole(codecs.lengths_of(tokenizer, head.frames), segment)
        if not begin:
            raise ValueError(f"{head} is shorter than a segment of {segment} frames; give a longer clip to extend")
        return begin
    lengths = codecs.lengths_of(tokenizer, 4 * segment)
    needed = sum(lengths[: _reaching(lengths, segment)])
    if head.frames < needed:
        raise ValueError(f"{head} has fewer than the {needed} frames that begin a clip; give a longer one or a picture")
    return ()


def _laid(
    tokenizer: AnyTokenizer, given: Given, begin: tuple[int, ...], frames: int
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the frames of each segment of a clip of about so many behind `begin`, and which segments are given."""
    segment, head, tail = tokenizer.config.segment, given.head, given.tail
    lone, frames = head is not None and head.is_picture, frames + sum(begin)
    if tail:
        frames = _ending(tokenizer, frames, lone, 1 if tail.is_picture else segment)
    lengths = codecs.lengths_of(tokenizer, frames, lone)
    ahead = len(begin) or (0 if not head else 1 if lone else _reaching(lengths, segment))
    left = max(0, len(lengths) - ahead - (tail is not None))
    return lengths, (*[True] * ahead, *[False] * left, *[True] * (tail is not None))


def _seconds(frames: int, fps: float) -> str:
    """Return seconds that hold so many frames, as short as two digits allow."""
    return f"{math.ceil(100 * frames / fps - 1e-6) / 100:.2f}"


def _whole(lengths: tuple[int, ...], segment: int) -> tuple[int, ...]:
    """Return segments without a short last one."""
    return lengths[:-1] if lengths[-1] < segment else lengths


def _reaching(lengths: Sequence[int], frames: int) -> int:
    """Return how many segments have so many frames together."""
    return next((number for number, sum_ in enumerate(accumulate(lengths), 1) if sum_ >= frames), len(lengths))


def _ending(tokenizer: AnyTokenizer, frames: int, lone: bool, last: int) -> int:
    """Return the number of frames next to the one asked for with which the last segment has so many."""
    segment = tokenizer.config.segment
    near = range(max(1, frames - segment - 1), frames + 3 * segment)
    fitting = [count for count in near if codecs.lengths_of(tokenizer, count, lone)[-1] == last]
    return min(fitting, key=lambda count: abs(count - frames))


def spend(lengths: Sequence[int], rates: Sequence[int], budget: int, latent_tokens: int) -> tuple[int, ...]:
    """Return a rate for each segment with which they take exactly `budget` tokens, as alike as that allows.

    Nothing is known of what will be seen, so of all choices that meet the budget the one with the least frames per
    latent, averaged over the frames, is taken, by dynamic programming over the latents: a chain of segments at one rate
    has less than any other with as many latents. Raises ValueError that names the nearest budgets where none meets it.
    """
    table = np.array([[-(-length // rate) for rate in rates] for length in lengths])
    best = np.full(int(table.max(axis=1).sum()) + 1, np.inf)
    best[0] = 0.0
    choices = np.zeros((len(lengths), len(best)), np.int8)
    for length, costs, choice in zip(lengths, table.tolist(), choices, strict=True):
        before, best = best, np.full(len(best), np.inf)
        for option, (cost, rate) in enumerate(zip(costs, rates, strict=True)):
            found = before[: len(best) - cost] + length * rate
            np.copyto(choice[cost:], option, where=found < best[cost:])
            np.minimum(best[cost:], found, out=best[cost:])
    reached = np.flatnonzero(np.isfinite(best))
    latents, over = divmod(budget, latent_tokens)
    if over or latents not in reached:
        near = sorted(reached.tolist(), key=lambda count: abs(count * latent_tokens - budget))[:2]
        raise ValueError(
            f"budget={budget} tokens cannot be met exactly: {len(lengths)} segments take {reached[0] * latent_tokens} "
            f"to {reached[-1] * latent_tokens} tokens at {latent_tokens} a latent; the nearest are "
            f"{' and '.join(str(count * latent_tokens) for count in sorted(near))}"
        )
    picked: list[int] = []
    for costs, choice in zip(table[::-1].tolist(), choices[::-1], strict=True):
        option = int(choice[latents])
        latents -= costs[option]
        picked.append(rates[option])
    return tuple(picked[::-1])


def windows(planned: Plan, seconds: float, overlap: int) -> list[Window]:
    """Return the windows in which a clip is generated, each no longer than so many seconds.

    A window begins with the last `overlap` segments of what is there before it; the last reaches as far back as there
    is room, so that it is as long as the others. What is given at the beginning is there already.

    Raises ValueError where a window has no room for a segment behind those that it begins with.
    """
    found = _within(planned, seconds * planned.fps, overlap)
    if found is None:
        behind = [0, *accumulate(planned.lengths)]
        spans = (max(b - a for a, b in zip(behind, behind[number:], strict=False)) for number in range(1, len(behind)))
        least = next(span for span in spans if _within(planned, span, overlap) is not None)
        raise ValueError(
            f"window={seconds:g} s has no room behind the {overlap} segments that it goes on from; give "
            f"{_seconds(least, planned.fps)} or more, or a smaller overlap"
        )
    return found


def _within(planned: Plan, frames: float, overlap: int) -> list[Window] | None:
    """Return windows of so many frames at most; None where one has no room for what is new."""
    n, room = len(planned.lengths), frames + 0.5  # half a frame, for rounding
    behind = [0, *accumulate(planned.lengths)]
    boxed = all(planned.known)
    done = 0 if boxed else planned.known.index(False)
    ends, found = planned.known[-1] and not boxed, []
    while done < n:
        begin = max(0, done - overlap)
        stop = max(end for end in range(begin, n + 1) if behind[end] - behind[begin] <= room)
        if ends and stop == n - 1:  # what is given at the end must be seen by what leads to it
            stop -= 1
        if stop <= done:
            return None
        while stop == n and begin and behind[stop] - behind[begin - 1] <= room:
            begin -= 1
        found.append((begin, done, stop))
        done = stop
    return found
