"""The small run with embeddings, made once for all that look at it; none of them may change it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.engine import curate
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.progress import Reporter
from tests.pipelines import small_run
from tests.pipelines.one_process import in_one_process


@pytest.fixture(scope="session")
def embedded(undisturbed: str, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small run, whose clips EfficientNet has looked at as well, selected again."""
    folder = str(tmp_path_factory.mktemp("embedded") / "run")
    shutil.copytree(undisturbed, folder)
    config = dataclasses.replace(small_run.CONFIG, score=ScoreConfig(scorers=["quality", "embedding", "tags"]))
    with in_one_process():
        curate.curate([str(inputs)], folder, config, reporter=Reporter(live=False))
    return folder


@pytest.fixture(scope="module")
def bench(undisturbed: str) -> Workbench:
    """The small run on the bench."""
    return Workbench(undisturbed)
