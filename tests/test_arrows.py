"""Who may import whom: the walls of the house. A module imports from its own room and from those below it."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
TOP = ("filters", "pipelines", "tokenizer", "dit", "infra")
MODULES = sorted(p.relative_to(REPO).as_posix() for folder in TOP for p in (REPO / folder).rglob("*.py"))
MOST = 13
"""Modules of a folder, its door not counted: more is where nobody finds anything."""

# Rooms from the ground up; `pipelines` itself is the leaves that stand in no room: config, progress.
FLOORS = [
    "filters", "pipelines", "pipelines/colour", "pipelines/store", "pipelines/media", "pipelines/models",
    "pipelines/stages", "pipelines/report", "pipelines/explore", "pipelines/export", "pipelines/engine",
    "pipelines/cli",
]  # fmt: skip
BELOW = {room: set(FLOORS[:place]) for place, room in enumerate(FLOORS)}
BELOW["filters"] = set()
BELOW["pipelines"] = set()
CHARTS = {"rushes.pipelines.report.charts", "rushes.pipelines.report.markup"}
"""Curves of a training are drawn as the report draws them."""
STORE = {"pipelines", "pipelines/colour", "pipelines/store"}
BELOW |= {"tokenizer": STORE, "dit": {*STORE, "tokenizer", "filters"}, "infra": set()}
# Where the two halves meet: the command line, which only dispatches, the demo, and the tokenizer on clip shards.
TRAINING = {
    "pipelines/cli/tokenizer.py", "pipelines/cli/dit.py", "pipelines/cli/demo_run.py",
    "pipelines/stages/latents/stage.py", "pipelines/stages/latents/latents.py", "pipelines/stages/latents/spend.py",
    "pipelines/stages/rates/stage.py", "pipelines/engine/encode_latents.py",
}  # fmt: skip
# Steps that read what another step owns: a selection is asked for by name wherever its shards or clips are meant, and
# is a query over the matches of clips, which it brings up to date first.
ACROSS = {("pack", "select"), ("select", "match")}
RAY = {"pipelines/engine/cluster.py"}


def imported(path: Path) -> set[str]:
    """Every module of ours that a file imports, wherever in the file; `from a import b` is a.b where that is one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{name.name}" for name in node.names}
            modules = {name for name in within if file_of(name).exists()}
            found |= modules | ({node.module} if modules != within else set())
    return found


def file_of(name: str) -> Path:
    return (REPO / name.removeprefix("rushes.").replace(".", "/")).with_suffix(".py")


def room(module: str) -> str:
    """The room of a module: its folder, `pipelines/stages` for all steps, the top folder outside `pipelines`."""
    parts = module.split("/")[:-1]
    return "/".join(parts[:2] if parts[0] == "pipelines" else parts[:1])


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("rushes.")}


def path_of(name: str) -> str:
    """`pipelines/store/ledger.py` for the module; of a package its door."""
    path = file_of(name)
    return (path if path.exists() else path.with_suffix("") / "__init__.py").relative_to(REPO).as_posix()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_room_and_from_those_below(module: str):
    allowed = {room(module)} | BELOW[room(module)]
    if module in TRAINING:
        allowed |= {"tokenizer", "dit"}
    names = ours(imported(REPO / module)) - (CHARTS if module.split("/")[0] in ("tokenizer", "dit") else set())
    assert not {name for name in names if room(path_of(name)) not in allowed}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pipelines/stages/")])
def test_a_step_imports_no_other_step(module: str):
    own = module.split("/")[2]
    others = {path_of(name).split("/")[2] for name in ours(imported(REPO / module)) if ".stages." in name}
    steps = {name for name in others if not name.endswith(".py")} - {own}
    assert not {step for step in steps if (own, step) not in ACROSS}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_cluster_imports_ray(module: str):
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(REPO / module))
    assert not uses_ray or module in RAY


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_ours_under_a_bare_name(module: str):
    assert not {name for name in imported(REPO / module) if name.split(".")[0] in TOP}


def test_no_module_imports_in_a_circle():
    arrows = {module: {path_of(name) for name in ours(imported(REPO / module))} - {module} for module in MODULES}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' → '.join((*way[way.index(module) :], module))}"
        if module not in done:
            for name in sorted(arrows.get(module, ())):
                walk(name, (*way, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


@pytest.mark.parametrize("folder", sorted({module.rpartition("/")[0] for module in MODULES if "pipelines" in module}))
def test_no_room_is_crowded_and_each_has_a_door(folder: str):
    modules = {path.name for path in (REPO / folder).glob("*.py")}
    assert "__init__.py" in modules and len(modules) - 1 <= MOST


def test_no_module_knows_all_steps():
    steps = {path.parent.name for path in (REPO / "pipelines/stages").glob("*/stage.py")}
    for module in MODULES:
        known = {name.split(".")[3] for name in imported(REPO / module) if name.startswith("rushes.pipelines.stages.")}
        assert len(known & steps) <= len(steps) // 2, f"{module} knows {', '.join(sorted(known & steps))}"


@pytest.mark.parametrize("module", ["charts", "markup"])
def test_what_draws_curves_imports_nothing_else_of_ours(module: str):
    assert ours(imported(REPO / f"pipelines/report/{module}.py")) <= CHARTS


def test_every_folder_is_a_package_of_the_wheel():
    made = set(tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert made == {f"rushes.{'.'.join(m.split('/')[:-1])}" for m in MODULES if m.endswith("__init__.py")}


def test_no_folder_of_ours_shadows_a_standard_module():
    assert not set(TOP) & set(sys.stdlib_module_names)
