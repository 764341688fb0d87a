"""Several selections beside each other in one ledger, tried and made from the ledger alone. No Ray, no video."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.report import accounting, summary
from rushes.pipelines.stages.select import selections, trial
from rushes.pipelines.stages.select.selections import SelectionError
from rushes.pipelines.store.ledger import Ledger

REPO = Path(__file__).parents[4]
UNITS = ("w0000-00000-000", "w0000-00001-000")
LONG = "name: long\nrules: [{name: too_short, measure: duration_s, min: 3}]\ndedup: {enabled: false}\n"
BEST = "name: long-best\nrules: [{name: best, measure: quality, keep_highest: 0.5}]\ndedup: {enabled: false}\n"
PRETTY = (
    "name: pretty\nrules: [{name: ugly, measure: aesthetic, min: 5}, {name: too_short, measure: duration_s, min: 3}]\n"
    "dedup: {enabled: false}\n"
)


def _key(number: int) -> str:
    return f"{number:016x}-000000000"


def _add(ledger: Ledger, unit: str, numbers: range) -> None:
    """Clips of 1, 2, 3 … seconds, each a source of its own; the quality falls as they grow longer."""
    sources = [
        {"source_id": f"{n:016x}", "uri": f"{n}.mp4", "wave": 0, "unit": unit, "duration_s": n + 1.0} for n in numbers
    ]
    clips = [
        {"key": _key(n), "source_id": f"{n:016x}", "uri": f"{n}.mp4", "unit": unit, "start_s": 0.0, "end_s": n + 1.0,
         "duration_s": n + 1.0, "width": 640, "height": 360, "luma_std": 40.0, "phash": [], "phash_s": []}
        for n in numbers
    ]  # fmt: skip
    tables: dict[str, list[dict[str, Any]]] = {
        "plan": [{"unit": unit, "uri": source["uri"]} for source in sources],
        "sources": sources,
        "units": [{"unit": unit, "uri": source["uri"], "source_id": source["source_id"]} for source in sources],
        "signals": [{"source_id": source["source_id"], "covered_s": source["duration_s"]} for source in sources],
        "clips": clips,
        "scores": [{"key": _key(n), "scorer": "quality", "model": "m", "value": 100.0 - n} for n in numbers],
    }
    for table, rows in tables.items():
        ledger.write(table, unit, rows, "c" * 12)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six clips in two units, and three policies beside the run."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    _add(ledger, UNITS[0], range(3))
    _add(ledger, UNITS[1], range(3, 6))
    for text in (LONG, BEST, PRETTY):
        (tmp_path / f"{text.split()[1]}.yaml").write_text(text)
    (tmp_path / "run" / "config.yaml").write_text(f"select: {{policy: {tmp_path / 'long.yaml'}}}\n")
    return tmp_path / "run"


def _policy(run: Path, name: str) -> str:
    return str(run.parent / f"{name}.yaml")


def _kept(run: Path, name: str) -> list[int]:
    rows = Ledger(str(run)).read("selection").to_pylist()
    return sorted(int(row["key"][:16], 16) for row in rows if row["kept"] and row["policy"] == name)


def test_two_selections_stand_beside_each_other_and_share_what_is_made_of_clips(run: Path) -> None:
    first = selections.make(str(run))
    assert (first["policy"], first["kept"], first["clips"], first["new"]) == ("long", 4, 6, True)
    before = {part.uri for part in Ledger(str(run)).parts("selection")}
    second = selections.make(str(run), _policy(run, "long-best"))
    assert second["selections"] == ["long", "long-best"] and second["current"] == "long"
    assert before <= {part.uri for part in Ledger(str(run)).parts("selection")}
    assert (_kept(run, "long"), _kept(run, "long-best")) == ([2, 3, 4, 5], [0, 1, 2])
    ledger = Ledger(str(run))
    assert [part.unit for part in ledger.parts("selection")] == ["long", "long-best"]
    assert ledger.read("selection", ["unit"])["unit"].to_pylist() == [UNITS[n // 3] for n in range(6)] * 2
    assert [part.unit for part in ledger.parts("pairs")] == ["long", "long-best"]
    kept = dict(selections.kept_by_unit(ledger))
    assert kept == {UNITS[0]: [_key(0), _key(1), _key(2)], UNITS[1]: [_key(3), _key(4), _key(5)]}


def test_the_same_policy_again_changes_nothing_and_a_changed_one_is_made_anew(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    selections.make(str(run), _policy(run, "long"))
    files = {file: file.stat().st_mtime_ns for file in (run / "ledger").rglob("*.parquet")}
    assert selections.make(str(run), _policy(run, "long"))["new"] is False
    assert {file: file.stat().st_mtime_ns for file in (run / "ledger").rglob("*.parquet")} == files
    Path(_policy(run, "long")).write_text(LONG.replace("min: 3", "min: 5"))
    assert selections.stale(Ledger(str(run))) == [], "the run keeps the policy as it was"
    assert "bears the name long here" in trial.trial(str(run), _policy(run, "long"))["notes"][0]
    assert selections.make(str(run), _policy(run, "long"))["new"] is True
    assert "changed: too_short" in caplog.text
    assert _kept(run, "long") == [4, 5] and len(Ledger(str(run)).parts("selection")) == 1


def test_a_ledger_that_grew_makes_selections_stale_until_they_select_again(run: Path) -> None:
    for name in ("long", "long-best"):
        selections.make(str(run), _policy(run, name))
    _add(Ledger(str(run)), "w0001-00000-000", range(6, 8))
    assert selections.stale(Ledger(str(run))) == ["long", "long-best"]
    selections.make(str(run), "long-best")  # by the name that it has here
    assert selections.stale(Ledger(str(run))) == ["long"]
    assert _kept(run, "long-best") == [0, 1, 2, 3]
    for name, pending in (("long", 2), ("long-best", 0)):
        account = accounting.account(str(run), name)
        account.check()
        assert account.clips("pending") == pending and account.input_s == sum(range(1, 9))
    found = summary.of(str(run), "long")
    assert found["stale"] == ["long"] and "made of an older ledger" in "\n".join(summary.lines(found))


def test_what_left_the_ledger_leaves_the_selection(run: Path) -> None:
    selections.make(str(run), _policy(run, "long"))
    ledger = Ledger(str(run))
    for table in ("plan", "sources", "units", "signals", "clips", "scores"):
        ledger.remove(table, UNITS[1])
    selections.make(str(run), _policy(run, "long"))
    assert _kept(run, "long") == [2] and len(ledger.parts("selection")) == 1


def test_a_ledger_that_is_not_scored_yet_is_not_selected_from(run: Path) -> None:
    Ledger(str(run)).remove("scores", UNITS[1])
    with pytest.raises(
        SelectionError, match=r"1 of 2 units .* have no scores yet; run `rushes curate .*--through score"
    ):
        selections.make(str(run), _policy(run, "long"))
    assert "have no scores yet" in trial.trial(str(run), _policy(run, "long"))["notes"][0]


def test_a_dry_run_says_what_is_kept_what_is_dropped_and_what_changes(run: Path) -> None:
    selections.make(str(run), _policy(run, "long"))
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    found = trial.trial(str(run), _policy(run, "long-best"), examples=2)
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    assert found["kept"] == {"clips": 3, "hours": pytest.approx(6 / 3600)}
    (rule,) = found["rules"]
    assert (rule["clips"], rule["threshold"], rule["kept_of"], rule["limit"]) == (3, 98.0, [3, 6], "highest 50 %")
    change = found["against"]
    assert (change["selection"], change["stale"], change["same"]["clips"]) == ("long", False, 1)
    assert change["newly_kept"]["clips"] == 2 and change["newly_dropped"]["clips"] == 3
    assert [row["key"] for row in change["newly_kept"]["examples"]] == [_key(0), _key(1)]
    assert change["newly_dropped"]["rules"] == [{"rule": "best", "clips": 3, "hours": pytest.approx(15 / 3600)}]
    text = "\n".join(trial.lines(found))
    assert "quality highest 50 %: 3 of 6, to 98" in text and "nothing was written" in text
    assert "best: not among the 3 highest of 6" in text


def test_a_dry_run_against_itself_changes_nothing(run: Path) -> None:
    selections.make(str(run), _policy(run, "long"))
    change = trial.trial(str(run))["against"]
    assert change["newly_kept"]["clips"] == change["newly_dropped"]["clips"] == 0 and change["same"]["clips"] == 4


def test_a_measure_that_nobody_made_fails_a_dry_run_and_is_counted_around_only_when_asked(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", "--out", str(run), "--policy", _policy(run, "pretty")]
    assert main([*command, "--dry-run"]) == 1
    text = capsys.readouterr().out
    assert "not measured: rule ugly needs aesthetic" in text and "--score.aesthetic_head" in text and "kept" not in text
    assert main([*command, "--dry-run", "--skip-unmeasured", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["upper_bound"] is True and found["kept"]["clips"] == 4 and found["rules"][0]["measured"] is False
    assert main([*command, "--dry-run", "--skip-unmeasured"]) == 0
    text = capsys.readouterr().out
    assert trial.UPPER in text and "NOT MEASURED, left out" in text
    assert main(command) == 2 and "LAION's linear head" in capsys.readouterr().err
    assert main([*command, "--skip-unmeasured"]) == 2
    assert not Ledger(str(run)).parts("selection"), "a selection is never written with rules left out"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "rules: [{name: a, measure: qualty, min: 3}]",
            r"rule a needs 'qualty', which is no measure; did you mean quality",
        ),
        ("rules: [{name: a, measure: qualty, min: 3, missing: keep}]", "did you mean quality"),
        ("dedup: {prefer: [pixel]}", "dedup.prefer needs 'pixel', which is no measure; did you mean pixels"),
        ("dedup: {semantic: {scorer: embeding}}", "dedup.semantic.scorer needs 'embeding'.*did you mean embedding"),
        ("rules: [{name: a, measure: xyzzy, min: 3}]", "which is no measure; measures are aesthetic, aspect, "),
        (
            "rules: [{name: a, measure: licence, min: 3}]",
            "compares licence, which is text, with a number; use in or not_in",
        ),
        ("rules: [{name: a, measure: licence, keep_highest: 0.5}]", "compares licence, which is text, with a number"),
        (
            "rules: [{name: a, measure: licence, in: [CC0, no]}]",
            "lists False for licence, which is text; put it in quotes",
        ),
        ("rules: [{name: a, measure: fps, not_in: [fast]}]", "lists 'fast' for fps, which is a number"),
        ("rules: [{name: a, measure: quality, in: [good]}]", "lists 'good' for quality, which is a number"),
        ("rules: [{name: a, measure: still_picture, in: [0]}]", "lists 0 for still_picture, which is true or false"),
    ],
)
def test_a_measure_that_there_never_is_is_wrong_usage_however_it_is_asked(
    text: str, words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "bad.yaml").write_text(f"name: bad\n{text}\n")
    command = ["select", "--out", str(run), "--policy", _policy(run, "bad")]
    for more in ([], ["--dry-run"], ["--dry-run", "--skip-unmeasured"]):
        assert main([*command, *more]) == 2
        assert re.search(words, capsys.readouterr().err)
    assert not Ledger(str(run)).parts("selection")


def test_the_name_of_a_preset_is_refused_to_other_rules(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    selections.make(str(run), "default")
    before = Ledger(str(run)).parts("selection")
    (run.parent / "mine.yaml").write_text(LONG.replace("name: long", "name: default", 1))
    command = ["select", "--out", str(run), "--policy", _policy(run, "mine")]
    assert main(command) == 2 and "bears the name of the preset default" in capsys.readouterr().err
    assert Ledger(str(run)).parts("selection") == before
    assert main([*command, "--dry-run"]) == 0 and "give it a name of its own" in capsys.readouterr().out
    assert not selections.make(str(run), f"{run}/policies/default.yaml")["new"]


def test_what_selected_under_the_name_of_a_preset_before_may_do_so_again(run: Path) -> None:
    selections.make(str(run), "default")
    (run / "policies" / "default.yaml").write_text(LONG.replace("name: long", "name: default", 1))  # an older release
    assert selections.make(str(run), f"{run}/policies/default.yaml")["kept"] == 4


def test_a_run_without_clips_is_answered_and_selected_from(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.create()
    for table in ("clips", "scores"):
        ledger.write(table, UNITS[0], [], "c" * 12)
    assert selections.make(str(tmp_path), "default")["kept"] == 0
    assert trial.trial(str(tmp_path), "svd-pretrain")["found"] == {"clips": 0, "hours": 0.0}


def test_an_unknown_selection_is_named_with_those_that_there_are(run: Path) -> None:
    selections.make(str(run), _policy(run, "long"))
    with pytest.raises(SelectionError, match=r"'other' has selected nothing in .*; selections there: long"):
        trial.trial(str(run), _policy(run, "long"), against="other")
    with pytest.raises(ValueError, match="is no run of rushes"):
        trial.trial(str(run.parent / "nowhere"), "default")


def test_the_current_selection_is_that_of_the_configuration_wherever_its_file_is(run: Path) -> None:
    for name in ("long", "long-best"):
        selections.make(str(run), _policy(run, name))
    there = ["long", "long-best"]
    assert selections.choose(str(run), there) == "long"
    Path(_policy(run, "long-best")).rename(run.parent / "b.yaml")
    (run / "config.yaml").write_text(f"select: {{policy: {run.parent / 'b.yaml'}}}\n")
    assert selections.choose(str(run), there) == "long-best"
    (run / "config.yaml").write_text("select: {policy: gone/long.yaml}\n")
    assert selections.choose(str(run), there) == "long"
    assert selections.choose(str(run), ["one"]) == "one" and selections.choose(str(run), []) is None


def test_a_dry_run_starts_without_heavy_modules(run: Path) -> None:
    code = (
        "import sys; from rushes.pipelines.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = {'ray', 'torch', 'cv2', 'av', 'scenedetect', 'datasketch', 'scipy'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or code)"
    )
    command = ["select", "--out", str(run), "--policy", _policy(run, "long"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_embedding_model_of_another_dimension_than_the_ledgers_is_refused_and_nothing_is_selected(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(str(run))
    for unit, numbers, model, width in ((UNITS[0], range(3), "ViT-B-32", 4), (UNITS[1], range(3, 6), "ViT-L-14", 6)):
        rows = [
            {"key": _key(n), "scorer": "clip", "model": model, "value": 1.0, "vector": [1.0] * width} for n in numbers
        ]
        ledger.write("scores", unit, rows, "d" * 12)
    (run.parent / "near.yaml").write_text("name: near\nrules: []\ndedup: {semantic: {scorer: clip}}\n")
    assert main(["select", "--out", str(run), "--policy", _policy(run, "near")]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "4 numbers of ViT-B-32 and 6 numbers of ViT-L-14" in said
    assert "score it with one model: rushes score --out RUN" in said
    assert not ledger.parts("selection") and not ledger.parts("pairs")


def _with_hdr(run: Path, numbers: set[int]) -> None:
    ledger = Ledger(str(run))
    for unit in UNITS:
        rows = ledger.read_whole("clips", ledger.parts("clips", unit)[0]).to_pylist()
        ledger.write("clips", unit, [row | {"hdr": int(row["key"][:16], 16) in numbers} for row in rows], "c" * 12)


def test_hdr_is_dropped_by_a_rule_of_a_selection_that_stands_beside_the_policys_own(run: Path) -> None:
    config = run / "config.yaml"
    _with_hdr(run, {3, 4})
    whole = selections.make(str(run))
    config.write_text(config.read_text() + "pack: {hdr: drop}\n")
    found = selections.make(str(run))
    assert (found["policy"], found["kept"], found["current"]) == ("long-sdr", whole["kept"] - 2, "long-sdr")
    assert (_kept(run, "long"), _kept(run, "long-sdr")) == ([2, 3, 4, 5], [2, 5])
    rows = Ledger(str(run)).read("selection").to_pylist()
    assert {row["key"] for row in rows if row["rule"] == "hdr"} == {_key(3), _key(4)}
    assert selections.stale(Ledger(str(run))) == [] and selections.make(str(run))["new"] is False
    assert selections.make(str(run), "long-sdr")["policy"] == "long-sdr", "the rule is not put in front twice"
    assert trial.trial(str(run), _policy(run, "long"))["policy"] == "long-sdr"
