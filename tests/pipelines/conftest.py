"""The small run, made once for all that look at it; none of them may change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rushes.pipelines.engine import curate
from rushes.pipelines.progress import Reporter
from tests.pipelines import small_run
from tests.pipelines.one_process import in_one_process


@pytest.fixture
def one_process() -> Iterator[None]:
    """No Ray: units run here, one after another."""
    with in_one_process():
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> Path:
    """The footage of the small run."""
    folder = tmp_path_factory.mktemp("in") / "footage"
    small_run.gather(bikes, folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> str:
    """The small run, finished, by one process: whatever Ray's workers do must come out equal to this."""
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    with in_one_process():
        curate.curate([str(inputs)], folder, small_run.CONFIG, reporter=Reporter(live=False))
    return folder
