from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.duplicates import Match, Matches
from rushes.filters.survivors import CHIEFS, SMALL, closure, nearest, resolve, settle


def match(inner: str = "", offset_s: float = 0.0, distance: float = 1.0, speed: float = 1.0) -> Match:
    return Match(distance=distance, limit=3.0, speed=speed, offset_s=offset_s, overlap_s=2.0, inner=inner, still=False)


def test_the_best_of_several_copies_stays() -> None:
    pairs = resolve([2, 0, 1], {0: 5.0, 1: 5.0, 2: 5.0}, {(0, 1): match(), (0, 2): match(), (1, 2): match()})
    assert {(p.dropped, p.kept, p.level) for p in pairs} == {(0, 2, "copy"), (1, 2, "copy")}


def test_what_contains_an_excerpt_stays_even_if_it_is_worse() -> None:
    pairs = resolve([1, 0], {0: 10.0, 1: 2.0}, {(0, 1): match("b", offset_s=3.0)})
    assert [(p.dropped, p.kept, p.level, p.offset_s) for p in pairs] == [(1, 0, "excerpt", 3.0)]


def test_two_excerpts_of_one_film_both_go_and_the_film_stays() -> None:
    found = {(0, 1): match("b", 1.0), (0, 2): match("b", 7.0)}
    pairs = resolve([1, 2, 0], {0: 10.0, 1: 2.0, 2: 2.0}, found)
    assert {(p.dropped, p.kept) for p in pairs} == {(1, 0), (2, 0)}


def test_an_excerpt_of_a_dropped_copy_points_to_the_copy_that_stays() -> None:
    found = {(0, 1): match(offset_s=0.5), (1, 2): match("b", offset_s=3.0)}  # 0 ~ 1 ⊃ 2
    pairs = {p.dropped: p for p in resolve([0, 1, 2], {0: 10.0, 1: 10.0, 2: 2.0}, found)}
    assert pairs[2].kept == 0 and pairs[2].via == 1 and pairs[2].offset_s == pytest.approx(3.5)
    assert pairs[1].kept == 0 and pairs[1].via is None


def test_an_excerpt_that_lies_outside_the_copy_that_stays_is_kept() -> None:
    found = {(0, 1): match(offset_s=-2.0), (1, 2): match("b", offset_s=0.0)}  # 0 lacks the first two seconds of 1
    pairs = resolve([0, 1, 2], {0: 8.0, 1: 10.0, 2: 2.0}, found)
    assert [p.dropped for p in pairs] == [1]


def test_speed_and_offset_are_told_from_the_dropped_clip_to_the_kept_one() -> None:
    (pair,) = resolve([1, 0], {0: 8.0, 1: 10.0}, {(0, 1): match(offset_s=-1.0, speed=0.8)})  # t₀ = 0.8·t₁ − 1
    assert (pair.dropped, pair.kept) == (0, 1)
    assert pair.speed == pytest.approx(1.25) and pair.offset_s == pytest.approx(1.25)


