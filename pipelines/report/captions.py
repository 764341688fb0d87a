"""What a run's captions come to, in lines and on the page: their sources, contradictions, which are alike.

No Ray, no torch: DuckDB streams the table `captions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from rushes.filters.caption import near_identical
from rushes.filters.caption_checks import KINDS
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.markup import Html, count, el, number, section, share, words

EXAMPLES = 12
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
        captions=sum(amount for _, amount in sources),
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
    sources = ", ".join(f"{amount} {source}" for source, amount in found["sources"].items())
    text = [f"{found['captions']} captions ({sources}), {found['repeated']} in words that another clip has as well"]
    if found["contradicted"]:
        told = ", ".join(f"{kind} {amount}" for kind, amount in found["contradictions"].items())
        text.append(f"{found['contradicted']} contradict a measurement, which stands in its place ({told})")
    return text


# ------------------------------------------------------------------------------------------------------------- the page


def page(books: Books) -> Html:
    """Return the section; empty while there are no captions."""
    found = account(books.connection)
    if not found.captions:
        return Html("")
    rows = [("from", source, amount) for source, amount in found.sources.items()]
    rows += [("contradicts", kind, amount) for kind, amount in found.contradictions.items()]
    rows.append(("repeats", "another clip's words to the letter", found.repeated))
    lead = (
        "Every caption is bound to its clip by a digest. Where a model contradicts a measurement, the measured camera "
        "stands in the caption's place and the row says so; a model that is often contradicted is to be doubted."
    )
    return section("captions", "Captions", lead, _table(rows, found.captions), *_told(books), *_alike(books))


def _table(rows: Sequence[tuple[str, str, int]], total: int) -> Html:
    lines = [
        el(
            "tr",
            el("td", what),
            el("td", words(name)),
            el("td", number(amount), class_="n"),
            el("td", share(amount, total), class_="n"),
        )
        for what, name, amount in rows
    ]
    columns = (("", ""), ("Captions", ""), ("Clips", "n"), ("Share", "n"))
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in columns))
    return el("div", el("table", el("thead", head), el("tbody", *lines)), class_="scroll")


def _told(books: Books) -> list[Html]:
    """Return examples of contradictions."""
    rows = _rows(books, "select key, checks from captions where checks != '' order by md5(key), key limit ?")
    if not rows:
        return []
    lines = [el("tr", el("td", el("code", row["key"])), el("td", row["checks"])) for row in rows]
    return [
        el("h3", "What models said against the measurements"),
        el("div", el("table", *lines, class_="quotes"), class_="scroll"),
    ]


def _alike(books: Books) -> list[Html]:
    """Return the near-identical captions of a sample, with what they say."""
    looked, pairs = alike(books.connection)
    if not pairs:
        return []
    keys = [key for pair in pairs[:EXAMPLES] for key in pair[:2]]
    query = f"select key, {SAID} from captions where key in (select unnest(?::varchar[]))"
    said = dict(books.connection.execute(query, [keys]).fetchall())
    lines = [
        el("tr", el("td", el("code", one), el("br"), el("code", other)), el("td", said[one], el("small", said[other])),
           el("td", f"{likeness:.0%}", class_="n"))
        for one, other, likeness in pairs[:EXAMPLES]
    ]  # fmt: skip
    clips = len({other for _, other, _ in pairs})
    title = f"{count(clips, 'caption')} of {number(looked)} looked at say nearly what another says"
    return [el("h3", title), el("div", el("table", *lines, class_="quotes"), class_="scroll")]


def _rows(books: Books, query: str) -> list[dict[str, Any]]:
    found = books.connection.execute(query, [EXAMPLES])
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
