"""Rates for a stream: a hard limit on latents over every stretch of time, with no look-ahead.

A leaky bucket (Turner, *New directions in communications*, IEEE Communications Magazine 24(10), 1986): it holds at
most `capacity` latents, is refilled at `per_second`, and a segment spends from it. So over any stretch of the stream,
latents ≤ capacity + per_second · seconds, which is what a receiver's buffer needs. Within that limit each segment takes
the option of least distortion + λ · latents, and λ follows the level of the bucket.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rushes.tokenizer.allocate import BudgetError, lagrangian

STEER = 2.0
"""A full bucket divides λ by exp(STEER / 2), an empty one multiplies it by that: the answer to the moment."""
LEARN = 0.3
"""And λ moves by so much for good, as the answer to how this stream differs from the training set."""
STRAY = math.log(1e4)
"""How far λ may stray from its first value, either way: a long still scene must not spoil it for what follows."""
ROUNDING = 1e-9
"""Latents by which sums of seconds may be off: at the lowest rate that can be kept up every segment is a close call."""


@dataclass(frozen=True)
class Level:
    """All that a stream must remember; plain numbers, so that a stream goes on where it was broken off."""

    latents: float
    """What the bucket holds after the last segment."""
    stray: float = 0.0
    """Logarithm of λ over its first value."""


@dataclass(frozen=True, kw_only=True)
class LeakyBucket:
    """The limits of a stream. Raises BudgetError where not even the cheapest options could be kept up."""

    capacity: float
    """Latents that the bucket holds, and with which a stream begins: what may be spent at once."""
    per_second: float
    """Latents for each second of the stream."""
    lam: float
    """First λ, the distortion that a latent must save; `lam_for` finds it on a training set."""
    least: int = 1
    """Latents of a whole segment at its cheapest option."""
    segment_s: float
    """Seconds of a whole segment."""
    short: int = 1
    """Shorter segments, such as one before a cut, that can be paid before their time has: `least` latents are held back
    for each. Whole segments fill this up again by what `per_second` exceeds the minimum."""

    def __post_init__(self):
        if not self.segment_s > 0 or not 0 < self.lam < math.inf:
            raise ValueError(f"segment_s={self.segment_s} and lam={self.lam} must be above 0")
        if not self.per_second * self.segment_s >= self.least - ROUNDING:
            raise BudgetError(
                f"{self.per_second} latents a second are below the minimum of {self.least / self.segment_s:.6g}: "
                f"{self.least} for each {self.segment_s} s"
            )
        if not self.capacity >= self.reserve + self.least:
            raise BudgetError(
                f"a capacity of {self.capacity} latents is below the minimum of {self.reserve + self.least}: "
                f"one segment, and {self.short} short ones held back"
            )

    @property
    def reserve(self) -> int:
        """Latents that only cheapest options may draw on."""
        return self.short * self.least

    def start(self) -> Level:
        """Return the full bucket with which a stream begins."""
        return Level(float(self.capacity))

    def step(
        self,
        level: Level,
        distortion: Float[np.ndarray, " options"],
        costs: Int[np.ndarray, " options"],
        duration_s: float,
    ) -> tuple[int, Level]:
        """Return the option of the segment that has just arrived, and the level after it. Pure.

        The bucket gets the latents of the segment's own time, then pays. What leaves less than the reserve may be
        chosen only if nothing is cheaper; so while the reserve is there, the cheapest option of the next segment can be
        paid, however short it is.

        Args:
            level: What the last step returned, or `start()`.
            distortion: Of this segment at each option.
            costs: Its latents at each option.
            duration_s: Its time.

        Raises:
            BudgetError: More short segments came than the reserve pays for; the message names what this one needs.
            ValueError: A distortion is not finite, or a time is none.
        """
        if not 0 <= duration_s < math.inf:
            raise ValueError(f"duration_s={duration_s} is no time; give the seconds of the segment, 0 or more")
        filled = min(self.capacity, level.latents + self.per_second * duration_s)
        least = int(costs.min())
        if filled < least - ROUNDING:
            raise BudgetError(
                f"the bucket holds {filled:.6g} latents, below the minimum of {least} of a {duration_s:.6g} s segment; "
                f"more short segments came than the reserve of {self.reserve} pays for: raise `short` or `per_second`"
            )
        off = 0.5 - (filled - self.reserve) / (self.capacity - self.reserve)
        lam = self.lam * math.exp(level.stray + STEER * off)
        allowed = np.flatnonzero((costs == least) | (filled - costs >= self.reserve - ROUNDING))
        picked = int(allowed[lagrangian(distortion[None, allowed], costs[None, allowed], lam)[0]])
        stray = min(max(level.stray + LEARN * off, -STRAY), STRAY)
        return picked, Level(filled - int(costs[picked]), stray)
