"""Which frames of a clip become which piece, and what is refused."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.pipelines.export.captions import caption_of
from rushes.pipelines.export.rules import PRESETS, Frames, Refusal, Rules, frames_of, plan
from rushes.pipelines.export.settings import ExportConfig, rules_of


def facts(frames: int, fps: float = 24.0, width: int = 640, height: int = 360) -> dict:
    return {"frames": frames, "fps": fps, "duration_s": frames / fps, "width": width, "height": height}


@pytest.mark.parametrize(
    ("text", "allowed", "not_allowed"),
    [
        ("4n+1", [5, 9, 65, 81], [1, 4, 64, 66, 80]), ("8n+1", [9, 65, 121], [1, 8, 64, 82, 120]),
        ("81", [81], [80, 82, 5]), ("", [1, 2, 3], [0]),
    ],
)  # fmt: skip
def test_a_rule_allows_its_numbers_and_no_other(text: str, allowed: list[int], not_allowed: list[int]) -> None:
    rule = frames_of(text)
    assert all(map(rule.allows, allowed)) and not any(map(rule.allows, not_allowed))


@pytest.mark.parametrize("text", ["n+1", "4n-1", "four", "0", "4n+1n"])
def test_what_is_no_rule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 4n\+1"):
        frames_of(text)


@pytest.mark.parametrize("fps", [16.0, 23.976023976, 24.0, 25.0, 29.97002997, 30.0, 50.0, 59.94005994])
def test_65_frames_at_the_rate_asked_for_are_65_and_not_64(fps: float) -> None:
    exact = Fraction(fps).limit_denominator(1001)
    (piece,) = plan(facts(65, fps), Rules(fps=exact, frames=Frames(4, 1)))
    assert piece.frames == 65 and piece.whole and piece.fps == exact


@pytest.mark.parametrize(("have", "want"), [(30.0, 29.97), (29.97, 30.0), (24.0, 23.976), (23.976, 24.0)])
def test_nor_does_a_rate_beside_it_cost_a_frame(have: float, want: float) -> None:
    (piece,) = plan(facts(65, have), Rules(fps=Fraction(want).limit_denominator(1001), frames=Frames(4, 1)))
    assert piece.frames == 65 and not piece.whole


def test_a_clip_is_trimmed_to_the_longest_length_allowed() -> None:
    (piece,) = plan(facts(200), Rules(frames=Frames(4, 1), max_frames=83))
    assert (piece.first, piece.frames, piece.whole) == (0, 81, False)


def test_or_split_into_several_and_what_is_left_if_it_is_long_enough() -> None:
    pieces = plan(facts(200), Rules(frames=Frames(4, 1), max_frames=81, split=True))
    assert [(piece.first, piece.frames) for piece in pieces] == [(0, 81), (81, 81), (162, 37)]
    assert [piece.name("k") for piece in pieces] == ["k-00", "k-01", "k-02"]
    pieces = plan(facts(165), Rules(frames=Frames(4, 1), max_frames=81, split=True))
    assert [piece.frames for piece in pieces] == [81, 81]


@given(
    frames=st.integers(1, 900), fps=st.sampled_from([12.5, 24.0, 25.0, 30000 / 1001, 60.0]),
    to=st.sampled_from([None, 16, 24, 25]), step=st.sampled_from([1, 4, 8]), most=st.integers(0, 200),
    split=st.booleans(), size=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    multiple=st.sampled_from([1, 2, 16, 32]),
)  # fmt: skip
def test_every_piece_obeys_and_none_overlaps(frames, fps, to, step, most, split, size, multiple) -> None:
    rules = Rules(
        fps=Fraction(to) if to else None, frames=Frames(step, int(step > 1)), multiple=multiple,
        max_frames=most + step + 1 if most else 0, split=split and bool(most),
    )  # fmt: skip
    width, height = 2 * size[0], 2 * size[1]
    pieces = plan(facts(frames, fps, width, height), rules)
    if isinstance(pieces, Refusal):
        assert pieces.rule in ("frames", "multiple") and pieces.reason
        assert min(width, height) < multiple or frames / fps * (to or fps) < rules.least + 0.5
        return
    assert pieces and (len(pieces) == 1 or rules.split)
    end = 0
    for piece in pieces:
        assert rules.frames.allows(piece.frames) and piece.first == end
        assert not rules.max_frames or piece.frames <= rules.max_frames
        assert (
            piece.width % multiple == 0 == piece.height % multiple and not piece.crop[0] % 2 and not piece.crop[1] % 2
        )
        assert piece.crop[0] + piece.width <= width and width - piece.width < multiple
        assert piece.crop[1] + piece.height <= height and height - piece.height < multiple
        end += piece.frames
    assert end <= frames / fps * float(pieces[0].fps) + 0.51


def test_a_refusal_names_rule_value_and_limit() -> None:
    found = plan(facts(10), Rules(frames=Frames(4, 1), min_frames=20))
    assert isinstance(found, Refusal) and (found.rule, found.value, found.limit) == ("frames", 10, 20)
    assert found.reason == "10 frames at 24 fps, at least 21 are needed"
    found = plan(facts(100, height=30), Rules(multiple=32))
    assert isinstance(found, Refusal) and (found.rule, found.value, found.limit) == ("multiple", 30, 32)


def test_the_presets_are_what_the_models_take() -> None:
    told = {name: (float(r.fps), str(r.frames), r.multiple, r.max_frames) for name, r in PRESETS.items() if r.fps}
    assert told == {
        "wan": (16, "4n+1", 16, 81), "hunyuan": (24, "4n+1", 16, 129), "ltx": (24, "8n+1", 32, 121),
        "cosmos": (16, "4n+1", 16, 93),
    }  # fmt: skip
    assert all(rules.frames.allows(rules.max_frames) for rules in PRESETS.values())


def test_what_is_set_goes_before_the_preset_and_sound_is_kept_only_where_it_is_learnt() -> None:
    rules = rules_of(ExportConfig(fps=24, max_frames=33), "wan", audio=True)
    assert (rules.fps, rules.frames, rules.max_frames, rules.audio) == (24, Frames(4, 1), 33, False)
    assert rules_of(ExportConfig(), "ltx", audio=True).audio and not rules_of(ExportConfig(), "ltx", audio=False).audio
    assert rules_of(ExportConfig(), "", audio=True).audio


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ExportConfig(split=True), "--split needs to know"), (ExportConfig(multiple=15), "must be even"),
        (ExportConfig(fps=0.5), "must be from 1 to 240"), (ExportConfig(crf=70), "from 0 to 51"),
        (ExportConfig(frames="4n+1", min_frames=30, max_frames=20), "no number of frames"),
        (ExportConfig(frames="81", max_frames=20), "no number of frames"),
    ],
)  # fmt: skip
def test_settings_that_no_clip_could_obey_are_refused(config: ExportConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules_of(config, "", audio=True)


def test_captions_are_one_line_their_first_sentence_or_their_parts() -> None:
    text, known = "It costs 4.2 dollars, “no”.\n Second line!", {"subject": "a dog", "setting": "", "width": 3}
    assert caption_of(text, known, "long") == "It costs 4.2 dollars, “no”. Second line!"
    assert caption_of(text, known, "short") == "It costs 4.2 dollars, “no”."
    assert json.loads(caption_of(text, known, "json")) == {
        "caption": caption_of(text, known, "long"),
        "subject": "a dog",
    }
    assert caption_of("犬が走る。海へ。", {}, "short") == "犬が走る。"
    assert caption_of("", known, "json") == ""
