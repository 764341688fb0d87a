from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.policy import MissingMeasure, Policy, PolicyError, Rule, load, preset
from rushes.pipelines.stages.select import select as selecting
from rushes.pipelines.stages.select.select import read_policy
from rushes.pipelines.stages.select.trial import limit_text
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES
from tests.pipelines.clip_rows import EVERYTHING, NO_SCORES, clip, hashes, matched


def score(number: int, scorer: str, value: float | None) -> dict[str, Any]:
    return {"key": f"{number:016x}-000000000", "scorer": scorer, "model": "m", "value": value}


def policy(*rules: dict[str, Any], **dedup: Any) -> Policy:
    return load({"name": "p", "rules": list(rules), "dedup": dedup})


def select(clips: pa.Table, scores: pa.Table, by: Policy) -> tuple[pa.Table, pa.Table]:
    return selecting.select(clips, scores, by, matched(clips, rules=by.dedup))


def chosen(clips: list[dict[str, Any]], by: Policy, scores: pa.Table = NO_SCORES) -> dict[int, dict[str, Any]]:
    selection, _ = select(to_table("clips", clips), scores, by)
    return {int(row["key"][:16], 16): row for row in selection.to_pylist()}


def test_every_clip_has_a_row_and_the_first_failing_rule_is_its_reason() -> None:
    rules = ({"name": "dark", "measure": "luma_mean", "min": 16}, {"name": "flat", "measure": "luma_std", "min": 6})
    rows = chosen([clip(1), clip(2, luma_mean=3.0, luma_std=1.0), clip(3, luma_std=1.0)], policy(*rules))
    assert rows[1]["kept"] and rows[1]["stage"] is None and rows[1]["rule"] is None
    assert (rows[2]["stage"], rows[2]["rule"], rows[2]["value"], rows[2]["limit"]) == ("limits", "dark", 3.0, 16.0)
    assert rows[3]["rule"] == "flat" and rows[3]["duration_s"] == 4.0


def test_labels_switches_and_derived_measures_can_be_limited() -> None:
    by = policy(
        {"name": "shaky", "measure": "camera", "not_in": ["shake"]},
        {"name": "still", "measure": "still_picture", "in": [False]},
        {"name": "small", "measure": "min_side_px", "min": 200},
    )
    bars = {"crop_top": 0.25, "crop_bottom": 0.25}
    rows = chosen([clip(1), clip(2, camera="shake"), clip(3, still_picture=True), clip(4, **bars)], by)
    assert rows[1]["kept"]
    assert (rows[2]["rule"], rows[2]["detail"], rows[2]["value"]) == ("shaky", "shake", None)
    assert rows[3]["rule"] == "still"
    assert (rows[4]["rule"], rows[4]["value"]) == ("small", 180.0)


def test_what_a_list_says_of_a_source_can_be_limited() -> None:
    by = policy({"name": "not_free", "measure": "licence", "in": ["CC0", "CC-BY"]})
    rows = chosen([clip(1, licence="CC0"), clip(2, licence="all rights reserved"), clip(3)], by)
    assert [rows[n]["kept"] for n in (1, 2, 3)] == [True, False, False]
    assert (rows[2]["detail"], rows[3]["detail"]) == ("all rights reserved", "not measured")
    with pytest.raises(PolicyError, match=r"compares licence='CC0' with a number; use in or not_in"):
        chosen([clip(1, licence="CC0")], policy({"name": "a", "measure": "licence", "min": 1}))


@pytest.mark.parametrize(("missing", "kept"), [("drop", [1]), ("keep", [1, 3])])
def test_a_clip_without_a_licence_goes_or_stays_as_the_rule_says(missing: str, kept: list[int]) -> None:
    listed = {"name": "free", "measure": "licence", "in": ["CC0", "CC-BY-4.0"], "missing": missing}
    barred = {"name": "barred", "measure": "licence", "not_in": ["all rights reserved"], "missing": missing}
    clips = [clip(1, licence="CC0"), clip(2, licence="all rights reserved"), clip(3)]
    for rule in (listed, barred):
        rows = chosen(clips, policy(rule))
        assert [n for n, row in rows.items() if row["kept"]] == kept
        assert (rows[2]["rule"], rows[2]["detail"]) == (rule["name"], "all rights reserved")
    assert limit_text(load({"name": "p", "rules": [listed]}).rules[0]) == (
        "is CC0 or CC-BY-4.0" + (" or missing" if missing == "keep" else "")
    )


def test_a_scorers_value_is_a_measure() -> None:
    by = policy({"name": "ugly", "measure": "aesthetic", "min": 5})
    scores = to_table("scores", [score(2, "aesthetic", 4.0), score(1, "aesthetic", 6.0), score(1, "text", 0.5)])
    rows = chosen([clip(1), clip(2), clip(3)], by, scores)
    assert rows[1]["kept"]
    assert (rows[2]["value"], rows[2]["limit"]) == (4.0, 5.0)
    assert (rows[3]["rule"], rows[3]["detail"], rows[3]["value"]) == ("ugly", "not measured", None)


