"""Composed captions say what was measured and nothing else; near-identical ones are found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.caption import FIELDS, action, camera, compose, light, near_identical, style, with_article
from rushes.filters.tags import Tag

FACTS = {"duration_s": 4.2, "camera": "pan", "pan": -0.2, "camera_speed": 0.2, "object_speed": 0.5, "object_area": 0.3,
         "luma_mean": 40.0, "luma_std": 50.0, "still_picture": False}  # fmt: skip


def test_a_caption_names_what_is_sure_and_leaves_out_what_is_not() -> None:
    parts = compose(FACTS, [Tag("dog", 0.79), Tag("bicycle", 0.39)])
    assert parts["subject"] == "dog"
    assert parts["short"] == "A dog, pan to the left, fast movement in much of the picture, dark."
    assert "bicycle" not in parts["long"]
    first = "A shot of 4.2 seconds that shows a dog, with a pan to the left."
    assert parts["long"] == f"{first} There is fast movement in much of the picture. The picture is dark."


def test_a_name_that_many_classes_share_is_sure_sooner_than_one_of_a_single_class() -> None:
    assert compose({}, [Tag("dog", 0.46), Tag("panpipe", 0.45)])["subject"] == "dog"
    assert compose({}, [Tag("hair slide", 0.53)])["subject"] == ""
    assert compose({}, [Tag("web site", 0.84)])["short"] == "A web site."


def test_what_is_so_of_most_footage_is_not_said() -> None:
    facts = {"duration_s": 5.0, "camera": "static", "object_speed": 0.2, "object_area": 0.1, "luma_mean": 120.0,
             "luma_std": 60.0, "crop_top": 0.12, "crop_bottom": 0.12}  # fmt: skip
    parts = compose(facts, [])
    assert (parts["long"], parts["short"]) == ("A shot of 5.0 seconds with a static camera.", "Static camera.")
    assert (parts["light"], parts["style"], parts["action"]) == ("medium light", "letterboxed", "")


@pytest.mark.parametrize(
    ("facts", "long"),
    [
        ({"still_picture": True, "camera": "static", "luma_mean": 3.0, "black": 1.0},
         "A shot that shows a still picture. The picture is nearly black."),
        ({"still_picture": True, "camera": "zoom", "zoom": -0.02, "camera_speed": 0.02, "object_area": 0.5},
         "A shot that shows a still picture, with a slow zoom out."),
        ({"camera": "moving", "camera_speed": 0.5, "object_speed": 0.0, "object_area": 0.0, "black": 0.3},
         "A shot with a fast-moving camera. Apart from the camera hardly anything moves. Some frames are black."),
        ({"camera": "static", "object_speed": 0.5, "object_area": 0.1, "luma_mean": 120.0, "luma_std": 9.0},
         "A shot with a static camera. There is fast movement. The picture is of low contrast."),
        ({"camera": "roll", "luma_mean": 40.0, "luma_std": 9.0},
         "A shot with a roll of the camera. The picture is dark and of low contrast."),
    ],
)  # fmt: skip
def test_sentences_are_whole_and_say_nothing_twice(facts: dict[str, object], long: str) -> None:
    assert compose(facts, [])["long"] == long


@pytest.mark.parametrize(
    ("noun", "said"),
    [("dog", "a dog"), ("umbrella", "an umbrella"), ("uniform", "a uniform"), ("hay", "hay"), ("iPod", "an iPod")],
)
def test_nouns_take_the_article_that_they_take(noun: str, said: str) -> None:
    assert with_article(noun) == said


def test_two_sure_names_have_an_article_each() -> None:
    assert compose({}, [Tag("dog", 0.5), Tag("bridge", 0.45)])["short"] == "A dog and a bridge."


def test_a_place_is_a_setting_not_a_subject() -> None:
    parts = compose(FACTS, [Tag("seashore", 0.6)])
    assert (parts["subject"], parts["setting"]) == ("", "seashore")


def test_a_clip_of_which_nothing_is_known_gets_no_invented_word() -> None:
    parts = compose({}, [])
    assert tuple(parts) == FIELDS
    assert parts["short"] == ""
    assert parts["long"] == "A shot."


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["pan", "tilt", "zoom", "roll", "camera_speed", "object_speed", "object_area", "luma_mean",
                         "luma_std", "crop_top", "crop_left", "black", "white", "duration_s"]),
        st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    st.sampled_from([None, "", "static", "pan", "tilt", "zoom", "roll", "shake", "moving", "orbit"]),
)  # fmt: skip
def test_every_measurement_gives_text_in_every_field(facts: dict[str, float | None], label: str | None) -> None:
    parts = compose({**facts, "camera": label}, [])
    assert all(isinstance(part, str) for part in parts.values())
    assert "None" not in "".join(parts.values())


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"camera": "pan", "pan": 0.2, "camera_speed": 0.2}, "pan to the right"),
        ({"camera": "tilt", "tilt": -0.02, "camera_speed": 0.02}, "slow tilt down"),
        ({"camera": "zoom", "zoom": 0.5, "camera_speed": 0.5}, "fast zoom in"),
        ({"camera": "moving", "camera_speed": 0.2}, "moving camera"),
        ({"camera": "static"}, "static camera"),
        ({"camera": "pan"}, "pan"),
        ({}, ""),
    ],
)
def test_camera_words_follow_the_sign_and_the_speed(facts: dict[str, object], words: str) -> None:
    assert camera(facts) == words


def test_light_motion_and_bars_become_words() -> None:
    assert light({"luma_mean": 3}) == "nearly black"
    assert light({"luma_mean": 200, "luma_std": 5}) == "bright, low contrast"
    assert action({"object_speed": 0.0, "object_area": 0.0}) == "hardly any movement"
    assert action({"still_picture": True, "object_speed": 1.0, "object_area": 0.5}) == "a still picture"
    assert style({"crop_top": 0.12, "crop_bottom": 0.12, "black": 0.3}) == "letterboxed, black frames"


def test_near_identical_captions_are_paired_and_others_are_not() -> None:
    long = "a brown dog runs over a wet path in a park while a woman in a white shirt watches it from a bench"
    found = near_identical(
        {"a": long, "b": long.replace("brown", "black"), "c": "three bottles stand on a table", "d": long.upper() + "!"}
    )
    assert [(one, other) for one, other, _ in found] == [("a", "b"), ("a", "d")]
    assert found[1][2] == 1.0


def test_a_caption_that_many_share_gives_pairs_with_the_first_only() -> None:
    found = near_identical({f"k{n:03d}": "static camera, dark." for n in range(50)})
    assert len(found) == 49
    assert {one for one, _, _ in found} == {"k000"}


@settings(max_examples=20, deadline=None)  # LSH tunes its bands anew each time: 50 ms
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=30), max_size=8))
def test_pairs_do_not_depend_on_the_order_of_captions(captions: dict[str, str]) -> None:
    again = dict(reversed(list(captions.items())))
    assert near_identical(captions) == near_identical(again)
