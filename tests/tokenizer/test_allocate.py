from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rushes.tokenizer.allocate import (
    BudgetError,
    Hulls,
    allocate,
    lagrangian,
    lam_for,
    limit,
    monotone,
    total,
    uniform,
)
from rushes.tokenizer.bucket import ROUNDING, LeakyBucket, Level
from rushes.tokenizer.config import Budget
from rushes.tokenizer.rates import costs

RATES = (2, 4, 8, 16)

problems = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        arrays(float, shape, elements=st.floats(0, 10).map(lambda x: round(x, 6))),
        arrays(np.int64, shape, elements=st.integers(1, 8)),
        st.integers(0, 45),
    )
)
streams = st.lists(
    st.tuples(st.integers(1, 16), st.lists(st.floats(0, 10), min_size=4, max_size=4)), min_size=1, max_size=40
)


def test_allocating_loads_no_torch():
    code = "import sys, tokenizer.allocate, tokenizer.bucket; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=200, deadline=None)
@given(problem=problems)
def test_the_allocation_equals_brute_force_and_never_exceeds_the_budget(problem):
    loss, cost, budget = problem
    choices = [list(c) for c in itertools.product(range(loss.shape[1]), repeat=len(loss))]
    allowed = [total(loss, c) for c in choices if total(cost, c) <= budget]
    if not allowed:
        with pytest.raises(BudgetError, match=f"minimum of {cost.min(axis=1).sum()}"):
            allocate(loss, cost, budget)
        return
    picked = allocate(loss, cost, budget)
    assert total(cost, picked) <= budget
    assert total(loss, picked) == pytest.approx(min(allowed))


@settings(max_examples=100, deadline=None)
@given(problem=problems)
def test_more_budget_never_costs_quality_and_uniform_is_never_better(problem):
    loss, cost, budget = problem
    budget += int(cost.sum(axis=0).min())  # what the cheapest uniform choice needs
    less, more = allocate(loss, cost, budget), allocate(loss, cost, budget + 1)
    assert total(loss, more) <= total(loss, less) + 1e-9
    assert total(cost, uniform(cost, budget)) <= budget
    assert total(loss, less) <= total(loss, uniform(cost, budget)) + 1e-9


@settings(max_examples=200, deadline=None)
@given(problem=problems)
def test_after_the_clean_up_more_latents_are_never_worse_and_the_best_choice_is_the_same(problem):
    loss, cost, budget = problem
    clean = monotone(loss, cost)
    for row, prices in zip(clean, cost, strict=True):
        for a, b in itertools.permutations(range(len(row)), 2):
            assert prices[a] >= prices[b] or row[a] >= row[b]
    assert (clean <= loss).all() and set(clean.ravel()) <= set(loss.ravel())
    assert (clean[np.arange(len(cost)), cost.argmin(axis=1)] == loss[np.arange(len(cost)), cost.argmin(axis=1)]).all()
    assume(budget >= cost.min(axis=1).sum())
    assert total(loss, allocate(clean, cost, budget)) == pytest.approx(total(loss, allocate(loss, cost, budget)))


@settings(max_examples=50, deadline=None)
@given(problem=problems, level=st.floats(0, 10), lam=st.floats(0, 10))
def test_a_clip_that_every_rate_codes_alike_gets_the_fewest_latents_at_any_budget(problem, level, lam):
    _, cost, budget = problem
    loss, least = np.full(cost.shape, level), cost.min(axis=1).sum()
    assert total(cost, allocate(loss, cost, budget + int(least))) == least
    assert total(cost, lagrangian(loss, cost, lam)) == least
    assert lam_for(loss, cost, int(least)) == 0