def test_a_rule_without_its_scorer_stops_the_selection_unless_it_keeps_what_is_missing() -> None:
    rule = {"name": "ugly", "measure": "aesthetic", "min": 5}
    with pytest.raises(MissingMeasure, match="aesthetic"):
        select(to_table("clips", [clip(1)]), NO_SCORES, policy(rule))
    assert chosen([clip(1)], policy(rule | {"missing": "keep"}))[1]["kept"]


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="several rows"):
        select(to_table("clips", [clip(1), clip(1)]), NO_SCORES, EVERYTHING)


def test_no_clips_give_empty_tables() -> None:
    selection, pairs = select(TABLES["clips"].empty_table(), NO_SCORES, preset("default"))
    assert selection.schema == TABLES["selection"] and pairs.schema == TABLES["pairs"] and not len(selection)


def test_the_copy_with_most_pixels_stays_and_the_pair_says_so() -> None:
    clips = [clip(1, 9), clip(2, 9, width=1920, height=1080), clip(3, 9, bit_rate=9), clip(4, 5)]
    selection, pairs = select(to_table("clips", clips), NO_SCORES, EVERYTHING)
    assert selection["kept"].to_pylist() == [False, True, False, True]
    assert selection["stage"].to_pylist() == ["duplicates", None, "duplicates", None]
    rows = pairs.to_pylist()
    assert {(row["key"][:16][-1], row["kept_key"][:16][-1], row["level"]) for row in rows} == {
        ("1", "2", "copy"),
        ("3", "2", "copy"),
    }
    assert "1920×1080" in rows[0]["why"] and rows[0]["policy"] == "everything"


def test_bars_do_not_count_as_pixels() -> None:
    boxed = clip(1, 9, width=700, height=400, crop_top=0.2, crop_bottom=0.2)
    rows = chosen([boxed, clip(2, 9)], EVERYTHING)
    assert rows[2]["kept"] and rows[1]["detail"] == f"copy of {2:016x}-000000000"


def test_the_policy_chooses_which_copy_is_preferred() -> None:
    clips = [clip(1, 9, sharpness=10.0), clip(2, 9, sharpness=20.0)]
    scores = to_table("scores", [score(1, "quality", 90.0), score(2, "quality", 30.0)])
    assert chosen(clips, policy(prefer=["quality"]), scores)[1]["kept"]
    assert chosen(clips, policy(prefer=["-quality"]), scores)[2]["kept"]
    assert chosen(clips, policy(prefer=["sharpness"]))[2]["kept"]
    with pytest.raises(MissingMeasure, match="quality"):
        select(to_table("clips", clips), NO_SCORES, policy(prefer=["quality"]))


def test_an_excerpt_yields_to_the_film_though_it_is_sharper() -> None:
    film = clip(1, 9, phash=hashes(9, 60), duration_s=10.0)
    part = clip(2, 9, phash=hashes(9, 60)[18:36], duration_s=3.0, width=1920, height=1080)
    _, pairs = select(to_table("clips", [film, part]), NO_SCORES, EVERYTHING)
    (row,) = pairs.to_pylist()
    assert (row["key"][:16][-1], row["kept_key"][:16][-1], row["level"]) == ("2", "1", "excerpt")
    assert row["offset_s"] == pytest.approx(3.0, abs=1e-3)


def test_a_clip_that_a_limit_dropped_stands_for_nobody() -> None:
    rows = chosen(
        [clip(1, 9, luma_mean=3.0, width=1920), clip(2, 9)], policy({"name": "dark", "measure": "luma_mean", "min": 16})
    )
    assert rows[1]["rule"] == "dark" and rows[2]["kept"]


def test_duplicates_stay_where_the_policy_says_so() -> None:
    assert all(row["kept"] for row in chosen([clip(1, 9), clip(2, 9)], policy(enabled=False)).values())


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_input_changes_nothing(order: list[int]) -> None:
    clips = [clip(n, n % 5, bit_rate=1000 * (n % 3), luma_mean=10.0 * n) for n in range(12)]
    by = policy({"name": "dark", "measure": "luma_mean", "min": 16})
    scores = [score(n, "quality", float(n)) for n in range(12)]
    once = select(to_table("clips", clips), to_table("scores", scores), by)
    again = select(
        to_table("clips", [clips[n] for n in order]), to_table("scores", [scores[n] for n in reversed(order)]), by
    )
    assert once[0].equals(again[0]) and once[1].equals(again[1]) and len(once[1])


bounds = st.none() | st.sampled_from([0.0, 25.0, 50.0])
numbers = st.none() | st.sampled_from([0.0, 12.5, 25.0, 40.0, 60.0])


