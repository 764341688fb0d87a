"""What a loss is held against: velocities that know nothing of pictures, and the best one that is linear.

x at time t is (1 - t)·data + t·noise, and noise - data is asked for; data are normalised, so that each channel has zero
mean and unit variance over a training set. Each stands where the network does: it says what it makes of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit import flow
from rushes.dit.model import DiT


class Predictor(Protocol):
    """Says the velocity of tokens: `DiT`, and what is told beside tokens is what `DiT.forward` takes."""

    def normalise(self, tokens: Float[Tensor, "n token"]) -> Float[Tensor, "n token"]:
        """Return tokens as it knows them."""

    def __call__(self, tokens: Float[Tensor, "n token"], *told: Any) -> Any:
        """Return the velocity of every token."""


class Zero:
    """Says nothing, as a network does whose last layer is zero at the start: what it loses is the velocity itself."""

    def __init__(self, net: DiT):
        self.net = net

    def normalise(self, tokens: Float[Tensor, "n token"]) -> Float[Tensor, "n token"]:
        """Return tokens as the network knows them."""
        return self.net.normalise(tokens)

    def __call__(self, tokens: Float[Tensor, "n token"], *told: Any) -> Float[Tensor, "n token"]:
        """Return zeros."""
        return torch.zeros_like(tokens)


class Gaussian(Zero):
    """Takes all values to be normal and to know nothing of one another. Our own network begins with this."""

    def __call__(self, tokens: Float[Tensor, "n token"], *told: Any) -> Float[Tensor, "n token"]:
        """Return the mean of the velocity of values of unit variance."""
        skip, _, _ = flow.preconditioning(_one(told[-2]))
        return skip * tokens


class Linear(Zero):
    """The best linear predictor of a token from that token, of one mean and covariance for all.

    E[v | x] = E[v] + cov(v, x) cov(x)⁻¹ (x - E[x]), where of tokens of mean m and covariance C the mean of x is
    (1 - t)·m and that of v is -m, cov(v, x) = t - (1 - t)·C and cov(x) = (1 - t)²·C + t².
    """

    def __init__(self, net: DiT, clips: Iterable[Float[Tensor, "n token"]]):
        """Measure the mean and covariance of the tokens of clips, which are looked at one by one."""
        super().__init__(net)
        width, count = net.config.token_width, 0
        total, squares = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for tokens in clips:
            own = net.normalise(tokens.to(net.device)).double().cpu()
            total, squares, count = total + own.sum(dim=0), squares + own.T @ own, count + len(own)
        self.mean = total / count
        self.covariance = squares / count - torch.outer(self.mean, self.mean)

    def __call__(self, tokens: Float[Tensor, "n token"], *told: Any) -> Float[Tensor, "n token"]:
        """Return the linear estimate."""
        t, mean, whole = float(_one(told[-2])), self.mean, torch.eye(len(self.mean), dtype=torch.float64)
        of_x = (1 - t) ** 2 * self.covariance + t**2 * whole
        gain = torch.linalg.solve(of_x, t * whole - (1 - t) * self.covariance).to(tokens)  # both commute with C
        return (tokens - (1 - t) * mean.to(tokens)) @ gain - mean.to(tokens)


def _one(t: Float[Tensor, " clips"]) -> Float[Tensor, ""]:
    """Return the time that all clips have."""
    assert bool((t == t[0]).all()), "clips at several times"
    return t[0]
