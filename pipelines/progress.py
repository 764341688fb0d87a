"""Live progress on a terminal, plain lines in a log. No Ray."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger("rushes")
LINE_EVERY_S = 15.0


class Reporter:
    """Follows the units of one stage after another.

    Everything goes to stderr: stdout belongs to data.
    """

    def __init__(self, live: bool | None = None):
        self.live = sys.stderr.isatty() if live is None else live
        self.console = Console(stderr=True)

    def skipped(self, stage: str, units: int) -> None:
        """Say that a stage had nothing to do."""
        self._say(f"{stage:<9} nothing to do ({units} units done before)")

    def follow(self, stage: str, rows: Iterable[dict[str, Any]], total: int, done: int) -> Iterator[dict[str, Any]]:
        """Yield status rows as they come and show how far the stage is.

        Args:
            stage: its name.
            rows: status rows of finished units, with items, seconds and errors.
            total: units to be done now.
            done: units that were done before.
        """
        began, sums = time.monotonic(), {"items": 0, "seconds": 0.0, "errors": 0}
        bar = self._bar(stage, total) if self.live else None
        said, count = began, 0
        try:
            for count, row in enumerate(rows, 1):
                for name in sums:
                    sums[name] += row[name]
                if bar:
                    bar.update(bar.task_ids[0], advance=1, note=_note(sums, time.monotonic() - began))
                elif time.monotonic() - said > LINE_EVERY_S:
                    said = time.monotonic()
                    self._say(f"{stage:<9} {count}/{total} units, {_note(sums, said - began)}")
                yield row
        finally:
            if bar:
                bar.stop()
        before = f", {done} units done before" if done else ""
        self._say(f"{stage:<9} {count}/{total} units, {_note(sums, time.monotonic() - began)}{before}")

    @contextmanager
    def leg(self, steps):
        """Interim."""

        class Shown:
            tally = {}

            def state(self, tally):
                self.tally = tally

        shown = Shown()
        yield shown
        for name, (total, before) in steps.items():
            units, items, seconds, errors = shown.tally.get(name, (0, 0, 0.0, 0))
            self._say(f"{name:<9} {units}/{total} units, {items} items, {seconds:.0f} s of footage, {errors} failed")

    def _bar(self, stage: str, total: int) -> Progress:
        bar = Progress(
            TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self.console, transient=True,
        )  # fmt: skip
        bar.add_task(stage, total=total, note="")
        bar.start()
        return bar

    def _say(self, line: str) -> None:
        if self.live:
            self.console.print(line, highlight=False)
        else:
            log.info(line)


def _note(sums: dict[str, Any], elapsed_s: float) -> str:
    rate = sums["items"] / max(elapsed_s, 1e-3)
    failed = f", {sums['errors']} failed" if sums["errors"] else ""
    return f"{sums['items']} items, {sums['seconds']:.0f} s of footage, {rate:.1f} items/s, {elapsed_s:.1f} s{failed}"
