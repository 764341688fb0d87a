"""The gate before a server: no minute sees more than the rate, whoever comes and whatever holds it back."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.stages.caption.gate import LONGEST_WAIT_S, Gate, asked_wait_s


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@settings(max_examples=60, deadline=None)
@given(st.floats(1, 6000), st.lists(st.floats(0, 5), min_size=2, max_size=40), st.floats(0, 30))
def test_requests_are_spaced_by_the_rate_whenever_they_come(rate: float, pauses: list[float], hold: float) -> None:
    clock = Clock()
    gate = Gate(rate, clock, clock.sleep)
    passed = []
    for number, pause in enumerate(pauses):
        clock.now += pause
        if number == len(pauses) // 2:
            gate.hold(hold)
        gate.wait()
        passed.append(clock.now)
    gaps = [after - before for before, after in pairwise(passed)]
    assert min(gaps) >= 60 / rate - 1e-6


def test_without_a_rate_nobody_waits_and_a_hold_stops_all() -> None:
    clock = Clock()
    gate = Gate(0, clock, clock.sleep)
    gate.wait()
    assert clock.now == 0
    gate.hold(4)
    gate.wait()
    assert clock.now == 4


def test_threads_that_wait_while_the_gate_closes_do_not_rush_through_together() -> None:
    gate = Gate(60 / 0.02)  # one every 20 ms
    passed: list[float] = []
    lock = threading.Lock()

    def go() -> None:
        gate.wait()
        with lock:
            passed.append(gate._clock())

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    began = gate._clock()
    gate.hold(0.1)
    for thread in threads:
        thread.join()
    passed.sort()
    late = [at for at in passed if at > began + 0.05]
    # A busy machine only makes them later than their turn, never earlier.
    assert len(passed) == 6 and late and all(at >= began + 0.1 + 0.02 * turn - 1e-3 for turn, at in enumerate(late))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "9999"}, LONGEST_WAIT_S),
        ({"retry-after": "-3"}, 1.0),
        ({"retry-after": "nan"}, 1.0),
        ({"retry-after": "soon"}, 1.0),
        ({}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1.0),
    ],
)
def test_a_server_may_ask_for_no_more_than_a_minute(headers: dict[str, str], seconds: float) -> None:
    assert asked_wait_s(headers, 1.0) == seconds
