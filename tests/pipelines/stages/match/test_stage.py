"""Which clips resemble which is measured once: whatever came when, and whatever a policy asks of it later."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.duplicates import DuplicateRules, compare, decide, same_alignment
from rushes.pipelines.cli.main import main
from rushes.pipelines.stages.match import match, stage
from rushes.pipelines.stages.match.clips import FLOOR
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.store.columns import hash_sequences
from rushes.pipelines.store.ledger import Ledger, to_table
from tests.filters.conftest import encoded, shot
from tests.pipelines.clip_rows import clip, matched

UNITS = ("w0000-00000", "w0000-00001", "w0001-00000")


def bits(values: np.ndarray) -> list[int]:
    return [int(value) for value in values]


def material() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of clips and sketches: copies, excerpts, a faster copy, takes of one source, still cards, flat pictures."""
    film, slow, card = shot(1, 60), shot(2, 72, swaps=2), np.repeat(shot(3, 1), 24)
    faster = slow[np.rint(np.arange(60) * 1.2).astype(int)]
    logo = np.bitwise_or.reduce(np.uint64(1) << np.arange(0, 64, 30, dtype=np.uint64))
    shown: list[tuple[np.ndarray, dict[str, Any]]] = [
        (film, {}),
        (encoded(film, 1), {"width": 1280, "height": 720}),
        (encoded(film, 2) ^ logo, {}),
        (encoded(film[20:40], 3), {}),
        (encoded(film[30:60], 4), {}),
        (slow, {}),
        (encoded(faster, 5), {}),
        (card, {}),
        (card, {}),
        (card ^ np.uint64(1), {}),
        (shot(7, 30), {"source_id": "one"}),
        (encoded(shot(7, 30), 6), {"source_id": "one"}),
        (shot(8, 30), {"luma_std": FLOOR / 2}),
        (shot(8, 30), {"luma_std": FLOOR / 2}),
        (shot(9, 30), {"luma_std": 2 * FLOOR}),
        (shot(9, 30), {"luma_std": 2 * FLOOR}),
        *((shot(100 + n, 30), {}) for n in range(8)),
    ]
    rows = [clip(n, phash=bits(values), duration_s=len(values) / 6, **facts) for n, (values, facts) in enumerate(shown)]
    dice = np.random.default_rng(0)
    paper = dice.integers(0, 256, (64, 64), dtype=np.uint8)
    other = paper.copy()
    other[20:28, 20:28] = 255 - other[20:28, 20:28]
    pictures = {7: paper, 8: paper, 9: other}
    sketches = [{"key": row["key"], "bands": [], "picture": pictures[n].tobytes() if n in pictures else None}
                for n, row in enumerate(rows)]  # fmt: skip
    return rows, sketches


CLIPS, SKETCHES = material()


def ledger(folder: Path, split: dict[str, list[int]]) -> Ledger:
    made = Ledger(str(folder))
    made.create()
    for unit, numbers in split.items():
        add(made, unit, numbers)
    return made


def add(made: Ledger, unit: str, numbers: list[int], print_: str = "c" * 12) -> None:
    for table in ("plan", "units"):
        made.write(table, unit, [{"unit": unit}], print_)
    made.write("sources", unit, [], print_)
    made.write("scores", unit, [], print_)
    made.write("sketches", unit, [SKETCHES[n] for n in numbers], print_)
    made.write("clips", unit, [CLIPS[n] | {"unit": unit} for n in numbers], print_)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    made = ledger(tmp_path_factory.mktemp("whole"), {UNITS[0]: list(range(len(CLIPS)))})
    stage.run(made)
    return made


def couples(table: pa.Table) -> set[tuple[int, int]]:
    return {
        (int(a[:16], 16), int(b[:16], 16)) for a, b in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    }


def test_groups_are_complete_and_what_has_no_contrast_is_compared_with_nothing(whole: Ledger) -> None:
    found = couples(whole.read("matches"))
    assert set(itertools.combinations(range(5), 2)) <= found, "copies and excerpts of one film, all with all"
    assert {(5, 6), (7, 8), (7, 9), (8, 9), (10, 11), (14, 15)} <= found and (12, 13) not in found


