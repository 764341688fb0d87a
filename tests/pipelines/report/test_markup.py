"""Markup: what is not markup becomes text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.pipelines.report.markup import clock, el, number, seconds, share, size, text


@given(st.text())
def test_no_text_can_open_a_tag_or_leave_an_attribute(evil: str) -> None:
    found = el("p", evil, title=evil)
    assert found.count("<") == 2 and found.count(">") == 2
    assert found.count('"') == 2


def test_elements_nest_and_lists_join_without_being_escaped_twice() -> None:
    assert el("ul", [el("li", "a & b"), None, False, el("li", 1)]) == "<ul><li>a &amp; b</li><li>1</li></ul>"
    assert el("img", alt="", hidden=True, src=None) == '<img alt="" hidden>'
    assert el("rect", x=1) == '<rect x="1"></rect>'  # an open SVG shape would swallow what follows
    assert text(None) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1234567, "1\u2009234\u2009567"), (0.00301, "0.00301"), (-2.5, "−2.5"), (1e-9, "≈\u202f0"),
     (float("nan"), "–"), (100.4, "100"), (3686, "3\u2009686")],
)  # fmt: skip
def test_numbers_show_three_digits_that_matter(value: float, shown: str) -> None:
    assert number(value) == shown


def test_units_are_chosen_by_size() -> None:
    assert seconds(0.08) == "0.08\u00a0s" and seconds(59.96) == "1\u00a0min 00\u00a0s"
    assert seconds(8040) == "2\u00a0h 14\u00a0min" and seconds(0) == "0.0\u00a0s"
    assert clock(7.25) == "0:07.25" and clock(3723) == "1:02:03.00"
    assert size(1_500_000) == "1.5 MB" and size(12) == "12 bytes"
    assert share(1, 3000) == "< 0.1\u00a0%" and share(1, 0) == "–" and share(1, 3) == "33\u00a0%"
