"""From a clip and a budget to the rate of each segment: frames read twice and coded at every rate, or read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from rushes.tokenizer.bucket import LeakyBucket, Level
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import Budget
from rushes.tokenizer.data import to_pictures, to_video
from rushes.tokenizer.rates import RateDistortion, choose, costs, measure
from rushes.tokenizer.scorer import Scorer, predict

Segment = tuple[list[float], Float[Tensor, "1 3 t h w"]]
"""Times in seconds of the frames of a segment, and its video in [-1, 1]."""


def plan(
    tokenizer: AnyTokenizer, read: Callable[[], Iterator[Segment]], budget: Budget, scorer: Scorer | None = None
) -> tuple[tuple[int, ...], tuple[int, ...], Iterator[Segment]]:
    """Return the rate of each segment of a clip, the frames of each, and the segments.

    With a scorer the clip is read once, and its frames are held as 8-bit pictures until the rates are known: 0.2 GB for
    20 s at 256×455. Without one it is read twice and nothing is held. Without a limit every segment takes the lowest
    rate, and the clip is read twice only to count them.

    Args:
        tokenizer: Whose rates are chosen.
        read: Opens the clip at its beginning; segments are on the tokenizer's device.
        budget: Latents that the clip may have, or their price.
        scorer: Predicts the distortions of this tokenizer; None measures them.

    Raises:
        BudgetError: The budget is below the clip's minimum; the message names it.
    """
    rates = tokenizer.config.rates
    if not budget.limited:
        lengths = tuple(len(times_s) for times_s, _ in read())
        return (rates[0],) * len(lengths), lengths, read()
    if scorer is None:
        table, times_s = measured(tokenizer, read())
    else:
        held = [(times_s, to_pictures(video)) for times_s, video in read()]
        table, times_s = predicted(scorer, held)
    chosen = choose(rates, table, budget, duration_s(list(chain.from_iterable(times_s))))
    lengths = tuple(map(len, times_s))
    if scorer is None:
        return chosen, lengths, read()
    device = tokenizer.latent_mean.device
    return chosen, lengths, ((times_s, to_video(pictures).to(device)) for times_s, pictures in held)


def measured(tokenizer: AnyTokenizer, segments: Iterable[Segment]) -> tuple[RateDistortion, list[list[float]]]:
    """Return what each segment of a clip costs and loses at each rate, and the times of its frames in seconds.

    One segment is in memory at a time, and on the tokenizer's device.
    """
    noted: list[list[float]] = []
    return measure(tokenizer, _noting(segments, noted)), noted


def predicted(
    scorer: Scorer, segments: Iterable[tuple[list[float], UInt8[np.ndarray, "t h w 3"]]]
) -> tuple[RateDistortion, list[list[float]]]:
    """Return what `measured` returns as the scorer foresees it from pictures, without coding anything."""
    noted, rows = [], []
    for times_s, pictures in segments:
        noted.append(times_s)
        rows.append(predict(scorer, pictures))
    found = np.array(rows).reshape(-1, len(scorer.rates))
    return RateDistortion(costs=costs([len(times_s) for times_s in noted], scorer.rates), distortion=found), noted


def streamed(
    scorer: Scorer, segments: Iterable[Segment], bucket: LeakyBucket, level: Level | None = None
) -> Iterator[tuple[Segment, int, Level]]:
    """Yield each segment of a stream as it arrives, its rate, and the level of the bucket after it.

    Nothing is held and nothing is looked at in advance; a stream that was broken off goes on from its last level. The
    bucket is filled by the time from the last frame of the segment before to that of this one, so gaps count too.
    """
    level, before_s = level or bucket.start(), None
    for times_s, video in segments:
        passed_s = times_s[-1] - (times_s[0] if before_s is None else before_s)
        before_s = times_s[-1]
        table = costs([len(times_s)], scorer.rates)
        option, level = bucket.step(level, predict(scorer, to_pictures(video)), table[0], passed_s)
        yield (times_s, video), scorer.rates[option], level


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
