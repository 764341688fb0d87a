"""How far long work is: live on a terminal, plain lines in a log; never silent for long, silent after the end. No Ray.

    with Reporter().work("dit") as beat:
        train(..., tell=beat.tell)

A thread of its own draws or says what was last known, so that a step which takes minutes is no silence. Everything goes
to stderr: stdout belongs to data.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # rich is loaded where something is drawn: `rushes --help` does without it
    from rich.console import RenderableType

log = logging.getLogger("rushes")
LINE_EVERY_S = 15.0
"""Between two lines of a log; half of what is promised, since one piece of work may end where the next begins."""
MARK_EVERY_S, MARKS = 2.0, 64
"""A pace is taken from its last 64 marks, two seconds apart or more: what was slow at the start is forgotten."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as sentences of a terminal have it: `1 clip`, `2 clips`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Pace:
    """How fast something goes of late."""

    def __init__(self) -> None:
        self.done = 0.0
        self._marks: deque[tuple[float, float]] = deque(maxlen=MARKS)

    def mark(self, done: float) -> None:
        """Note how much is done now; less than before is a new beginning."""
        now = time.monotonic()
        if done < self.done:
            self._marks.clear()
        self.done = done
        if not self._marks or now - self._marks[-1][0] >= MARK_EVERY_S:
            self._marks.append((now, done))

    @property
    def per_s(self) -> float:
        """What is done in a second; 0 where nothing is known yet."""
        if not self._marks:
            return 0.0
        began, before = self._marks[0]
        return (self.done - before) / max(time.monotonic() - began, 1e-9)

    def left_s(self, total: float) -> float | None:
        """Return the seconds until all is done; None where nothing is known yet."""
        left = max(total - self.done, 0.0)
        return 0.0 if not left else left / self.per_s if self.per_s else None


class Shown(Protocol):
    """Something whose state can be said or drawn at any moment, from another thread."""

    def line(self) -> str:
        """Return its state as one line."""

    def table(self) -> RenderableType:
        """Return its state as a drawing."""

    def last(self) -> list[str]:
        """Return what is said when it has ended well."""


@dataclass
class _Step:
    """A step of a leg: what is to do, and what was done of it by now."""

    name: str
    total: int
    before: int
    units: int = 0
    items: int = 0
    seconds: float = 0.0
    errors: int = 0
    pace: Pace = field(default_factory=Pace)


class Leg:
    """Steps that work at the same time, and how far each of them is."""

    def __init__(self, steps: Mapping[str, tuple[int, int]]):
        self._lock, self._began = threading.Lock(), time.monotonic()
        self._steps = {name: _Step(name, total, before) for name, (total, before) in steps.items() if total}
        for step in self._steps.values():
            step.pace.mark(0)

    def update(self, step: str, *, items: int, seconds: float, errors: int) -> None:
        """Count one more unit of a step: its items, the seconds of footage in it and what failed."""
        with self._lock:
            one = self._steps[step]
            self._set(one, one.units + 1, one.items + items, one.seconds + seconds, one.errors + errors)

    def state(self, tally: Mapping[str, tuple[int, int, float, int]]) -> None:
        """Take over how many units, items, seconds of footage and failures each step has had in all."""
        with self._lock:
            for name, counts in tally.items():
                if name in self._steps:
                    self._set(self._steps[name], *counts)

    def _set(self, step: _Step, units: int, items: int, seconds: float, errors: int) -> None:
        step.units, step.items, step.seconds, step.errors = units, items, seconds, errors
        step.pace.mark(units)

    def line(self) -> str:
        """Return the state of all steps as one line; footage is that of the step which has seen most of it."""
        with self._lock:
            steps, passed = list(self._steps.values()), time.monotonic() - self._began
            lefts = [step.pace.left_s(step.total) for step in steps]
            left = max((left for left in lefts if left is not None), default=0) if None not in lefts else 0
            if len(steps) == 1:
                parts = _of_step(steps[0], passed)
            else:
                parts = [" · ".join(f"{step.name} {step.units}/{step.total}" for step in steps) + " units"]
                parts += _common(max(step.seconds for step in steps), sum(step.errors for step in steps), passed)
            return ", ".join([*parts, *([f"about {_span(left)} left"] if left else [])])

    def last(self) -> list[str]:
        """Return a line for each step."""
        with self._lock:
            passed = time.monotonic() - self._began
            return [
                ", ".join(_of_step(step, passed)) + (f", {step.before} units done before" if step.before else "")
                for step in self._steps.values()
            ]

    def table(self) -> RenderableType:
        """Return a row for each step."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, header_style="dim", pad_edge=False)
        for title in ("step", "", "units", "items", "footage", "rate", "failed", "left"):
            table.add_column(title, justify="left" if title in ("step", "") else "right")
        with self._lock:
            passed = max(time.monotonic() - self._began, 1e-9)
            for step in self._steps.values():
                left = step.pace.left_s(step.total)
                rate = f"{step.seconds / passed:,.3g} ×" if step.seconds else f"{step.items / passed:,.3g}/s"
                table.add_row(
                    step.name, ProgressBar(step.total, min(step.units, step.total), width=24),
                    f"{step.units}/{step.total}", f"{step.items:,}", f"{step.seconds:,.0f} s" if step.seconds else "",
                    rate if step.items else "", str(step.errors or ""), _span(left) if left else "",
                )  # fmt: skip
        return table


class Heartbeat:
    """One piece of work, and the last that it told of itself."""

    def __init__(self, name: str):
        self.name = name
        self._lock, self._began, self._said = threading.Lock(), time.monotonic(), False
        self._done, self._total, self._of = 0, 0, ""
        self._figures: dict[str, float] = {}
        self._pace = Pace()

    def tell(self, done: int, total: int, of: str, figures: Mapping[str, float]) -> None:
        """Take over that so many of so many are done, and figures about it; those told before stay.

        Args:
            done: how many are done.
            total: how many there are to be done; 0 where nobody knows.
            of: what is counted, such as steps; something else begins anew.
            figures: the newest figures by their names, such as the loss.
        """
        with self._lock:
            if (total, of) != (self._total, self._of):
                self._pace, self._figures = Pace(), {}
            self._done, self._total, self._of = done, total, of
            self._figures |= figures
            self._pace.mark(done)

    def line(self) -> str:
        """Return the state as one line."""
        with self._lock:
            self._said = True
            left = self._pace.left_s(self._total) if self._total else None
            return ", ".join([*self._parts(), *([f"about {_span(left)} left"] if left else [])])

    def last(self) -> list[str]:
        """Return the state as it was in the end, if there was anything to say of it before."""
        with self._lock:
            return [", ".join(self._parts())] if self._of or self._said else []

    def table(self) -> RenderableType:
        """Return a bar and the state."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        with self._lock:
            bar = ProgressBar(self._total or None, min(self._done, self._total), width=24, pulse=not self._total)
        table.add_row(bar, self.line())
        return table

    def _parts(self) -> list[str]:
        done = f"{self._done:,}/{self._total:,} {self._of}" if self._total else f"{self._done:,} {self._of}"
        parts = [f"{self.name:<9} {done if self._of else 'at work'}"]
        parts += [f"{name} {value:.4g}" for name, value in self._figures.items()]
        parts += [f"{self._pace.per_s:.3g} {self._of}/s"] if self._pace.per_s else []
        return [*parts, _span(time.monotonic() - self._began)]


