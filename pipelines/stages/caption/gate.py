"""A gate before a server: a rate that all threads share, and a halt for all when one of them is told to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 60.0  # no server may hold a worker longer than this between two tries


class Gate:
    """Lets requests through one by one, evenly spaced, so that no minute sees more than the rate."""

    def __init__(
        self,
        per_minute: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Open the gate.

        Args:
            per_minute: most requests in a minute; 0 is no limit.
            clock: seconds of a clock that never goes back.
            sleep: waits for some seconds.
        """
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next_s = self._until_s = clock()

    def hold(self, seconds: float) -> None:
        """Let nobody through for some seconds."""
        with self._lock:
            self._until_s = max(self._until_s, self._clock() + seconds)

    def wait(self) -> None:
        """Return when it is one's turn and the gate is open; who finds it closed meanwhile takes another turn."""
        while True:
            with self._lock:
                turn_s = max(self._clock(), self._next_s, self._until_s)
                self._next_s = turn_s + self._gap_s
            while (left := turn_s - self._clock()) > 0:
                self._sleep(left)
            if self._until_s <= turn_s:
                return


def asked_wait_s(headers: Mapping[str, str], otherwise_s: float) -> float:
    """Return the seconds that a server's Retry-After asks for, at most `LONGEST_WAIT_S`; nonsense counts as unsaid.

    A date is read against the server's own `Date`, so that two clocks that disagree do no harm.
    """
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            until, now = parsedate_to_datetime(said), parsedate_to_datetime(headers.get("date", ""))
            seconds = (until - now).total_seconds()
        except (ValueError, TypeError):
            seconds = otherwise_s
    if not seconds >= 0:
        seconds = otherwise_s
    return min(LONGEST_WAIT_S, seconds)
