"""Every table and column tells what it holds, where people look for it: in the parts, on the terminal, in the docs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.explore import views
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES, told

REPO = Path(__file__).parents[3]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_says_what_it_is_and_every_number_its_unit_or_its_range(table: str) -> None:
    assert TABLES[table].metadata[b"about"]
    for field in TABLES[table]:
        words = told(field)
        assert words["about"] and words["source"] and words["stage"], field.name
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        assert not number or words.get("unit") or words.get("range"), field.name


def test_parts_hold_what_is_told_of_their_columns(undisturbed: str) -> None:
    ledger = Ledger(undisturbed)
    for table in ("clips", "signals", "selection", "encoded"):
        found = pq.read_schema(ledger.parts(table)[0].uri)
        assert {field.name: told(field) for field in found} == {field.name: told(field) for field in TABLES[table]}
        assert found.metadata[b"about"] == TABLES[table].metadata[b"about"]
        assert found.metadata[b"rushes.table"] == table.encode()


def test_views_have_the_columns_that_are_told_and_no_other(undisturbed: str) -> None:
    books = views.opened(undisturbed)
    for name in views.ABOUT:
        found = books.connection.execute(f"select * from {name} limit 0").description
        named = {column[0] for column in found or ()} - set(views.scorers(books))
        assert named == {column for column in views.columns(name) if "…" not in column}


def test_the_page_of_the_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--page"]) == 0
    shown = capsys.readouterr().out
    assert (REPO / "pipelines/ledger.md").read_text() == shown, "rushes schema --page > pipelines/ledger.md"


def test_a_table_is_told_in_lines_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "clips"]) == 0
    said = capsys.readouterr().out
    assert "frame widths a second" in said and "written by shots" in said and "packed" not in said
    assert main(["schema", "clips", "clips_all", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert [table["kind"] for table in tables] == ["table", "view"]
    motion = next(column for column in tables[0]["columns"] if column["name"] == "motion")
    assert (motion["type"], motion["unit"], motion["range"]) == ("float", "frame widths a second", "0 or more")
    assert main(["schema", "clisp"]) == 2 and "there is no table clisp; there are plan" in capsys.readouterr().err


def test_the_schema_of_a_scorer_that_ran_is_a_column_of_clips_all(undisturbed: str) -> None:
    books = views.opened(undisturbed)
    assert views.scorers(books) == ["quality"]
    books.connection.execute("select quality from clips_all")