@settings(max_examples=100, deadline=None)
@given(problem=problems, lam=st.floats(0, 10))
def test_what_lambda_chooses_is_the_best_of_its_cost(problem, lam):
    loss, cost, _ = problem
    picked = lagrangian(loss, cost, lam)
    exact = allocate(loss, cost, int(total(cost, picked)))
    assert total(loss, picked) == pytest.approx(total(loss, exact), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(problem=problems)
def test_the_tuned_lambda_keeps_the_budget_and_a_smaller_one_would_not(problem):
    loss, cost, budget = problem
    if budget < cost.min(axis=1).sum():
        with pytest.raises(BudgetError, match=f"minimum of {cost.min(axis=1).sum()}"):
            lam_for(loss, cost, budget)
        return
    lam = lam_for(loss, cost, budget)
    assert total(cost, lagrangian(loss, cost, lam)) <= budget
    assert lam == 0 or total(cost, lagrangian(loss, cost, lam * (1 - 1e-8))) > budget


@settings(max_examples=300, deadline=None)
@given(problem=problems, coarse=st.booleans())
def test_one_budget_is_kept_and_the_loss_is_within_a_step_of_the_knapsack_s(problem, coarse):
    loss, cost, budget = problem
    loss = loss.round() if coarse else loss  # many ties
    spare = budget - int(cost.min(axis=1).sum())
    assume(spare >= 0)
    hulls = Hulls.of(loss, cost)
    options, lam, spent = hulls.spend(spare)
    picked = [int(option) for option in options]
    assert total(cost, picked) == cost.min(axis=1).sum() + spent <= budget
    best, at_lam = total(loss, allocate(loss, cost, budget)), total(loss, lagrangian(loss, cost, lam))
    dearest = int(hulls.latents.max(initial=1))
    assert best - 1e-9 <= total(loss, picked) <= min(at_lam, best + lam * (dearest - 1)) + 1e-6
    if not lam:
        assert total(loss, picked) == pytest.approx(best, abs=1e-9), "there is enough for all"


@settings(max_examples=100, deadline=None)
@given(problem=problems)
def test_hulls_of_parts_joined_are_those_of_the_whole_and_single_precision_does(problem):
    loss, cost, budget = problem
    whole = Hulls.of(loss.astype(np.float32), cost.astype(np.int16))
    parts = [Hulls.of(loss[i : i + 1].astype(np.float32), cost[i : i + 1].astype(np.int16)) for i in range(len(loss))]
    joined = Hulls.joined(parts)
    assert all((getattr(joined, name) == getattr(whole, name)).all() for name in vars(whole))
    assert (np.diff(whole.saves, axis=1) <= 0).all(), "no step saves more than the one before"
    spare = max(budget - int(cost.min(axis=1).sum()), 0)
    options, _, spent = whole.spend(spare)
    assert spent <= spare and (options == joined.spend(spare)[0]).all()


def test_a_thousand_equal_segments_share_what_is_there_in_their_order():
    loss, cost = np.tile([1.0, 2.0, 6.0], (1000, 1)), np.tile([4, 2, 1], (1000, 1))
    options, lam, spent = Hulls.of(loss, cost).spend(1234)
    assert spent == 1234 and lam == 0.5  # all take the step of 4, which costs 1; of 0.5 for each of 2 latents 117
    assert options.tolist() == [0] * 117 + [1] * 883


def test_where_there_is_one_rate_a_budget_has_no_choice():
    options, lam, spent = Hulls.of(np.ones((3, 1)), np.full((3, 1), 4)).spend(5)
    assert options.tolist() == [0, 0, 0] and lam == spent == 0


def test_limits_are_latents_a_share_or_latents_a_second_and_never_below_the_minimum():
    cost = costs([16, 16, 5], (4, 8))
    assert cost.tolist() == [[4, 2], [4, 2], [2, 1]]
    assert limit(Budget(), cost, 0.0) == 10
    assert limit(Budget(share=0.7), cost, 0.0) == 7 and limit(Budget(share=0.1), cost, 0.0) == 5
    assert limit(Budget(latents=6), cost, 0.0) == 6
    assert limit(Budget(per_second=6.0), cost, 1.2) == 7 and limit(Budget(per_second=1.0), cost, 1.2) == 5
    assert limit(Budget(per_second=0.1 * 3), cost, 20.0) == 6  # 0.30000000000000004


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(broken):
    loss, cost = np.array([[1.0, broken]]), np.array([[2, 1]])
    for use in (lambda: allocate(loss, cost, 2), lambda: lagrangian(loss, cost, 1.0), lambda: monotone(loss, cost)):
        with pytest.raises(ValueError, match="NaN or infinity"):
            use()
    with pytest.raises(ValueError, match="NaN or infinity"):
        a_bucket().step(a_bucket().start(), loss[0], cost[0], 1.0)


def test_tables_of_other_shapes_and_negative_lambdas_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        allocate(np.zeros((1, 2)), np.ones((1, 3), int), 5)
    with pytest.raises(ValueError, match="lam=-1"):
        lagrangian(np.zeros((1, 2)), np.ones((1, 2), int), -1)


def a_bucket(**settings) -> LeakyBucket:
    return LeakyBucket(**{"capacity": 20.0, "per_second": 10.0, "lam": 0.1, "segment_s": 0.5, **settings})


def run(bucket: LeakyBucket, stream, fps: float = 30.0) -> tuple[list[int], list[float], list[Level]]:
    """Return latents, seconds and levels of a stream of (frames, distortions), until the bucket refuses."""
    level, spent, seconds, levels = bucket.start(), [], [], []
    for frames, loss in stream:
        cost = costs([frames], RATES)[0]
        option, level = bucket.step(level, np.array(loss), cost, frames / fps)
        spent.append(int(cost[option]))
        seconds.append(frames / fps)
        levels.append(level)
    return spent, seconds, levels


@settings(max_examples=150, deadline=None)
@given(stream=streams, capacity=st.floats(45, 90), per_second=st.floats(2, 30), lam=st.floats(1e-3, 1e3))
def test_in_no_stretch_of_a_stream_does_a_bucket_exceed_its_limit(stream, capacity, per_second, lam):
    bucket = a_bucket(capacity=capacity, per_second=per_second, lam=lam, segment_s=16 / 30, short=40)
    spent, seconds, levels = run(bucket, stream)  # no 40 segments can exhaust a reserve of 40
    for i in range(len(spent)):
        for j in range(i + 1, len(spent) + 1):
            assert sum(spent[i:j]) <= capacity + per_second * sum(seconds[i:j]) + ROUNDING * 2
    assert all(-ROUNDING <= level.latents <= capacity for level in levels)


@settings(max_examples=100, deadline=None)
@given(
    losses=st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=40),
    short=st.integers(0, 3),
)
def test_after_whole_segments_at_the_lowest_rate_that_can_be_kept_up_short_ones_can_still_be_paid(losses, short):
    bucket = a_bucket(capacity=12, per_second=1.875, segment_s=16 / 30, short=short)
    _, _, levels = run(bucket, [(16, loss) for loss in losses])
    level = levels[-1]
    for _ in range(short):
        option, level = bucket.step(level, np.zeros(4), costs([1], RATES)[0], 0.0)
        assert costs([1], RATES)[0, option] == 1
    if short == 0 and level.latents < 1:
        with pytest.raises(BudgetError, match="minimum of 1"):
            bucket.step(level, np.zeros(4), costs([1], RATES)[0], 0.0)


