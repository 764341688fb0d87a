"""What stands in the ledger: every table, view and column with type, unit, range, source and stage.

found = described()
print("\\n".join(lines(found)))
print(page(found))          # pipelines/ledger.md
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rushes.pipelines.explore.queries import QUERIES
from rushes.pipelines.explore.views import ABOUT, columns
from rushes.pipelines.store.tables import TABLES, told

_HEAD = """# The ledger

Made by `rushes schema --page`; a test holds it to the code. A table lies in `RUN/ledger/TABLE/part-*.parquet`, and what
is told here of a column stands in the metadata of its field as well. `rushes sql RUN` opens all of them, and the views,
in a DuckDB that reads no other file.
"""


def described(names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the tables and views, all or some, as plain values. Raises ValueError for a name that is none."""
    every = [_table(name) for name in TABLES] + [_view(name) for name in ABOUT]
    wanted = set(names)
    if unknown := sorted(wanted - {entry["name"] for entry in every}):
        said = ", ".join(entry["name"] for entry in every)
        raise ValueError(f"there is no table {', '.join(unknown)}; there are {said}")
    return [entry for entry in every if not wanted or entry["name"] in wanted]


def _table(name: str) -> dict[str, Any]:
    schema = TABLES[name]
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    rows = [{"name": field.name, "type": str(field.type), **told(field)} for field in schema]
    return {"name": name, "kind": "table", **metadata, "columns": rows}


def _view(name: str) -> dict[str, Any]:
    rows = [{"name": column, **words} for column, words in columns(name).items()]
    return {"name": name, "kind": "view", "about": ABOUT[name], "columns": rows}


def lines(found: list[dict[str, Any]]) -> list[str]:
    """Return tables and views as lines for a terminal."""
    text: list[str] = []
    for entry in found:
        stage = f", written by {entry['stage']}" if "stage" in entry else ""
        text += [f"{entry['name']} ({entry['kind']}{stage}): {entry['about']}"]
        wide = max(len(column["name"]) for column in entry["columns"])
        text += [f"  {column['name']:<{wide}}  {_said(column)}" for column in entry["columns"]] + [""]
    return text[:-1]


def _said(column: dict[str, str]) -> str:
    facts = [column.get(name, "") for name in ("type", "unit", "range")]
    facts += [f"from {column['source']}"] if column["source"] != "a view" else []
    known = "; ".join(filter(None, facts))
    return column["about"] + (f" ({known})" if known else "")


def page(found: list[dict[str, Any]]) -> str:
    """Return the page of the documentation, in Markdown, with the documented queries."""
    text = [_HEAD]
    for entry in found:
        stage = f" Written by `{entry['stage']}`." if "stage" in entry else ""
        text += [f"## {entry['name']}\n", f"{entry['kind'].capitalize()}. {entry['about']}{stage}\n"]
        text += ["| column | type | unit | range | source | what |", "|---|---|---|---|---|---|"]
        for column in entry["columns"]:
            cells = [column.get(name, "") for name in ("type", "unit", "range", "source", "about")]
            text.append(f"| `{column['name']}` | {' | '.join(cells)} |")
        text.append("")
    text.append("## Ten queries\n\n`rushes sql RUN NAME` answers them; `--json` and `--csv` for machines.\n")
    for name, query in QUERIES.items():
        text += [f"### {name}\n", f"{query.question}\n", f"```sql\n{query.sql}\n```\n"]
    return "\n".join(text)
