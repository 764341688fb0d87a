"""A worker's way through the steps of a leg, with real footage: what passes, what stops, who goes on. No Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import CurateConfig, ScanConfig, ScoreConfig, ShotsConfig
from rushes.pipelines.engine import job
from rushes.pipelines.engine.line import Line, task_name
from rushes.pipelines.engine.plan import WorkUnit
from rushes.pipelines.media import footage
from rushes.pipelines.models import weights
from rushes.pipelines.stages.shots.stage import Shots
from rushes.pipelines.stages.unit import Unit
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.at_work import PROBED, UNIT, through

STEPS = ("scan", "witness", "shots")
CONFIG = CurateConfig(
    scan=ScanConfig(span_s=2.0), shots=ShotsConfig(witness="none", min_clip_s=0.5),
    score=ScoreConfig(scorers=["quality"]),
)  # fmt: skip
Row = dict[str, Any]


class Died(BaseException):
    """Stands for a process that is killed: nothing catches it."""


class Counter:
    """Counts as `cluster.Attempts` does, over the deaths of workers; what is told may be listened to."""

    def __init__(self, told: Callable[[str], None] = lambda step: None) -> None:
        self.told = told
        self.taken: set[str] = set()
        self.claims: dict[str, str] = {}
        self.tallies: list[tuple[str, int, float, int]] = []

    def begin(self, item: str) -> bool:
        return True

    def end(self, item: str) -> None:
        pass

    def again(self, task: str) -> bool:
        before = task in self.taken
        self.taken.add(task)
        return before

    def claim(self, unit: str, task: str) -> bool:
        return self.claims.setdefault(unit, task) == task

    def tell(self, step: str, items: int, seconds: float, errors: int) -> None:
        self.tallies.append((step, items, seconds, errors))
        self.told(step)


@pytest.fixture
def run(tmp_path: Path, bikes: Path) -> str:
    """A run with one film of ten seconds that has been probed."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    source = {**footage.probe(str(bikes), CONFIG.scan), "wave": 0, "unit": PROBED}
    ledger.write("sources", PROBED, [source], "s")
    return ledger.run


def tasks(run: str, chunks: int = 1, mark: str = "now") -> list[Row]:
    """The tasks that the engine makes of the film as the ledger stands."""
    [source] = Ledger(run).read("sources").to_pylist()
    unit = WorkUnit(
        name=UNIT, wave=0, probed_in=PROBED, uris=[source["uri"]], seconds=source["duration_s"], chunks=chunks, print=""
    )
    prints = {UNIT: {"sources": "s", **{step: f"{step}-{mark}" for step in job.FOUND}}}
    return job.tasks(STEPS, [unit], job.Index(Ledger(run).snapshot()), prints)


def steps(done: Row) -> list[str]:
    return [row["step"] for row in done["did"]]


def files(run: str) -> dict[Path, tuple[int, bytes]]:
    """Every file of a run, when it was written and what is in it."""
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in Path(run).rglob("*") if file.is_file()}


