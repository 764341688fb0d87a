"""Progress is said while nothing ends and never after the end, on stderr, with the right time left."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rushes.pipelines import progress
from rushes.pipelines.progress import Heartbeat, Leg, Pace, Reporter

REPO = Path(__file__).parents[2]
TICK_S = 0.02


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What stands in the log, as it grows."""
    caplog.set_level(logging.INFO, "rushes")
    yield caplog.messages
    assert not [thread.name for thread in threading.enumerate() if thread.name == "progress"]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def until(what: object, seconds: float = 10.0) -> None:
    """Wait until something is true; fail where it does not come true."""
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come true"
        time.sleep(TICK_S / 4)


# ------------------------------------------------------------------------------------- never silent, then silent


def test_a_step_that_takes_long_is_said_while_nothing_ends(said, caplog):
    with Reporter(live=False, every_s=TICK_S).work("dit") as beat:
        until(lambda: len(caplog.messages) >= 2)
        assert all(re.fullmatch(r"dit +at work, \d.*s", line) for line in caplog.messages)
        beat.tell(3, 10, "steps", {"loss": 0.125})
        until(lambda: caplog.messages[-1].startswith("dit       3/10 steps, loss 0.125"))


def test_a_unit_that_takes_long_is_said_while_nothing_ends(said, caplog):
    def rows() -> Iterator[dict]:
        yield {"items": 4, "seconds": 8.0, "errors": 1}
        until(lambda: caplog.messages)
        yield {"items": 1, "seconds": 2.0, "errors": 0}

    found = list(Reporter(live=False, every_s=TICK_S).follow("scan", rows(), 2, 5))
    assert len(found) == 2
    assert re.match(r"scan      1/2 units, 4 items, 8 s of footage, .*× real time, 1 failed, ", caplog.messages[0])
    assert re.match(r"scan      2/2 units, 5 items, 10 s of .* 1 failed, .*s, 5 units done before", caplog.messages[-1])


def test_nothing_is_said_after_the_end(said, caplog):
    reporter = Reporter(live=False, every_s=TICK_S)
    with reporter.work("dit"):
        until(lambda: caplog.messages)
    with reporter.leg({"scan": (2, 0)}):
        until(lambda: caplog.messages[-1].startswith("scan"))
    with pytest.raises(ZeroDivisionError), reporter.work("dit"):
        1 / 0  # noqa: B018
    count = len(caplog.messages)
    time.sleep(5 * TICK_S)
    assert len(caplog.messages) == count


def test_work_that_ends_at_once_and_told_nothing_leaves_no_line_and_failed_work_no_last_one(said, caplog):
    reporter = Reporter(live=False)
    with reporter.work("report"):
        pass
    with pytest.raises(ValueError, match="no"), reporter.work("dit") as beat:
        beat.tell(1, 2, "steps", {})
        raise ValueError("no")
    assert caplog.messages == []


def test_a_follower_who_gives_up_ends_the_lines(said, caplog):
    def give_up() -> None:
        for _ in Reporter(live=False, every_s=TICK_S).follow(
            "scan", iter([{"items": 1, "seconds": 0, "errors": 0}]), 2, 0
        ):
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        give_up()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize("live", [False, True])
def test_lines_go_to_stderr_and_a_process_that_forgets_to_end_is_not_kept_alive(live: bool):
    code = f"""
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from rushes.pipelines.progress import Reporter
work = Reporter(live={live}, every_s={TICK_S}).work("dit")
work.__enter__().tell(1, 2, "steps", {{"loss": 0.5}})
time.sleep(0.5)
print("data")
"""
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout == "data\n"
    assert "1/2 steps, loss 0.5" in done.stderr