@given(
    st.lists(st.tuples(numbers, st.sampled_from(["pan", "shake", None])), min_size=1, max_size=6),
    bounds,
    bounds,
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_columns_and_single_verdicts_agree(
    rows: list[tuple[float | None, str | None]], low: float | None, high: float | None, keeps: bool
) -> None:
    rules = (
        Rule(name="bright", measure="luma_mean", min=low, max=high, missing="keep" if keeps else "drop"),
        Rule(name="steady", measure="camera", not_among=("shake",), missing="keep" if keeps else "drop"),
        Rule(name="listed", measure="sharpness", among=(25.0, 40.0)),
    )
    by = Policy(name="p", rules=rules)
    clips = [clip(n, luma_mean=mean, camera=camera, sharpness=mean) for n, (mean, camera) in enumerate(rows)]
    selected = chosen(clips, by)
    for number, row in enumerate(clips):
        first = next((rule for rule in rules if not rule.passes(row[rule.measure])), None)
        found = selected[number]
        assert (found["kept"] or found["stage"] == "duplicates") == (first is None)
        if first is not None:
            broken = None if isinstance(row[first.measure], str) else first.broken(row[first.measure])
            assert (found["rule"], found["limit"]) == (first.name, broken)


values = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0]) | st.floats(-5, 5, width=32) | st.none()


@given(st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=24), st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0]),
       st.booleans(), st.booleans(), st.randoms())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_share_keeps_exactly_that_many_of_those_that_came_so_far_whatever_the_order(
    rows: list[tuple[float | None, bool]], share: float, highest: bool, keeps: bool, dice: Any
) -> None:
    first = {"name": "still", "measure": "still_picture", "in": [False]}
    rule = {"name": "best", "measure": "quality", "keep_highest" if highest else "keep_lowest": share}
    by = policy(first, rule | {"missing": "keep" if keeps else "drop"}, enabled=False)
    clips = [clip(n, still_picture=still) for n, (_, still) in enumerate(rows)]
    scores = [score(n, "quality", value) for n, (value, _) in enumerate(rows)]
    dice.shuffle(clips)
    dice.shuffle(scores)
    found = chosen(clips, by, to_table("scores", scores))
    ranked = sorted(
        (-value if highest else value, n) for n, (value, still) in enumerate(rows) if value is not None and not still
    )
    best = [n for _, n in ranked[: math.ceil(Fraction(str(share)) * len(ranked))]]
    unmeasured = [n for n, (value, still) in enumerate(rows) if value is None and not still]
    assert [n for n, row in sorted(found.items()) if row["kept"]] == sorted([*best, *(unmeasured if keeps else [])])
    for _, n in ranked[len(best) :]:
        row = found[n]
        assert (row["rule"], row["value"], row["limit"]) == ("best", rows[n][0], rows[best[-1]][0])
        assert row["detail"] == f"not among the {len(best)} {'highest' if highest else 'lowest'} of {len(ranked)}"
    if not keeps:
        assert all((found[n]["rule"], found[n]["detail"], found[n]["limit"]) == ("best", "not measured", None)
                   for n in unmeasured)  # fmt: skip


def test_an_unknown_measure_is_refused_with_the_measures_that_there_are() -> None:
    with pytest.raises(MissingMeasure, match=r"there is no such measure: measures here are .*luma_mean.*quality"):
        chosen([clip(1)], policy({"name": "a", "measure": "brightness", "min": 5}),
               to_table("scores", [score(1, "quality", 1.0)]))  # fmt: skip


def test_a_measure_whose_model_is_missing_names_the_model_and_the_command() -> None:
    with pytest.raises(MissingMeasure, match=r"rushes curate --out RUN --score\.scorers.*LAION's linear head"):
        chosen([clip(1)], policy({"name": "a", "measure": "aesthetic", "min": 5}))


def test_a_policy_is_found_by_preset_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nrules: [{name: dark, measure: luma_mean, min: 3}]\n")
    assert read_policy(str(tmp_path / "mine.yaml")).rules[0].min == 3
    assert read_policy("default").name == "default"
    (tmp_path / "bad.yaml").write_text("name: bad\nrules: [{name: dark, measure: luma_mean}]\n")
    with pytest.raises(PolicyError, match=r"bad\.yaml: rule 1 \(dark\) sets no limit"):
        read_policy(str(tmp_path / "bad.yaml"))
    (tmp_path / "torn.yaml").write_text("name: torn\nrules:\n  - {name: dark\n")
    with pytest.raises(PolicyError, match=r"torn\.yaml:4:1: the policy is not valid YAML \([^\n]*\)$"):
        read_policy(str(tmp_path / "torn.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(PolicyError, match=r"latin\.yaml is not UTF-8"):
        read_policy(str(tmp_path / "latin.yaml"))
    with pytest.raises(PolicyError, match="there is no preset 'mine'"):
        read_policy("mine")
    with pytest.raises(PolicyError, match="there is no policy file"):
        read_policy(str(tmp_path / "other.yaml"))
