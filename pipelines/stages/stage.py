"""The face of a stage: what it reads and writes, its settings, where it runs, and who works on a unit. No Ray.

A stage is a folder `stages/<name>/` with a `stage.py` that holds `STAGE`. It meets other stages through the tables of
the ledger alone. `engine/job.py` says which stages there are, in which order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rushes.pipelines.stages.unit import Tally, Unit

Where = Literal["cpu", "model", "wait", "either"]
Place = Literal["cpu", "gpu", "wait"]
Worker = Callable[[Unit], Tally]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage, as the engine sees it."""

    name: str
    reads: tuple[str, ...] = ()
    """Tables that it reads of its unit."""
    writes: tuple[str, ...]
    """Tables that it writes a part of for each unit; the last one marks the unit as done."""
    follows: str = ""
    """The stage whose outcome it depends on: what changes that one is done again by this one as well."""
    settings: Callable[[Any], Any]
    """Of the configuration (of `curate` a CurateConfig) what else its outcome depends on; another value means doing it
    again."""
    where: Callable[[Any], Where]
    """cpu: a task of one core. model: on a GPU where there is one, else a core. wait: it waits for a server and needs
    no core. either: it costs little and runs wherever the step before it does."""
    workers: Callable[[Any], int] = lambda config: 0
    """Processes that hold its model or ask its server; 0 is one for each GPU, or one that waits."""
    worker: Callable[[Any], Worker]
    """Makes what works on units, once a process; heavy modules are imported here, not with the stage."""
    check: Callable[[Any], None] = lambda config: None
    """Raises ValueError where it lacks what it needs, before anything runs."""


def load(name: str) -> Stage:
    """Return a stage by its name."""
    found: Stage = importlib.import_module(f"rushes.pipelines.stages.{name}.stage").STAGE
    return found
