"""What a run's captions come to: their sources, contradictions of what was measured, how alike they are.

No Ray, no torch: DuckDB streams the table `captions`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from rushes.filters.caption import near_identical
from rushes.filters.caption_checks import KINDS

SAMPLE = 2000
"""Captions, drawn by their keys, among which near-identical ones are looked for: a second of work, whatever the run."""


@dataclass(frozen=True, kw_only=True)
class CaptionAccount:
    """The captions of a run in numbers."""

    captions: int
    """All of them."""
    sources: dict[str, int]
    """How many are given, composed of tags, from an endpoint, from a local model."""
    contradicted: int
    """Captions of a model that contradict a measurement in some way."""
    contradictions: dict[str, int]
    """How often, by what it is about; one of `rushes.filters.caption_checks.KINDS`."""
    repeated: int
    """Captions whose words, to the letter, are those of another clip's too."""


def of(connection: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """Return the account of a run's captions as plain values; None while it has none."""
    found = account(connection)
    return asdict(found) if found.captions else None


SAID = """coalesce(nullif("long", ''), short, '')"""
"""What a caption says, in SQL."""
_COUNTS = f"""
select (select count(*) from captions where checks != ''),
       (select coalesce(sum(n), 0)::bigint
        from (select {SAID} as said, count(*) as n from captions group by 1 having n > 1 and said != ''))
"""


def account(connection: duckdb.DuckDBPyConnection) -> CaptionAccount:
    """Return the account of the table `captions` of a connection."""
    sources = connection.execute("select source, count(*) from captions group by 1 order by 2 desc, 1").fetchall()
    kinds = connection.execute(
        "select split_part(trim(told), ':', 1) as kind, count(*) "
        "from (select unnest(string_split(checks, ';')) as told from captions where checks != '') "
        "where kind in (select unnest(?::varchar[])) group by 1 order by 2 desc, 1",
        [list(KINDS)],
    ).fetchall()
    contradicted, repeated = connection.execute(_COUNTS).fetchone() or (0, 0)
    return CaptionAccount(
        captions=sum(count for _, count in sources),
        sources=dict(sources),
        contradicted=contradicted,
        contradictions=dict(kinds),
        repeated=repeated,
    )


def alike(connection: duckdb.DuckDBPyConnection, sample: int = SAMPLE) -> tuple[int, list[tuple[str, str, float]]]:
    """Return how many captions were looked at, and the near-identical pairs of keys among them, as MinHash finds them.

    Of each group of clips only those pairs are named that tie it together; see `rushes.filters.caption.near_identical`.
    """
    rows = connection.execute(f"select key, {SAID} from captions order by md5(key), key limit ?", [sample]).fetchall()
    return len(rows), near_identical(dict(rows))


def lines(found: dict[str, Any]) -> list[str]:
    """Return an account as lines for a terminal."""
    sources = ", ".join(f"{count} {source}" for source, count in found["sources"].items())
    text = [f"{found['captions']} captions ({sources}), {found['repeated']} in words that another clip has as well"]
    if found["contradicted"]:
        told = ", ".join(f"{kind} {count}" for kind, count in found["contradictions"].items())
        text.append(f"{found['contradicted']} contradict a measurement, which stands in its place ({told})")
    return text
