"""What is taken down is content, whatever it is called, and stays so until it is given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.takedowns import Down, Entry

A, B, C = ("a" * 16, "b" * 16, "c" * 16)
WHEN = "2026-11-29"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Two films, one of them under two names, and a clip of each."""
    found = Ledger(str(tmp_path / "run"))
    found.create()
    sources = [_source(A, "/a.mp4", full="1" * 64), _source(A, "/again.mp4"), _source(B, "s3://films/b.mp4")]
    found.write("sources", "w0000-00000", sources, "0" * 12)
    clips = [{"key": f"{B}-000002000", "source_id": B, "start_s": 2.0, "end_s": 5.5}]
    found.write("clips", "w0000-00000-000", clips, "0" * 12)
    return found


def _source(source_id: str, uri: str, full: str | None = None) -> dict[str, Any]:
    return {"source_id": source_id, "uri": uri, "wave": 0, "unit": "w0000-00000", "digest": source_id * 4,
            "digest_full": full}  # fmt: skip


def down(ledger: Ledger, *names: str) -> Down:
    rows = takedowns.noted([], [Entry(named=name) for name in names], WHEN)
    return takedowns.now(takedowns.resolved(ledger, rows))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(A, "source"), (A * 4, "digest"), (f"{A}-000001000", "clip"), ("/a.mp4", "uri"), ("s3://films/" + A, "uri"),
     (A.upper(), "uri")],
)  # fmt: skip
def test_a_name_tells_what_it_is(name: str, kind: str) -> None:
    assert takedowns.kind_of(name) == kind


@pytest.mark.parametrize("name", [A, A * 4, "1" * 64, "/a.mp4", "/again.mp4"])
def test_a_film_is_found_by_each_of_its_names_and_is_its_content(ledger: Ledger, name: str) -> None:
    assert down(ledger, name) == Down(sources=frozenset({A}))


def test_a_clip_is_a_stretch_of_its_source_and_the_sources_other_clips_stay(ledger: Ledger) -> None:
    found = down(ledger, f"{B}-000002000")
    assert found == Down(stretches={B: ((2.0, 5.5),)})
    keys = pa.array([f"{B}-000000000", f"{B}-000002000", f"{B}-000005499", f"{B}-000005500", f"{A}-000002000"])
    assert found.keys(keys).to_pylist() == [False, True, True, False, False]


def test_a_source_that_is_taken_down_whole_has_no_clips_of_its_own_besides(ledger: Ledger) -> None:
    assert down(ledger, f"{B}-000002000", B) == Down(sources=frozenset({B}))


def test_what_matches_nothing_binds_what_comes_in_later_under_whatever_name(ledger: Ledger) -> None:
    names = (C, C * 4, "/later.mp4", f"{C}-000001000")
    rows = takedowns.resolved(ledger, takedowns.noted([], [Entry(named=name) for name in names], WHEN))
    assert [row["uri"] for row in rows] == [None] * 4
    ledger.write("sources", "w0001-00000", [_source(C, "/later.mp4"), _source(B, "/b-again.mp4")], "0" * 12)
    rows = takedowns.resolved(ledger, rows)
    assert {row["named"]: (row["source_id"], row["uri"]) for row in rows} == dict.fromkeys(names, (C, "/later.mp4"))
    assert takedowns.now(rows).sources == {C}


def test_a_uri_that_holds_other_footage_now_is_taken_down_with_both(ledger: Ledger) -> None:
    rows = takedowns.resolved(ledger, takedowns.noted([], [Entry(named="/again.mp4")], WHEN))
    ledger.write("sources", "w0000-00000", [_source(A, "/a.mp4"), _source(C, "/again.mp4")], "0" * 12)
    assert takedowns.now(takedowns.resolved(ledger, rows)).sources == {A, C}


def test_what_stands_keeps_its_date_and_its_reason_and_what_is_withdrawn_can_be_named_again(ledger: Ledger) -> None:
    rows = takedowns.noted([], [Entry(named=A, reason="asked for")], WHEN)
    assert takedowns.noted(rows, [Entry(named=A, reason="again")], "2027-01-01") == rows
    rows, unknown = takedowns.withdrawn(takedowns.resolved(ledger, rows), [A, B], "2027-02-02")
    assert unknown == [B] and not takedowns.now(rows)
    rows = takedowns.resolved(ledger, takedowns.noted(rows, [Entry(named=A)], "2027-03-03"))
    assert [(row["since"], row["until"]) for row in takedowns.ordered(rows)] == [
        (WHEN, "2027-02-02"),
        ("2027-03-03", None),
    ]
    assert takedowns.now(rows).sources == {A}


def test_another_name_that_still_stands_keeps_a_film_down(ledger: Ledger) -> None:
    rows = takedowns.noted([], [Entry(named=A), Entry(named="/a.mp4")], WHEN)
    rows, _ = takedowns.withdrawn(takedowns.resolved(ledger, rows), [A], WHEN)
    assert takedowns.now(rows).sources == {A}


def test_what_is_written_is_read_again_in_one_order(ledger: Ledger) -> None:
    rows = takedowns.noted([], [Entry(named=name) for name in (B, "/a.mp4", A)], WHEN)
    takedowns.write(ledger, takedowns.ordered(rows))
    assert takedowns.read(ledger) == takedowns.ordered(reversed(rows))
    takedowns.write(ledger, takedowns.ordered(takedowns.applied(rows)))
    assert len(ledger.parts("takedowns")) == 1, "the table is replaced"
    assert takedowns.before(takedowns.read(ledger)).sources == {A, B}


def test_clips_found_by_other_settings_go_if_they_show_anything_of_it() -> None:
    clips = [{"key": f"{B}-{start:09d}", "source_id": B, "uri": "b", "start_s": start / 1000, "end_s": start / 1000 + 2}
             for start in (0, 2000, 4000, 6000)]  # fmt: skip
    stay, gone = takedowns.apart(clips, [[2.0, 4.5]])
    assert [clip["start_s"] for clip in stay] == [0.0, 6.0]
    assert [(row["start_s"], row["reason"]) for row in takedowns.trims(gone)] == [(2.0, "takedown"), (4.0, "takedown")]
