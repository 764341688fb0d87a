"""A selection that is made while a run is looked at is told, and taken up without its clips being read again."""

from __future__ import annotations

import shutil
from pathlib import Path

from rushes.filters import policy as policies
from rushes.pipelines.explore import news
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.select import selections


def test_a_selection_made_meanwhile_is_told_and_taken_up(undisturbed: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    shutil.copytree(undisturbed, run)
    bench = Workbench(run)
    before = bench.outcome(bench.policy)["kept"]
    assert news.told(bench) == []
    text = {"name": "brighter", "rules": [{"name": "dark", "measure": "luma_mean", "min": 100}]}
    made = selections.make(run, bench.save(text)["path"])
    assert news.told(bench) == ["brighter"] and bench.selections == ["default"]
    fresh = news.taken_up(bench)
    assert news.told(fresh) == [] and fresh.selections == ["brighter", "default"]
    assert fresh.selection == "default" and fresh.outcome(fresh.policy)["kept"] == before and fresh.keys is bench.keys

    Path(f"{run}/config.yaml").write_text("select: {policy: brighter}\n")
    assert Workbench(run).outcome(policies.load(text))["kept"]["clips"] == made["kept"]
    looked = Workbench(run, "brighter")
    assert looked.was is not None and looked.was.sum() == made["kept"]
    selections.make(run, looked.save({**text, "rules": [{**text["rules"][0], "min": 0}]}, replace=True)["path"])
    assert news.told(looked) == ["brighter"], "the same name, other rules"
    again = news.taken_up(looked)
    assert again.policy.rules[0].min == 0 and again.was is not None and again.was.sum() > looked.was.sum()