def test_speeds_multiply_along_a_way() -> None:
    found = {(0, 1): match(offset_s=1.0, speed=1.25), (1, 2): match("b", offset_s=2.0, speed=0.8)}
    pairs = {p.dropped: p for p in resolve([0, 1, 2], {0: 12.0, 1: 8.0, 2: 3.0}, found)}
    assert pairs[2].kept == 0 and pairs[2].speed == pytest.approx(1.0) and pairs[2].offset_s == pytest.approx(3.5)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_set_of_matches_leaves_every_dropped_clip_a_kept_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    clips = list(range(count))
    durations = {c: data.draw(st.sampled_from([2.0, 4.0, 8.0])) for c in clips}
    couples = data.draw(st.lists(st.sampled_from(list(itertools.combinations(clips, 2))), unique=True))
    found = {}
    for a, b in couples:
        inner = "" if durations[a] == durations[b] else "a" if durations[a] < durations[b] else "b"
        found[a, b] = match(data.draw(st.sampled_from(["", inner])), data.draw(st.floats(-2, 2)))
    order = data.draw(st.permutations(clips))
    pairs = resolve(order, durations, found)
    dropped = [p.dropped for p in pairs]
    assert len(dropped) == len(set(dropped))
    assert not {p.kept for p in pairs} & set(dropped)
    shuffled = dict(data.draw(st.permutations(list(found.items()))))
    assert resolve(order, durations, shuffled) == pairs


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_couples_alone_are_settled_as_they_are_in_company(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    couples = data.draw(st.lists(st.sampled_from(list(itertools.combinations(range(count), 2))), unique=True))
    rank = np.array(data.draw(st.permutations(range(count))))
    seconds = np.array([data.draw(st.sampled_from([2.0, 4.0, 8.0])) for _ in range(count)])
    size = len(couples)
    found = Matches(
        couples=np.arange(size), distance=np.arange(size) / 8, limit=np.full(size, 9.0),
        speed=np.array([data.draw(st.sampled_from([0.8, 1.0, 1.25])) for _ in couples]),
        offset_s=np.array([data.draw(st.floats(-3, 3)) for _ in couples]), overlap_s=np.full(size, 2.0),
        inner=np.array([data.draw(st.sampled_from(["", "a", "b"])) for _ in couples], "U1"),
        still=np.zeros(size, bool),
    )  # fmt: skip
    pairs = np.array(couples, np.int64).reshape(-1, 2)
    order = np.argsort(rank).tolist()
    settled = settle(pairs, found, rank, seconds)
    together = resolve(order, dict(enumerate(seconds.tolist())), found.by_clips(pairs))
    assert sorted(settled, key=lambda pair: rank[pair.dropped]) == together


def test_small_groups_of_linked_clips_get_all_their_couples() -> None:
    rank, seconds = np.arange(9)[::-1], np.ones(9)
    assert closure(np.array([[0, 1], [1, 2], [5, 7], [3, 7]]), rank, seconds).tolist() == [[0, 2], [3, 5]]
    assert closure(np.empty((0, 2), np.int64), rank, seconds).shape == (0, 2)


@given(st.integers(SMALL + 1, 60), st.randoms())
@settings(max_examples=20, deadline=None)
def test_large_groups_get_the_couples_with_their_best_and_longest_clips_in_any_order(count: int, dice: Any) -> None:
    rank, seconds = (
        np.array(dice.sample(range(count), count)),
        np.array([dice.choice([1.0, 2, 3]) for _ in range(count)]),
    )
    chain = np.array([[n, n + 1] for n in range(count - 1)])
    best = sorted(range(count), key=lambda clip: rank[clip])[:CHIEFS]
    longest = sorted(range(count), key=lambda clip: (-seconds[clip], rank[clip]))[:CHIEFS]
    wanted = {(min(a, b), max(a, b)) for a in {*best, *longest} for b in range(count) if a != b}
    found = closure(chain, rank, seconds).tolist()
    assert {(a, b) for a, b in found} == wanted - {(a, b) for a, b in chain.tolist()} and found == sorted(found)
    shuffled = chain[np.array(dice.sample(range(len(chain)), len(chain)))]
    assert closure(shuffled, rank, seconds).tolist() == found


def test_of_look_alikes_the_best_stays_and_its_rivals_point_to_it() -> None:
    pairs, cosine = np.array([[0, 1], [1, 2], [3, 4]]), np.array([0.99, 0.98, 0.99])
    gone = nearest(pairs, cosine, np.array([0, 1, 2, 4, 3]), 0.97)
    assert [(p.dropped, p.kept, p.level) for p in gone] == [(1, 0, "semantic"), (3, 4, "semantic")]
    assert gone[0].distance == pytest.approx(0.01) and gone[0].limit == pytest.approx(0.03)
