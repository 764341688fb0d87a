"""The wheel holds `rushes` and nothing else, and works where no clone is: its own modules, data and command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ROOMS = ("filters", "pipelines", "tokenizer", "dit")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
LOOK = """
import importlib, json, pkgutil, sys
import rushes
found = {}
for module in pkgutil.walk_packages(rushes.__path__, "rushes."):
    found[module.name] = importlib.import_module(module.name).__file__
bare = []
for name in ("filters", "pipelines", "tokenizer", "dit"):
    try:
        bare.append(importlib.import_module(name).__file__)
    except ImportError:
        pass
from rushes.filters.policy import preset
from rushes.filters.judge import judge
from rushes.tokenizer.model import load
judge()
tokenizer = load("shipped")
print(json.dumps({"modules": found, "bare": bare, "preset": preset("default").name, "rates": tokenizer.config.rates}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy of what is built of."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns("__pycache__")
    for room in ROOMS:
        shutil.copytree(REPO / room, folder / "tree" / room, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, folder / "tree" / name)
    pip(folder / "tree", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), ".")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder into which the wheel was installed."""
    folder = wheel.parent / "site"
    pip(wheel.parent, "install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def pip(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check", "--no-index"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def python(installed: Path, *words: str) -> str:
    """Run Python on the wheel and our dependencies; without `site` nothing leads to the clone (an editable install)."""
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    done = subprocess.run(
        [sys.executable, "-S", *words],
        cwd=installed.parent, capture_output=True, text=True, check=False, env={**ENVIRONMENT, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_one_name_with_all_modules_and_data_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"rushes", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    held = {name.removeprefix("rushes/") for name in names if name.startswith("rushes/")}
    files = {path.relative_to(REPO).as_posix() for room in ROOMS for path in (REPO / room).rglob("*.*")}
    notes = {"pipelines/ledger.md", *(f"{room}/README.md" for room in ROOMS)}  # read beside the code, in a clone
    assert held == {name for name in files if not name.endswith(".pyc")} - notes
    for kind in ("presets/default.yaml", "page.css", "page.js", "model.safetensors"):
        assert [name for name in held if name.endswith(kind)], kind


def test_the_image_is_built_of_the_same_folders():
    dockerfile = (REPO / "infra" / "Dockerfile").read_text()
    assert set(re.findall(r"^COPY (\w+) \1$", dockerfile, flags=re.M)) == set(ROOMS)
    for name in ("constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        assert (REPO / name).exists() and f" {name} " in dockerfile, name


def test_every_module_works_from_the_wheel_and_none_under_a_bare_name(installed: Path):
    found = json.loads(python(installed, "-c", LOOK).splitlines()[-1])
    assert all(f"rushes.{room}" in found["modules"] for room in ROOMS)
    outside = {name: path for name, path in found["modules"].items() if not path.startswith(f"{installed}/rushes/")}
    assert not outside and not found["bare"]
    assert found["preset"] == "default" and found["rates"]


def test_the_command_runs_from_the_wheel(installed: Path):
    assert python(installed, str(installed / "bin" / "rushes"), "--version") == "rushes 0.1.0\n"