def test_only_the_first_process_of_a_machine_speaks(said, caplog, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    reporter = Reporter(live=False, every_s=TICK_S)
    with reporter.work("dit") as beat:
        beat.tell(1, 2, "steps", {})
        time.sleep(3 * TICK_S)
    reporter.skipped("scan", 3)
    assert caplog.messages == []


def test_what_is_drawn_on_a_terminal_shows_every_step(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    reporter = Reporter(live=True)
    with reporter.leg({"scan": (3, 0), "score": (3, 1), "pack": (0, 9)}) as leg:
        leg.update("scan", items=2, seconds=30.0, errors=1)
        reporter.console.print(leg.table())
    shown = capsys.readouterr().err
    assert re.search(r"pack +nothing to do \(9 units done before\)", shown)
    assert re.search(r"scan .* 1/3 +2 +30 s .* 1 ", shown) and re.search(r"score .* 0/3 ", shown)
    assert re.search(r"score     0/3 units, 0 items, .*1 units done before", shown)


# ------------------------------------------------------------------------------------------ the time that is left


def test_the_time_left_is_right_for_a_steady_rate(clock):
    beat = Heartbeat("dit")
    assert "left" not in beat.line()
    for step in range(301):
        beat.tell(step, 1000, "steps", {})
        assert ("left" in beat.line()) == (step > 0)
        clock.now += 1.0
    clock.now -= 1.0
    assert beat.line() == "dit       300/1,000 steps, 1 steps/s, 5 min, about 12 min left"


def test_a_resume_does_not_count_what_was_done_before(clock):
    pace = Pace()
    pace.mark(900)
    clock.now += 10
    pace.mark(905)
    assert pace.left_s(1000) == pytest.approx(95 / 0.5)


def test_a_slow_start_is_forgotten(clock):
    pace = Pace()
    pace.mark(0)
    clock.now += 600  # the first step, with all that has to be loaded
    for step in range(1, 200):
        pace.mark(step)
        clock.now += 2
    assert pace.left_s(299) == pytest.approx(100 * 2, rel=0.02)


def test_something_else_to_be_counted_begins_anew(clock):
    beat = Heartbeat("tokenizer")
    beat.tell(0, 4, "clips measured", {"PSNR": 30.0})
    clock.now += 40
    beat.tell(4, 4, "clips measured", {})
    beat.tell(0, 600, "steps", {})
    assert beat.line() == "tokenizer 0/600 steps, 40 s"


def test_where_nobody_knows_how_much_there_is_no_time_left_is_said(clock):
    beat = Heartbeat("tokenizer")
    for number in range(3):
        beat.tell(number, 0, "segments", {})
        clock.now += 2
    assert beat.line() == "tokenizer 2 segments, 0.333 segments/s, 6.0 s"


# --------------------------------------------------------------------------------------------------------- a leg


def test_a_leg_is_one_line_with_all_its_steps(clock):
    leg = Leg({"scan": (80, 0), "witness": (80, 0), "score": (80, 3), "pack": (0, 5)})
    clock.now += 80
    leg.state({"scan": (12, 30, 3412.0, 0), "witness": (11, 9, 300.0, 0)})
    assert leg.line() == ("scan 12/80 · witness 11/80 · score 0/80 units, 3,412 s of footage, 42.6× real time, 80 s"), (
        "how long score takes is not known yet"
    )
    leg.state({"score": (8, 90, 2000.0, 2), "pack": (5, 0, 0.0, 0)})
    assert leg.line().endswith(
        "score 8/80 units, 3,412 s of footage, 42.6× real time, 2 failed, 80 s, about 12 min left"
    )
    assert leg.last() == [
        "scan      12/80 units, 30 items, 3,412 s of footage, 42.6× real time, 80 s",
        "witness   11/80 units, 9 items, 300 s of footage, 3.75× real time, 80 s",
        "score     8/80 units, 90 items, 2,000 s of footage, 25× real time, 2 failed, 80 s, 3 units done before",
    ]


def test_a_state_that_is_polled_and_units_that_are_counted_come_to_the_same(clock):
    polled, counted = (Leg({"scan": (3, 0)}) for _ in range(2))
    for units in range(1, 4):
        clock.now += 5
        counted.update("scan", items=2, seconds=7.0, errors=1)
        polled.state({"scan": (units, 2 * units, 7.0 * units, units)})
        assert counted.line() == polled.line()
    assert "left" not in polled.line()