def dies_once(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Let the worker that finds shots be killed the first time, when it has written so many of its tables."""
    real = Shots.__call__

    def killed(worker: Shots, unit: Unit) -> Any:
        monkeypatch.setattr(Shots, "__call__", real)
        written: list[str] = []
        write = unit.write

        def counted(table: str, rows: Any) -> None:
            if len(written) == after:
                raise Died
            written.append(table)
            write(table, rows)

        unit.write = counted  # type: ignore[method-assign]
        return real(worker, unit)

    monkeypatch.setattr(Shots, "__call__", killed)


# --- one task -----------------------------------------------------------------------------------------------------


def test_a_task_goes_through_its_steps_in_order_and_tells_what_each_did(run: str) -> None:
    [task] = tasks(run)
    counter = Counter()
    done = through(Line(run, CONFIG, STEPS), task, counter)
    assert steps(done) == list(STEPS) and "fatal" not in done and "waiting" not in done
    assert [(row["items"], row["errors"], row["note"]) for row in done["did"]] == [
        (5, 0, ""), (0, 0, ""), (len(Ledger(run).read("clips")), 0, ""),
    ]  # fmt: skip
    assert done["did"][0]["seconds"] == pytest.approx(10.0, abs=0.05) and done["did"][2]["items"] > 1
    assert all(row["began"] <= row["ended"] for row in done["did"])
    assert counter.tallies == [(row["step"], row["items"], row["seconds"], row["errors"]) for row in done["did"]]
    assert tasks(run) == [], "nothing is left to do"


def test_what_lines_one_after_another_did_is_told_together_and_equals_what_one_does(run: str, tmp_path: Path) -> None:
    [task] = tasks(run)
    shutil.copytree(run, tmp_path / "other")
    through(Line(run, CONFIG, STEPS), task)
    done = task
    for step in STEPS:  # as segments of their own, each with nothing at hand but the ledger
        done = through(Line(str(tmp_path / "other"), CONFIG, [step]), done)
    assert steps(done) == list(STEPS)
    one, other = ({str(f.relative_to(root)): data for f, (_, data) in files(str(root)).items()}
                  for root in (Path(run), tmp_path / "other"))  # fmt: skip
    assert one == other and any("clips" in name for name in one)


def test_a_step_that_is_not_to_be_done_is_left_out(run: str) -> None:
    [task] = tasks(run)
    through(Line(run, CONFIG, STEPS), task)
    Ledger(run).remove("clips", UNIT)
    before = files(run)
    [task] = tasks(run)
    assert steps(through(Line(run, CONFIG, STEPS), task)) == ["shots"]
    same = {file: facts for file, facts in files(run).items() if file.parent.name in ("signals", "frames", "windows")}
    assert len(same) == 3 and same.items() <= before.items()


@pytest.mark.parametrize("state", [{"waiting": True}, {"fatal": "the disk is full"}])
def test_a_task_that_waits_or_is_fatal_passes_as_it_is(run: str, state: Row) -> None:
    [task] = tasks(run)
    before, counter = files(run), Counter()
    given = {**task, **state, "did": [{"step": "scan"}]}
    assert through(Line(run, CONFIG, STEPS), given, counter) == given
    assert files(run) == before and counter.taken == set() and counter.tallies == []


def test_a_model_that_cannot_be_loaded_is_fatal_names_its_step_and_keeps_what_was_done(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise weights.MissingModel("no weights; take --shots.witness none")

    config = CurateConfig(scan=CONFIG.scan)
    monkeypatch.setattr(weights, "transnet", missing)
    [task] = tasks(run)
    done = through(Line(run, config, STEPS), task)
    assert done["fatal"] == "witness: no weights; take --shots.witness none"
    assert steps(done) == ["scan"] and Ledger(run).read("errors").num_rows == 0, "no unit is to blame"
    assert [task["todo"] for task in tasks(run)] == [["witness", "shots"]]


def test_a_model_is_made_for_the_first_unit_that_needs_it_and_serves_all_that_follow(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = Shots.__init__

    def counted(worker: Shots, config: CurateConfig) -> None:
        made.append("shots")
        real(worker, config)

    monkeypatch.setattr(Shots, "__init__", counted)
    line = Line(run, CONFIG, STEPS)
    [task] = tasks(run)
    through(line, {**task, "todo": ["scan", "witness"]})
    assert made == []
    for _ in range(2):
        through(line, {**task, "todo": ["shots"]})
    assert made == ["shots"]


# --- a film in chunks ---------------------------------------------------------------------------------------------


def test_the_last_chunk_goes_on_with_the_whole_film_and_the_others_wait(run: str, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "whole")
    through(Line(str(tmp_path / "whole"), CONFIG, STEPS), tasks(run)[0])
    line, counter = Line(run, CONFIG, STEPS), Counter()
    first, middle, last = tasks(run, chunks=3)
    found = [through(line, task, counter) for task in (middle, last, first)]
    assert [(steps(done), done.get("waiting")) for done in found] == [
        (["scan"], True), (["scan"], True), (list(STEPS), None),
    ]  # fmt: skip
    assert [done["chunk"] for done in found] == [1, 2, None], "what goes on is the unit, not a chunk of it"
    assert [part.unit for part in Ledger(run).parts("signals")] == [f"{UNIT}-{chunk:03d}" for chunk in range(3)]
    clips = Ledger(run).read("clips")
    assert len(clips) > 1 and clips.equals(Ledger(str(tmp_path / "whole")).read("clips"))
    for table in ("signals", "frames", "windows"):  # as text: signals hold what is not a number
        assert str(Ledger(run).read(table).to_pylist()) == str(Ledger(str(tmp_path / "whole")).read(table).to_pylist())
    assert tasks(run, chunks=3) == []


def test_of_chunks_that_end_together_one_goes_on(run: str) -> None:
    line = Line(run, CONFIG, STEPS)
    first, last = tasks(run, chunks=2)
    meanwhile: list[Row] = []

    def told(step: str) -> None:
        if step == "scan" and not meanwhile:  # the first is written, and before it looks whether it was the last …
            meanwhile.append({})
            meanwhile[0] = through(line, last, counter)  # … another one ends, and finds all of them there

    counter = Counter(told)
    done = through(line, first, counter)
    assert steps(meanwhile[0]) == list(STEPS) and "waiting" not in meanwhile[0]
    assert (steps(done), done["waiting"]) == (["scan"], True)
    assert [step for step, *_ in counter.tallies] == ["scan", "scan", "witness", "shots"]


def test_the_task_that_goes_on_with_a_film_goes_on_when_its_worker_died_and_scans_nothing_again(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = tasks(run, chunks=2)
    counter = Counter()
    through(Line(run, CONFIG, STEPS), first, counter)
    dies_once(monkeypatch)
    with pytest.raises(Died):
        through(Line(run, CONFIG, STEPS), last, counter)
    scanned = {file: facts for file, facts in files(run).items() if file.parent.name == "signals"}
    assert counter.claims == {UNIT: task_name(last)} and len(scanned) == 2
    done = through(Line(run, CONFIG, STEPS), last, counter)
    assert steps(done) == ["shots"] and tasks(run, chunks=2) == []
    assert scanned.items() <= files(run).items()


# --- a worker that died -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_a_dead_worker_had_done_is_not_done_again_and_the_bytes_are_those_of_one_that_lived(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    shutil.copytree(run, tmp_path / "lived")
    [task] = tasks(run)
    through(Line(str(tmp_path / "lived"), CONFIG, STEPS), task)
    counter = Counter()
    dies_once(monkeypatch, after)
    with pytest.raises(Died):
        through(Line(run, CONFIG, STEPS), task, counter)
    before = files(run)
    assert not Ledger(run).parts("clips") and len(Ledger(run).parts("witness")) == 1
    done = through(Line(run, CONFIG, STEPS), task, counter)
    assert steps(done) == ["shots"], "scan and witness stand in the ledger"
    done_before = {file: facts for file, facts in before.items() if file.parent.name in ("signals", "witness")}
    assert len(done_before) == 2 and done_before.items() <= files(run).items()
    one, other = ({str(f.relative_to(root)): data for f, (_, data) in files(str(root)).items()}
                  for root in (Path(run), tmp_path / "lived"))  # fmt: skip
    assert one == other


def test_errors_that_a_dead_worker_told_of_go_when_the_next_meets_none(run: str) -> None:
    [task] = tasks(run)
    counter = Counter(lambda step: (_ for _ in ()).throw(Died()))
    row = {"stage": "scan", "unit": f"{UNIT}-000", "uri": "a.mp4", "code": "unreadable", "seconds": 1.0}
    Ledger(run).write("errors", f"scan-{UNIT}-000", [row], "scan-now")  # after the task was made: it tells of none
    assert task["stale"] == {}
    counter.taken.add(f"scan {task_name(task)}")
    with pytest.raises(Died):
        through(Line(run, CONFIG, STEPS), task, counter)
    assert Ledger(run).parts("signals") and Ledger(run).parts("errors") == []


def test_parts_of_another_configuration_go_when_the_new_ones_are_there(run: str) -> None:
    [task] = tasks(run, mark="before")
    through(Line(run, CONFIG, STEPS), task)
    [task] = tasks(run)
    assert task["todo"] == list(STEPS)
    through(Line(run, CONFIG, STEPS), task)
    tables = ("signals", "frames", "windows", "witness", "strips", "trims", "sketches", "clips")
    found = {table: [part.fingerprint for part in Ledger(run).parts(table)] for table in tables}
    assert all(len(prints) == 1 and prints[0].endswith("-now") for prints in found.values()), found
