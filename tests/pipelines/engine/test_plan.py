"""Units of work: about ten minutes of footage each, the same ones whatever the order of inputs. No Ray, no video."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rushes.pipelines.config import InputConfig, ScanConfig
from rushes.pipelines.engine import plan
from rushes.pipelines.engine.plan import UNIT_S, WorkUnit
from rushes.pipelines.stages.scan.stage import chunk_of, spans_of
from rushes.pipelines.store.ledger import Ledger

SCAN = ScanConfig(span_s=60.0)
PROBED = "s" * 12
Films = Mapping[str, tuple[str, float]]
"""By URI what is in a film, two films with the same being copies, and its seconds."""


def add(ledger: Ledger, films: Films, order: Iterable[str] = (), per_unit: int = 256) -> None:
    """Add films to a run, in some order, and probe them; so many stand in a unit of probing."""
    rows = [{"uri": uri} for uri in order or films]
    config = InputConfig(units_per_wave=-(-len(films) // per_unit))
    plan.add_inputs(ledger, rows, config, lambda uri: True)
    probe(ledger, films)


def probe(ledger: Ledger, films: Films) -> None:
    """Write the sources of all units that have one of these films, as probing does."""
    for unit in plan.probed_units(ledger):
        rows = [row for row in ledger.read("plan").to_pylist() if row["unit"] == unit]
        if any(row["uri"] in films for row in rows):
            facts = [(row["uri"], *films[row["uri"]]) for row in rows if row["uri"] in films]
            found = [
                {"uri": uri, "source_id": content, "duration_s": seconds, "unit": unit, "wave": int(unit[1:5])}
                for uri, content, seconds in facts
            ]
            ledger.write("sources", unit, found, PROBED)


def films(*seconds: float, start: int = 0) -> dict[str, tuple[str, float]]:
    """Films of so many seconds, no two alike, in the order of their names."""
    return {f"{n:03d}.mp4": (f"content {n}", length) for n, length in enumerate(seconds, start)}


def units(ledger: Ledger, scan: ScanConfig = SCAN) -> list[WorkUnit]:
    """Plan the units as a run does, of one listing."""
    return plan.work_units(ledger.snapshot(), scan, PROBED)


def mended(ledger: Ledger, now: Films) -> None:
    """Probe films anew and let the units count as not planned, as --retry-failed does."""
    probe(ledger, now)
    for part in ledger.parts("units"):
        ledger.outdate("units", part)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(str(tmp_path / "run"))
    made.create()
    return made


@given(st.lists(st.floats(0.0, 2500.0), min_size=1, max_size=24))
@example([5e-324])
@settings(max_examples=25, deadline=None)
def test_units_share_no_source_lose_none_and_hold_ten_minutes_at_most_unless_one_film_is_longer(
    seconds: list[float],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(folder)
        add(ledger, films(*seconds), per_unit=10)
        found = units(ledger)
        assert [uri for unit in found for uri in unit.uris] == list(films(*seconds))
        assert all(unit.seconds <= UNIT_S or len(unit.uris) == 1 for unit in found)
        assert [unit.seconds for unit in found] == pytest.approx(
            [sum(seconds[int(uri[:3])] for uri in unit.uris) for unit in found]
        )
        for one, two in pairwise(found):  # no unit is cut short without need
            if one.probed_in == two.probed_in:
                assert one.seconds + seconds[int(two.uris[0][:3])] > UNIT_S
        assert [unit.name for unit in found] == sorted({unit.name for unit in found})
        assert all(unit.name.startswith(f"{unit.probed_in}-") for unit in found)


def test_short_films_are_gathered_and_a_long_one_stands_alone_and_is_scanned_in_chunks(ledger: Ledger) -> None:
    add(ledger, films(200, 300, 200, 2990, 30))
    found = units(ledger)
    assert [(unit.name, unit.uris, unit.chunks) for unit in found] == [
        ("w0000-00000-000", ["000.mp4", "001.mp4"], 1),
        ("w0000-00000-001", ["002.mp4"], 1),
        ("w0000-00000-002", ["003.mp4"], 5),
        ("w0000-00000-003", ["004.mp4"], 1),
    ]
    spans = spans_of([{"uri": "003.mp4", "duration_s": 2990.0}], SCAN)
    chunks = [chunk_of(spans, {"chunks": 5, "chunk": chunk}) for chunk in range(5)]
    assert [span for chunk in chunks for span in chunk] == spans and len(spans) == 50
    assert all(len(chunk) * SCAN.span_s <= UNIT_S for chunk in chunks)


def test_a_film_of_one_span_is_one_chunk_however_long_units_are(ledger: Ledger) -> None:
    add(ledger, films(850))
    assert [unit.chunks for unit in units(ledger, ScanConfig(span_s=600.0))] == [1]
    assert [unit.chunks for unit in units(ledger)] == [2], "other spans are planned anew"


def test_copies_are_worked_on_once_in_the_wave_that_brought_the_first(ledger: Ledger) -> None:
    add(ledger, {"a.mp4": ("one", 100.0), "b.mp4": ("one", 100.0), "c.mp4": ("two", 50.0)})
    before = units(ledger)
    add(ledger, {"0.mp4": ("two", 50.0), "d.mp4": ("three", 20.0), "e.mp4": ("three", 20.0)})
    after = units(ledger)
    assert [(unit.name, unit.wave, unit.uris) for unit in after] == [
        ("w0000-00000-000", 0, ["a.mp4", "c.mp4"]),
        ("w0001-00000-000", 1, ["d.mp4"]),
    ]
    assert after[:1] == before, "what comes later changes nothing of what was there"


def test_the_units_are_the_same_whatever_order_inputs_came_in(tmp_path: Path) -> None:
    given_films = films(400, 400, 90, 2000, 10, 20, 30)
    found, files = [], []
    for name, order in (("one", sorted(given_films)), ("two", sorted(given_films, reverse=True))):
        ledger = Ledger(str(tmp_path / name))
        add(ledger, given_films, order, per_unit=3)
        found.append(units(ledger))
        files.append({path.name: path.read_bytes() for path in (tmp_path / name / "ledger/units").iterdir()})
    assert found[0] == found[1] and files[0] == files[1] and len(found[0]) > 4


def test_units_that_were_planned_are_read_and_not_written_again(ledger: Ledger) -> None:
    add(ledger, films(400, 400, 90))
    first = units(ledger)
    written = {part.uri: Path(part.uri).stat().st_mtime_ns for part in ledger.parts("units")}
    assert units(ledger) == first and len(written) == 1
    assert {part.uri: Path(part.uri).stat().st_mtime_ns for part in ledger.parts("units")} == written


def test_a_mended_source_changes_no_unit_but_those_of_its_unit_of_probing(ledger: Ledger) -> None:
    there = films(400, 400, 400, 100, 100, 100)
    add(ledger, {uri: fact for uri, fact in there.items() if uri != "001.mp4"} | {"001.mp4": ("", 0.0)}, per_unit=3)
    before = {unit.name: unit for unit in units(ledger)}
    mended(ledger, there)
    after = {unit.name: unit for unit in units(ledger)}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"w0000-00000-000", "w0000-00000-001", "w0000-00000-002"}
    assert after["w0000-00001-000"].uris == ["003.mp4", "004.mp4", "005.mp4"]


def test_a_unit_with_other_footage_of_the_same_length_has_another_fingerprint(ledger: Ledger) -> None:
    add(ledger, films(400, 100))
    [before] = units(ledger)
    mended(ledger, films(400) | {"001.mp4": ("another", 100.0)})
    [after] = units(ledger)
    assert (after.uris, after.seconds) == (before.uris, before.seconds) and after.print != before.print


def test_units_grow_longer_where_they_would_be_too_many(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    add(ledger, films(*[100.0] * 48))
    assert [unit.seconds for unit in units(ledger)] == [600.0] * 8
    for table in ledger.parts("units"):
        ledger.remove("units", table.unit)
    monkeypatch.setattr(plan, "MAX_UNITS", 4)
    assert [unit.seconds for unit in units(ledger)] == [1200.0] * 4
    [length] = set(ledger.read("units", ["unit_s"])["unit_s"].to_pylist())
    assert length == 1200.0


def test_how_long_units_are_stays_as_it_was_once_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    there = films(*[100.0] * 48)
    monkeypatch.setattr(plan, "MAX_UNITS", 4)
    add(ledger, there, per_unit=24)
    before = units(ledger)
    mended(ledger, there | {"000.mp4": ("mended", 9000.0)})  # of so much footage units would be longer
    after = units(ledger)
    own = [unit for unit in after if unit.probed_in == "w0000-00001"]
    assert own == [unit for unit in before if unit.probed_in == "w0000-00001"] and len(own) == 2
    assert (after[0].uris, after[0].chunks) == (["000.mp4"], 8), "a chunk is as long as a unit"
    assert set(ledger.read("units", ["unit_s"])["unit_s"].to_pylist()) == {1200.0}
    add(ledger, films(*[200.0] * 48, start=100))  # a wave of its own tells its own length
    assert {unit.seconds for unit in units(ledger) if unit.wave == 1} == {2400.0}
