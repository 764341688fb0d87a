from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.policy import BASES, MissingMeasure, PolicyError, Rule, load, preset, presets

TWO = """
name: two
rules:
  - {name: dark, measure: luma_mean, min: 16, max: 235}
  - {name: shaky, measure: camera, not_in: [shake]}
dedup: {min_overlap: 0.8, prefer: [pixels, -quality]}
"""


def test_the_first_rule_that_fails_is_the_reason() -> None:
    policy = load(TWO)
    verdict = policy.verdict({"luma_mean": 3.0, "camera": "shake"})
    assert (verdict.kept, verdict.rule, verdict.value, verdict.limit) == (False, "dark", 3.0, 16.0)
    assert policy.verdict({"luma_mean": 250.0, "camera": "pan"}).limit == 235.0
    assert policy.verdict({"luma_mean": 100.0, "camera": "shake"}).rule == "shaky"
    assert policy.verdict({"luma_mean": 16.0, "camera": "pan"}).kept


def test_dedup_settings_come_from_the_policy() -> None:
    policy = load(TWO)
    assert policy.dedup.min_overlap == 0.8 and policy.dedup.prefer == ("pixels", "-quality")
    assert load({"name": "x"}).dedup.min_overlap == 0.75


def test_a_missing_measure_is_an_error_that_names_the_scorer_and_the_remedy() -> None:
    policy = load({"name": "x", "rules": [{"name": "pretty", "measure": "aesthetic", "min": 5}]})
    with pytest.raises(MissingMeasure, match=r"pretty needs the measure 'aesthetic'.*score\.scorers"):
        policy.verdict({"luma_mean": 100.0})


def test_an_optional_rule_passes_what_was_not_measured() -> None:
    rule = {"name": "pretty", "measure": "aesthetic", "min": 5, "optional": True}
    policy = load({"name": "x", "rules": [rule]})
    assert policy.verdict({}).kept and policy.verdict({"aesthetic": None}).kept
    assert not policy.verdict({"aesthetic": 4.0}).kept


def test_what_could_not_be_measured_is_dropped_and_never_passes_silently() -> None:
    policy = load({"name": "x", "rules": [{"name": "pretty", "measure": "aesthetic", "min": 5}]})
    for nothing in (None, float("nan")):
        verdict = policy.verdict({"aesthetic": nothing})
        assert not verdict.kept and verdict.rule == "pretty" and verdict.limit is None


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
        ("- 1", "a policy is a mapping"),
        ({"rules": []}, "no name"),
        ({"name": "x", "limits": []}, "no key limits"),
        ({"name": "x", "rules": {}, "dedup": {"shingles": 3}}, "no key shingles"),
        ({"name": "x", "rules": "dark"}, "rules is a list"),
        ({"name": "x", "rules": ["dark"]}, "rule 1 is a mapping"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "mim": 3}]}, "rule a has no key mim"),
        ({"name": "x", "rules": [{"name": "a", "min": 3}]}, "needs a measure"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m"}]}, "sets no limit"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": "3"}]}, "is not a number"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "in": "pan"}]}, "in is a list"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "max": 2}]}, "no clip would pass"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3}] * 2}, "twice: a"),
        ({"name": "x", "rules": [{"name": "a", "measure": "m", "min": 3, "basis": "sure"}]}, "none of published"),
        ({"name": "x", "dedup": {"min_overlap": 75}}, "not a share"),
    ],
)
def test_a_malformed_policy_is_refused_with_the_place_and_the_remedy(policy: object, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        load(policy)  # type: ignore[arg-type]


def test_comparing_a_label_with_a_number_is_refused() -> None:
    policy = load({"name": "x", "rules": [{"name": "a", "measure": "camera", "min": 3}]})
    with pytest.raises(PolicyError, match="use in or not_in"):
        policy.verdict({"camera": "pan"})


def test_there_are_presets_after_the_published_recipes() -> None:
    assert presets() == ["cosmos", "default", "hunyuan", "movie-gen", "open-sora", "svd-pretrain"]
    with pytest.raises(PolicyError, match="there are cosmos, default"):
        preset("sora")


@pytest.mark.parametrize("name", presets())
def test_every_limit_of_a_preset_says_where_it_comes_from(name: str) -> None:
    policy = preset(name)
    assert policy.name == name and policy.about and policy.rules
    assert all(rule.source and rule.basis in BASES for rule in policy.rules)


def test_the_default_needs_no_model_that_does_not_come_with_the_package() -> None:
    assert not {rule.measure for rule in preset("default").rules} & {"aesthetic", "clip", "text"}
