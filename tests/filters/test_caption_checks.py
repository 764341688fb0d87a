"""What a model says against what was measured: fixed words, and plain contradictions only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters.caption import FIELDS, camera_motion
from rushes.filters.caption_checks import CAMERA_MOTIONS, KINDS, SHOT_SIZES, reconcile, said_motion, shot_size

EMPTY = dict.fromkeys(FIELDS, "")
PAN = {"camera": "pan", "pan": -0.2, "camera_speed": 0.2, "duration_s": 4.0, "luma_mean": 120.0}


@pytest.mark.parametrize("name", SHOT_SIZES)
def test_every_shot_size_is_its_own_name(name: str) -> None:
    assert shot_size(name) == shot_size(f"A {name.upper()}.") == name


@pytest.mark.parametrize("name", CAMERA_MOTIONS)
def test_every_camera_motion_is_its_own_name(name: str) -> None:
    assert said_motion(name) == name


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Close up", "close-up"), ("ECU", "extreme close-up"), ("long shot", "wide shot"), ("MCU", "medium close-up"),
        ("establishing shot", "extreme wide shot"), ("medium-wide shot", "full shot"), ("bird's-eye view", ""),
    ],
)  # fmt: skip
def test_the_trades_words_for_a_shot_size_are_known(said: str, name: str) -> None:
    assert shot_size(said) == name


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("the camera pans slowly to the left", "pan left"), ("slow leftward pan", "pan left"),
        ("No camera movement", "static"), ("locked-off tripod shot", "static"), ("handheld", "shake"),
        ("dolly in", "zoom in"), ("pulls back", "zoom out"), ("tracking shot", "moving"), ("moody", ""),
    ],
)  # fmt: skip
def test_the_trades_words_for_camera_motion_are_known(said: str, name: str) -> None:
    assert said_motion(said) == name


@pytest.mark.parametrize(
    ("said", "facts", "found"),
    [
        ({"camera_motion": "static"}, {}, "camera: said 'static', measured 'pan left'"),
        ({"camera_motion": "pan right"}, {}, "camera: said 'pan right', measured 'pan left'"),
        ({"long": "The camera pans to the right past a house."}, {}, "camera: said 'camera pans to the right', mea"),
        ({"long": "A static shot of a house."}, {}, "camera: said 'static shot', measured 'pan left'"),
        ({"camera_motion": "pan left"}, {"camera": "static"}, "camera: said 'pan left', measured 'static'"),
        ({"camera_motion": "static"}, {"camera": "shake"}, "camera: said 'static', measured 'shake'"),
        ({"action": "a dog runs"}, {"still_picture": True}, "movement: said 'runs', measured 'a still picture'"),
        ({"action": "motionless"}, {"object_speed": 0.9, "object_area": 0.5}, "movement: said 'motionless', measured"),
        ({"light": "night"}, {"luma_mean": 200.0}, "light: said 'night', measured 'mean luma 200 of 255'"),
        ({"light": "bright sunlight"}, {"luma_mean": 20.0}, "light: said 'bright', measured 'mean luma 20 of 255'"),
        ({"long": "A man waves. The scene cuts to a car."}, {}, "cuts: said 'scene cuts to', measured 'one shot'"),
        ({"long": "A 30-second video of a man."}, {}, "length: said '30-second video', measured '4.0 s'"),
        ({"shot_size": "bird's-eye view"}, {}, "shot_size: said 'bird's-eye view'"),
    ],
)
def test_a_plain_contradiction_is_recorded(said: dict[str, str], facts: dict[str, object], found: str) -> None:
    _, checks = reconcile(EMPTY | said, PAN | facts)
    assert len(checks) == 1 and str(checks[0]).startswith(found)
    assert checks[0].kind in KINDS


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ({"camera_motion": "pan left"}, {}),
        ({"camera_motion": "moving"}, {}),
        ({"camera_motion": "handheld"}, {}),
        ({"camera_motion": "pan right"}, {"camera": "moving"}),
        ({"camera_motion": "static"}, {"camera": None}),
        ({"light": "dark blue background in bright light"}, {"luma_mean": 200.0}),
        ({"light": "dim"}, {}),
        ({"long": "A man cuts bread. He stands still and then runs."}, {}),
        ({"long": "He waits for 30 seconds."}, {}),
        ({"long": "A woman moves her camera bag to the right."}, {}),
    ],
)
def test_what_leaves_room_is_no_contradiction(said: dict[str, str], facts: dict[str, object]) -> None:
    assert reconcile(EMPTY | said, PAN | facts)[1] == []


def test_the_measured_camera_stands_and_only_without_one_the_models_word() -> None:
    said = EMPTY | {"camera_motion": "zoom in"}
    assert reconcile(said, PAN)[0]["camera_motion"] == "pan left"
    assert reconcile(said, {})[0]["camera_motion"] == "zoom in"
    assert reconcile(EMPTY | {"camera_motion": "wild"}, {})[0]["camera_motion"] == ""


@given(st.sampled_from(["static", "pan", "tilt", "zoom", "roll", "shake", "moving", "orbit", "", None]),
       st.none() | st.floats(-2, 2))  # fmt: skip
def test_every_measured_camera_has_a_fixed_word(label: str | None, value: float | None) -> None:
    assert camera_motion({"camera": label, "pan": value, "tilt": value, "zoom": value}) in (*CAMERA_MOTIONS, "")


@given(st.fixed_dictionaries({name: st.text(max_size=60) for name in FIELDS}))
def test_any_words_are_settled_into_the_vocabularies(said: dict[str, str]) -> None:
    parts, _ = reconcile(said, {})
    assert set(parts) == set(FIELDS)
    assert parts["shot_size"] in (*SHOT_SIZES, "") and parts["camera_motion"] in (*CAMERA_MOTIONS, "")
