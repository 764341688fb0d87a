"""What a worker asks for: never a caption that is there, whatever selection, kill or dead server came between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import CaptionConfig, CurateConfig
from rushes.pipelines.engine.curate import Curation
from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.caption import caption, sources, stage
from rushes.pipelines.stages.caption.caption import CaptionError, Captions
from rushes.pipelines.stages.caption.stage import Journal
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.ledger import Ledger, to_table
from tests.pipelines import at_work
from tests.pipelines.at_work import PROBED, SCAN, UNIT


def done(ledger: Ledger, table: str, print_: str) -> set[str]:
    """Units that have their part of a table under a fingerprint."""
    return {part.unit for part in ledger.parts(table) if part.fingerprint == print_}


SOURCE = "0123456789abcdef"
CONFIG = CaptionConfig(source="endpoint", endpoint="http://127.0.0.1:9/v1", model="m", concurrency=2)
MADE_BY = sources.made_by(CONFIG, [])


class Model:
    """Captions each clip by its picture and counts what it costs; may die, fail for some, or be killed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dies_after = self.killed_after = 10**9
        self.fails: set[str] = set()

    def caption(self, clips: Sequence[Any]) -> Captions:
        answers: list[Any] = []
        for clip in clips:
            kept = caption.given(clip)
            if kept:
                answers.append(kept)
            elif len(self.asked) >= self.killed_after:
                raise KeyboardInterrupt
            elif len(self.asked) >= self.dies_after:
                answers.append(CaptionError("refused", "gone", "look"))
            else:
                self.asked.append(clip["key"])
                text = {"short": f"{clip['jpegs'][0].decode()}."}
                bad = CaptionError("junk", "junk", "look") if clip["key"] in self.fails else None
                answers.append(bad or caption.answered(clip, "endpoint", "m", dict.fromkeys(caption.FIELDS, "") | text))
        return caption.collected(clips, answers, "the model")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    found = Model()
    monkeypatch.setattr(sources, "captioner", lambda config, actors=1: found)
    monkeypatch.setattr(stage, "CLIPS_AT_ONCE", 4)
    return found


def _clip(number: int, **changes: Any) -> dict[str, Any]:
    start_s = float(number)
    return {
        "key": clip_key(SOURCE, start_s), "source_id": SOURCE, "uri": "a.mp4", "unit": UNIT, "start_s": start_s,
        "end_s": start_s + 1, "duration_s": 1.0, "phash": [number], "frame_s": [start_s + 0.5],
    } | changes  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(str(tmp_path / "run"))
    found.create()
    fill(found)
    return found


def fill(ledger: Ledger) -> None:
    """Write twenty clips without scores, their pictures, and a selection that keeps all."""
    ledger.write("clips", UNIT, [_clip(n) for n in range(20)], "ccc")
    pictures = [{"source_id": SOURCE, "time_s": n + 0.5, "jpeg": b"Picture %d" % n} for n in range(20)]
    ledger.write("frames", SCAN, pictures, "fff")
    ledger.write("scores", UNIT, [], "ooo")
    keep(ledger, range(20))


def keep(ledger: Ledger, numbers: Iterable[int]) -> None:
    at_work.keep(ledger.run, [_clip(n)["key"] for n in numbers])


def work(ledger: Ledger, print_: str = "one", made_by: str = MADE_BY, config: CaptionConfig = CONFIG) -> dict[str, Any]:
    return at_work.do(ledger.run, CurateConfig(caption=config), "caption", print_=print_, made_by=made_by)


def said(ledger: Ledger) -> dict[str, str]:
    rows = ledger.read("captions").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows), "none doubled"
    return {row["key"]: row["short"] for row in rows}


def every(numbers: Any) -> dict[str, str]:
    return {_clip(n)["key"]: f"Picture {n}." for n in numbers}


def test_another_selection_asks_only_for_what_it_adds_and_forgets_nothing(ledger: Ledger, model: Model) -> None:
    keep(ledger, range(8))
    assert work(ledger)["items"] == 8 and said(ledger) == every(range(8))
    keep(ledger, range(4, 16))
    work(ledger, "two")
    assert said(ledger) == every(range(16)) and len(model.asked) == 16
    keep(ledger, range(20))
    work(ledger, "three")
    assert said(ledger) == every(range(20)) and len(model.asked) == len(set(model.asked)) == 20


