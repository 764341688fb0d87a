from __future__ import annotations

import pytest

from rushes.dit.words import camera, prompts
from rushes.filters.camera import camera_speed
from rushes.filters.caption import camera as said


@pytest.mark.parametrize("pace", ["", "slow", "fast"])
@pytest.mark.parametrize(
    ("move", "caption"),
    [("pan left", "pan to the left"), ("pan right", "pan to the right"), ("tilt up", "tilt up"),
     ("tilt down", "tilt down"), ("zoom in", "zoom in"), ("zoom out", "zoom out"), ("roll right", "roll")],
)  # fmt: skip
def test_words_become_facts_that_captions_call_by_the_same_words(move, caption, pace):
    facts = camera(f"{move}, {pace}" if pace else move)
    assert facts == camera(f"{pace} {move}") and len(facts) == 1
    parts = {name: facts.get(name, 0.0) for name in ("pan", "tilt", "zoom", "roll")}
    label, speed = next(iter(facts)), float(camera_speed(**parts))
    assert said({"camera": label, "camera_speed": speed, **parts}) == f"{pace} {caption}".strip()


def test_moves_are_joined_and_a_pace_belongs_to_its_move():
    assert (
        camera("pan left, slow, tilt up") == camera("slow pan to the left and tilt up") == {"pan": -0.04, "tilt": 0.2}
    )
    assert camera("") == {} and set(camera("static camera").values()) == {0.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [("pan up", "'pan up' is no move"), ("swing", "give static, or pan left or right; tilt"), ("slow", "is no move"),
     ("slow pan left, fast", "is no move"), ("pan left, pan right", "asks for pan twice"),
     ("static, pan left", "asks for pan twice"), (" , ", "says nothing")],
)  # fmt: skip
def test_words_without_a_meaning_and_contradictions_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        camera(words)


def test_prompts_are_the_lines_of_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    with pytest.raises(ValueError, match="is not there"):
        prompts(str(path))
    path.write_text(" a cat\n\na dog ü\n")
    assert prompts(str(path)) == ["a cat", "a dog ü"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        prompts(str(path))
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        prompts(str(path))
