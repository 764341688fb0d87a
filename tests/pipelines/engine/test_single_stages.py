"""`rushes scan`, `score`, `caption`, `pack`: `curate` through one stage, with the settings saved in the run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.config import CaptionConfig, CurateConfig, PackConfig, ScanConfig, ScoreConfig
from rushes.pipelines.report import accounting, page, summary
from rushes.pipelines.store import runfile
from rushes.pipelines.store.ledger import Ledger

SAVED = CurateConfig(
    scan=ScanConfig(tick_hz=8.0), score=ScoreConfig(scorers=["quality"]), pack=PackConfig(max_side_px=96)
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str, CurateConfig, str]]:
    """What each command asks of `curate.curate`, which does nothing here."""
    from rushes.pipelines.engine import curate

    calls: list[tuple[list[str], str, CurateConfig, str]] = []

    def record(
        inputs: list[str], run: str, config: CurateConfig, *, through: str, retry_failed: bool, takedown: Any
    ) -> str:
        calls.append((list(inputs), run, config, through))
        return "as it is"

    monkeypatch.setattr(curate, "curate", record)
    monkeypatch.setattr(accounting, "open_books", lambda run: None)
    monkeypatch.setattr(summary, "of", lambda run, books: {"failures": []})
    monkeypatch.setattr(summary, "lines", lambda found: [])
    monkeypatch.setattr(page, "write", lambda run, books: "")
    return calls


@pytest.fixture
def run(tmp_path: Path) -> str:
    runfile.save(str(tmp_path / "run"), SAVED, ["s3://bucket/films"])
    return str(tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "through"), [("scan", "shots"), ("score", "score"), ("caption", "caption"), ("pack", "pack")]
)
def test_a_single_stage_runs_through_its_stage_with_the_settings_of_the_run(
    command: str, through: str, run: str, asked: list[Any]
) -> None:
    assert main([command, "--out", run]) == 0
    assert asked == [([], run, SAVED, through)]


@pytest.mark.parametrize("command", [["scan"], ["curate", "--takedown", "list.txt"]])
def test_a_setting_that_another_version_saved_is_named_with_its_file_and_the_remedy(
    command: list[str], run: str, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(run) / "config.yaml"
    path.write_text(path.read_text().replace("shots:\n", "shots:\n  cut_content: 27.0\n  jump_share: 0.05\n"))
    assert main([*command, "--out", run]) == 2 and not asked
    told = capsys.readouterr().err
    assert f"{path} holds settings of another version of Rushes: shots.cut_content, shots.jump_share; remove" in told


@pytest.mark.parametrize("words", [["--out", "RUN"], ["--out=RUN"], ["--ou", "RUN"]])
def test_what_is_typed_overrides_one_setting_and_keeps_the_others(words: list[str], run: str, asked: list[Any]) -> None:
    typed = [word.replace("RUN", run) for word in words]
    assert main(["score", "--score.scorers", "[quality, tags]", *typed]) == 0
    assert asked[0][2] == replace(SAVED, score=ScoreConfig(scorers=["quality", "tags"]))


def test_a_given_file_overrides_the_saved_settings_and_flags_override_both(
    run: str, asked: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text("pack: {crf: 30, codec: hevc}\n")
    assert main(["pack", "--out", run, "--pack.crf", "31", "--config", str(tmp_path / "more.yaml")]) == 0
    assert asked[0][2].pack == PackConfig(max_side_px=96, crf=30, codec="hevc")
    assert main(["pack", "--out", run, "--config", str(tmp_path / "more.yaml"), "--pack.crf", "31"]) == 0
    assert asked[1][2].pack == PackConfig(max_side_px=96, crf=31, codec="hevc")


def test_a_new_run_begins_with_scan_and_no_other(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "new")
    for command in ("score", "caption", "pack"):
        assert main([command, "--out", out]) == 2
        assert f"{out} is no run of rushes; begin one with: rushes scan" in capsys.readouterr().err
    assert main(["scan", "films", "--out", out, "--shots.max_clip_s", "5"]) == 0
    [(inputs, _, config, _)] = asked
    assert (inputs, config.shots.max_clip_s, config.scan) == (["films"], 5.0, ScanConfig())


def test_a_dry_run_tells_what_packing_would_do_and_that_another_policy_becomes_the_run_s_own(
    undisturbed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = pc.sum(Ledger(undisturbed).read("selection")["kept"]).as_py()
    assert main(["pack", "--out", undisturbed, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"default has selected {kept} clips; of them are {kept} captioned, {kept} encoded, {kept} packed" in said
    assert "goes on with its own" in said and "becomes the policy" not in said
    (tmp_path / "all.yaml").write_text("{name: all, rules: []}")
    before = Path(undisturbed, "config.yaml").read_text()
    assert main(["pack", "--out", undisturbed, "--dry-run", "--select.policy", str(tmp_path / "all.yaml")]) == 0
    said = capsys.readouterr().out
    assert "becomes the policy of the run, which was default" in said and "would select before" in said
    assert Path(undisturbed, "config.yaml").read_text() == before


def test_a_secret_that_was_not_saved_must_be_given_again(
    tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, endpoint = str(tmp_path / "run"), "https://me:secret@host/v1"
    config = replace(SAVED, caption=CaptionConfig(source="endpoint", endpoint=endpoint, model="m"))
    runfile.save(run, config)
    assert main(["caption", "--out", run]) == 2
    assert "caption.endpoint is https://…@host/v1" in capsys.readouterr().err
    assert main(["caption", "--out", run, "--caption.endpoint", endpoint]) == 0
    assert asked[0][2] == config


@pytest.mark.parametrize(
    ("damage", "words"), [("scan: {tick_hz: fast}", "scan.tick_hz"), ("scan: {gone: 1}", "gone"), ("a: [", "config")]
)
def test_saved_settings_that_cannot_be_read_are_named(
    run: str, damage: str, words: str, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(run, "config.yaml").write_text(damage)
    assert main(["score", "--out", run]) == 2
    assert words in capsys.readouterr().err and asked == []


def test_help_shows_the_settings_of_the_stage_only(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {
        "scan": "--shots.max_clip_s",
        "score": "--score.scorers",
        "caption": "--caption.source",
        "pack": "--pack.crf",
    }
    for command in shown:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert [other for other in shown if shown[other] in text] == [command]
        assert "--through" not in text and "--select.policy" not in text


def test_inputs_of_earlier_commands_stay_in_the_saved_configuration(run: str) -> None:
    runfile.save(run, SAVED, ["more/", "s3://bucket/films"])
    runfile.save(run, SAVED)
    lines = Path(run, "config.yaml").read_text().splitlines()
    assert [line for line in lines if "# input" in line] == ["# input: s3://bucket/films", "# input: more/"]


def test_scoring_alone_reads_no_video_again_and_changes_no_earlier_table(
    bikes: Path, tmp_path: Path, one_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    film, run = tmp_path / "car.mp4", str(tmp_path / "run")
    shutil.copy(bikes.with_name("carphone_pristine.mp4"), film)
    assert main(["scan", str(film), "--out", run, "--scan.tick_hz", "8"]) == 0
    early = {table: Ledger(run).parts(table) for table in ("sources", "frames", "signals", "clips")}
    assert all(early.values()) and not Ledger(run).parts("scores")
    film.unlink()  # whoever reads it again fails
    assert main(["score", "--out", run, "--score.scorers", "[quality]"]) == 0
    assert {table: Ledger(run).parts(table) for table in early} == early
    assert Ledger(run).read("scores", ["scorer"])["scorer"].to_pylist() == ["quality"]
    assert not Ledger(run).parts("selection")
