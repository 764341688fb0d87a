"""What kills its worker is tried twice, then an error of its own, and stops nothing else. No Ray."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rushes.pipelines.config import CaptionConfig, CurateConfig, PackConfig, ScanConfig, ScoreConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines import at_work

CONFIG = CurateConfig(pack=PackConfig(max_side_px=48), score=ScoreConfig(scorers=["quality"]))
CLIPS, BAD = 4, 2


class Died(BaseException):
    """Stands for a process that is killed: nothing catches it."""


class Killer:
    """Counts as `cluster.Attempts` does, and kills whoever begins an item in which one of these words stands."""

    def __init__(self, *words: str) -> None:
        self.words, self.deaths = words, 0
        self.begun: dict[str, int] = {}
        self.taken: set[str] = set()

    def begin(self, item: str) -> bool:
        self.begun[item] = self.begun.get(item, 0) + 1
        if self.begun[item] <= 2 and any(word in item for word in self.words):
            self.deaths += 1
            raise Died
        return self.begun[item] <= 2

    def end(self, item: str) -> None:
        self.begun.pop(item, None)

    def again(self, task: str) -> bool:
        """Whether the task was taken up before."""
        before = task in self.taken
        self.taken.add(task)
        return before

    def claim(self, unit: str, task: str) -> bool:
        """There is one task of each unit here."""
        return True

    def tell(self, step: str, items: int, seconds: float, errors: int) -> None:
        """Nobody watches."""


def retried(work_: Callable[[], Any]) -> Any:
    """Do as Ray does: begin the unit again as often as its worker dies, here twenty times at most."""
    for _ in range(20):
        try:
            return work_()
        except Died:
            continue
    raise AssertionError("it is tried for ever")


def failures(run: str) -> list[tuple[str, str | None, str, str]]:
    rows = Ledger(run).read("errors").to_pylist()
    assert all(row["remedy"] == "re-encode it or leave it out" for row in rows)
    return [(row["stage"], row["key"], row["code"], row["reason"]) for row in rows]


@pytest.fixture
def run(tmp_path: Path, bikes: Path) -> str:
    """A run with one source, whose first two seconds are clips of half a second that are all kept."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    film = tmp_path / "film.mp4"
    shutil.copy(bikes.with_name("carphone_pristine.mp4"), film)
    source = {**footage.probe(str(film), ScanConfig()), "wave": 0, "unit": at_work.PROBED}
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)).save(picture, "JPEG")
    clips = [
        {
            "key": clip_key(source["source_id"], 500 * n), "source_id": source["source_id"], "uri": str(film),
            "start_s": n / 2, "end_s": n / 2 + 0.5, "duration_s": 0.5, "unit": at_work.UNIT, "frame_s": [n / 2],
            "crop_left": 0.0, "crop_top": 0.0, "crop_right": 0.0, "crop_bottom": 0.0,
        }
        for n in range(CLIPS)
    ]  # fmt: skip
    frames = [{"source_id": source["source_id"], "time_s": n / 2, "jpeg": picture.getvalue()} for n in range(CLIPS)]
    ledger.write("sources", at_work.PROBED, [source], "s")
    ledger.write("clips", at_work.UNIT, clips, "c")
    ledger.write("frames", at_work.SCAN, frames, "f")
    ledger.write("scores", at_work.UNIT, [], "o")
    at_work.keep(ledger.run, [clip["key"] for clip in clips])
    return ledger.run


def keys(run: str) -> list[str]:
    return Ledger(run).read("clips", ["key"])["key"].to_pylist()


def others(run: str) -> list[str]:
    return [key for n, key in enumerate(keys(run)) if n != BAD]


def test_a_file_that_kills_who_opens_it_is_an_error_beside_the_others(run: str, bikes: Path) -> None:
    rows = [{"wave": 0, "unit": at_work.PROBED, "uri": str(bikes.with_name(name))} for name in
            ("bikes.mp4", "carphone_pristine.mp4")]  # fmt: skip
    Ledger(run).write("plan", "w0000", rows, "p")
    crashes = Killer("bikes")
    done = retried(lambda: at_work.do(run, CONFIG, "sources", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (1, 1, 2)
    assert failures(run) == [("sources", None, "crashed", "opening it killed the worker twice")]


def test_a_span_that_kills_who_decodes_it_or_looks_at_its_cuts_is_an_error(run: str) -> None:
    crashes = Killer("span 0")
    done = retried(lambda: at_work.do(run, CONFIG, "scan", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (0, 1, 2)
    assert failures(run) == [("scan", None, "crashed", "decoding it killed the worker twice")]
    [lost] = Ledger(run).read("errors", ["seconds"])["seconds"].to_pylist()
    assert lost == pytest.approx(120 * 1001 / 30000, abs=0.05)
    at_work.do(run, CONFIG, "scan")
    witness = Killer("film.mp4")
    done = retried(lambda: at_work.do(run, CONFIG, "witness", counter=witness))
    assert (done["errors"], witness.deaths) == (1, 2)
    assert failures(run) == [("witness", None, "crashed", "looking at cuts in it killed the worker twice")]


def test_a_clip_that_kills_who_scores_it_costs_no_other_its_scores(run: str) -> None:
    everyone, bad = keys(run)[0] + " and 3", keys(run)[BAD] + " and 0"
    crashes = Killer(everyone, bad)
    done = retried(lambda: at_work.do(run, CONFIG, "score", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (3, 1, 4), "twice together, then twice alone"
    assert Ledger(run).read("scores", ["key"])["key"].to_pylist() == others(run)
    assert failures(run) == [("score", keys(run)[BAD], "crashed", "looking at it killed the worker twice")]


class Speaker:
    """A model that says the same of all clips."""

    def caption(self, clips: Sequence[dict[str, Any]]) -> caption.Captions:
        return caption.Captions(rows=[caption.row_of(clip, "transformers", "m", {"long": "A clip."}) for clip in clips])


def test_a_clip_that_kills_the_model_costs_no_other_its_caption(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crashes = Killer(keys(run)[0] + " and 3", keys(run)[BAD] + " and 0")
    config = CurateConfig(caption=CaptionConfig(source="transformers", model="here"))
    monkeypatch.setattr(sources, "captioner", lambda *_: Speaker())
    done = retried(lambda: at_work.do(run, config, "caption", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (3, 1, 4)
    assert Ledger(run).read("captions", ["key"])["key"].to_pylist() == others(run)
    assert failures(run) == [("caption", keys(run)[BAD], "crashed", "captioning it killed the worker twice")]


def test_a_clip_that_kills_who_cuts_it_costs_no_other_its_place(run: str) -> None:
    crashes = Killer(keys(run)[BAD])
    done = retried(lambda: at_work.do(run, CONFIG, "encode", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (3, 1, 2)
    assert Ledger(run).read("encoded", ["key"])["key"].to_pylist() == others(run)
    assert failures(run) == [("encode", keys(run)[BAD], "crashed", "cutting it killed the worker twice")]


def test_what_was_given_up_stays_given_up_when_another_kills_the_worker(run: str) -> None:
    one, two = keys(run)[1], keys(run)[BAD]
    crashes = Killer(one, two)
    done = retried(lambda: at_work.do(run, CONFIG, "encode", counter=crashes))
    assert (done["items"], done["errors"], crashes.deaths) == (2, 2, 4)
