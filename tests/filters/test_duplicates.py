from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.duplicates import DuplicateRules, Match, compare, rules
from rushes.filters.matching import Sequences, align, joined, sequences, spread
from tests.filters.conftest import encoded, shot

RULES = DuplicateRules()


def times(hashes: np.ndarray, late_s: float = 0.0) -> np.ndarray:
    return np.arange(len(hashes)) / 6 + late_s


def clips(*shots: np.ndarray, at: list[np.ndarray] | None = None) -> Sequences:
    when = [times(one) for one in shots] if at is None else at
    return sequences(np.concatenate(shots), np.concatenate(when), np.cumsum([0, *map(len, shots)]))


def look(a: np.ndarray, b: np.ndarray, same_source: bool = False, by: DuplicateRules = RULES) -> Match | None:
    return compare(clips(a, b), np.array([[0, 1]]), np.array([same_source]), by).get((0, 1))


def at_speed(hashes: np.ndarray, speed: float) -> np.ndarray:
    """What the ticks show of a shot that runs faster."""
    ticks = np.rint(np.arange(int((len(hashes) - 1) / speed) + 1) * speed).astype(int)
    return hashes[ticks]


def test_a_copy_by_another_encoder_matches_at_offset_zero() -> None:
    a = shot(1, 30)
    found = look(a, encoded(a))
    assert found is not None and found.inner == "" and found.offset_s == pytest.approx(0) and found.speed == 1
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
    seq = clips(film, encoded(film[10:30]), at=[times(film), late])
    found = compare(seq, np.array([[0, 1]]), np.array([False]), RULES)[0, 1]
    assert found.offset_s == pytest.approx(10 / 6, abs=0.05) and found.distance < 3


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.1, 1.25])
def test_a_copy_that_runs_at_another_speed_is_found_with_its_speed(speed: float) -> None:
    film = shot(4, 72, swaps=2)
    found = look(film, encoded(at_speed(film, speed)))
    assert found is not None and found.speed == pytest.approx(speed, rel=0.015)
    assert abs(found.offset_s) < 0.5 and found.inner == ""
    plain = look(film, encoded(at_speed(film, speed)), by=DuplicateRules(max_speed=1.0))
    assert plain is None or (plain.speed == 1 and plain.distance > found.distance + 3)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_different_shots_never_match(one: int, two: int) -> None:
    assert one == two or look(shot(one, 20), shot(two + 20_000, 30)) is None


def test_still_pictures_that_differ_in_a_word_stay_apart_and_equal_ones_must_be_looked_at() -> None:
    still = np.repeat(shot(4, 1), 20)
    assert look(still, still ^ np.uint64(0b11)) is None
    found = look(still, still)
    assert found is not None and found.still
    moving = look(shot(4, 20), shot(4, 20))
    assert moving is not None and not moving.still


def test_look_alikes_of_one_still_camera_are_not_duplicates() -> None:
    still = np.repeat(shot(5, 1), 30)
    assert look(still, still, same_source=True) is None
    moving = shot(5, 30)
    assert look(moving, encoded(moving), same_source=True) is not None


def two_takes(seed: int, ticks: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A still camera before which something else moves each time: the same six bits change, at other moments."""
    rng, base = np.random.default_rng(seed), shot(seed, 1)[0]
    places = rng.permutation(64)[:6].astype(np.uint64)
    takes = []
    for _ in range(2):
        moved = rng.random((ticks, 6)) < 0.5
        takes.append(base ^ np.bitwise_or.reduce(np.where(moved, np.uint64(1) << places, np.uint64(0)), axis=1))
    return takes[0], takes[1]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_two_takes_of_one_scene_lie_near_and_do_not_match(seed: int) -> None:
    a, b = two_takes(seed)
    near = align(clips(a, b), np.array([[0, 1]]), RULES.min_ticks, RULES.min_overlap)
    assert near.distance[0] < 4 and near.own[0] > 2
    assert look(a, b) is None and look(a, encoded(a, flips=1)) is not None


def test_a_logo_that_stands_all_the_time_is_borne_where_the_changes_agree() -> None:
    film = shot(6, 30)
    logo = np.bitwise_or.reduce(np.uint64(1) << np.arange(0, 64, 6, dtype=np.uint64))  # eleven bits
    found = look(film, encoded(film) ^ logo)
    assert found is not None and found.distance > RULES.base_bits + 3
    still = np.repeat(shot(6, 1), 30)
    assert look(still, still ^ logo) is None


def test_a_short_overlap_is_no_match() -> None:
    film = shot(7, 40)
    assert look(film[:20], film[15:35]) is None


def test_black_pictures_do_not_count() -> None:
    black = np.zeros(40, np.uint64)
    assert look(black, black) is None
    faded = np.concatenate([black[:37], shot(6, 3)])
    assert look(faded, faded) is None


@given(st.integers(0, 1000), st.integers(2, 12))
@settings(max_examples=20, deadline=None)
def test_pairs_match_alike_alone_and_in_company(seed: int, others: int) -> None:
    film = shot(seed, 30)
    company = clips(film, encoded(film[6:24], seed), *(shot(seed + 1 + n, 5 + 7 * n) for n in range(others)))
    pairs = np.array([[a, b] for a in range(others + 2) for b in range(a + 1, others + 2)])
    together = compare(company, pairs, np.zeros(len(pairs), bool), RULES)
    assert together == {(0, 1): look(film, encoded(film[6:24], seed))}


def test_clips_in_parts_are_the_clips_at_once() -> None:
    shots = [shot(1, 9), np.zeros(4, np.uint64), shot(2, 0), shot(3, 12)]
    whole, parts = clips(*shots), joined([clips(*shots[:2]), clips(*shots[2:])])
    for name in ("hashes", "slots", "starts", "first_s"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_spread_is_the_mean_distance_between_pictures() -> None:
    three = shot(9, 1)[0] ^ np.array([0b00, 0b11, 0b01], np.uint64)
    assert spread(clips(three, np.repeat(three[:1], 5), three[:1])).tolist() == pytest.approx([4 / 3, 0.0, 0.0])


@pytest.mark.parametrize(
    ("given_", "wrong"),
    [
        ({"min_overlap": 0}, "min_overlap=0"),
        ({"max_speed": 3}, "max_speed=3"),
        ({"semantic": {"min_cosin": 0.9}}, "no key min_cosin"),
        ({"semantic": {"scorer": "embedding", "min_cosine": 2}}, "no cosine"),
        ({"balance": {"scorer": "embedding", "clusters": 0}}, "clusters=0"),
        ({"kind": 1}, "no key kind"),
        ([], "is a mapping"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(given_: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        rules(given_)


def test_rules_are_read_with_their_parts() -> None:
    made = rules(
        {"prefer": ["quality"], "semantic": {"scorer": "clip"}, "balance": {"scorer": "clip", "clusters": "auto"}}
    )
    assert made.prefer == ("quality",) and made.semantic.scorer == "clip" and made.balance.clusters is None
    assert rules({"balance": {"scorer": "clip", "clusters": 9}}).balance.clusters == 9
