"""The account of a run: every second once, whatever happened to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.policy import RESERVED
from rushes.pipelines.report import facts, rights, summary
from rushes.pipelines.report.accounting import (
    EXACT_DUPLICATE,
    FATES,
    AccountingError,
    account,
    open_books,
)
from rushes.pipelines.store.ledger import Ledger


def _run(folder: Path, **tables: list[dict[str, Any]]) -> str:
    ledger = Ledger(str(folder))
    ledger.create()
    for table, rows in tables.items():
        ledger.write(table, "w0-0000", rows, "0" * 12)
    return str(folder)


def _source(name: str, seconds: float, uri: str | None = None, unit: str = "w0-0000") -> dict[str, Any]:
    return {"source_id": name * 16, "uri": uri or f"{name}.mp4", "wave": 0, "unit": unit, "duration_s": seconds}


def _clip(name: str, start_s: float, end_s: float) -> dict[str, Any]:
    key = f"{name * 16}-{round(start_s * 1000):09d}"
    return {"key": key, "source_id": name * 16, "start_s": start_s, "end_s": end_s, "duration_s": end_s - start_s}


def _verdict(name: str, start_s: float, rule: str | None = None, policy: str = "default") -> dict[str, Any]:
    return {"key": f"{name * 16}-{round(start_s * 1000):09d}", "policy": policy, "kept": rule is None, "rule": rule}


def _lines(run: str, policy: str | None = None) -> dict[tuple[str, str], float]:
    return {(e.fate, e.reason): pytest.approx(e.seconds) for e in account(run, policy).entries}


def test_every_fate_is_counted_once_and_sums_to_the_input(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 10), _source("b", 8)],
        signals=[{"source_id": "a" * 16, "covered_s": 10.0}, {"source_id": "b" * 16, "covered_s": 5.0}],
        clips=[_clip("a", 0, 6), _clip("a", 6, 9.5), _clip("b", 0, 5)],
        trims=[{"source_id": "a" * 16, "start_s": 9.5, "end_s": 10.0, "reason": "too_short"}],
        selection=[_verdict("a", 0), _verdict("a", 6, "too_dark"), _verdict("b", 0)],
        errors=[
            {"stage": "scan", "uri": "b.mp4", "source_id": "b" * 16, "seconds": 3.0, "code": "truncated"},
            {"stage": "sources", "uri": "c.mp4", "seconds": 0.0, "code": "empty"},
        ],
    )
    found = account(run)
    found.check()
    assert _lines(run) == {
        ("kept", "kept"): 11.0,
        ("dropped", "too_dark"): 3.5,
        ("trimmed", "too_short"): 0.5,
        ("failed", "truncated"): 3.0,
        ("failed", "empty"): 0.0,
    }
    assert found.input_s == pytest.approx(18.0) == sum(entry.seconds for entry in found.entries)
    assert found.inputs == 3 and found.clips("kept") == 2


def test_a_copy_under_another_name_is_dropped_whole_and_the_first_by_unit_counts(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 4, "second.mp4", unit="w0-0001"), _source("a", 4, "first.mp4")],
        signals=[{"source_id": "a" * 16, "covered_s": 4.0}],
        clips=[_clip("a", 0, 4)],
        selection=[_verdict("a", 0)],
    )
    assert _lines(run) == {("kept", "kept"): 4.0, ("dropped", "exact_duplicate"): 4.0}
    query = "select uri, fate::varchar from lines join inputs using (input) order by uri"
    assert open_books(run).connection.execute(query).fetchall() == [("first.mp4", "kept"), ("second.mp4", "dropped")]
    account(run).check()


def test_a_kept_clip_that_could_not_be_encoded_is_failed_not_kept(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 4)],
        signals=[{"source_id": "a" * 16, "covered_s": 4.0}],
        clips=[_clip("a", 0, 4)],
        selection=[_verdict("a", 0)],
        errors=[{"stage": "pack", "uri": "a.mp4", "key": f"{'a' * 16}-000000000", "seconds": 4.0, "code": "encoder"}],
    )
    assert _lines(run) == {("failed", "encoder"): 4.0}
    account(run).check()


def test_a_source_that_failed_before_its_first_picture_is_lost_whole(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 7)],
        errors=[{"stage": "scan", "uri": "a.mp4", "source_id": "a" * 16, "seconds": 0.0, "code": "unreadable"}],
    )
    assert _lines(run) == {("failed", "unreadable"): 7.0}
    account(run).check()


def test_what_is_still_to_come_is_pending_by_stage(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        plan=[{"uri": uri} for uri in ("a.mp4", "b.mp4", "c.mp4", "d.mp4")],
        sources=[_source("a", 4), _source("b", 5), _source("c", 6)],
        signals=[{"source_id": "a" * 16, "covered_s": 4.0}, {"source_id": "b" * 16, "covered_s": 5.0}],
        clips=[_clip("a", 0, 4)],
    )
    assert _lines(run) == {
        ("pending", "select"): 4.0,
        ("pending", "shots"): 5.0,
        ("pending", "scan"): 6.0,
        ("pending", "probe"): 0.0,
    }
    account(run).check()
    assert account(run).inputs == 4


def test_a_run_that_has_not_begun_has_an_empty_account(tmp_path: Path) -> None:
    found = account(_run(tmp_path))
    assert found.entries == [] and found.input_s == 0 and found.policy is None
    found.check()


def _odd(folder: Path, last_s: float) -> str:
    """A run of two sources of ten seconds, the second of which is tiled up to another second than its last."""
    return _run(
        folder,
        sources=[_source("a", 10), _source("b", 10)],
        signals=[{"source_id": name * 16, "covered_s": 10.0} for name in "ab"],
        clips=[_clip("a", 0, 10), _clip("b", 0, last_s)],
        selection=[_verdict("a", 0), _verdict("b", 0)],
    )


@pytest.mark.parametrize(
    ("last_s", "code", "said"), [(9.0, "unaccounted", "neither in"), (10.5, "counted_twice", "are counted twice")]
)
def test_seconds_that_do_not_add_up_are_a_failure_of_their_source_and_the_sum_stands(
    tmp_path: Path, last_s: float, code: str, said: str
) -> None:
    run = _odd(tmp_path, last_s)
    found = account(run)
    missing = 10 - last_s
    assert _lines(run) == {("kept", "kept"): 10.0 + last_s, ("failed", code): missing}
    assert sum(entry.seconds for entry in found.entries) == pytest.approx(found.input_s) == 20.0
    assert [(one.uri, one.code) for one in found.unexplained] == [("b.mp4", code)] and said in found.unexplained[
        0
    ].reason
    assert found.unexplained_s == pytest.approx(abs(missing)) and found.unexplained_sources == 1
    with pytest.raises(AccountingError, match=re.escape(f"b.mp4 ({missing:+.3f} s)")):
        found.check()


def test_a_missing_second_of_one_source_is_not_evened_out_by_one_that_another_counts_twice(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 10), _source("b", 10)],
        signals=[{"source_id": name * 16, "covered_s": 10.0} for name in "ab"],
        clips=[_clip("a", 0, 9), _clip("b", 0, 11)],
    )
    assert _lines(run) == {
        ("pending", "select"): 20.0, ("failed", "unaccounted"): 1.0, ("failed", "counted_twice"): -1.0,
    }  # fmt: skip
    assert account(run).unexplained_s == pytest.approx(2.0)


def test_a_summary_names_what_does_not_add_up_among_the_failures(tmp_path: Path) -> None:
    found = summary.of(_odd(tmp_path, 9.0))
    assert found["failed"] == 1 and found["unexplained_s"] == 1.0
    (row,) = found["failures"]
    assert (row["uri"], row["stage"], row["code"], row["seconds"]) == ("b.mp4", "account", "unaccounted", 1.0)
    said = "\n".join(summary.lines(found))
    assert "b.mp4: account: unaccounted: 1.000 s of it" in said and "remux" in said


def test_of_many_failures_a_summary_counts_all_and_names_the_first(tmp_path: Path) -> None:
    lost = [{"stage": "sources", "uri": f"{n:04d}.mp4", "seconds": 0.0, "code": "empty"} for n in range(1200)]
    found = summary.of(_run(tmp_path, plan=[{"uri": row["uri"]} for row in lost], errors=lost))
    assert found["failed"] == 1200 == account(str(tmp_path)).inputs
    assert len(found["failures"]) == facts.FAILURES
    assert any("and 1150 more" in line for line in summary.lines(found))


def test_a_source_whose_shots_could_not_be_found_is_lost_once_not_twice(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 10)],
        signals=[{"source_id": "a" * 16, "covered_s": 8.0}],
        errors=[
            {"stage": "scan", "uri": "a.mp4", "source_id": "a" * 16, "seconds": 2.0, "code": "truncated"},
            {"stage": "shots", "uri": "a.mp4", "source_id": "a" * 16, "seconds": 8.0, "code": "KeyError"},
        ],
    )
    assert _lines(run) == {("failed", "truncated"): 2.0, ("failed", "KeyError"): 8.0}
    assert account(run).input_s == 10.0
    account(run).check()


def test_a_header_that_promises_more_than_was_there_or_lost_adds_nothing(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 9)],
        signals=[{"source_id": "a" * 16, "covered_s": 7.0}],
        clips=[_clip("a", 0, 7)],
        errors=[{"stage": "scan", "uri": "a.mp4", "source_id": "a" * 16, "seconds": 0.5, "code": "damaged"}],
    )
    assert account(run).input_s == 7.5
    account(run).check()


def test_each_policy_has_its_own_account(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 4)],
        signals=[{"source_id": "a" * 16, "covered_s": 4.0}],
        clips=[_clip("a", 0, 4)],
        selection=[_verdict("a", 0), _verdict("a", 0, "too_still", policy="strict")],
    )
    assert _lines(run, "strict") == {("dropped", "too_still"): 4.0}
    assert account(run).policy == "default" and account(run).policies == ["default", "strict"]
    (tmp_path / "config.yaml").write_text("select: {policy: policies/strict.yaml}\n")
    assert account(run).policy == "strict"
    with pytest.raises(ValueError, match=r"'lax' has selected nothing.*default, strict"):
        account(run, "lax")


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9000), st.sampled_from(["kept", "dropped", "trimmed", "failed"]),
                  st.sampled_from([True, False, None])),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_any_tiling_of_a_source_sums_to_its_length_under_each_selection(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, str, bool | None]]
) -> None:
    at, clips, selection, trims, errors = 0.0, [], [], [], []
    other: dict[str | None, float] = {}
    for milliseconds, fate, also in parts:  # `also` is what another policy says of a clip, None if it never saw it
        end = at + milliseconds / 1000
        if fate in ("kept", "dropped"):
            clips.append(_clip("a", at, end))
            selection.append(_verdict("a", at, None if fate == "kept" else "too_dark"))
            reason = {True: "kept", False: "too_still", None: "select"}[also]
            other[reason] = other.get(reason, 0.0) + end - at
            if also is not None:
                selection.append(_verdict("a", at, None if also else "too_still", policy="other"))
        elif fate == "trimmed":
            trims.append({"source_id": "a" * 16, "start_s": at, "end_s": end, "reason": "transition"})
        else:
            row = {"uri": "a.mp4", "source_id": "a" * 16, "start_s": at, "seconds": end - at, "code": "damaged"}
            errors.append(row)
        at = end
    covered = at - sum(error["seconds"] for error in errors)
    run = _run(
        tmp_path_factory.mktemp("run"),
        sources=[_source("a", at)],
        signals=[{"source_id": "a" * 16, "covered_s": covered}],
        clips=clips, trims=trims, selection=selection, errors=errors,
    )  # fmt: skip
    found = account(run)
    found.check()
    assert found.input_s == pytest.approx(at)
    if "other" in found.policies:
        second = account(run, "other")
        second.check()
        assert second.input_s == pytest.approx(at)
        assert {e.reason: e.seconds for e in second.entries if e.clips} == pytest.approx(other)
        assert second.seconds("trimmed") == found.seconds("trimmed") and second.seconds("failed") == found.seconds(
            "failed"
        )


def test_no_rule_can_bear_a_name_that_the_account_uses_itself() -> None:
    assert {*FATES, EXACT_DUPLICATE} <= RESERVED


def _taken(name: str, **changes: Any) -> dict[str, Any]:
    return {"named": name * 16, "kind": "source", "source_id": name * 16, "since": "2026-11-29", "dropped": True,
            "applied": True, **changes}  # fmt: skip


def test_what_was_taken_down_is_dropped_for_that_also_its_copies_and_single_clips(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        sources=[_source("a", 4), _source("a", 4, "copy.mp4"), _source("b", 8), _source("c", 3)],
        signals=[{"source_id": "b" * 16, "covered_s": 8.0}],
        clips=[_clip("b", 0, 5)],
        trims=[{"source_id": "b" * 16, "start_s": 5.0, "end_s": 8.0, "reason": "takedown"}],
        selection=[_verdict("b", 0)],
        errors=[{"stage": "plan", "uri": "a.mp4", "seconds": 0.0, "code": "changed"}],
        takedowns=[_taken("a"), _taken("b", kind="clip", key=f"{'b' * 16}-000005000"), _taken("c", applied=False)],
    )
    found = account(run)
    found.check()
    assert _lines(run) == {("kept", "kept"): 5.0, ("dropped", "takedown"): 11.0, ("pending", "scan"): 3.0}
    (down,) = (entry for entry in found.entries if entry.reason == "takedown")
    assert (down.clips, down.sources) == (1, 3)
    stretches = {line.uri: [(s.fate, s.reason, s.start_s, s.end_s) for s in line.stretches]
                 for line in facts.timelines(open_books(run))}  # fmt: skip
    assert ("dropped", "takedown", 5.0, 8.0) in stretches["b.mp4"]
    assert stretches["a.mp4"] == [("dropped", "takedown", 0.0, 4.0)]


def test_footage_is_told_by_licence_and_what_has_none_is_a_row_of_its_own(tmp_path: Path) -> None:
    given = {"a": "CC0-1.0", "b": " ", "c": None, "d": "CC0-1.0"}
    run = _run(
        tmp_path,
        plan=[{"uri": f"{name}.mp4", "licence": licence} for name, licence in given.items()],
        sources=[_source(name, 4) for name in "abc"],
        signals=[{"source_id": name * 16, "covered_s": 4.0} for name in "abc"],
        clips=[_clip("a", 0, 3), _clip("a", 3, 4), _clip("b", 0, 4), _clip("c", 0, 4)],
        selection=[_verdict("a", 0), _verdict("a", 3, "dark"), _verdict("b", 0, "dark"), _verdict("c", 0)],
        errors=[{"stage": "sources", "uri": "d.mp4", "seconds": 0.0, "code": "empty"}],
    )
    found = summary.of(run)
    assert found["licences"] == [
        {"licence": "CC0-1.0", "sources": 2, "seconds": 4.0, "clips": 2, "kept_s": 3.0, "kept_clips": 1,
         "kept_share": 0.75},
        {"licence": None, "sources": 2, "seconds": 8.0, "clips": 2, "kept_s": 4.0, "kept_clips": 1, "kept_share": 0.5},
    ]  # fmt: skip
    text = "\n".join(summary.lines(found))
    assert re.search(r"CC0-1\.0 +4\.000 +2 +1 +75\.0 %\n +not given +8\.000 +2 +1 +50\.0 %", text)


def test_beyond_some_licences_the_rest_is_one_row_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "LICENCES", 2)
    names = "abcde"
    run = _run(
        tmp_path,
        plan=[{"uri": f"{name}.mp4", "licence": None if name == "a" else f"L-{name}"} for name in names],
        sources=[_source(name, 10 - at) for at, name in enumerate(names)],
    )
    found = rights.licences(open_books(run))
    assert [(row["licence"], row["seconds"]) for row in found] == [
        ("L-b", 9.0), ("L-c", 8.0), ("all others", 13.0), (None, 10.0),
    ]  # fmt: skip
