"""Running the legs of a job on Ray Data: the only place that knows Ray.

A leg is one streaming dataset, `tasks → map → map → … → tasks`: what flows are small rows, data stays in the ledger.
Steps that follow each other on the same kind of resource are one operator, so that a leg has at most one that takes
cores: its tasks cannot be starved by an idle pool, on one core or on a thousand. Models that have a GPU are a pool of
actors beside it, which take no core, and so are those that wait for a server. A task is small, so nothing backs up.

A task whose worker dies is retried by Ray. `Attempts` counts how often an item (a video, say) was begun without being
ended; what has taken a worker down twice is recorded as an error instead of being tried for ever.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import pickle
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rushes.pipelines.config import RayConfig
from rushes.pipelines.stages.stage import Place

log = logging.getLogger("rushes")

Row = dict[str, Any]
Tallies = dict[str, tuple[int, int, float, int]]
"""By step: units done, items, seconds of footage, errors."""
MAX_ATTEMPTS = 2
WATCH_S = 1.0
IN_FLIGHT = 2
"""Tasks that an actor is given at once: the next one is there when it ends one, and none waits at the end of a leg."""
_NATIVE_INFO = re.compile(rb"\[[-\d :,.]+ I \d+ \d+\] ")


def start(config: RayConfig) -> None:
    """Join the cluster at `config.address` or `RAY_ADDRESS`, else start a small Ray here; nothing if one runs."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # dead workers are told in our own words
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # that the cluster is guarded is no news
    common: Row = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    address = config.address or os.environ.get("RAY_ADDRESS", "")  # set inside a Ray job
    with _without_greetings():
        if address:
            ray.init(address=address, **common)
        else:
            store = max(config.object_store_mb, 80) * 2**20
            ray.init(
                address="local",  # without it Ray joins whatever cluster was last started on this machine
                num_cpus=os.cpu_count(), include_dashboard=False, object_store_memory=store, **common,
            )  # fmt: skip
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.execution_options.preserve_order = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Keep Ray's native lines of level INFO, which no logger holds back, from stderr; all else is passed on."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if not _NATIVE_INFO.match(line)))


def stop() -> None:
    """Leave Ray."""
    _counter.cache_clear()
    if ray.is_initialized():
        ray.shutdown()


@contextmanager
def apart() -> Iterator[None]:
    """Keep stdout for data: Ray prints there when a worker dies, some of it only when it is left, as it is at the end.

    Whatever is printed in the block goes to stderr instead.
    """
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            stop()


def cpus() -> int:
    """Return the CPUs of the cluster, at least one."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpus() -> int:
    """Return the GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Steps of a leg that run in one process, one after the other, with what makes the worker that does them."""

    place: Place
    make: Callable[[], Callable[..., Row]]
    """Called once a process; what it makes is called with a task, the counter and a number of threads, and returns the
    task with what came of it."""
    workers: int = 0
    """Actors of a pool; 0 is one for each GPU, and a single one that waits."""


def stream(
    tasks: Sequence[Row], segments: Sequence[Segment], *, in_flight: int = 0,
    watch: Callable[[Tallies], None] | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Yield tasks as they come out of the last segment; they go in in their order, and do not wait for one another.

    Args:
        tasks: plain values, as JSON can hold them.
        segments: what is done with each, in order.
        in_flight: tasks under way at once on cores; 0 is as many as there are cores, also those that join later.
        watch: told every second what the steps have done.
    """
    if not tasks:
        return
    attempts = Attempts()
    rows = [{"task": json.dumps(task)} for task in tasks]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    for segment in segments:
        dataset = _mapped(dataset, segment, attempts, len(tasks), in_flight)
    with _watched(attempts, watch), _in_a_sentence():
        for row in dataset.iter_rows():
            yield json.loads(row["task"])


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Turn what a worker did not expect into one line; where it happened stands in the error that it is raised from."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        deepest: BaseException = error
        while following := getattr(deepest, "cause", None) or deepest.__cause__:
            deepest = following
        said = f"{type(deepest).__name__}: {deepest}"
        raise RuntimeError(f"a worker failed ({said}); please report it, RUSHES_DEBUG=1 shows where") from error


def _mapped(dataset: Any, segment: Segment, attempts: Attempts, tasks: int, in_flight: int) -> Any:
    made_of = pickle.dumps(segment.make)
    threads = max(1, cpus() // min(tasks, in_flight or cpus()))
    common = {"made_of": made_of, "attempts": attempts, "threads": threads}
    if segment.place == "cpu":
        size = min(tasks, in_flight) or None
        return dataset.map(_task, fn_kwargs=common, num_cpus=1, compute=TaskPoolStrategy(size=size))
    found = gpus() if segment.place == "gpu" else 0
    size = min(tasks, segment.workers or found or 1)
    pool = ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=IN_FLIGHT)
    share = min(1.0, found / size)
    return dataset.map(_Actor, fn_constructor_kwargs=common, num_cpus=0, num_gpus=share or None, compute=pool)


