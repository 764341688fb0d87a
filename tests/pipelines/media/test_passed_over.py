"""Claims about files that folders hold besides videos: they are counted, told in one line, and can be asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.config import InputConfig
from rushes.pipelines.media import footage, passed_over
from rushes.pipelines.media.passed_over import PassedOver, line
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.media.odd import film


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    (folder / "deep").mkdir(parents=True)
    film(folder / "a.mp4")
    film(folder / "b.bin", kind="mp4")
    for name in ("c.webp", "deep/d.WEBP", "deep/e.webp", "README", ".hidden.bin", "odd.a b"):
        (folder / name).write_bytes(b"xyz")
    return folder


def counted(*inputs: object, config: InputConfig | None = None) -> tuple[list[str], PassedOver]:
    found = PassedOver()
    rows = list(footage.expand([str(one) for one in inputs], config or InputConfig(), found))
    return [Path(row["uri"]).name for row in rows], found


def test_files_are_counted_by_suffix_and_told_in_one_line(shelf: Path) -> None:
    names, found = counted(shelf, shelf)
    assert names == ["a.mp4"]
    rows = found.rows()[str(shelf)]
    assert [(row["suffix"], row["files"]) for row in rows] == [(".webp", 3), (".bin", 1), ("none", 1), ("others", 1)]
    assert rows[0]["size_bytes"] == 9 and sum(row["files"] for row in rows) == 6, "a folder given twice counts once"
    assert line(rows) == (
        "6 files of the folders were passed over by suffix: 3 .webp, 1 .bin, 1 none, 1 others; "
        "take a suffix with --inputs.suffixes '[.webp]'"
    )
    assert line([]) == ""


@pytest.mark.parametrize("suffix", [".bin", "bin", ".BIN"])
def test_a_suffix_that_is_asked_for_is_taken(shelf: Path, suffix: str) -> None:
    names, found = counted(shelf, config=InputConfig(suffixes=[suffix]))
    assert names == ["a.mp4", "b.bin"] and ".bin" not in {row["suffix"] for row in found.rows()[str(shelf)]}


def test_files_that_are_named_and_globs_pass_nothing_over(shelf: Path) -> None:
    names, found = counted(shelf / "b.bin", shelf / "*.mp4")
    assert names == ["b.bin", "a.mp4"] and not found.rows()


def test_a_folder_without_videos_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no video.*1 file of the folders was passed over.*'\[\.bin\]'"):
        counted(tmp_path)


def test_numbered_suffixes_do_not_fill_the_memory() -> None:
    found = PassedOver()
    found.look_at("f")
    for number in range(10_000):
        found.add("f", f"a.{number:05d}", 1)
    rows = found.rows()["f"]
    assert len(rows) == passed_over.MOST + 1 and sum(row["files"] for row in rows) == 10_000
    assert line(rows).count(",") <= passed_over.NAMED


def test_the_run_logs_records_and_reports_them(
    shelf: Path, tmp_path: Path, one_process: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words = str(tmp_path / "run"), ["--shots.witness", "none", "--through", "shots", "--json"]
    with caplog.at_level(logging.INFO, logger="rushes"):
        assert main(["curate", str(shelf), "--out", run, *words]) == 0
    assert len([said for said in caplog.messages if "passed over by suffix" in said]) == 1
    table = {row["suffix"]: row["files"] for row in Ledger(run).read("passed_over").to_pylist()}
    assert table == {".webp": 3, ".bin": 1, "none": 1, "others": 1}
    assert json.loads(capsys.readouterr().out)["passed_over"][0]["suffix"] == ".webp"
    assert "3 .webp" in (Path(run) / "report" / "index.html").read_text()
    parts = Ledger(run).parts("passed_over")
    main(["curate", str(shelf), "--out", run, *words])
    assert Ledger(run).parts("passed_over") == parts
    main(["curate", str(shelf), "--out", run, *words, "--inputs.suffixes", "[.bin,.webp]"])
    assert {row["suffix"] for row in Ledger(run).read("passed_over").to_pylist()} == {"none", "others"}
    assert {Path(uri).name for uri in Ledger(run).read("sources")["uri"].to_pylist()} == {"a.mp4", "b.bin"}
