"""Two policies, or two runs, side by side: what only one keeps, which measures moved, what was selected meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rushes.filters import policy as policies
from rushes.pipelines.explore import compare
from rushes.pipelines.explore.compare import compared
from rushes.pipelines.explore.workbench import Filter, Workbench
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store.ledger import Ledger

EVERYTHING = policies.load({"name": "everything", "dedup": {"enabled": False}})
HALF = {"name": "dark", "measure": "luma_mean", "keep_highest": 0.5}
BRIGHT = policies.load({"name": "bright", "rules": [HALF], "dedup": {"enabled": False}})


def test_a_policy_differs_from_itself_in_nothing(bench: Workbench) -> None:
    found = compared(bench, BRIGHT, bench, BRIGHT)
    assert found["only_first"]["clips"] == found["only_second"]["clips"] == 0
    assert found["both"] == bench.outcome(BRIGHT)["kept"]["clips"]
    assert {row["distance"] for row in found["moved"]} == {0.0}


def test_what_a_stricter_policy_loses_is_counted_and_its_measure_moves_most(bench: Workbench) -> None:
    found = compared(bench, EVERYTHING, bench, BRIGHT)
    kept = [side["kept"]["clips"] for side in found["sides"]]
    assert found["only_first"]["clips"] == kept[0] - kept[1] > 0 == found["only_second"]["clips"]
    assert set(found["only_first"]["keys"]) <= {
        clip["key"] for clip in bench.listed(BRIGHT, Filter(fate="dropped"))["clips"]
    }
    moved = {row["name"]: row for row in found["moved"]}
    assert moved["luma_mean"]["distance"] == max(row["distance"] for row in found["moved"]) > 0
    assert moved["luma_mean"]["medians"][0] < moved["luma_mean"]["medians"][1]


def test_clips_of_another_run_are_known_by_their_content(bench: Workbench, undisturbed: str, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    ledger = Ledger(str(tmp_path / "run"))
    unit = ledger.parts("clips")[0].unit
    gone = len(ledger.read_unit("clips", unit, ["key"]))
    ledger.remove("clips", unit)
    other = Workbench(str(tmp_path / "run"))
    found = compared(bench, EVERYTHING, other, EVERYTHING)
    assert (found["clips_of_first_alone"], found["clips_of_second_alone"]) == (gone, 0)
    assert found["both"] == len(other.keys) and found["only_first"]["clips"] == 0
    assert compared(other, EVERYTHING, bench, EVERYTHING)["clips_of_second_alone"] == gone


def test_a_policy_is_named_as_a_selection_a_draft_or_a_preset_and_nothing_else(
    undisturbed: str, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    bench = Workbench(str(tmp_path / "run"))
    bench.save({"name": "mine", "rules": []})
    assert bench.drafts() == ["mine"] and bench.named("draft:mine").name == "mine"
    assert bench.named("default") == bench.policy and bench.named("svd-pretrain").name == "svd-pretrain"
    for name in (
        "mine",
        "draft:../drafts/mine",
        "../drafts/mine",
        "/etc/passwd.yaml",
        f"{bench.run}/drafts/mine.yaml",
        "",
    ):
        with pytest.raises(policies.PolicyError, match="no selection, draft or preset"):
            bench.named(name)


def test_a_selection_made_meanwhile_is_told_and_taken_up(undisturbed: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    shutil.copytree(undisturbed, run)
    bench = Workbench(run)
    before = bench.outcome(bench.policy)["kept"]
    assert compare.news(bench) == []
    text = {"name": "brighter", "rules": [{"name": "dark", "measure": "luma_mean", "min": 100}]}
    made = selections.make(run, bench.save(text)["path"])
    assert compare.news(bench) == ["brighter"] and bench.selections == ["default"]
    fresh = compare.taken_up(bench)
    assert compare.news(fresh) == [] and fresh.selections == ["brighter", "default"]
    assert fresh.selection == "default" and fresh.outcome(fresh.policy)["kept"] == before and fresh.keys is bench.keys

    Path(f"{run}/config.yaml").write_text("select: {policy: brighter}\n")
    assert Workbench(run).outcome(policies.load(text))["kept"]["clips"] == made["kept"]
    looked = Workbench(run, "brighter")
    assert looked.was is not None and looked.was.sum() == made["kept"]
    selections.make(run, looked.save({**text, "rules": [{**text["rules"][0], "min": 0}]}, replace=True)["path"])
    assert compare.news(looked) == ["brighter"], "the same name, other rules"
    again = compare.taken_up(looked)
    assert again.policy.rules[0].min == 0 and again.was is not None and again.was.sum() > looked.was.sum()
