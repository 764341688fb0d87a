"""What Ray says of itself stays off the terminal; what it complains of does not."""

from __future__ import annotations

import os

import pytest
import ray

from rushes.pipelines.config import RayConfig
from rushes.pipelines.engine import cluster

GREETING = b"[2026-11-25 17:32:27,832 I 21929 21929] logging.cc:303: Set ray log level from environment variable\n"
COMPLAINT = b"[2026-11-25 17:32:27,900 E 21929 21929] core_worker.cc:9: the store is full\n"


def test_native_lines_of_level_info_are_held_back_and_all_others_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with cluster._without_greetings():
        os.write(2, GREETING + b"no address to join\n" + COMPLAINT)
    assert capfd.readouterr().err.encode() == b"no address to join\n" + COMPLAINT
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_was_said_before_a_failure_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConnectionError), cluster._without_greetings():
        os.write(2, COMPLAINT)
        raise ConnectionError
    assert capfd.readouterr().err.encode() == COMPLAINT


@pytest.mark.parametrize(
    ("configured", "environment", "joined"),
    [("", "", "local"), ("", "10.0.0.1:6379", "10.0.0.1:6379"), ("auto", "", "auto")],
)
def test_a_cluster_is_joined_only_where_one_is_named_whatever_else_runs_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, configured: str, environment: str, joined: str
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("RAY_ADDRESS", environment)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address=None, **_: asked.append(address))
    cluster.start(RayConfig(address=configured))
    assert asked == [joined]
