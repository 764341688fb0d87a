"""Names: classes join to words, and lines of tags survive a round trip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import tags


def test_every_class_has_a_word_and_every_group_has_members() -> None:
    words = tags.names()
    assert len(words) == 1000
    for group in (*tags.RANGES, *tags.MEMBERS):
        assert words.count(group) >= 2, group


@pytest.mark.parametrize(
    ("group", "first", "last"),
    [("fish", "tench", "puffer"), ("bird", "cock", "albatross"), ("dog", "Chihuahua", "Mexican hairless"),
     ("cat", "tabby", "Egyptian cat"), ("insect", "tiger beetle", "lycaenid"), ("fungus", "coral fungus", "bolete")],
)  # fmt: skip
def test_ranges_begin_and_end_where_the_animals_do(group: str, first: str, last: str) -> None:
    classes = tags.categories()
    ranges = tags.RANGES[group]
    assert (classes[ranges[0][0]], classes[ranges[-1][1]]) == (first, last)


def test_settings_are_names_that_can_occur() -> None:
    assert set(tags.names()) >= tags.SETTINGS


def test_a_group_is_as_probable_as_its_classes_together() -> None:
    probabilities = np.full((2, 1000), 0.2 / 882)
    probabilities[:, 151:269] = 0.8 / 118  # spread evenly over 118 breeds
    best = tags.tags(probabilities)[0]
    assert best.name == "dog"
    assert best.probability == pytest.approx(0.8, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["dog", "jack-o'-lantern", "bed or couch"]), st.floats(0, 1)), max_size=5))
def test_a_rendered_line_reads_back_to_two_decimals(items: list[tuple[str, float]]) -> None:
    found = [tags.Tag(name, probability) for name, probability in items]
    again = tags.parse(tags.render(found))
    assert [tag.name for tag in again] == [tag.name for tag in found]
    assert [tag.probability for tag in again] == pytest.approx([tag.probability for tag in found], abs=0.005001)


def test_a_line_that_is_no_tags_is_named() -> None:
    with pytest.raises(ValueError, match="'hello' is no tag"):
        tags.parse("hello")