@functools.cache
def _worker(made_of: bytes) -> Callable[..., Row]:
    """Return this process's worker: what it has loaded serves all tasks that come to it."""
    found: Callable[..., Row] = pickle.loads(made_of)()  # what the driver pickled, never data
    return found


def _task(row: Row, made_of: bytes, attempts: Attempts, threads: int) -> Row:
    return {"task": json.dumps(_worker(made_of)(json.loads(row["task"]), attempts, threads))}


class _Actor:
    """A process that keeps what it has loaded."""

    def __init__(self, made_of: bytes, attempts: Attempts, threads: int) -> None:
        self.made_of, self.attempts, self.threads = made_of, attempts, threads

    def __call__(self, row: Row) -> Row:
        return _task(row, self.made_of, self.attempts, self.threads)


@contextmanager
def _watched(attempts: Attempts, watch: Callable[[Tallies], None] | None) -> Iterator[None]:
    """Tell how far the steps are, in a thread of its own while the block waits for what comes out in the end."""
    if watch is None:
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(WATCH_S):
            with suppress(ray.exceptions.RayError):  # the end is told below, or the run has failed
                watch(attempts.tallies())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
        watch(attempts.tallies())
    finally:
        over.set()
        thread.join()


class Attempts:
    """What workers tell of a leg: what they begin and end, over all their deaths, and what is done."""

    _legs = itertools.count()

    def __init__(self) -> None:
        self._actor, self._leg = _counter(), next(self._legs)

    def begin(self, item: str) -> bool:
        """Note that work on an item begins; False if it has already taken `MAX_ATTEMPTS` workers down."""
        return bool(ray.get(self._actor.begin.remote((self._leg, item))) <= MAX_ATTEMPTS)

    def end(self, item: str) -> None:
        """Note that work on an item ended, well or with an error that was caught."""
        self._actor.end.remote((self._leg, item))

    def again(self, task: str) -> bool:
        """Note that a task is taken up; whether it was before, by a worker that must have died."""
        return bool(ray.get(self._actor.begin.remote((self._leg, f"task {task}"))) > 1)

    def claim(self, unit: str, task: str) -> bool:
        """Whether this task goes on with a unit for all tasks of it: the first one that asks, whenever it asks."""
        return bool(ray.get(self._actor.claim.remote((self._leg, unit), task)) == task)

    def tell(self, step: str, items: int, seconds: float, errors: int) -> None:
        """Note that a step is done with a unit."""
        self._actor.tell.remote(self._leg, step, items, seconds, errors)

    def tallies(self) -> Tallies:
        """Return what the steps of this leg have done so far."""
        found: Tallies = ray.get(self._actor.tallies.remote(self._leg))
        return found


@functools.cache
def _counter() -> Any:
    """Return the state behind `Attempts`, one for all legs: a process of its own for each took longer than some.

    It stands on the node of the driver, so that it is there as long as the run is, whichever workers are lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Counter).options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class _Counter:
    """Holds the items under way and those that were given up, and a few numbers for each step."""

    def __init__(self) -> None:
        self.begun: dict[tuple[int, str], int] = {}
        self.claims: dict[tuple[int, str], str] = {}
        self.done: dict[tuple[int, str], tuple[int, int, float, int]] = {}

    def begin(self, item: tuple[int, str]) -> int:
        """Count a beginning."""
        self.begun[item] = self.begun.get(item, 0) + 1
        return self.begun[item]

    def end(self, item: tuple[int, str]) -> None:
        """Forget an item."""
        self.begun.pop(item, None)

    def claim(self, unit: tuple[int, str], task: str) -> str:
        """Return the task that goes on with a unit."""
        return self.claims.setdefault(unit, task)

    def tell(self, leg: int, step: str, items: int, seconds: float, errors: int) -> None:
        """Add a unit to what a step has done."""
        before = self.done.get((leg, step), (0, 0, 0.0, 0))
        self.done[leg, step] = (before[0] + 1, before[1] + items, before[2] + seconds, before[3] + errors)

    def tallies(self, leg: int) -> Tallies:
        """Return what the steps of a leg have done."""
        return {step: sums for (of, step), sums in self.done.items() if of == leg}
