"""Training processes of one machine: where one of them dies, all end, and one error tells why.

Lightning starts the others by the same command. Left alone they would each say something, or wait for ever for one
that is gone. Processes that something else started, such as torchrun or Slurm, are its to look after.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import LightningEnvironment

POLL_S = 0.5
GRACE_S = 20.0
"""For a process to notice by itself that another one is gone; in a call of NCCL it cannot."""
SETTLE_S = 2.0
"""From the end of a connection until it is known that who was at its other end is dead."""
AGAIN = "the same command goes on from the last checkpoint"
log = logging.getLogger(__name__)


class ProcessError(RuntimeError):
    """Another process of the training failed or was killed."""


class Together(L.Callback):
    """Knows the processes of a training. The first that fails leaves its reason in FOLDER/.failed."""

    def __init__(self, folder: Path):
        self.path, self.several = folder / ".failed", False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Note why this process ends, unless another one did before: then it ends for want of that."""
        if not self.several:
            return
        with suppress(FileExistsError), self.path.open("x") as file:
            json.dump({"rank": trainer.global_rank, "error": str(exception)}, file)

    @contextmanager
    def watched(self, trainer: L.Trainer) -> Iterator[None]:
        """Return a context for the training, in each process; only the first of them raises.

        Raises:
            ProcessError: another process failed, by what it said, or was killed.
        """
        strategy: Any = trainer.strategy
        self.several = trainer.world_size > 1 and isinstance(strategy.cluster_environment, LightningEnvironment)
        if not self.several:
            yield
        elif trainer.local_rank == 0:
            with self._first(strategy.launcher, trainer.global_rank):
                yield
        else:
            with self._other(trainer.global_rank):
                yield

    @contextmanager
    def _first(self, launcher: Any, rank: int) -> Iterator[None]:
        self.path.unlink(missing_ok=True)

        def reason() -> str:
            return self._reason([process.poll() for process in launcher.procs], rank)

        try:
            with _watching(reason, lambda: _end(launcher.procs)):
                yield
        except Exception as error:
            why = _settled(reason)
            _end(launcher.procs)
            if why and str(error) not in why:
                raise ProcessError(why) from error
            raise
        finally:
            self.path.unlink(missing_ok=True)

    def _reason(self, codes: list[int | None], rank: int) -> str:
        """Return what another process died of, empty where none did; `codes` are those with which they ended."""
        for number, code in enumerate(codes, start=rank + 1):
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                return f"process {number} of the training was killed by {name}, perhaps for want of memory; {AGAIN}"
        failed = self._failed()
        if failed:
            return f"process {failed['rank']} of the training: {failed['error']}" if failed["rank"] != rank else ""
        ended = [number for number, code in enumerate(codes, start=rank + 1) if code]
        return f"process {ended[0]} of the training ended before it began; see what it said" if ended else ""

    @contextmanager
    def _other(self, rank: int) -> Iterator[None]:
        parent = os.getppid()

        def reason() -> str:
            alone = os.getppid() != parent and self._failed().get("rank", rank) == rank
            return f"the first process of the training was killed, perhaps for want of memory; {AGAIN}" if alone else ""

        try:
            with _watching(reason, lambda: None):
                yield
        except Exception:
            why = _settled(reason)
            if why:
                log.error(why)
            raise SystemExit(1) from None  # the first process tells

    def _failed(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):  # not there, or being written
            return dict(json.loads(self.path.read_text()))
        return {}


@contextmanager
def _watching(reason: Callable[[], str], end: Callable[[], None]) -> Iterator[None]:
    """End this process with a reason that appears, where it does not end by itself."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(POLL_S):
            why = reason()
            if why and not left.wait(GRACE_S):
                log.error(why)
                end()
                os._exit(1)  # nothing else ends a call that waits for other processes

    threading.Thread(target=watch, daemon=True, name="processes").start()
    try:
        yield
    finally:
        left.set()


def _settled(reason: Callable[[], str]) -> str:
    until = time.monotonic() + SETTLE_S
    while not (why := reason()) and time.monotonic() < until:
        time.sleep(0.05)
    return why


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill processes: they may wait for others, where no other signal reaches them."""
    for process in processes:
        process.kill()
        process.wait()
