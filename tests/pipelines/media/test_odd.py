"""Claims about odd inputs: each is curated once, comes out with the values that are right, and its seconds add up.

`pytest -s tests/pipelines/media/test_odd.py` prints a table of what came out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import CurateConfig, ScoreConfig, SelectConfig, ShotsConfig
from rushes.pipelines.engine import curate
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import accounting
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.media.odd import ODD, Odd
from tests.pipelines.one_process import in_one_process


@dataclass(frozen=True)
class CameOut:
    """What the ledger says of one input."""

    source: dict[str, Any]
    frames: int
    covered_s: float
    clips: int
    cut: int
    """Pictures in its clips as they were cut."""
    errors: list[dict[str, Any]]

    @property
    def lost_s(self) -> float:
        return sum(row["seconds"] for row in self.errors)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run over all odd inputs, each made anew; named one by one, so that no suffix keeps one away."""
    folder, run = tmp_path_factory.mktemp("odd"), str(tmp_path_factory.mktemp("runs") / "run")
    for odd in ODD:
        odd.make(folder / odd.name)
    (folder / "all.yaml").write_text("name: everything\ndedup: {enabled: false}\n")
    config = CurateConfig(
        shots=ShotsConfig(witness="none"), score=ScoreConfig(scorers=[]),
        select=SelectConfig(policy=str(folder / "all.yaml")),
    )  # fmt: skip
    with in_one_process():
        curate.curate([str(folder / odd.name) for odd in ODD], run, config, reporter=Reporter(live=False))
    return run


@pytest.fixture(scope="module")
def came_out(run: str) -> Iterator[dict[str, CameOut]]:
    ledger = Ledger(run)
    sources = {Path(row["uri"]).name: row for row in ledger.read("sources").to_pylist()}
    rows = {table: ledger.read(table).to_pylist() for table in ("errors", "clips", "encoded")}
    signals = ledger.read("signals", ["source_id", "frames", "covered_s"]).to_pylist()
    found = {}
    for odd in ODD:
        source = sources.get(odd.name, {})
        own = [row for row in signals if row["source_id"] == source.get("source_id")]
        keys = {row["key"] for row in rows["clips"] if row["source_id"] == source.get("source_id")}
        found[odd.name] = CameOut(
            source=source, frames=sum(row["frames"] for row in own), covered_s=sum(row["covered_s"] for row in own),
            clips=len(keys), cut=sum(row["frames"] for row in rows["encoded"] if row["key"] in keys),
            errors=[row for row in rows["errors"] if Path(row["uri"]).name == odd.name],
        )  # fmt: skip
    yield found
    print(*_table(found), sep="\n")


def _table(found: dict[str, CameOut]) -> Iterator[str]:
    yield f"\n{'input':<18} {'container':<9} {'codec':<11} {'size':>8} {'fps':>4} {'length':>7} {'frames':>6} " + (
        f"{'clips':>5} {'cut':>4} {'lost':>6}  failure"
    )
    for name, one in found.items():
        row = one.source
        size = f"{row['width']}×{row['height']}" if row else ""
        facts = f"{row.get('container', ''):<9} {row.get('video_codec', ''):<11} {size:>8} {row.get('fps', 0):>4.0f}"
        counts = f"{row.get('duration_s', 0):>7.3f} {one.frames:>6} {one.clips:>5} {one.cut:>4} {one.lost_s:>6.3f}"
        yield f"{name!r:<18.18} {facts} {counts}  {', '.join(error['code'] for error in one.errors)}"


@pytest.mark.parametrize("odd", ODD, ids=[odd.name for odd in ODD])
def test_an_odd_input_comes_out_right(odd: Odd, came_out: dict[str, CameOut]) -> None:
    one = came_out[odd.name]
    assert [error["code"] for error in one.errors] == [odd.code] * bool(odd.code), one.errors
    assert one.lost_s == pytest.approx(odd.lost_s, abs=0.02) and one.frames == odd.frames
    for error in one.errors:
        assert odd.reads in error["reason"] and error["remedy"] and "unexpected" not in error["remedy"]
    if not odd.frames:
        assert not one.source
        return
    wanted = {"width": odd.size[0], "height": odd.size[1], "fps": odd.fps, "variable_fps": False, **odd.facts}
    wanted = {"rotation_deg": 0, "hdr": False, **wanted}
    assert {name: one.source[name] for name in wanted} == pytest.approx(wanted)
    assert one.source["duration_s"] == pytest.approx(odd.duration_s, abs=0.011)
    assert one.covered_s == pytest.approx(odd.duration_s, abs=0.011)
    assert one.clips == odd.shots


def test_each_second_of_the_odd_inputs_is_accounted_for(run: str) -> None:
    account = accounting.account(run)
    account.check()
    assert account.inputs == len(ODD)
    assert account.input_s == pytest.approx(sum(odd.duration_s + odd.lost_s for odd in ODD if odd.frames), abs=0.2)


def test_whatever_was_kept_is_cut_to_the_picture(came_out: dict[str, CameOut]) -> None:
    for odd in ODD:
        one = came_out[odd.name]
        assert one.cut == (0 if not odd.shots else one.frames) or odd.name == "dissolve.mp4", odd.name
