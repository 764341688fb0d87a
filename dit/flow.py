"""Rectified flow: the straight path from data to noise, its loss, and the samplers. Pure functions.

x at time t is (1 - t)·data + t·noise (eq. 13 of arXiv 2403.03206; arXiv 2209.03003, 2210.02747); the network learns the
path's velocity, noise - data, and a sampler follows it from t = 1 back to 0. Diffusion's path is the same one in other
scales: x / (1 - t) is data with noise of `sigma(t)`, as EDM has it, and x / sqrt((1 - t)² + t²) has unit variance where
data have, as DDPM's has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Target = Literal["velocity", "noise", "data", "v"]
TARGETS: tuple[Target, ...] = get_args(Target)
"""What networks are asked for: the velocity of rectified flow, the noise of DDPM, the data that EDM's denoiser tells,
and v of Salimans and Ho, arXiv 2202.00512: how x changes with the angle along a path of unit variance."""
Schedule = Literal["shifted", "linear-quadratic"]
EMULATED = 20
"""Steps that one step of the linear-quadratic schedule begins with the length of: 50 begin as 1000 do."""


def mix(data: Float[Tensor, "n d"], noise: Float[Tensor, "n d"], t: Float[Tensor, "n 1"]) -> Float[Tensor, "n d"]:
    """Return the point at time t on the line from data (0) to noise (1)."""
    return (1 - t) * data + t * noise


def shifted(t: Tensor, shift: float | Tensor) -> Tensor:
    """Return times moved towards noise, which larger latents need. Eq. 23 of arXiv 2403.03206."""
    return shift * t / (1 + (shift - 1) * t)


def shifts(lengths: Sequence[int], reference: int, least: float = 1.0) -> Float[Tensor, " clips"]:
    """Return by how much the times of each clip are shifted, from its tokens: sqrt(m / n) of eq. 23, arXiv 2403.03206.

    The mean of m tokens at the shifted time is as unclear as that of n, the `reference`, at the unshifted one. No clip
    is shifted by less than `least`; with a reference of 0 all are shifted by that.
    """
    return (torch.tensor(lengths) / (reference or torch.inf)).sqrt().clamp(min=least)


def logit_normal_times(
    normals: Float[Tensor, " count"], shift: float | Float[Tensor, " count"] = 1.0
) -> Float[Tensor, " count"]:
    """Return times in (0, 1), most in the middle, made of normal numbers. Eq. 19 of arXiv 2403.03206, m = 0, s = 1."""
    return shifted(torch.sigmoid(normals), shift)


def with_uniform(
    times: Float[Tensor, " count"], uniforms: Float[Tensor, " count"], share: float
) -> Float[Tensor, " count"]:
    """Return times of which a share is uniform in [0, 1) instead, made of numbers that are.

    Logit-normal times that are shifted towards noise leave little noise all but out, one in a hundred below 0.2 at a
    shift of 3: what was never trained there is worse than nothing, and every sampler passes by it.
    """
    return torch.where(uniforms < share, uniforms / max(share, 1e-9), times)


def sigma(t: float) -> float:
    """Return the standard deviation of the noise that EDM's data have at a time, infinite in pure noise."""
    return t / (1 - t) if t < 1 else math.inf


def conversion(target: Target, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b of times: a target is a·x + b·velocity, so the velocity is (target - a·x) / b.

    An error of the target is b times that of the velocity. So b is 0 where x tells the target: noise at 1, data at 0.
    """
    one, spread = torch.ones_like(t), ((1 - t).square() + t.square()).sqrt()
    return {
        "velocity": (0 * t, one),
        "noise": (one, 1 - t),
        "data": (one, -t),
        "v": ((1 - 2 * t) / spread, spread),  # alpha·noise - sigma·data, with alpha = (1 - t)/spread, sigma = t/spread
    }[target]


def preconditioning(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return skip, out and in scale of times: the velocity is skip·x + out·network(in·x). Table 1 of arXiv 2206.00364.

    The network is asked for v, as that of Stable Video Diffusion is (arXiv 2311.15127) and, but for the sign, EDM's;
    those are told of the time as ln(sigma) / 4.

    skip·x is the best velocity where data are Gaussian of unit variance, out the error that it leaves, and in brings x
    to unit variance. So in noise the network is asked for the data alone, and need not hand the noise through, which
    drowns what conditions tell, and which no token fits through that has more values than the network is wide.
    """
    of_x, of_velocity = conversion("v", t)
    return -of_x / of_velocity, 1 / of_velocity, 1 / of_velocity


def loss(
    velocity: Float[Tensor, "n d"],
    data: Float[Tensor, "n d"],
    noise: Float[Tensor, "n d"],
    seconds: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the squared error of the velocity, averaged over tokens, or over time where their `seconds` are given.

    Over time, a second counts the same at every rate of the tokenizer: at rate 2 it has eight times the tokens of rate
    16. What is averaged is the integral over seconds (and the picture), with tokens as its steps.
    """
    error = (velocity.float() - (noise - data)).square().mean(dim=-1)
    if seconds is None:
        return error.mean()
    return (error * seconds).sum() / seconds.sum()


def times(steps: int, shift: float = 1.0, schedule: Schedule = "shifted") -> list[float]:
    """Return the `steps + 1` times from 1 down to 0 that a sampler visits.

    shifted: even steps, moved towards noise. linear-quadratic: half of the steps are as short as those of `EMULATED`
    times as many even ones, then each is longer than the one before, by as much (Movie Gen, arXiv 2410.13720); it has a
    density of its own, and is not shifted.
    """
    if schedule == "shifted":
        return shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).tolist()
    even, short = steps // 2, 1 / (EMULATED * steps)
    longer = (1 - short * steps) / (steps - even) ** 2  # so that the last step ends at 0
    number = torch.arange(steps, dtype=torch.float64)
    return [*(1 - short * number - longer * (number - even).clamp(min=0).square()).tolist(), 0.0]


def euler(velocity: Velocity, noise: Tensor, steps: int, shift: float = 1.0, schedule: Schedule = "shifted") -> Tensor:
    """Follow the velocity from noise to data in first-order steps."""
    x = noise
    for now, then in pairwise(times(steps, shift, schedule)):
        x = x + (then - now) * velocity(x, now)
    return x


def heun(velocity: Velocity, noise: Tensor, steps: int, shift: float = 1.0, schedule: Schedule = "shifted") -> Tensor:
    """Follow the velocity in second-order steps: the mean of the slopes at both ends (Heun's method).

    The last step is plain Euler, since a slope at t = 0 is asked of no network (algorithm 1 of arXiv 2206.00364).
    """
    x = noise
    for now, then in pairwise(times(steps, shift, schedule)):
        slope = velocity(x, now)
        ahead = x + (then - now) * slope
        x = ahead if then == 0 else x + (then - now) * (slope + velocity(ahead, then)) / 2
    return x


def looks(sampler: str, steps: int) -> int:
    """Return how often a sampler asks for the velocity: heun twice a step, but for the last."""
    return 2 * steps - 1 if sampler == "heun" else steps


SAMPLERS: dict[str, Callable[[Velocity, Tensor, int, float, Schedule], Tensor]] = {"euler": euler, "heun": heun}


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the velocity pushed away from the unconditional one; scale 1 is the conditional. arXiv 2207.12598."""
    return unconditional + scale * (conditional - unconditional)
