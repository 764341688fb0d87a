"""`RUN/config.yaml`: what a run was started with; `--config` takes it to start another one. No Ray, no secret."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from rushes.pipelines.store import storage

_LEFT_OUT = re.compile(r"://…@|[?&][^=&#\s]+=…")
_INPUT = "# input: "


def save(run: str, config: Any, inputs: Sequence[str] = (), name: str = "config.yaml") -> None:
    """Write the resolved configuration of a run; version, commit and inputs stand above it as comments."""
    facts = {"rushes": version("rushes"), "git": git_hash() or "not a checkout"}
    lines = [f"# {key}: {value}" for key, value in facts.items()]
    had = saved(run, name) or ""
    before = [line for line in had.splitlines() if line.startswith(_INPUT)]
    lines += dict.fromkeys([*before, *(f"{_INPUT}{storage.redact(uri)}" for uri in inputs)])
    text = yaml.safe_dump(_redacted(asdict(config)), sort_keys=False, allow_unicode=True)
    if (new := "\n".join([*lines, text])) != had:
        storage.write_bytes(f"{run.rstrip('/')}/{name}", new.encode())


def saved(run: str, name: str = "config.yaml") -> str | None:
    """Return the text of a run's saved configuration, None where there is none."""
    uri = f"{storage.absolute(run)}/{name}"
    found = storage.read_if_there(uri)
    return None if found is None else found.decode()


def check_secrets(config: Any) -> None:
    """Raise ValueError naming a setting that was saved without the secret in it, and was not given again."""
    for group, settings in asdict(config).items():
        for name, value in settings.items():
            if isinstance(value, str) and _LEFT_OUT.search(value):
                raise ValueError(
                    f"{group}.{name} is {value}: a saved configuration holds no secrets; give --{group}.{name} again"
                )


def check_known(run: str, text: str, config: Any) -> None:
    """Raise ValueError naming the settings in a run's saved configuration that this version does not have."""
    known = asdict(config)
    try:
        groups = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return  # whoever reads it says what is wrong with it
    unknown = [
        f"{group}.{name}"
        for group, settings in (groups.items() if isinstance(groups, dict) else ())
        for name in (settings if isinstance(settings, dict) else ())
        if name not in known.get(group, ())
    ]
    if unknown:
        raise ValueError(
            f"{run.rstrip('/')}/config.yaml holds settings of another version of Rushes: {', '.join(unknown)}; "
            "remove these lines and run the same command again"
        )


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return storage.redact(value) if isinstance(value, str) else value


def git_hash() -> str | None:
    """Return the commit of the checkout this package runs from, None when it runs from an installed copy."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
