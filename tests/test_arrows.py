"""Who may import whom: the walls of the house."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
OURS = {"filters", "pipelines", "tokenizer", "dit", "infra"}
LEAVES = {f"pipelines.{name}" for name in ("clip", "config", "ledger", "shards", "archive", "storage")}
CHARTS = {"pipelines.report", "pipelines.report.charts"}
"""What `from pipelines.report import charts` imports: curves of a training, drawn as the report draws them."""
RAY_ALLOWED = {"pipelines/stages.py"}
MODULES = sorted(p.relative_to(REPO).as_posix() for folder in OURS for p in (REPO / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file; `from pipelines import x` counts as pipelines.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    return found


def ours(names: set[str]) -> set[str]:
    """Modules of ours among the imports, down to the second level; `pipelines` alone says nothing."""
    return {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] in OURS and "." in name}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str):
    room = module.split("/")[0]
    names = imported(REPO / module)
    used = ours(names - CHARTS) - {f"{room}.{name.rsplit('.', 1)[-1]}" for name in names}
    foreign = {name for name in used if name.split(".")[0] != room}
    allowed = {
        "filters": lambda name: False,
        "pipelines": lambda name: name.startswith("filters.") or name.split(".")[1] == "config"
        or (module in TRAINING and name.split(".")[0] in ("tokenizer", "dit")),
        "tokenizer": lambda name: name in LEAVES,
        "dit": lambda name: name in LEAVES or name.startswith("tokenizer."),
        "infra": lambda name: False,
    }[room]  # fmt: skip
    assert not {name for name in foreign if not allowed(name)}


# Where the two halves meet: the command line, which only dispatches, the demo, and the tokenizer's encoder on shards.
TRAINING = {"pipelines/commands.py", "pipelines/demo_run.py", "pipelines/latents.py", "pipelines/encode_latents.py"}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_runner_imports_ray(module: str):
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(REPO / module))
    assert not uses_ray or module in RAY_ALLOWED


@pytest.mark.parametrize("module", sorted(LEAVES))
def test_leaves_import_only_leaves(module: str):
    path = REPO / (module.replace(".", "/") + ".py")
    assert ours(imported(path)) <= LEAVES


@pytest.mark.parametrize("module", ["charts", "markup"])
def test_what_draws_curves_imports_nothing_else_of_ours(module: str):
    names = imported(REPO / f"pipelines/report/{module}.py")
    assert not ours({name for name in names if not name.startswith("pipelines.report.markup")})


def test_no_folder_of_ours_shadows_a_standard_module():
    assert not OURS & set(sys.stdlib_module_names)
