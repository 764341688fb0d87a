from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.dit.config import SampleConfig
from rushes.dit.layout import Plan, plan, spend, windows
from rushes.dit.sources import Given, Source
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.model import Tokenizer, counts

RATES = (2, 4, 8, 16)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=5), each=st.integers(1, 3), data=st.data())
def test_a_budget_that_can_be_met_is_met_exactly_and_as_evenly_as_it_can_be(lengths, each, data):
    choices = list(itertools.product(RATES, repeat=len(lengths)))
    wanted = data.draw(st.sampled_from(choices))
    budget = each * sum(counts(lengths, wanted))
    found = spend(lengths, RATES, budget, each)
    assert each * sum(counts(lengths, found)) == budget
    as_good = [one for one in choices if sum(counts(lengths, one)) * each == budget]
    frames = [sum(length * rate for length, rate in zip(lengths, one, strict=True)) for one in as_good]
    assert sum(length * rate for length, rate in zip(lengths, found, strict=True)) == min(frames)


def test_a_budget_of_full_segments_is_spread_evenly():
    assert spend([16] * 4, RATES, 4 * 4 * 10, 10) == (4, 4, 4, 4)
    assert sorted(spend([16] * 4, RATES, 10 * (4 + 4 + 2 + 2), 10)) == [4, 4, 8, 8]


@pytest.mark.parametrize(
    ("budget", "nearest"), [(5, "20 and 30"), (47, "40 and 50"), (110, "100 and 120"), (999, "120 and 160")]
)
def test_a_budget_that_cannot_be_met_names_the_nearest(budget, nearest):
    with pytest.raises(ValueError, match=f"budget={budget} tokens .* 20 to 160 tokens at 10 a latent; .*{nearest}"):
        spend([16, 16], RATES, budget, 10)


def laid(lengths: list[int], known: list[bool]) -> Plan:
    n = len(lengths)
    return Plan(lengths=tuple(lengths), height=8, width=8, fps=16.0, rates=(8,) * n, counts=(2,) * n, cells=(1, 1),
                grid=(1, 1), known=tuple(known))  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 12), ahead=st.integers(0, 4), tail=st.booleans(), size=st.integers(2, 6), overlap=st.integers(1, 4)
)
def test_windows_fit_go_on_from_each_other_and_make_every_segment_once(n, ahead, tail, size, overlap):
    known = [True] * ahead + [False] * n + [True] * tail
    planned = laid([16] * len(known), known)
    if size < overlap + 1 + tail and len(known) > size:
        return
    found = windows(planned, float(size), overlap)
    assert [new for _, new, _ in found] == [ahead, *(last for _, _, last in found[:-1])]
    assert found[-1][2] == len(known)
    for first, new, last in found:
        assert last - first <= size and last > new and (new - first >= overlap or first == 0)
        assert not all(known[new:last]), "something is generated in each"
    assert all(last - first == size for first, _, last in found[-1:] if len(known) >= size), "the last is as long"


def test_what_fits_is_one_window_and_too_short_a_window_is_refused():
    assert windows(laid([16, 16, 9], [False] * 3), float("inf"), 1) == [(0, 0, 3)]
    assert windows(laid([1, 16, 16], [True, False, False]), 33 / 16, 1) == [(0, 1, 3)]
    assert windows(laid([16] * 3, [True] * 3), 2.0, 1) == [(0, 0, 2), (1, 2, 3)]  # around a box
    with pytest.raises(ValueError, match=r"window=1 s has no room behind the 1 segments .*; give 2.00 or more"):
        windows(laid([16] * 3, [False] * 3), 1.0, 1)


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 9), ahead=st.integers(0, 3), tail=st.booleans(), size=st.integers(1, 4), overlap=st.integers(1, 3)
)
def test_the_window_that_an_error_asks_for_has_room(n, ahead, tail, size, overlap):
    planned = laid([16] * (n + ahead) + [5] * tail, [True] * ahead + [False] * n + [True] * tail)
    try:
        windows(planned, float(size), overlap)
    except ValueError as error:
        windows(planned, float(str(error).split("give ")[1].split(" ")[0]), overlap)


@pytest.fixture(scope="module")
def codec() -> Tokenizer:
    return Tokenizer(TokenizerConfig(rates=(4, 8)))


def source(frames: int, option: str = "first") -> Source:
    return Source(option=option, path="a", frames=frames, fps=16.0 * (frames > 1), height=32, width=32)


@pytest.mark.parametrize(
    ("given_", "seconds", "lengths", "known"),
    [
        (Given(), 2.5, (16, 16, 8), "000"),
        (Given(head=source(1)), 2.0, (1, 16, 15), "100"),
        (Given(head=source(99)), 2.0, (16, 16), "10"),
        (Given(tail=source(1, "last")), 2.0, (16, 16, 1), "001"),
        (Given(tail=source(40, "last")), 2.2, (16, 16), "01"),
        (Given(head=source(1), tail=source(1)), 2.2, (1, 16, 16, 1), "1001"),
        (Given(head=source(40, "extend"), goes_on=True), 1.0, (16, 16, 16), "110"),
        (Given(head=source(40, "extend"), goes_on=True, tail=source(1)), 1.0, (16, 16, 16, 1), "1101"),
        (Given(head=source(20, "source"), box=(0, 0, 1, 0.5)), 9.0, (16, 4), "11"),
    ],
)
def test_what_is_given_stands_in_segments_of_its_own(codec, given_, seconds, lengths, known):
    config = SampleConfig(seconds=seconds, fps=16.0, height=32, width=32, rate=8)
    planned = plan(config, codec, 2, given_)
    assert planned.lengths == lengths and "".join(str(int(one)) for one in planned.known) == known


@pytest.mark.parametrize(
    ("given_", "seconds", "message"),
    [
        (Given(head=source(9)), 2.0, r"first=a \(9 frames\) has fewer than the 16 frames that begin a clip"),
        (Given(head=source(9)), 0.5, "fewer than the 16 frames that begin a clip; give a longer one or a picture"),
        (Given(tail=source(9, "last")), 2.0, "fewer than the 16 frames of a segment"),
        (Given(head=source(9, "extend"), goes_on=True), 2.0, "shorter than a segment of 16 frames"),
        (Given(head=source(20)), 1.0, "leave nothing to generate beside first=a .*; ask for 2.00 or more"),
        (Given(head=source(40, "extend"), tail=source(40, "last"), goes_on=True), 1.0, "nothing .*; ask for 1.57 or"),
    ],
)
def test_what_is_given_and_does_not_fit_is_refused(codec, given_, seconds, message):
    config = SampleConfig(seconds=seconds, fps=16.0, height=32, width=32, rate=8)
    with pytest.raises(ValueError, match=message):
        plan(config, codec, 2, given_)


@pytest.mark.parametrize("head", [Given(), Given(head=source(1)), Given(head=source(40))])
@pytest.mark.parametrize("tail", [None, source(1, "last"), source(40, "last")])
def test_the_seconds_that_an_error_asks_for_leave_something_to_generate(codec, head, tail):
    given_, config = replace(head, tail=tail), SampleConfig(seconds=0.1, fps=16.0, height=32, width=32, rate=8)
    try:
        plan(config, codec, 2, given_)
    except ValueError as error:
        asked = float(str(error).split("ask for ")[1].split(" ")[0])
        assert False in plan(replace(config, seconds=asked), codec, 2, given_).known
