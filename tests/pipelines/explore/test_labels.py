"""What people say of clips stays in the ledger under their names, and cuts and policies are held against it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.engine import removal
from rushes.pipelines.explore import labels
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import Ledger

AT = "2026-11-29T23:59:00+00:00"


@pytest.fixture
def ledger(undisturbed: str, tmp_path: Path) -> Ledger:
    """The ledger of a small run that nobody else looks at."""
    shutil.copytree(undisturbed, tmp_path / "run")
    return Ledger(str(tmp_path / "run"))


def sides(ledger: Ledger) -> tuple[list[str], list[str]]:
    rows = ledger.read("selection").to_pylist()
    return [row["key"] for row in rows if row["kept"]], [row["key"] for row in rows if not row["kept"]]


def test_a_label_is_kept_with_who_and_when_and_can_be_taken_back(ledger: Ledger) -> None:
    key = sides(ledger)[0][0]
    assert labels.put(ledger, key, "keep", "ada", AT) == [{"key": key, "label": "keep", "who": "ada", "said_at": AT}]
    labels.put(ledger, key, "false_cut", "ada", AT)
    found = labels.put(ledger, key, "drop", "ada", AT)
    assert {row["label"] for row in found} == {"drop", "false_cut"}, "drop replaces keep"
    labels.put(ledger, key, "keep", "bob; drop table", AT)
    assert len(ledger.parts("labels")) == 2 and len(labels.of(ledger, key)) == 3
    assert {row["who"] for row in labels.put(ledger, key, "drop", "ada", AT, on=False)} == {"ada", "bob; drop table"}
    for wrong in ("delete", ""):
        with pytest.raises(ValueError, match="labels are keep, drop"):
            labels.put(ledger, key, wrong, "ada", AT)
    with pytest.raises(ValueError, match="of the key of a clip"):
        labels.put(ledger, "../x", "keep", "ada", AT)


def test_precision_and_recall_are_those_that_one_counts_by_hand(ledger: Ledger) -> None:
    kept, dropped = sides(ledger)
    with pytest.raises(ValueError, match="label some in `rushes explore"):
        labels.evaluated(ledger.run)
    for key in kept[:3]:
        labels.put(ledger, key, "keep", "ada", AT)
    labels.put(ledger, kept[3], "drop", "ada", AT)
    labels.put(ledger, dropped[0], "keep", "ada", AT)
    labels.put(ledger, kept[0], "missed_cut", "bob", AT)
    labels.put(ledger, kept[1], "wrong_caption", "bob", AT)
    found = labels.evaluated(ledger.run)
    assert found["clips"] == 5
    assert (found["policy"]["precision"]["right"], found["policy"]["precision"]["of"]) == (3, 4)
    assert (found["policy"]["recall"]["right"], found["policy"]["recall"]["of"]) == (3, 4)
    assert (found["captions"]["right"], found["captions"]["of"]) == (3, 4)
    cuts = found["cuts"]
    assert cuts["precision"]["share"] in (1.0, None) and cuts["recall"]["of"] == cuts["recall"]["right"] + 1
    assert 0 < found["policy"]["recall"]["low"] < 0.75 < found["policy"]["recall"]["high"] < 1
    labels.put(ledger, kept[0], "drop", "bob", AT)
    assert labels.evaluated(ledger.run)["policy"]["people_disagree"] == 1


def test_the_command_tells_them_and_sql_exports_them(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    key = sides(ledger)[0][0]
    assert main(["eval", ledger.run]) == 2 and "label some in `rushes explore" in capsys.readouterr().err
    labels.put(ledger, key, "keep", "ada", AT)
    assert main(["eval", ledger.run]) == 0
    assert "default, precision       1.000  (1 of 1" in capsys.readouterr().out
    assert main(["sql", ledger.run, "select key, label, who from labels", "--csv"]) == 0
    assert capsys.readouterr().out == f"key,label,who\n{key},keep,ada\n"


def test_what_was_said_of_a_clip_leaves_with_it(ledger: Ledger) -> None:
    kept = sides(ledger)[0]
    for key in kept[:2]:
        labels.put(ledger, key, "keep", "ada", AT)
    removal.forget(ledger, takedowns.Down(sources=frozenset({kept[0][:16]}), stretches={}))
    left = ledger.read("labels")["key"].to_pylist()
    assert kept[0] not in left and left == [key for key in kept[:2] if key[:16] != kept[0][:16]]
