from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from rushes.pipelines import threads


def policy_after(code: str, **environment: str) -> str:
    """What OpenMP is told in a fresh process."""
    free = {name: value for name, value in os.environ.items() if name != threads.POLICY}
    command = [sys.executable, "-c", f"{code}\nimport os, sys\nprint(os.environ.get('{threads.POLICY}'))"]
    return subprocess.run(
        command, env=free | environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["rushes.tokenizer.config", "rushes.dit.config", "rushes.pipelines.cli.main"])
def test_threads_sleep_while_they_wait_wherever_a_training_begins_and_torch_is_not_loaded_before(name):
    code = f"import sys, {name}\nassert 'torch' not in sys.modules"
    assert policy_after(code) == "PASSIVE"
    assert policy_after(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


@pytest.mark.parametrize(("late", "count", "warned"), [(True, 2, True), (True, 1, False), (False, 2, False)])
def test_a_torch_that_was_loaded_first_is_warned_of_where_it_has_several_threads(
    monkeypatch, caplog, late, count, warned
):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(threads, "TOO_LATE", late)
    threads.warn_of_spinning(count)
    assert ("import rushes.tokenizer or rushes.dit first, or set OMP_WAIT_POLICY=PASSIVE" in caplog.text) == warned
