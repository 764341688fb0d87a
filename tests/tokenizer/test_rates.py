from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tokenizer.config import Budget
from tokenizer.rates import BudgetError, Measured, allocate, choose, costs, distortions, latent_times, limit, uniform


def total(table: np.ndarray, picked: list[int]) -> float:
    return float(table[np.arange(len(picked)), picked].sum())


problems = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        arrays(float, shape, elements=st.floats(0, 10, allow_nan=False)),
        arrays(int, shape, elements=st.integers(1, 8)),
        st.integers(0, 45),
    )
)


@settings(max_examples=200, deadline=None)
@given(problem=problems)
def test_the_allocation_equals_brute_force_and_never_exceeds_the_budget(problem):
    loss, cost, budget = problem
    choices = itertools.product(range(loss.shape[1]), repeat=len(loss))
    allowed = [total(loss, list(c)) for c in choices if total(cost, list(c)) <= budget]
    if not allowed:
        with pytest.raises(BudgetError, match=f"minimum of {cost.min(axis=1).sum()}"):
            allocate(loss, cost, budget)
        return
    picked = allocate(loss, cost, budget)
    assert total(cost, picked) <= budget
    assert total(loss, picked) == pytest.approx(min(allowed))


@settings(max_examples=50, deadline=None)
@given(problem=problems)
def test_more_budget_never_costs_quality_and_uniform_is_never_better(problem):
    loss, cost, budget = problem
    budget += int(cost.sum(axis=0).min())  # what the cheapest uniform choice needs
    less, more = allocate(loss, cost, budget), allocate(loss, cost, budget + 1)
    assert total(loss, more) <= total(loss, less) + 1e-9
    assert total(loss, less) <= total(loss, uniform(cost, budget)) + 1e-9


def test_of_equal_distortions_the_cheaper_wins():
    assert allocate(np.zeros((3, 2)), np.array([[4, 2]] * 3), 12) == [1, 1, 1]


def test_a_clip_without_a_budget_takes_the_best_of_each_segment():
    cost = costs((16, 16, 5), (4, 8))
    assert cost.tolist() == [[4, 2], [4, 2], [2, 1]]
    assert limit(Budget(), cost) == 10 and limit(Budget(share=0.7), cost) == 7 and limit(Budget(share=0.1), cost) == 5
    assert limit(Budget(latents=6), cost) == 6


def test_latents_go_to_the_segment_that_moves(stirred):
    tokenizer, lengths = stirred(rates=(4, 8)), (16, 16, 16)
    measured = Measured(
        lengths=lengths, costs=costs(lengths, (4, 8)), distortion=np.array([[1.0, 1.1], [2.0, 9.0], [1.0, 1.2]])
    )
    assert choose(tokenizer, measured, Budget(latents=8)) == (8, 4, 8)
    with pytest.raises(BudgetError, match="minimum of 6"):
        choose(tokenizer, measured, Budget(latents=5))


def test_distortion_of_segments_sums_to_that_of_the_clip(stirred):
    tokenizer = stirred()
    video = torch.rand(1, 3, 37, 10, 12) * 2 - 1
    table = distortions(tokenizer, video)
    assert table.shape == (3, 4)
    for i, rate in enumerate(tokenizer.config.rates):
        again = tokenizer.decode(tokenizer.encode(video, rate)).clamp(-1, 1)
        assert table[:, i].sum() == pytest.approx(float((again - video).square().mean()) * 37, rel=1e-5)


def test_the_time_of_a_latent_is_the_mean_time_of_its_frames():
    times = [0.0, 0.1, 0.3, 0.4, 1.0, 1.1]  # variable frame rate
    assert latent_times(times, [2, 4], [4, 2]) == pytest.approx([0.05, 0.35, 1.05])
