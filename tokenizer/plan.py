"""From a clip and a budget to the rate of each segment: frames read twice and coded at every rate, or read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rushes.tokenizer.bucket import LeakyBucket, Level
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import Budget
from rushes.tokenizer.data import to_pictures, to_video
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.rates import RateDistortion, choose, costs, foresee, measure

Segment = tuple[list[float], Float[Tensor, "1 3 t h w"]]
"""Times in seconds of the frames of a segment, and its video in [-1, 1]."""


def plan(
    tokenizer: AnyTokenizer, read: Callable[[], Iterator[Segment]], budget: Budget, *, predict: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...], Iterator[Segment]]:
    """Return the rate of each segment of a clip, the frames of each, and the segments.

    By prediction the clip is read once, and its frames are held as 8-bit pictures until the rates are known: 0.2 GB for
    20 s at 256×455. To measure, it is read twice and nothing is held. Without a limit every segment takes one rate,
    and the clip is read twice only to count them.

    Args:
        tokenizer: Whose rates are chosen.
        read: Opens the clip at its beginning; segments are on the tokenizer's device.
        budget: Latents that the clip may have, or their price.
        predict: Whether the tokenizer foresees what is lost, see `codec.predicts`; else it is measured.

    Raises:
        BudgetError: The budget is below the clip's minimum; the message names it.
        ValueError: The one rate of all segments is not the tokenizer's.
    """
    rates = tokenizer.config.rates
    if not budget.limited:
        lengths = tuple(len(times_s) for times_s, _ in read())
        return (budget.rate_of(rates),) * len(lengths), lengths, read()
    held = []

    def holding() -> Iterator[Segment]:
        for times_s, video in read():
            held.append((times_s, to_pictures(video)))
            yield times_s, video

    table, times_s = looked_at(tokenizer, holding() if predict else read(), predict=predict)
    chosen = choose(rates, table, budget, duration_s(list(chain.from_iterable(times_s))))
    lengths = tuple(map(len, times_s))
    if not predict:
        return chosen, lengths, read()
    device = tokenizer.latent_mean.device
    return chosen, lengths, ((times_s, to_video(pictures).to(device)) for times_s, pictures in held)


def looked_at(
    tokenizer: AnyTokenizer, segments: Iterable[Segment], *, predict: bool
) -> tuple[RateDistortion, list[list[float]]]:
    """Return what each segment of a clip costs and loses at each rate, and the times of its frames in seconds.

    One segment is in memory at a time, and on the tokenizer's device.
    """
    noted: list[list[float]] = []
    videos = _noting(segments, noted)
    if not predict:
        return measure(tokenizer, videos), noted
    assert isinstance(tokenizer, Tokenizer)
    return foresee(tokenizer, videos), noted


def streamed(
    tokenizer: Tokenizer, segments: Iterable[Segment], bucket: LeakyBucket, level: Level | None = None
) -> Iterator[tuple[Segment, int, Level]]:
    """Yield each segment of a stream as it arrives, its rate, and the level of the bucket after it.

    Nothing is held and nothing is looked at in advance; a stream that was broken off goes on from its last level. The
    bucket is filled by the time from the last frame of the segment before to that of this one, so gaps count too.
    """
    level, before_s = level or bucket.start(), None
    for times_s, video in segments:
        passed_s = times_s[-1] - (times_s[0] if before_s is None else before_s)
        before_s = times_s[-1]
        table = costs([len(times_s)], tokenizer.config.rates)
        option, level = bucket.step(level, np.array(tokenizer.foreseen(video)), table[0], passed_s)
        yield (times_s, video), tokenizer.config.rates[option], level


def _noting(segments: Iterable[Segment], noted: list[list[float]]) -> Iterator[Tensor]:
    """Yield the videos of segments and note the times of their frames."""
    for times_s, video in segments:
        noted.append(times_s)
        yield video


def duration_s(times_s: list[float]) -> float:
    """Return the seconds that frames last: from the first to the last, and the mean step for the last; 0 for one."""
    if len(times_s) < 2:
        return 0.0
    return (times_s[-1] - times_s[0]) * len(times_s) / (len(times_s) - 1)