def test_the_same_settings_make_no_model(ledger: Ledger, model: Model, monkeypatch: Any) -> None:
    work(ledger)
    monkeypatch.setattr(sources, "captioner", lambda *_: pytest.fail("a model was made"))
    assert work(ledger, "two")["items"] == 20


def test_other_settings_make_all_captions_again(ledger: Ledger, model: Model) -> None:
    work(ledger)
    work(ledger, "two", "another")
    assert len(model.asked) == 40 and {row["made_by"] for row in ledger.read("captions").to_pylist()} == {"another"}


def test_a_clip_that_shows_something_else_is_captioned_again(ledger: Ledger, model: Model) -> None:
    work(ledger)
    ledger.write("clips", UNIT, [_clip(n, **({"phash": [99]} if n == 7 else {})) for n in range(20)], "ddd")
    work(ledger, "two")
    assert model.asked[20:] == [_clip(7)["key"]]


def test_captions_that_were_exchanged_in_the_ledger_are_asked_for_again(ledger: Ledger, model: Model) -> None:
    work(ledger)
    rows = ledger.read("captions").to_pylist()
    rows[3]["key"], rows[5]["key"] = rows[5]["key"], rows[3]["key"]
    ledger.write("captions", UNIT, to_table("captions", rows), "one")
    work(ledger, "two")
    assert said(ledger) == every(range(20)) and len(model.asked) == 22


@pytest.mark.parametrize("after", [0, 1, 6, 11, 19])
def test_a_killed_worker_loses_no_more_than_the_clips_under_way(ledger: Ledger, model: Model, after: int) -> None:
    model.killed_after = after
    with pytest.raises(KeyboardInterrupt):
        work(ledger)
    assert ledger.parts("captions") == [], "nothing counts as done"
    model.killed_after = 10**9
    work(ledger)
    assert said(ledger) == every(range(20)) and len(model.asked) <= 20 + 4
    assert list(Journal(ledger.run, UNIT, MADE_BY).rows()) == [], "the journal goes when the unit is done"


def test_a_server_that_dies_is_fatal_and_what_it_answered_is_kept(ledger: Ledger, model: Model) -> None:
    model.dies_after = 10
    assert "gone" in work(ledger)["fatal"] and ledger.parts("captions") == []
    model.dies_after = 10**9
    assert work(ledger)["fatal"] == ""
    assert said(ledger) == every(range(20)) and len(model.asked) == 20, "none was asked for twice"


def test_a_clip_that_failed_is_asked_for_alone_when_tried_again(ledger: Ledger, model: Model) -> None:
    model.fails = {_clip(3)["key"]}
    assert (work(ledger)["items"], len(ledger.read("errors"))) == (19, 1)
    model.fails = set()
    curation = Curation(ledger.run, CurateConfig(caption=CONFIG), Reporter(live=False))
    curation.probed = [PROBED]
    curation._forget_failures()  # as --retry-failed does
    assert done(ledger, "captions", "one") == set(), "to be done again"
    assert len(ledger.parts("clips")) == 1 and ledger.parts("frames"), "what did not fail is not"
    work(ledger)
    assert said(ledger) == every(range(20)) and model.asked[20:] == [_clip(3)["key"]]
    assert len(ledger.read("errors")) == 0


def test_a_given_caption_that_came_later_replaces_a_model_s(ledger: Ledger, model: Model) -> None:
    work(ledger)
    ledger.write("clips", UNIT, [_clip(n, **({"caption": "Given."} if n == 2 else {})) for n in range(20)], "ddd")
    work(ledger, "two")
    assert said(ledger) == every(range(20)) | {_clip(2)["key"]: "Given."} and len(model.asked) == 20


def test_composed_captions_leave_no_trace_of_what_was_there_before(ledger: Ledger, tmp_path: Path) -> None:
    tags = CaptionConfig()
    work(ledger, "one", "t", tags)
    once = (tmp_path / "run/ledger/captions" / f"part-{UNIT}.one.parquet").read_bytes()
    rows = ledger.read("captions").to_pylist()
    ledger.write("captions", UNIT, to_table("captions", [row | {"made_by": "t"} for row in rows[:3]]), "zero")
    work(ledger, "one", "t", tags)
    assert (tmp_path / "run/ledger/captions" / f"part-{UNIT}.one.parquet").read_bytes() == once
    assert not (tmp_path / "run/captions").exists(), "nothing is journalled that costs nothing"
