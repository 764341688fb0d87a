"""What a selection favours is told by share of time, and chance is not taken for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rushes.pipelines.explore.queries import QUERIES
from rushes.pipelines.explore.views import ABOUT
from rushes.pipelines.report import accounting, markup, models, shares
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES

REPO = Path(__file__).parents[3]


def made(folder: Path, clips: list[tuple[int, float, bool, str]]) -> str:
    """A run of clips, each the number of its source, its seconds, whether it is kept, and its tags."""
    ledger = Ledger(str(folder))
    ledger.create()
    rows, verdicts, scores = [], [], []
    for at, (source, seconds, kept, tags) in enumerate(clips):
        key = f"{source:016x}-{at:09d}"
        rows.append({"key": key, "unit": "u", "source_id": f"{source:016x}", "uri": _uri(source), "start_s": 0.0,
                     "end_s": seconds, "duration_s": seconds})  # fmt: skip
        verdicts.append({"key": key, "policy": "p", "kept": kept, "rule": None if kept else "dull"})
        scores.append({"key": key, "scorer": "tags", "label": tags})
    ids = sorted({source for source, *_ in clips})
    sources: list[dict[str, Any]] = [
        {"source_id": f"{one:016x}", "uri": _uri(one), "wave": 0, "unit": "u", "duration_s": 1.0} for one in ids
    ]
    packed = [
        {"key": row["key"], "policy": "p", "bucket": f"b{at % 3}", "shard": f"b{at % 3}/clips-000000.tar"}
        for at, row in enumerate(rows)
        if verdicts[at]["kept"]
    ]
    tables = {"sources": sources, "clips": rows, "selection": verdicts, "scores": scores, "packed": packed}
    for name, found in tables.items():
        ledger.write(name, "p" if name == "selection" else "u", found, "0" * 12)
    return str(folder)


def _uri(source: int) -> str:
    return f"s3://user:secret@films/<b>{source:03d}</b>.mp4"


def _number(uri: str) -> int:
    return int(re.findall(r"\d\d\d", uri)[0])


def shifts(run: str) -> dict[str, shares.Shifts]:
    return {one.title: one for one in shares.shifts(accounting.open_books(run))}


def test_shares_before_and_after_are_of_time_and_sorted_by_how_far_they_moved(tmp_path: Path) -> None:
    clips = [(0, 2.0, True, "dog 0.9")] * 20 + [(1, 1.0, False, "cat 0.9")] * 40 + [(2, 3.0, True, "cat 0.2")] * 5
    clips += [(2, 3.0, False, "cat 0.2")] * 10
    found = shifts(made(tmp_path, clips))
    table = [(_number(one.label), one.clips, one.kept, one.before, one.after) for one in found["Source"].shown]
    assert table == [
        (0, 20, 20, 40 / 125, 40 / 55),
        (1, 40, 0, 40 / 125, 0.0),
        (2, 15, 5, 45 / 125, 15 / 55),
    ]
    assert "secret" not in found["Source"].shown[0].label
    assert found["Source"].moved == pytest.approx(40 / 55 - 40 / 125)
    tags = {one.label: (one.clips, one.verdict, round(one.ratio, 3)) for one in found["Likely content"].shown}
    assert tags["dog"] == (20, "", round(125 / 55, 3)) and tags["cat"] == (40, "", 0.0)
    assert tags["nothing sure"][:2] == (15, "no more than chance")


def test_the_deviation_is_that_of_clips_drawn_at_random(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sources, seconds = draw.integers(0, 4, 200), draw.uniform(1, 20, 200).round(3)
    kept = draw.permutation(200) < 60
    run = made(tmp_path, [(int(s), float(d), bool(k), "") for s, d, k in zip(sources, seconds, kept, strict=True)])
    found = shifts(run)["Source"]
    drawn = []
    for _ in range(4000):
        some = draw.permutation(200)[:60]
        drawn.append(np.bincount(sources[some], seconds[some], 4) / seconds[some].sum())
    expected = dict(enumerate(np.std(drawn, axis=0)))
    for one in found.shown:
        assert one.chance == pytest.approx(expected[_number(one.label)], rel=0.15)
        assert one.verdict == "no more than chance"
    before = np.bincount(sources, seconds, 4) / seconds.sum()
    assert found.by_chance == pytest.approx(np.abs(np.array(drawn) - before).sum(1).mean() / 2, rel=0.15)


def test_of_many_groups_some_are_listed_the_others_summed_and_a_few_clips_tell_nothing(tmp_path: Path) -> None:
    clips = [(source, 1.0, source % 2 == 0, "") for source in range(300) for _ in range(3)]
    run = made(tmp_path, clips)
    found = shifts(run)["Source"]
    assert len(found.shown) == shares.SHOWN and found.groups == 300
    assert {one.verdict for one in found.shown} == {"too few clips to tell"}
    page = shares.page(accounting.open_books(run))
    assert f"{300 - shares.SHOWN} others" in page and page.count("<tr") == 1 + shares.SHOWN + 1
    assert "<b>0" not in page and "secret" not in page and "&lt;" in page


@pytest.mark.parametrize("kept", [True, False])
def test_where_all_or_nothing_is_kept_there_is_no_bias_to_tell_of(tmp_path: Path, kept: bool) -> None:
    run = made(tmp_path, [(source, 1.0, kept, "") for source in range(5)])
    assert shares.page(accounting.open_books(run)) == ""


def test_buckets_are_told_by_hours_the_longest_first(tmp_path: Path) -> None:
    run = made(tmp_path, [(at, 3600.0 * (at % 3 + 1), at != 5, "") for at in range(6)])
    listed = [{"path": f"b{at}/clips-000000.tar", "samples": 2 - (at == 2), "size_bytes": 10} for at in range(3)]
    (tmp_path / "shards" / "p").mkdir(parents=True)
    (tmp_path / "shards" / "p" / "manifest.json").write_text(json.dumps({"shards": listed}))
    page = models.shards(accounting.open_books(run))
    places = [page.index(text) for text in ("b1", "4\u00a0h 00", "b2", "3\u00a0h 00", "b0", "2\u00a0h 00")]
    assert places == sorted(places) and "44\u00a0%" in page


def test_every_part_leads_on_to_what_there_is() -> None:
    explorer = (REPO / "pipelines" / "explore" / "explore.html").read_text()
    for relation, query, view in markup.ASKED.values():
        assert relation in ABOUT or relation in TABLES
        assert not query or f"from {relation}" in QUERIES[query].sql
        assert f">{view}</button>" in explorer
    assert "rushes sql RUN funnel" in markup.section("account", "Account", "")
    assert "onward" not in markup.section("dit", "Generator", ""), "its figures are no ledger's"
