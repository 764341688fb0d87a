"""People's own queries: they see all of the ledger, under one selection, and neither read nor write anything else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.explore import shell, views
from rushes.pipelines.explore.queries import QUERIES
from rushes.pipelines.report import accounting
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.small_run import content

EMPTY = ("near", "bias")
"""The small run drops no clip by a number, and its clips have no tags."""


@pytest.fixture(scope="module")
def books(undisturbed: str) -> Books:
    """The books of the small run, sealed."""
    return views.opened(undisturbed)


def rows(books: Books, query: str) -> list[dict]:
    found = shell.asked(books, query)
    assert found is not None
    return list(shell.rows(found))


@pytest.mark.parametrize("name", QUERIES)
def test_every_documented_query_has_an_answer(books: Books, name: str) -> None:
    assert len(QUERIES) == 10
    found = rows(books, name)
    assert found or name in EMPTY, name
    json.dumps(found)


def test_the_views_say_what_account_and_ledger_say(books: Books, undisturbed: str) -> None:
    account = accounting.account(undisturbed)
    funnel = rows(books, "select * from funnel")
    assert sum(row["hours"] for row in funnel) * 3600 == pytest.approx(account.input_s)
    assert {(row["fate"], row["reason"], row["clips"]) for row in funnel} == {
        (entry.fate, entry.reason, entry.clips) for entry in account.entries
    }
    ledger = Ledger(undisturbed)
    clips = rows(books, "select * from clips_all")
    assert sorted(row["key"] for row in clips) == sorted(ledger.read("clips")["key"].to_pylist())
    verdicts = {row["key"]: row for row in ledger.read("selection").to_pylist()}
    values = {row["key"]: row["value"] for row in ledger.read("scores").to_pylist()}
    pairs = {row["key"]: row["kept_key"] for row in ledger.read("pairs").to_pylist() if row["level"] != "bytes"}
    for clip in clips:
        verdict = verdicts[clip["key"]]
        assert (clip["fate"] == "kept") is verdict["kept"] and clip["value"] == verdict["value"]
        assert clip["quality"] == values[clip["key"]] and clip["copy_of"] == pairs.get(clip["key"])
    sources = rows(books, "select * from sources_all")
    assert len(sources) == account.inputs
    assert sum(row["kept_s"] for row in sources) == pytest.approx(account.seconds("kept"))


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_text('/etc/hostname')",
        "select * from glob('/*')",
        "from '{run}/ledger/clips/*.parquet'",
        "copy (select 1) to '{run}/stolen.csv'",
        "copy (select 1) to '{run}/ledger/clips/part-x.0.parquet'",
        "attach '{run}/new.db' as other",
        "install httpfs",
        "set enable_external_access = true",
        "export database '{run}/all'",
        "select * from secret",
    ],
)
def test_a_query_reaches_no_other_file_and_no_variable(books: Books, undisturbed: str, query: str) -> None:
    secret = Ledger(undisturbed).read("clips")  # DuckDB would find it by its name
    before = content(undisturbed, ".")
    with pytest.raises(shell.QueryError, match="tables are plan"):
        shell.show(shell.asked(books, query.format(run=undisturbed)), "text", io.StringIO())
    assert content(undisturbed, ".") == before and len(secret)


def test_rows_come_as_a_table_as_json_and_as_csv(undisturbed: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "select 'a \"b\", <i>c</i>' as text, 1.5 as number, 'x'::blob as bytes, null as nothing, [1, 2] as many"
    assert main(["sql", undisturbed, query, "--json"]) == 0
    row = {"text": 'a "b", <i>c</i>', "number": "1.5", "bytes": "eA==", "nothing": None, "many": [1, 2]}
    assert json.loads(capsys.readouterr().out) == [row]
    assert main(["sql", undisturbed, query, "--csv"]) == 0
    head, values = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head == list(row) and values[:3] == ['a "b", <i>c</i>', "1.5", "eA=="]
    assert main(["sql", undisturbed, "funnel"]) == 0
    assert "kept" in capsys.readouterr().out
    assert main(["sql", undisturbed, "select nothing from clips_all"]) == 2
    said = capsys.readouterr().err
    assert "nothing" in said and "views clips_all, sources_all, funnel" in said


def test_options_may_stand_before_the_query_and_a_name_that_is_mistyped_is_mended(
    undisturbed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "--json", undisturbed, "--selection", "default", "funnel"]) == 0
    assert {row["fate"] for row in json.loads(capsys.readouterr().out)} >= {"kept", "dropped"}
    assert main(["sql", undisturbed, "--selection=default", "--csv", "funnel"]) == 0
    assert capsys.readouterr().out.startswith("fate,reason")
    said = {
        "naer": "did you mean near? queries are funnel, yield",
        "clips_all": "ask `from clips_all`",
        "xyz": "queries",
    }
    for word, remedy in said.items():
        assert main(["sql", undisturbed, word]) == 2
        assert remedy in capsys.readouterr().err


def test_the_shell_takes_statements_and_goes_on_where_it_may(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    typed = io.StringIO("create temp table mine as\n select 41 + 1 as n;\nselect n from mine;\nselect 1 as last")
    assert shell.shell(books, "csv", typed, out)
    assert out.getvalue() == "n\n42\nlast\n1\n"
    assert not shell.shell(books, "csv", io.StringIO("select no from where;\nselect 2 as two;\n.exit\nselect 3;"), out)
    assert out.getvalue().endswith("two\n2\n") and "rushes: error" in capsys.readouterr().err


def test_a_folder_that_is_no_run_and_a_selection_that_is_none_are_named(
    undisturbed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", str(tmp_path), "funnel"]) == 2 and "is no run of rushes" in capsys.readouterr().err
    assert main(["sql", undisturbed, "funnel", "--selection", "other"]) == 2
    assert "selections there: default" in capsys.readouterr().err
