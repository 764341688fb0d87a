from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters.frames import flicker
from rushes.filters.policy import BASES, RESERVED, PolicyError, Rule, load, preset, presets

TWO = """
name: two
rules:
  - {name: dark, measure: luma_mean, min: 16, max: 235}
  - {name: shaky, measure: camera, not_in: [shake]}
dedup: {min_overlap: 0.8, prefer: [pixels, -quality]}
"""


def test_dedup_settings_come_from_the_policy() -> None:
    policy = load(TWO)
    assert policy.dedup.min_overlap == 0.8 and policy.dedup.prefer == ("pixels", "-quality")
    assert load({"name": "x"}).dedup.min_overlap == 0.75


def test_what_could_not_be_measured_passes_only_where_the_rule_keeps_what_is_missing() -> None:
    for nothing in (None, float("nan")):
        assert not Rule(name="r", measure="m", min=5).passes(nothing)
        assert Rule(name="r", measure="m", min=5, missing="keep").passes(nothing)


@pytest.mark.parametrize(
    ("share", "clips", "kept"), [(0.3, 10, 3), (0.3, 11, 4), (0.1, 30, 3), (0.001, 5, 1), (1, 7, 7)]
)
def test_a_share_is_rounded_up_to_whole_clips_and_as_exact_as_it_is_written(
    share: float, clips: int, kept: int
) -> None:
    rule = load({"name": "x", "rules": [{"name": "a", "measure": "m", "keep_highest": share}]}).rules[0]
    assert rule.count(clips) == kept and rule.count(0) == 0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_bounds_are_inclusive(value: float, one: float, two: float) -> None:
    low, high = sorted((one, two))
    rule = Rule(name="r", measure="m", min=low, max=high)
    assert rule.passes(value) == (low <= value <= high)
    assert (rule.broken(value) is None) == rule.passes(value)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("name: [", "not valid YAML"),
        ("name: x\nrules: []\nrules: []", r"^line 3, column 1: .*the key rules comes twice\)$"),
        (
            "name: x\nrules:\n  - {name: a, min: 3\n  - {name: b",
            r"^line 4, column 5: the policy is not valid YAML \([^\n]*\)$",
        ),
        ("name: x\n\tabout: y", r"^line 2, column 1: .*found character '\\t'[^\n]*$"),
        ("- 1", "a policy is a mapping"),
        ({"rules": []}, "no name"),
        ({"name": "x", "limits": []}, "no key limits"),
        ({"name": "x", "rules": {}, "dedup": {"shingles": 3}}, "no key shingles"),
        ({"name": "x", "rules": "dark"}, "rules is a list"),
        ({"name": "x", "rules": ["dark"]}, "rule 1 is a mapping"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "mim": 3}]}, r"rule 1 \(a\) has no key mim"),
        ({"name": "x", "rules": [{"name": "a", "min": 3}]}, "needs a measure"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m"}]}, "sets no limit"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": "3"}]}, "is not a number"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "in": "pan"}]}, "in is a list"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "max": 2}]}, "no clip would pass"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3}] * 2}, "twice: a"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "basis": "sure"}]}, "none of published"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": float("inf")}]}, "not a finite number"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "in": [[1]]}]}, "it may hold text, numbers"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "missing": "no"}]}, "neither drop nor keep"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "optional": True}]}, "no key optional"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "in": []}]}, "in lists no value"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "not_in": ["x", None]}]}, "not_in lists null"),
        (
            {"name": "x", "rules": [{"name": "a", "measure": "m", "keep_highest": 30}]},
            r"not between 0 and 1; 30 % is 0\.3",
        ),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "keep_lowest": 0}]}, "not between 0 and 1"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "keep_lowest": True}]}, "is not a number"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "keep_lowest": 0.3, "max": 3}]}, "a rule of its own"),
        (
            {"name": "x", "rules": [{"name": "a", "measure": "m", "keep_lowest": 0.3, "keep_highest": 0.3}]},
            "of its own",
        ),
        ({"name": "x", "rules": [{"name": "duplicate", "measure": "m", "min": 3}]}, "means something else"),
        ({"name": "a/../b"}, "only letters, digits"),
        ({"name": "x" * 65}, "64 at most"),
        ("[" * 500, "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ({"name": "x", "dedup": {"min_overlap": 75}}, "not a share"),
        ({"name": "x", "dedup": {"min_overlap": "most"}}, "dedup: min_overlap='most' must be like 0.75"),
        ({"name": "x", "dedup": {"prefer": "pixels"}}, "must be a list of names"),
    ],
)
def test_a_malformed_policy_is_refused_with_the_place_and_the_remedy(policy: object, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        load(policy)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(RESERVED | {"Kept", " found"}))
def test_a_rule_may_not_be_named_like_what_an_account_says_itself(name: str) -> None:
    with pytest.raises(PolicyError, match="means something else in every account"):
        load({"name": "x", "rules": [{"name": name, "measure": "m", "min": 3}]})


def test_comparing_a_label_with_a_number_is_refused() -> None:
    for limit, words in (({"min": 3}, "use in or not_in"), ({"keep_highest": 0.5}, "must be a number")):
        rule = load({"name": "x", "rules": [{"name": "a", "measure": "camera", **limit}]}).rules[0]
        with pytest.raises(PolicyError, match=words):
            rule.passes("pan")


def test_a_message_quotes_no_more_of_a_stranger_than_a_line() -> None:
    bomb = "x: &a [z, z]\n" + "".join(
        f"{n}: &{n} [*{chr(ord(n) - 1)}, *{chr(ord(n) - 1)}]\n" for n in "bcdefghijklmnopqrstu"
    )
    with pytest.raises(PolicyError) as told:
        load(f"{bomb}name: *u\n".replace("x: ", "about: ", 1).replace("b: ", "rules: ", 1))
    assert len(str(told.value)) < 1000


def test_there_are_presets_after_the_published_recipes() -> None:
    assert presets() == ["cosmos", "default", "hunyuan", "movie-gen", "open-sora", "svd-finetune", "svd-pretrain"]
    with pytest.raises(PolicyError, match="there are cosmos, default"):
        preset("sora")


@pytest.mark.parametrize("name", presets())
def test_every_limit_of_a_preset_says_where_it_comes_from(name: str) -> None:
    policy = preset(name)
    assert policy.name == name and policy.about and policy.rules
    assert all(rule.source and rule.basis in BASES for rule in policy.rules)


def test_the_default_needs_no_model_that_does_not_come_with_the_package() -> None:
    assert not {rule.measure for rule in preset("default").rules} & {"aesthetic", "clip", "text"}


def test_the_default_drops_a_broken_exposure_and_keeps_a_mild_one_and_explosions() -> None:
    (rule,) = (rule for rule in preset("default").rules if rule.name == "flicker")
    time_s = np.arange(0, 3, 1 / 25)
    for depth, passes in ((0.05, True), (0.10, True), (0.15, False)):
        assert rule.passes(flicker(100 * (1 + depth * np.sin(2 * np.pi * 10 * time_s)), time_s)) == passes
    assert rule.passes(23.5)
    assert rule.passes(None), "a clip too short to tell is no flicker"


@pytest.mark.parametrize("name", presets())
def test_a_preset_keeps_of_two_copies_the_larger_the_richer_the_better_looking_the_longer(name: str) -> None:
    assert preset(name).dedup.prefer == ("pixels", "bit_rate", "quality?", "duration_s")
