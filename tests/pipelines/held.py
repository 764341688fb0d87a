"""Holding a process at the moment before a file gets its name, so that a test can kill it just there.

That is where a kill leaves the most behind: a temporary file, and a unit of which some tables are written. The run's
own files tell the moment, so it is met every time, on a machine of any speed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rushes.pipelines.config import RayConfig
from rushes.pipelines.engine import cluster
from rushes.pipelines.store import storage

REPO = Path(__file__).parents[2]
MOST_S = 300.0
# Loaded by every Python that starts with its folder on the path: the driver and Ray's workers.
HOOK = '''"""Hold whoever is about to give a file a name that is waited for."""
import fnmatch, os, pathlib, time

FOLDER, named = pathlib.Path(os.environ["RUSHES_HOLD"]), pathlib.Path.replace


def awaited(target):
    try:
        return fnmatch.fnmatch(str(target), (FOLDER / "at").read_text())
    except FileNotFoundError:
        return False


def replace(path, target):
    if awaited(target):
        try:
            (FOLDER / "passed").touch(exist_ok=False)  # the first one goes through
        except FileExistsError:
            held = FOLDER / f"held-{os.getpid()}"
            held.touch()
            while awaited(target):
                time.sleep(0.01)
            held.unlink(missing_ok=True)
    return named(path, target)


pathlib.Path.replace = replace
'''


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Where processes are held; a folder that all of them look at."""

    folder: Path

    def set(self, pattern: str, *, passing: bool = False) -> None:
        """Hold whoever is about to write a file of this name; with `passing` not the first of them."""
        self.release()
        if not passing:
            (self.folder / "passed").touch()
        storage.write_bytes(str(self.folder / "at"), pattern.encode())

    def release(self) -> None:
        """Hold nobody any more."""
        for file in self.folder.iterdir():
            if file.is_file() and file.suffix != ".py":
                file.unlink(missing_ok=True)

    def wait(self, driver: subprocess.Popen[bytes]) -> int:
        """Return a process that is held; those that were before and died are not meant."""
        deadline = time.monotonic() + MOST_S
        while time.monotonic() < deadline and driver.poll() is None:
            for file in self.folder.glob("held-*"):
                pid = int(file.name.removeprefix("held-"))
                if psutil.pid_exists(pid) and _lives(psutil.Process(pid)):
                    return pid
            time.sleep(0.005)
        raise AssertionError(f"nobody was about to write {(self.folder / 'at').read_text()}")


@contextmanager
def ray(folder: Path) -> Iterator[Hold]:
    """Run Ray with workers that can be held."""
    (folder / "sitecustomize.py").write_text(HOOK)
    cluster.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUSHES_HOLD", str(folder))
        patch.setenv(
            "PYTHONPATH", os.pathsep.join(filter(None, [str(folder), str(REPO), os.environ.get("PYTHONPATH")]))
        )
        cluster.start(RayConfig())
        yield Hold(folder=folder)
        cluster.stop()


def workers() -> list[psutil.Process]:
    """Return the workers of the Ray that this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0]
        except (psutil.Error, IndexError):  # gone, or going
            continue
        if title.startswith("ray::") and not title.endswith(("Agent", "Monitor")):  # those Ray cannot do without
            found.append(process)
    return found


def kill(driver: subprocess.Popen[bytes]) -> None:
    """Kill a run as a whole, the workers and the driver with its group; nobody lives when it returns.

    The driver is stopped first, so that it does nothing about its workers' deaths, and killed last: of a dead driver
    Ray tells the workers, who would tidy up behind themselves before the signal reaches them. All must be dead before
    anybody is released.
    """
    os.killpg(driver.pid, signal.SIGSTOP)
    found = workers()
    for worker in found:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    deadline = time.monotonic() + MOST_S
    while alive := [worker for worker in found if _lives(worker)]:
        assert time.monotonic() < deadline, f"{alive} did not die"
        time.sleep(0.005)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
