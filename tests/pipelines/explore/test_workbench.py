"""What the page counts while a limit is moved is what `rushes select` counts; what it saves, `rushes select` takes."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import policy as policies
from rushes.pipelines.cli.main import main
from rushes.pipelines.explore.workbench import Filter, Workbench
from rushes.pipelines.stages.select import select, selections, trial
from tests.pipelines.explore.rules import rules


@settings(max_examples=25, deadline=None)
@given(given_rules=rules(), dedup=st.booleans())
def test_counts_are_those_of_a_dry_run(
    bench: Workbench, tmp_path_factory: pytest.TempPathFactory, given_rules: list[dict[str, Any]], dedup: bool
) -> None:
    text = {"name": "tried", "rules": given_rules, "dedup": {"enabled": dedup}}
    saved = bench.save(text, replace=True)
    dry, found = trial.trial(bench.run, saved["path"]), bench.outcome(policies.load(text))
    assert (found["kept"], found["rules"], found["duplicates"]) == (dry["kept"], dry["rules"], dry["duplicates"])
    for part in ("same", "newly_kept", "newly_dropped"):
        for unit in ("clips", "hours"):
            assert found["against"][part][unit] == pytest.approx(dry["against"][part][unit])
    for name, spread in found["spread"].items():
        kept = spread["kept"] if "kept" in spread else [row["kept"] for row in spread["labels"]]
        assert sum(kept) <= found["kept"]["clips"], name


def test_limits_alone_keep_what_duplicates_would_take(bench: Workbench) -> None:
    limits, settled = bench.outcome(bench.policy, settled=False), bench.outcome(bench.policy)
    taken = settled["duplicates"]["clips"]
    assert taken > 0 and limits["kept"]["clips"] == settled["kept"]["clips"] + taken
    assert settled["against"]["newly_kept"]["clips"] == settled["against"]["newly_dropped"]["clips"] == 0


def test_a_draft_selects_and_is_neither_overwritten_nor_a_preset_in_disguise(undisturbed: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    shutil.copytree(undisturbed, run)
    bench = Workbench(run)
    given_ = {"name": "brighter", "rules": [{"name": "dark", "measure": "luma_mean", "min": 100}]}
    saved = bench.save(given_)
    kept = bench.outcome(policies.load(given_))["kept"]["clips"]
    assert selections.make(run, saved["path"])["kept"] == kept < len(bench.keys)
    assert select.read_policy(saved["path"]) == policies.load(given_)
    with pytest.raises(FileExistsError, match="a draft of the name brighter"):
        bench.save(given_)
    with pytest.raises(policies.PolicyError, match="bears the name of the preset"):
        bench.save(given_ | {"name": "default"})
    with pytest.raises(policies.PolicyError, match="may hold only letters"):
        bench.save(given_ | {"name": "../../out"})
    with pytest.raises(policies.PolicyError, match="is no measure"):
        bench.save({"name": "x", "rules": [{"name": "a", "measure": "beauty", "min": 1}]})


def test_clips_are_listed_by_measure_by_nearness_and_by_text(bench: Workbench) -> None:
    everything = policies.load({"name": "everything", "dedup": {"enabled": False}})
    up, down = (bench.listed(everything, measure="motion", order=order) for order in ("lowest", "highest"))
    values = [clip["measured"] for clip in up["clips"]]
    assert values == sorted(values) == [clip["measured"] for clip in down["clips"]][::-1]
    assert up["total"] == len(bench.keys)
    near = bench.listed(everything, measure="motion", order="nearest", limit=values[2])
    assert near["clips"][0]["measured"] == values[2]
    for order, whole in (("lowest", up), ("highest", down)):
        pages = [bench.listed(everything, measure="motion", order=order, first=at, count=2) for at in range(0, 99, 2)]
        assert [clip for page in pages for clip in page["clips"]] == whole["clips"], (
            "page by page, equals in their order"
        )
        assert {page["total"] for page in pages} == {whole["total"]}
    two = bench.listed(everything, measure="motion", order="spread", count=2)
    assert [clip["measured"] for clip in two["clips"]] == [values[0], values[-1]]
    assert bench.listed(everything, first=1, count=2)["clips"] == bench.listed(everything)["clips"][1:3]
    cars = (
        bench.listed(everything, Filter(text="CAR_distorted"))["clips"]
        + bench.listed(everything, Filter(text="CAR.mp4"))["clips"]
    )
    assert cars and all("car" in clip["uri"] for clip in cars)
    assert bench.listed(everything, Filter(text="' or 1=1 --"))["total"] == 0
    dropped = bench.listed(bench.policy, Filter(fate="dropped", rule="duplicate"))
    assert dropped["total"] == bench.outcome(bench.policy)["duplicates"]["clips"]
    assert all("of " in clip["detail"] for clip in dropped["clips"])
    with pytest.raises(ValueError, match="orders are highest"):
        bench.listed(everything, order="sideways")
    with pytest.raises(ValueError, match="fates are kept"):
        Filter(fate="lucky")


def test_a_range_means_the_clips_of_its_bins_and_no_spread_is_cut_by_its_own_range(bench: Workbench) -> None:
    everything = policies.load({"name": "everything", "dedup": {"enabled": False}})
    whole = bench.spread(everything, Filter(), ["motion", "luma_mean"])
    assert all(spread["all"] == spread["kept"] for spread in whole.values())
    edges, counts = whole["luma_mean"]["edges"], whole["luma_mean"]["all"]
    filled = [at for at, clips in enumerate(counts) if clips]
    for first, last in ((0, filled[0]), (filled[1], filled[-2]), (filled[-1], len(counts) - 1)):
        low = -math.inf if first == 0 else edges[first]
        high = math.inf if last == len(counts) - 1 else edges[last + 1]
        chosen = Filter(ranges=(("luma_mean", low, high),))
        listed = bench.listed(everything, chosen, measure="luma_mean")
        assert listed["total"] == sum(counts[first : last + 1]) > 0
        assert all(low <= clip["measured"] < high for clip in listed["clips"])
        cut = bench.spread(everything, chosen, ["motion", "luma_mean"])
        assert cut["luma_mean"]["kept"] == counts and sum(cut["motion"]["kept"]) == listed["total"]
    both = Filter(ranges=(("luma_mean", edges[filled[1]], math.inf), ("motion", -math.inf, math.inf)), fate="kept")
    kept = {clip["key"] for clip in bench.listed(bench.policy, both)["clips"]}
    assert kept < {clip["key"] for clip in bench.listed(bench.policy, Filter(fate="kept"))["clips"]}


def test_without_its_extra_the_command_says_how_to_get_it(
    undisturbed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "rushes.pipelines.explore.serve", raising=False)
    assert main(["explore", undisturbed, "--no-browser"]) == 2
    assert "explore needs uvicorn: pip install 'rushes[explore]'" in capsys.readouterr().err
