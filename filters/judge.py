"""How likely a step from one frame to the next begins a shot: small networks that weigh its numbers and a witness.

They were trained by `python -m tests.bench.judge` on films made of takes, drawings and screens, in which it is known
where the cuts are. What the witness says is added to what the numbers say, as evidence is: log odds, times a weight
that depends on the step and is never negative. So a cut is never less likely for a witness who sees one.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

WEIGHTS = "judge.npz"
"""File beside this one."""
SURE = 4.0
"""Log odds that a witness is trusted with at most."""
AT_ONCE = 32
"""Steps that are judged at once: each takes 0.1 MB, and a film of hours has thousands."""

Array = npt.NDArray[np.float64]


class Judge:
    """Networks of one hidden layer each, whose log odds are averaged."""

    def __init__(self, weights: Mapping[str, npt.NDArray[np.generic]]):
        """Take the names of the numbers, their usual values and the layers, `[networks, …]` each."""
        self.names = [str(name) for name in weights["names"]]
        self.missing = [str(name) for name in weights["missing"]]
        self.mean, self.spread = (np.asarray(weights[name], np.float64) for name in ("mean", "spread"))
        self.limit = float(weights["limit"])
        self.layers = [np.asarray(weights[name], np.float64) for name in ("into", "offset", "out", "base")]

    def odds(self, evidence: Sequence[Mapping[str, float]]) -> tuple[Array, Array]:
        """Return for each step its log odds without a witness, and how much the log odds of one count, 0 or more."""
        parts = [self._odds(evidence[at : at + AT_ONCE]) for at in range(0, len(evidence), AT_ONCE)]
        odds, weight = (np.concatenate([np.empty(0), *(part[k] for part in parts)]) for k in (0, 1))
        return odds, weight

    def _odds(self, evidence: Sequence[Mapping[str, float]]) -> tuple[Array, Array]:
        x = self.inputs(evidence)[:, None, :, None]
        into, offset, out, base = self.layers
        hidden = np.tanh((x * into).sum(axis=2) + offset)[..., None]
        found = (hidden * out).sum(axis=2) + base
        return found[..., 0].mean(axis=1), np.logaddexp(0, found[..., 1]).mean(axis=1)

    def inputs(self, evidence: Sequence[Mapping[str, float]]) -> Array:
        """Return numbers as the networks take them, `[steps, inputs]`: compressed, by their spread, and limited."""
        x = compressed(evidence, self.names, self.missing)
        return np.asarray(np.clip((x - self.mean) / self.spread, -self.limit, self.limit), np.float64)


def compressed(evidence: Sequence[Mapping[str, float]], names: Sequence[str], missing: Sequence[str]) -> Array:
    """Return the logarithms of numbers, 0 for those that cannot be told, and beside them which those are."""
    values = np.array([[step[name] for name in names] for step in evidence], np.float64)
    unknown = np.array([[np.isnan(step[name]) for name in missing] for step in evidence], np.float64)
    known = np.nan_to_num(values)
    return np.concatenate([np.sign(known) * np.log1p(np.abs(known)), unknown], axis=1)


def log_odds(likely: npt.NDArray[np.floating]) -> Array:
    """Return the log odds of what a witness says, as far as it is trusted; 0 where it was not asked (NaN)."""
    least = 1 / (1 + np.exp(SURE))
    likely = np.clip(likely, least, 1 - least)
    return np.asarray(np.nan_to_num(np.log(likely / (1 - likely))), np.float64)


@cache
def judge() -> Judge:
    """Return the judge that Rushes comes with. Raises ValueError where its weights are missing or damaged."""
    try:
        with np.load(io.BytesIO(_data()), allow_pickle=False) as weights:
            return Judge(dict(weights))
    except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise _unusable(error) from error


@cache
def digest() -> str:
    """Return what tells its weights from others, 16 hex digits: what other weights have judged is judged again."""
    return hashlib.sha256(_data()).hexdigest()[:16]


def _data() -> bytes:
    try:
        return resources.files("rushes.filters").joinpath(WEIGHTS).read_bytes()
    except OSError as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> ValueError:
    return ValueError(f"the weights rushes/filters/{WEIGHTS} are missing or damaged ({error}); install rushes again")
