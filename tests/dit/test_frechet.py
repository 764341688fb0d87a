from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.dit.frechet import distances, diversity, frechet


def vectors(count: int, width: int, seed: int) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return dice.normal(size=(count, width)) @ dice.normal(size=(width, width)) + dice.normal(size=width)


def by_roots(one: np.ndarray, other: np.ndarray) -> float:
    """As it is written: with the root of C₁^½ C₂ C₁^½, which has the trace of that of C₁C₂."""

    def root(matrix: np.ndarray) -> np.ndarray:
        values, directions = np.linalg.eigh(matrix)
        return directions * np.sqrt(values.clip(min=0)) @ directions.T

    first, second = np.cov(one.T), np.cov(other.T)
    shared = root(root(first) @ second @ root(first))
    return float(np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * shared))


@given(counts=st.tuples(*[st.integers(2, 12)] * 2), width=st.integers(2, 6), seed=st.integers(0, 99))
def test_the_distance_is_that_of_roots_of_covariances_whatever_the_sizes(counts, width, seed):
    one, other = (vectors(count, width, seed + i) for i, count in enumerate(counts))
    assert frechet(one, other) == pytest.approx(by_roots(one, other), rel=1e-4, abs=1e-4)
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-6, abs=1e-6)


def test_a_set_is_nowhere_from_itself_and_shift_and_spread_count_as_in_closed_form():
    one = vectors(50, 4, 0)
    centred, variance = one - one.mean(axis=0), np.cov(one.T).trace()
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, one + 2.0) == pytest.approx(4 * 2.0**2)
    assert frechet(centred, 3 * centred) == pytest.approx((1 - 3) ** 2 * variance)
    with pytest.raises(ValueError, match="sets of 50 and 1 vectors"):
        frechet(one, one[:1])


def test_distances_are_euclidean_and_diversity_is_their_mean():
    one = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert distances(one[:2], one)[1].tolist() == pytest.approx([5, 0, np.hypot(3, 3)])
    assert diversity(one) == pytest.approx((5 + 1 + np.hypot(3, 3)) / 3)
    with pytest.raises(ValueError, match="1 vectors have no pairs"):
        diversity(one[:1])
