"""The large ledgers that benches run on, at the size of a test: they add up, and hold the copies that were put in."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from rushes.filters.policy import load
from rushes.pipelines.report import accounting
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.store import binding
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES
from tests.bench import ledgers

CLIPS = 1000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, undisturbed: str) -> Ledger:
    """A thousand clips in ten units, made of the small run."""
    return ledgers.make(str(tmp_path_factory.mktemp("large") / "run"), CLIPS, undisturbed, per_part=100, workers=1)


def test_its_account_adds_up_under_its_selection(large: Ledger) -> None:
    found = accounting.account(large.run)
    found.check()
    assert CLIPS <= sum(entry.clips for entry in found.entries) < CLIPS + 20
    assert {"kept", "dropped", "failed"} <= {entry.fate for entry in found.entries}
    assert selections.stale(large) == [] and selections.unfinished(large) == ""


def test_a_selection_finds_the_copies_that_were_put_in_and_hardly_any_other(large: Ledger) -> None:
    policy = load({"name": "everything"})
    seen = selections.material(large, policy)
    _, pairs = select.select(seen.clips, seen.scores, policy, seen.matches)
    put = large.read("pairs", where=pc.field("level") == "copy")
    share = len(pairs) / len(seen.clips)
    assert 0.5 * ledgers.rows_of.COPIES < share < 1.5 * ledgers.rows_of.COPIES
    told, found = ({(row["key"], row["kept_key"]) for row in table.to_pylist()} for table in (put, pairs))
    assert len(told & found) >= 0.9 * len(told) and len(found - told) <= 0.3 * len(told)


def test_no_row_is_repeated_and_every_caption_is_bound_to_its_clip(large: Ledger) -> None:
    clips = {row["key"]: row for row in large.read("clips").to_pylist()}
    assert len({tuple(row["phash"]) for row in clips.values()}) > 0.9 * len(clips)
    assert len({row["motion"] for row in clips.values()}) > 0.9 * len(clips)
    captions = large.read("captions").to_pylist()
    assert captions and all(binding.holds(clips[caption["key"]], caption) for caption in captions)


def test_equal_arguments_give_equal_parts_however_many_work_on_them(
    large: Ledger, tmp_path: Path, undisturbed: str
) -> None:
    again = ledgers.make(str(tmp_path / "run"), CLIPS, undisturbed, per_part=100, workers=2)
    for table in TABLES:
        names = [[part.uri.rsplit("/", 1)[-1] for part in one.parts(table)] for one in (large, again)]
        assert names[0] == names[1]
        assert large.read(table).equals(again.read(table)), table