def test_only_what_can_be_compared_has_a_difference_of_pictures(whole: Ledger) -> None:
    rows = {(int(row["a"][:16], 16), int(row["b"][:16], 16)): row for row in whole.read("matches").to_pylist()}
    assert rows[7, 8]["unlike"] == 0 and rows[7, 9]["unlike"] > 1 and rows[0, 1]["unlike"] is None
    assert rows[5, 6]["timed_speed"] == pytest.approx(1.2, rel=0.02) and rows[0, 1]["timed_speed"] is None
    assert rows[10, 11]["same_source"] and not rows[0, 1]["same_source"]


@given(st.permutations(range(len(CLIPS))), st.integers(1, len(CLIPS) - 1))
@settings(max_examples=10, deadline=None)
def test_the_order_of_clips_and_where_their_units_end_change_nothing(order: list[int], cut: int) -> None:
    clips, sketches = (
        to_table("clips", [CLIPS[n] for n in order]),
        to_table("sketches", [SKETCHES[n] for n in order[::-1]]),
    )
    pieces = pa.concat_tables([clips.slice(0, cut), clips.slice(cut)])
    once = matched(to_table("clips", CLIPS), to_table("sketches", SKETCHES))
    assert matched(pieces, sketches).equals(once) and len(once)


@given(st.permutations(range(len(CLIPS))), st.lists(st.integers(1, len(CLIPS) - 1), min_size=2, max_size=2))
@settings(max_examples=8, deadline=None)
def test_what_came_in_little_by_little_equals_one_run_over_everything(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    low, high = sorted(cuts)
    split = dict(zip(UNITS, (order[:low], order[low:high], order[high:]), strict=True))
    grown = ledger(tmp_path_factory.mktemp("grown"), {})
    found, known = (0, 0), 0
    for unit, numbers in split.items():
        add(grown, unit, numbers)
        before = grown.read("matches").select(["a", "b"]).to_pylist()
        found = stage.run(grown)
        after = grown.read("matches").select(["a", "b"]).to_pylist()
        known = sum(row in before for row in after)
        assert found == (len(after), len(after) - known), "what was aligned before is not aligned again"
    at_once = ledger(tmp_path_factory.mktemp("at-once"), split)
    assert stage.run(at_once) == (found[0], found[0])
    assert grown.read("matches").equals(at_once.read("matches"))
    assert [part.uri.rsplit("/", 1)[-1] for part in grown.parts("matches")] == [
        f"part-all.{stage.print_of(at_once)}.parquet"
    ]


def test_a_run_whose_matches_are_current_is_left_alone(tmp_path: Path) -> None:
    made = ledger(tmp_path, {UNITS[0]: list(range(12)), UNITS[1]: list(range(12, len(CLIPS)))})
    said: list[str] = []
    count, new = stage.run(made, said.append)
    assert count == new > 10 and said
    (file,) = (tmp_path / "ledger" / "matches").iterdir()
    at = file.stat().st_mtime_ns
    assert stage.run(made, said.append) == (count, 0) and file.stat().st_mtime_ns == at


def test_a_clip_of_the_same_key_that_is_another_is_measured_anew_and_one_that_is_gone_has_no_couples(
    tmp_path: Path,
) -> None:
    made = ledger(tmp_path, {UNITS[0]: [0, 1, 5, 6], UNITS[1]: [4, 3]})
    stage.run(made)
    assert {(0, 1), (0, 3), (0, 4), (1, 3), (5, 6)} <= couples(made.read("matches"))
    other = [CLIPS[4] | {"unit": UNITS[1], "phash": bits(shot(50, 30))}, CLIPS[3] | {"unit": UNITS[1]}]
    made.write("clips", UNITS[1], other, "d" * 12)
    _, new = stage.run(made)
    assert couples(made.read("matches")) == {(0, 1), (0, 3), (1, 3), (5, 6)} and new == 2
    for table in ("clips", "sketches", "scores", "plan", "units", "sources"):
        made.remove(table, UNITS[1])
    assert stage.run(made) == (2, 0) and couples(made.read("matches")) == {(0, 1), (5, 6)}


def test_a_unit_that_failed_and_was_made_again_under_the_same_fingerprint_is_looked_at_again(tmp_path: Path) -> None:
    made = ledger(tmp_path, {UNITS[0]: [0, 1, 5], UNITS[1]: [6]})
    stage.run(made)
    made.outdate("matches", made.parts("matches")[0])  # as `curate --retry-failed` does
    made.write("clips", UNITS[1], [CLIPS[6] | {"unit": UNITS[1], "phash": CLIPS[0]["phash"]}], "c" * 12)
    assert stage.run(made) == (3, 2) and couples(made.read("matches")) == {(0, 1), (0, 6), (1, 6)}
    assert stage.is_current(made)


limits = {
    "min_accord": st.floats(0, 1), "base_bits": st.floats(0, 16), "motion_share": st.floats(0, 2),
    "standing_bits": st.floats(0, 24), "max_unlike": st.floats(0, 3),
}  # fmt: skip
aligned = {"min_ticks": st.integers(1, 12), "min_overlap": st.floats(0.3, 1), "max_speed": st.floats(1, 1.5)}


@given(st.fixed_dictionaries({}, optional=limits | aligned))
@settings(max_examples=80, deadline=None)
def test_the_limits_of_any_policy_over_the_table_equal_comparing_by_its_rules(
    whole: Ledger, given_: dict[str, Any]
) -> None:
    rules = DuplicateRules(**given_)
    table = stage.read(whole, rules)
    assert same_alignment(rules, match.DEFAULTS) or set(given_) & set(aligned)
    pairs = np.array(sorted(couples(table)))
    sources = [row["source_id"] for row in CLIPS]
    same = np.array([sources[a] == sources[b] for a, b in pairs.tolist()])
    clips = to_table("clips", CLIPS)
    direct = compare(hash_sequences(clips, np.ones(len(CLIPS), bool)), pairs, same, rules)
    found = decide(match.measured(table), rules)
    assert found.by_clips(pairs) == direct
    unlike = dict(zip(map(tuple, pairs.tolist()), match.unlike(table).tolist(), strict=True))
    proven = {pair for pair, one in direct.items() if not one.still or unlike[pair] <= rules.max_unlike}
    assert set(found.proven(match.unlike(table), rules.max_unlike).by_clips(pairs)) == proven


def test_a_selection_and_its_dry_run_need_the_matches_and_no_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = ledger(tmp_path / "run", {UNITS[0]: list(range(len(CLIPS)))})
    (tmp_path / "p.yaml").write_text("name: p\n")
    command = ["select", "--out", made.run, "--policy", str(tmp_path / "p.yaml")]
    before = sorted(file for file in tmp_path.rglob("*"))
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "finding which clips resemble which; nothing is kept of it" in caplog.text
    assert sorted(file for file in tmp_path.rglob("*")) == before
    caplog.clear()
    assert main(command) == 0 and stage.is_current(made)
    assert "match     finding which clips resemble which" in caplog.text
    assert not {"phash", "phash_s"} & set(select.columns(select.read_policy(str(tmp_path / "p.yaml"))))
    caplog.clear()
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0 and not caplog.text
    again = capsys.readouterr().out
    assert told.split("\n")[1:6] == again.split("\n")[1:6] and "− duplicate" in again
    assert selections.make(made.run, str(tmp_path / "p.yaml"))["duplicates"] == 7


def test_a_policy_that_seeks_no_duplicates_needs_no_matches(tmp_path: Path) -> None:
    made = ledger(tmp_path / "run", {UNITS[0]: [0, 1]})
    (tmp_path / "p.yaml").write_text("name: p\ndedup: {enabled: false}\n")
    assert selections.make(made.run, str(tmp_path / "p.yaml"))["kept"] == 2 and not made.parts("matches")
