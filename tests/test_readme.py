"""What the README tells people to type works, word for word but for the number of training steps."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from rushes.pipelines.cli.main import main
from tests.pipelines.one_process import in_one_process
from tests.tokenizer.conftest import excerpt, wan_22, write_wan

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)
APART = ("rushes doctor", "rushes report")
"""What runs by the console script, as a user runs it. The others run here, without Ray: starting Python, torch and Ray
once for each took most of the time, and `engine/test_killed.py` runs the command line on Ray."""


def commands() -> list[str]:
    lines = [line.split(" #")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> Iterator[Path]:
    """The folder of a reader who had some footage and typed every command; the present one while it is looked at."""
    root = tmp_path_factory.mktemp("readme")
    (root / "footage").mkdir()
    car = bikes.parent / "carphone_pristine.mp4"
    (root / "footage" / "car.mp4").write_bytes(excerpt(car, 0, frames=60, width=176, height=144))
    (root / "footage" / "unwanted.mp4").write_bytes(excerpt(bikes, 60, frames=40, width=96, height=48))
    (root / "list.txt").write_text("footage/unwanted.mp4\n")
    (root / "Wan2.2" / "vae").mkdir(parents=True)
    write_wan(wan_22(), root / "Wan2.2" / "vae")
    (root / "held").mkdir()
    (root / "held" / "street.mp4").write_bytes(excerpt(bikes, 0, frames=20, width=96, height=48))
    with contextlib.chdir(root):
        for command in (line for line in commands() if not line.startswith("make ")):
            typed(command)
        yield root


def typed(command: str) -> None:
    """Run a command here, with fewer steps. Fails where it does not end well."""
    words = shlex.split(command.replace("--steps 200", "--steps 2"))
    assert words[0] == "rushes", f"the test cannot run {words[0]}"
    if command.startswith(APART):
        script = Path(sys.executable).with_name("rushes")
        done = subprocess.run(
            [script, *words[1:]], capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    else:
        with in_one_process():
            assert main(words[1:]) == 0, command


def test_every_command_runs(folder: Path):
    for made in ("run/report/index.html", "run/tokenizer/reconstruction.mp4", "run/dit/sample.mp4", "street.mp4"):
        assert (folder / made).stat().st_size > 0, made
    sources = {key[:16] for (key,) in duckdb.sql("select key from 'run/ledger/clips/*.parquet'").fetchall()}
    assert len(sources) == 1, "what list.txt names is gone"
    assert all(any(line.startswith(one) for line in commands()) for one in APART)


def test_the_ledger_opens_with_one_line(folder: Path):
    (query,) = re.findall(r'duckdb -c "(.*?)"', README)
    rows = duckdb.connect().execute(query).fetchall()
    ((clips,),) = duckdb.sql("select count(*) from 'run/ledger/clips/*.parquet'").fetchall()
    assert sum(count for _, count in rows) == clips > 0


def test_the_python_lines_run_and_give_what_they_say(folder: Path):
    found: dict = {}
    (folder / "street.mp4").unlink()
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text, found)
    samples = list(found["clips"])
    assert samples and all({"mp4", "json", "txt"} <= set(sample) for sample in samples)
    assert len(found["times_s"]) == found["video"].shape[2] and found["latents"].z.shape[1] == len(
        found["facts"]["times_s"]
    )
    assert found["again"].shape[2:] == (found["facts"]["frames"], found["latents"].height, found["latents"].width)
    assert (folder / "street.mp4").stat().st_size > 0


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
