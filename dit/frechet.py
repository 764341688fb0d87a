"""Fréchet distance of two sets of vectors, each taken for a Gaussian. Pure functions.

As in arXiv 1706.08500, but what the vectors are must be said with each figure: FID and FVD mean those of InceptionV3
and I3D.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "n d"]


def frechet(one: Vectors, other: Vectors) -> float:
    """Return |m₁ - m₂|² + tr(C₁ + C₂ - 2·(C₁C₂)^½), the squared Fréchet distance (Dowson & Landau, 1982).

    With C = AᵀA, the trace of the root is the sum of the singular values of A₁A₂ᵀ. So nothing larger than the sets or
    the vectors is taken apart, and covariances without full rank, which small sets have, are no special case.

    Raises ValueError for a set of less than two vectors, which has no covariance.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"sets of {len(one)} and {len(other)} vectors: a covariance takes two at least")
    factors = _factor(one), _factor(other)
    spread = sum(float(np.square(factor).sum()) for factor in factors)
    shared = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    apart = float(np.square(one.mean(axis=0, dtype=np.float64) - other.mean(axis=0, dtype=np.float64)).sum())
    return max(apart + spread - 2 * shared, 0.0)


def _factor(vectors: Vectors) -> Float[np.ndarray, "k d"]:
    """Return A with AᵀA the covariance: of as many rows as there are vectors, or dimensions if these are fewer."""
    centred = (vectors - vectors.mean(axis=0, dtype=np.float64)) / np.sqrt(len(vectors) - 1)
    if len(vectors) <= vectors.shape[1]:
        return centred
    values, directions = np.linalg.eigh(centred.T @ centred)
    return np.sqrt(values.clip(min=0))[:, None] * directions.T


def distances(one: Vectors, other: Vectors) -> Float[np.ndarray, "n m"]:
    """Return the Euclidean distance of each vector of a set from each of another."""
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * one @ other.T
    return np.sqrt(squares.clip(min=0))


def diversity(vectors: Vectors) -> float:
    """Return the mean distance of pairs of vectors. Raises ValueError for less than two."""
    count = len(vectors)
    if count < 2:
        raise ValueError(f"{count} vectors have no pairs")
    return float(distances(vectors, vectors)[np.triu_indices(count, 1)].mean())
