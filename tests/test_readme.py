"""What the README tells people to type works, word for word but for the number of training steps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.tokenizer.conftest import excerpt

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    lines = [line.split(" #")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bikes: Path) -> Path:
    """A folder as a reader has it: some footage, nothing else."""
    root = tmp_path_factory.mktemp("readme")
    (root / "footage").mkdir()
    shutil.copy(bikes.parent / "carphone_pristine.mp4", root / "footage" / "car.mp4")
    (root / "held").mkdir()
    (root / "held" / "street.mp4").write_bytes(excerpt(bikes, 0, frames=20, width=96, height=48))
    return root


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command.replace("--steps 200", "--steps 2"))
    assert words[0] == "rushes", f"the test cannot run {words[0]}"
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rushes.pipelines.cli.main", *words[1:]],
        cwd=folder, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_every_command_runs(folder: Path):
    for command in (line for line in commands() if not line.startswith("make ")):
        done = typed(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for made in ("run/report/index.html", "run/tokenizer/reconstruction.mp4", "run/dit/sample.mp4"):
        assert (folder / made).stat().st_size > 0, made


def test_the_ledger_opens_with_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    if not (folder / "run").exists():
        pytest.skip("needs the run of the test above")
    monkeypatch.chdir(folder)
    (query,) = re.findall(r'duckdb -c "(.*?)"', README)
    rows = duckdb.connect().execute(query).fetchall()
    assert (
        sum(count for _, count in rows) == duckdb.sql("from 'run/ledger/clips/*.parquet'").count("*").fetchall()[0][0]
    )


def test_the_python_lines_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    if not (folder / "run").exists():
        pytest.skip("needs the run of the test above")
    monkeypatch.chdir(folder)
    found: dict = {}
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, found)
    samples = list(found["clips"])
    assert samples and all({"mp4", "json", "txt"} <= set(sample) for sample in samples)


def test_every_make_target_exists():
    makefile = (REPO / "Makefile").read_text()
    for command in (line for line in commands() if line.startswith("make ")):
        assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.M), command


def test_every_file_the_readme_links_to_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (REPO / link).exists(), link


def test_the_tree_names_every_module():
    (tree,) = re.findall(r"## The tree\n(.*?)\n## ", README, flags=re.S)
    for room in ("filters", "pipelines", "tokenizer", "dit"):
        for module in (REPO / room).rglob("*.py"):
            assert module.stem == "__init__" or re.search(rf"\b{module.stem}\b", tree), f"{room}/{module.name}"
