"""The small run, made once for all that look at it; none of them may change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import curate
from pipelines.progress import Reporter
from tests.pipelines import small_run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> Path:
    """The footage of the small run."""
    folder = tmp_path_factory.mktemp("in") / "footage"
    small_run.gather(bikes, folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> str:
    """The small run, finished."""
    folder = str(tmp_path_factory.mktemp("runs") / "run")
    curate.curate([str(inputs)], folder, small_run.CONFIG, reporter=Reporter(live=False))
    return folder