class Reporter:
    """Shows one piece of work after another: drawn on a terminal, said every so often in a log.

    Lightning runs the command once more for each further GPU of a machine; only the first of them speaks.
    """

    def __init__(self, live: bool | None = None, every_s: float = LINE_EVERY_S):
        self.live = sys.stderr.isatty() if live is None else live
        self.every_s = every_s
        self.quiet = os.environ.get("LOCAL_RANK", "0") != "0"
        if self.live:
            from rich.console import Console

            self.console = Console(stderr=True)

    def skipped(self, stage: str, units: int) -> None:
        """Say that a stage had nothing to do."""
        self._say(f"{stage:<9} nothing to do ({units} units done before)")

    @contextmanager
    def leg(self, steps: Mapping[str, tuple[int, int]]) -> Iterator[Leg]:
        """Show steps that work at the same time until the block is left.

        Args:
            steps: by the name of each, in their order, the units to be done now and those that were done before.
        """
        for name, (total, before) in steps.items():
            if not total:
                self.skipped(name, before)
        leg = Leg(steps)
        with self._shown(leg) if any(total for total, _ in steps.values()) else nullcontext():
            yield leg

    @contextmanager
    def work(self, name: str) -> Iterator[Heartbeat]:
        """Show one piece of work, which may tell how far it is, until the block is left."""
        beat = Heartbeat(name)
        with self._shown(beat):
            yield beat

    def follow(self, stage: str, rows: Iterable[dict[str, Any]], total: int, done: int) -> Iterator[dict[str, Any]]:
        """Yield status rows as they come and show how far the stage is.

        Args:
            stage: its name.
            rows: status rows of finished units, with items, seconds and errors.
            total: units to be done now.
            done: units that were done before.
        """
        with self.leg({stage: (total, done)}) as leg:
            for row in rows:
                leg.update(stage, items=row["items"], seconds=row["seconds"], errors=row["errors"])
                yield row

    @contextmanager
    def _shown(self, what: Shown) -> Iterator[None]:
        """Draw or say the state of something until the block is left, and how it ended if it ended well."""
        if self.live and not self.quiet:
            from rich.live import Live

            with Live(get_renderable=what.table, console=self.console, transient=True, redirect_stdout=False):
                yield
        else:
            ended = threading.Event()
            thread = threading.Thread(target=self._say_on, args=(what, ended), name="progress", daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
        for line in what.last():
            self._say(line)

    def _say_on(self, what: Shown, ended: threading.Event) -> None:
        while not ended.wait(self.every_s):
            self._say(what.line())

    def _say(self, line: str) -> None:
        if self.quiet:
            return
        if self.live:
            self.console.print(line, highlight=False, markup=False)
        else:
            log.info("%s", line)


def _of_step(step: _Step, passed_s: float) -> list[str]:
    counts = [f"{step.name:<9} {step.units}/{step.total} units", f"{step.items:,} items"]
    return counts + _common(step.seconds, step.errors, passed_s)


def _common(seconds: float, errors: int, passed_s: float) -> list[str]:
    """Return how much footage was worked on, how fast, what failed and the time; nothing of what there was none."""
    speed = f"{seconds / max(passed_s, 1e-3):.3g}× real time"
    footage = [f"{seconds:,.0f} s of footage", speed] if seconds else []
    return [*footage, *([f"{errors} failed"] if errors else []), _span(passed_s)]


def _span(seconds: float) -> str:
    """Return a time for people: 8 s, 12 min, 3 h 20 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
