from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.duplicates import (
    CROWD,
    DuplicateRules,
    Index,
    Match,
    informative,
    resolve,
    shingles,
    spread,
    verify,
)

RULES = DuplicateRules()


def shot(seed: int, ticks: int, swaps: int = 3) -> np.ndarray:
    """Hashes of a shot: half of the bits are set, and `swaps` pairs of bits change places from tick to tick."""
    rng = np.random.default_rng(seed)
    bits = rng.permutation(np.arange(64) < 32)
    rows = []
    for _ in range(ticks):
        rows.append(np.packbits(bits).view(">u8")[0])
        on, off = rng.permutation(np.flatnonzero(bits))[:swaps], rng.permutation(np.flatnonzero(~bits))[:swaps]
        bits[on], bits[off] = False, True
    return np.array(rows, np.uint64)


def encoded(hashes: np.ndarray, seed: int = 0, flips: int = 2) -> np.ndarray:
    """The same pictures after another encoder: `flips` bits of each hash differ."""
    rng = np.random.default_rng(seed)
    noise = [np.bitwise_or.reduce(np.uint64(1) << rng.permutation(64)[:flips].astype(np.uint64)) for _ in hashes]
    return hashes ^ np.array(noise, np.uint64)


def times(hashes: np.ndarray, late_s: float = 0.0) -> np.ndarray:
    return np.arange(len(hashes)) / 6 + late_s


def look(a: np.ndarray, b: np.ndarray, **options: bool) -> Match | None:
    return verify(a, times(a), b, times(b), RULES, **options)


def test_a_copy_by_another_encoder_matches_at_offset_zero() -> None:
    a = shot(1, 30)
    found = look(a, encoded(a))
    assert found is not None and found.inner == "" and found.offset_s == pytest.approx(0)
    assert found.distance == pytest.approx(2) and found.overlap_s == pytest.approx(5)


@pytest.mark.parametrize("start", [0, 6, 17, 28])
def test_an_excerpt_is_found_with_its_offset(start: int) -> None:
    film = shot(2, 40)
    found = look(film, encoded(film[start : start + 12]))
    assert found is not None and found.inner == "b"
    assert found.offset_s == pytest.approx(start / 6)
    back = look(encoded(film[start : start + 12]), film)
    assert back is not None and back.inner == "a" and back.offset_s == pytest.approx(-start / 6)


def test_ticks_that_come_late_do_not_break_the_alignment() -> None:
    film = shot(3, 40)
    late = np.arange(20) / 6 + np.tile([0.0, 0.03, 0.06, 0.02], 5)
    found = verify(film, times(film), encoded(film[10:30]), late, RULES)
    assert found is not None and found.offset_s == pytest.approx(10 / 6, abs=0.05) and found.distance < 3


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_different_shots_never_match(one: int, two: int) -> None:
    assert one == two or look(shot(one, 20), shot(two + 20_000, 30)) is None


def test_still_pictures_that_differ_in_a_word_stay_apart() -> None:
    still = np.repeat(shot(4, 1), 20)
    assert look(still, still ^ np.uint64(0b11)) is None
    assert look(still, still) is not None


def test_look_alikes_of_one_still_camera_are_not_duplicates() -> None:
    still = np.repeat(shot(5, 1), 30)
    assert look(still, still, same_source=True) is None
    moving = shot(5, 30)
    assert look(moving, encoded(moving), same_source=True) is not None


def test_black_and_flat_pictures_prove_nothing() -> None:
    black = np.zeros(40, np.uint64)
    assert not informative(black).any() and look(black, black) is None
    faded = np.concatenate([black[:37], shot(6, 3)])
    assert look(faded, faded) is None


def test_a_short_overlap_is_no_match() -> None:
    film = shot(7, 40)
    assert look(film[:20], film[15:35]) is None


def test_spread_is_the_mean_distance_between_pictures() -> None:
    assert spread(np.array([0b00, 0b11, 0b01], np.uint64)) == pytest.approx((2 + 1 + 1) / 3)
    assert spread(np.array([7], np.uint64)) == 0.0


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=3))
def test_hashes_that_differ_in_three_bits_share_a_shingle(value: int, flipped: set[int]) -> None:
    other = value ^ sum(1 << bit for bit in flipped)
    a, b = (shingles(np.array([v], np.uint64)) for v in (value, other))
    assert a & b and len(a) == 4


def test_the_index_proposes_copies_and_excerpts_and_little_else() -> None:
    films = [shot(seed, 30) for seed in range(60)]
    clips = [*films, *(encoded(f, seed) for seed, f in enumerate(films)), *(encoded(f[9:21], 99) for f in films)]
    index = Index()
    for number, hashes in enumerate(clips):
        index.add(number, hashes)
    found = {tuple(pair) for pair in index.candidates().tolist()}
    copies, excerpts = ({(n, n + more) for n in range(60)} for more in (60, 120))
    assert copies <= found
    assert len(excerpts & found) >= 54  # two seconds, between the windows, with new noise on each tick
    assert all(a % 60 == b % 60 for a, b in found)


def test_the_order_of_adding_changes_nothing() -> None:
    clips = [encoded(shot(seed % 7, 20), seed) for seed in range(40)]
    proposed = []
    for order in (range(40), reversed(range(40))):
        index = Index()
        for number in order:
            index.add(number, clips[number])
        proposed.append(index.candidates().tolist())
    assert proposed[0] == proposed[1] and proposed[0]


def test_a_crowd_of_equal_clips_costs_a_star_and_a_chain() -> None:
    index, count = Index(), CROWD * 10
    for number in range(count):
        index.add(number, np.repeat(shot(8, 1), 12))
    pairs = index.candidates()
    assert len(pairs) == 2 * count - 3
    assert set(pairs.ravel().tolist()) == set(range(count))


def test_an_index_of_nothing_proposes_nothing() -> None:
    index = Index()
    index.add(0, np.zeros(10, np.uint64))
    assert index.candidates().shape == (0, 2)


def match(inner: str = "", offset_s: float = 0.0, distance: float = 1.0) -> Match:
    return Match(distance=distance, limit=3.0, offset_s=offset_s, overlap_s=2.0, inner=inner)


def test_the_best_of_several_copies_stays() -> None:
    pairs = resolve([2, 0, 1], {0: 5.0, 1: 5.0, 2: 5.0}, {(0, 1): match(), (0, 2): match(), (1, 2): match()})
    assert {(p.dropped, p.kept, p.kind) for p in pairs} == {(0, 2, "same"), (1, 2, "same")}


def test_what_contains_an_excerpt_stays_even_if_it_is_worse() -> None:
    pairs = resolve([1, 0], {0: 10.0, 1: 2.0}, {(0, 1): match("b", offset_s=3.0)})
    assert [(p.dropped, p.kept, p.kind, p.offset_s) for p in pairs] == [(1, 0, "excerpt", 3.0)]


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
