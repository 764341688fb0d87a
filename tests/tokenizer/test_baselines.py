from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rushes.tokenizer.allocate import BudgetError, allocate, total
from rushes.tokenizer.baselines import by_motion, by_ssim, by_tuned_ssim, held_ssim, motion
from rushes.tokenizer.rates import costs

RATES = (2, 4, 8, 16)
cases = st.lists(st.integers(1, 16), min_size=1, max_size=4).flatmap(
    lambda lengths: st.tuples(
        st.just(costs(lengths, RATES)),
        arrays(float, (len(lengths), 4), elements=st.floats(0, 1)),
        arrays(float, (len(lengths), 4), elements=st.floats(0, 10)),
        st.integers(0, 34),
    )
)


@settings(max_examples=100, deadline=None)
@given(case=cases, thresholds=st.tuples(*[st.floats(0, 1)] * 3))
def test_rules_keep_the_budget_and_do_no_better_than_the_exact_choice(case, thresholds):
    cost, similarity, loss, budget = case
    rules = (
        lambda: by_ssim(similarity, cost, thresholds, budget),
        lambda: by_motion(1 - similarity[:, 0], cost, sorted(thresholds, reverse=True), budget),
        lambda: by_tuned_ssim(similarity, loss, cost, budget)[0],
    )
    for rule in rules:
        if budget < cost.min(axis=1).sum():
            with pytest.raises(BudgetError, match=f"minimum of {cost.min(axis=1).sum()}"):
                rule()
            continue
        picked = rule()
        assert total(cost, picked) <= budget
        assert total(loss, picked) >= total(loss, allocate(loss, cost, budget)) - 1e-9


@settings(max_examples=25, deadline=None)
@given(case=cases, thresholds=st.tuples(*[st.floats(0, 1)] * 3))
def test_no_thresholds_that_fit_do_better_than_the_tuned_ones(case, thresholds):
    cost, similarity, loss, budget = case
    budget += int(cost.min(axis=1).sum())
    free = by_ssim(similarity, cost, thresholds, 10**6)
    picked, tuned = by_tuned_ssim(similarity, loss, cost, budget)
    assert by_ssim(similarity, cost, tuned, budget) == picked
    assert total(cost, free) > budget or total(loss, picked) <= total(loss, free)


def test_thresholds_choose_the_fewest_latents_that_pass():
    cost, similarity = costs([16] * 3, RATES), np.array([[1, 0.9, 0.8, 0.7], [1, 0.9, 0.4, 0.7], [1, 0.5, 0.4, 0.3]])
    assert by_ssim(similarity, cost, (0.6, 0.6, 0.6), 24) == [3, 3, 0]
    assert by_ssim(similarity, cost, (0.6, 0.6, 0.75), 24) == [2, 1, 0]
    assert by_motion(np.array([0.0, 0.15, 0.9]), cost, (0.5, 0.2, 0.1), 24) == [3, 2, 0]


def test_what_exceeds_the_budget_is_taken_from_the_most_similar_first():
    cost, similarity = costs([16] * 2, RATES), np.array([[1, 0.9, 0.3, 0.2], [1, 0.5, 0.4, 0.3]])
    fits = {16: [0, 0], 12: [1, 0], 8: [1, 1], 6: [1, 2], 5: [2, 2], 3: [2, 3], 2: [3, 3]}
    for budget, expected in fits.items():
        assert by_ssim(similarity, cost, (2, 2, 2), budget) == expected


def test_wrong_thresholds_and_orders_are_refused():
    cost = costs([16], RATES)
    with pytest.raises(ValueError, match="descend"):
        by_motion(np.zeros(1), cost, (0.1, 0.2, 0.3), 8)
    with pytest.raises(ValueError, match="need 3 thresholds"):
        by_ssim(np.ones((1, 4)), cost, (0.1,), 8)
    with pytest.raises(ValueError, match="dearest first"):
        by_ssim(np.ones((1, 4)), cost[:, ::-1], (0.1, 0.2, 0.3), 8)


def test_a_still_segment_has_no_motion_and_is_its_subsampled_version():
    still = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, 7, -1, -1)
    assert motion(still) == 0 == motion(still[:, :, :1])
    assert held_ssim(still, RATES) == pytest.approx([1] * 4)


def test_the_faster_a_segment_the_more_motion_and_the_less_like_its_subsampled_version():
    ground = torch.rand(3, 16, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ground = torch.nn.functional.avg_pool2d(ground, 5, 1, 2)
    slow, fast = (torch.stack([ground.roll(t * step // 4, dims=2) for t in range(16)], dim=1)[None] for step in (1, 4))
    assert 0 < motion(slow) < motion(fast)
    for a, b in itertools.pairwise(held_ssim(slow, RATES)):
        assert b <= a
    assert (held_ssim(fast, RATES) < held_ssim(slow, RATES)).all()