def test_limits_that_cannot_be_kept_up_are_refused_with_the_minimum():
    with pytest.raises(BudgetError, match=r"minimum of 1\.875"):
        a_bucket(per_second=1.8, segment_s=16 / 30)
    with pytest.raises(BudgetError, match="minimum of 6"):
        a_bucket(capacity=5.5, least=2, short=2)
    for wrong in ({"segment_s": 0}, {"lam": 0}, {"lam": float("nan")}):
        with pytest.raises(ValueError, match="above 0"):
            a_bucket(**wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_what_is_no_time_fills_no_bucket(wrong):
    with pytest.raises(ValueError, match="is no time"):
        a_bucket().step(a_bucket().start(), np.zeros(4), costs([16], RATES)[0], wrong)


def test_a_stream_goes_on_from_its_level_as_if_it_had_not_been_broken_off():
    dice = np.random.default_rng(0)
    stream = [(16, np.sort(dice.random(4))) for _ in range(30)]
    bucket = a_bucket()
    _, _, whole = run(bucket, stream)
    level = Level(latents=whole[9].latents, stray=whole[9].stray)
    for i in range(10, 30):
        _, level = bucket.step(level, stream[i][1], costs([16], RATES)[0], 16 / 30)
        assert level == whole[i]


@pytest.mark.parametrize("off", [1e-2, 1.0, 1e2])
def test_a_bucket_spends_what_comes_in_whatever_the_first_lambda(off):
    dice = np.random.default_rng(0)
    sizes = dice.lognormal(0, 1, (400, 1))
    loss = sizes * np.array([1.0, 1.6, 2.4, 4.0])
    cost = costs([16] * 400, RATES)
    right = lam_for(loss, cost, 400 * 3)
    bucket = a_bucket(capacity=40, per_second=3 * 30 / 16, segment_s=16 / 30, lam=right * off)
    spent, _, _ = run(bucket, [(16, row) for row in loss])
    assert np.mean(spent[100:]) == pytest.approx(3, abs=0.15)
