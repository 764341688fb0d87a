"""Two policies, or two runs, side by side: what only one keeps, and which measures moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rushes.filters import policy as policies
from rushes.pipelines.explore.compare import compared
from rushes.pipelines.explore.workbench import Filter, Workbench
from rushes.pipelines.store.ledger import Ledger

EVERYTHING = policies.load({"name": "everything", "dedup": {"enabled": False}})
HALF = {"name": "dark", "measure": "luma_mean", "keep_highest": 0.5}
BRIGHT = policies.load({"name": "bright", "rules": [HALF], "dedup": {"enabled": False}})


@pytest.fixture(scope="module")
def bench(undisturbed: str) -> Workbench:
    """The small run on the bench."""
    return Workbench(undisturbed)


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
