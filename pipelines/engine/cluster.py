"""Running units of work on Ray Data: the only place that knows Ray.

Every stage is a dataset of its own with a single operator, `units → map(work) → status rows`. One operator cannot
starve another of CPUs, so a stage runs on one core as well as on a cluster, and no stage shuffles anything.

A unit whose worker dies is retried by Ray. `Attempts` counts how often an item (a video, say) was begun without being
ended; what has taken a worker down twice is recorded as an error instead of being tried for ever.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from rushes.pipelines.config import RayConfig

log = logging.getLogger("rushes")

Row = dict[str, Any]
MAX_ATTEMPTS = 2
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
            ray.init(num_cpus=os.cpu_count(), include_dashboard=False, object_store_memory=store, **common)
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


def run_units(units: Sequence[Row], work: Callable[..., Row], arguments: Row, *, in_flight: int = 0) -> Iterator[Row]:
    """Yield the status row of each unit as it ends; `work(unit, **arguments)` runs in a Ray task of one CPU.

    Work that names an argument `crashes` is given the count of attempts, and `threads` the CPUs that there are for
    each unit under way: more than one where units are few.
    """
    if not units:
        return
    at_once = min(len(units), in_flight or cpus())
    if "threads" in inspect.signature(work).parameters:
        arguments = {**arguments, "threads": max(1, cpus() // at_once)}
    if "crashes" in inspect.signature(work).parameters:
        arguments = {**arguments, "crashes": Attempts()}
    dataset = ray.data.from_items(list(units), override_num_blocks=len(units))
    mapped = dataset.map(
        work,
        fn_kwargs=arguments,
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=at_once),
    )
    yield from mapped.iter_rows()


def run_actors(
    units: Sequence[Row], actor: type, arguments: Row, *, actors: int = 0, use_gpu: bool = True
) -> Iterator[Row]:
    """Yield the status row of each unit; `actor(**arguments)` is built once a process and called with a unit.

    The pool has a fixed size: one actor for each GPU where there are some, else one for each CPU, at most one a unit.
    An actor that names an argument `crashes` is given the count of attempts.
    """
    if not units:
        return
    if "crashes" in inspect.signature(actor).parameters:
        arguments = {**arguments, "crashes": Attempts()}
    found = gpus() if use_gpu else 0
    size = min(len(units), actors or found or cpus())
    dataset = ray.data.from_items(list(units), override_num_blocks=len(units))
    mapped = dataset.map(
        actor,
        fn_constructor_kwargs=arguments,
        compute=ActorPoolStrategy(size=size),
        num_cpus=None if found else 1,
        num_gpus=1 if found else None,
    )
    yield from mapped.iter_rows()


class Attempts:
    """How often an item of one stage was begun and not ended, over all workers and their deaths."""

    _stages = itertools.count()

    def __init__(self) -> None:
        self._actor, self._stage = _counter(), next(self._stages)

    def begin(self, item: str) -> bool:
        """Note that work on an item begins; False if it has already taken `MAX_ATTEMPTS` workers down."""
        return bool(ray.get(self._actor.begin.remote((self._stage, item))) <= MAX_ATTEMPTS)

    def end(self, item: str) -> None:
        """Note that work on an item ended, well or with an error that was caught."""
        self._actor.end.remote((self._stage, item))


@functools.cache
def _counter() -> Any:
    """Return the state behind `Attempts`, one for all stages: a process of its own for each took longer than some."""
    return ray.remote(num_cpus=0)(_Counter).remote()  # type: ignore[arg-type]


class _Counter:
    """Holds only the items under way, and those that were given up."""

    def __init__(self) -> None:
        self.begun: dict[tuple[int, str], int] = {}

    def begin(self, item: tuple[int, str]) -> int:
        """Count a beginning."""
        self.begun[item] = self.begun.get(item, 0) + 1
        return self.begun[item]

    def end(self, item: tuple[int, str]) -> None:
        """Forget an item."""
        self.begun.pop(item, None)
