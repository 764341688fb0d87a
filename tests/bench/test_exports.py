"""What an export looks like: its tree and the first lines of all its lists, for each dialect.

    pytest -m bench tests/bench/test_exports.py

For whoever compares it with what the trainer's documentation shows. Five clips, of which two are refused.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rushes.pipelines.export import account, export
from rushes.pipelines.export.dialects.registry import DIALECTS
from rushes.pipelines.export.settings import ExportConfig
from rushes.pipelines.progress import Reporter
from tests.pipelines.export import conftest

LINES, WIDTH = 14, 150
LISTS = (".toml", ".yaml", ".json", ".jsonl", ".csv", ".txt", ".parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> str:
    folder = tmp_path_factory.mktemp("exports")
    conftest.write(folder / "run", list(conftest.clips(folder, bikes).values()))
    return str(folder / "run")


def tree(out: Path) -> list[str]:
    """Return the paths below a folder, what stands in hidden ones and in Lance's left out."""
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    shown = [file for file in files if not str(file).startswith((".", "clips.lance/"))]
    lance = ["clips.lance/"] if (out / "clips.lance").exists() else []
    return [f"{file}  {(out / file).stat().st_size}" for file in shown] + lance


def head(path: Path) -> list[str]:
    """Return the first lines of a list, of a table its first row."""
    if path.suffix == ".parquet":
        return [json.dumps(pq.read_table(path).slice(0, 1).to_pylist()[0], ensure_ascii=False)]
    return path.read_text().splitlines()[: 1 if path.suffix == ".jsonl" else LINES]


def lists(out: Path) -> list[Path]:
    """Return the lists of an export, of those that stand in several folders the first, and the first caption."""
    found: dict[str, Path] = {}
    for path in sorted(out.rglob("*")):
        own = (
            path.relative_to(out).parts[0].startswith(".") or path.name == "export.json" or "clips.lance" in path.parts
        )
        if path.suffix in LISTS and not own:
            is_caption = path.suffix == ".txt" and path.with_suffix(".mp4").exists()
            found.setdefault("a caption" if is_caption else path.name, path)
    return list(found.values())


@pytest.mark.bench
@pytest.mark.parametrize("to", list(DIALECTS))
def test_an_export_is_shown(run: str, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    if to == "lance":
        pytest.importorskip("lance")
    out, preset = tmp_path / to, "" if to == "webshart" else "ltx" if to == "ltx" else "wan"
    begun = time.perf_counter()
    found = export.run(run, str(out), to, ExportConfig(), preset=preset, reporter=Reporter(live=False))
    seconds = time.perf_counter() - begun
    assert found["problems"] == [] and found["videos"] >= 3 and lists(out)
    assert len(list(account.items(str(out)))) == found["videos"]
    with capsys.disabled():
        print(f"\n\n### {to}: {DIALECTS[to].version}\n", *tree(out), sep="\n    ")
        for path in lists(out):
            print(f"\n{path.relative_to(out)}:", *(line[:WIDTH] for line in head(path)), sep="\n    ")
        print(f"\n{found['videos']} videos, {sum(found['refused'].values())} refused, {seconds:.1f} s")
