"""The part of the page about captions: where they are from, what contradicts the instruments, which are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rushes.pipelines.report import caption_account
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.markup import Html, count, el, number, section, share, words

EXAMPLES = 12


def captions(books: Books) -> Html:
    """Return the section; empty while there are no captions."""
    found = caption_account.account(books.connection)
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
    head = el("tr", *(el("th", name, scope="col") for name in ("", "Captions", "Clips", "Share")))
    return el("div", el("table", el("thead", head), el("tbody", *lines)), class_="scroll")


def _told(books: Books) -> list[Html]:
    """Return examples of contradictions."""
    rows = _rows(books, "select key, checks from captions where checks != '' order by md5(key), key limit ?")
    if not rows:
        return []
    lines = [el("tr", el("td", el("code", row["key"])), el("td", row["checks"])) for row in rows]
    return [el("h3", "What models said against the measurements"), el("div", el("table", *lines), class_="scroll")]


def _alike(books: Books) -> list[Html]:
    """Return the near-identical captions of a sample, with what they say."""
    looked, pairs = caption_account.alike(books.connection)
    if not pairs:
        return []
    keys = [key for pair in pairs[:EXAMPLES] for key in pair[:2]]
    query = f"select key, {caption_account.SAID} from captions where key in (select unnest(?::varchar[]))"
    said = dict(books.connection.execute(query, [keys]).fetchall())
    lines = [
        el("tr", el("td", el("code", one), el("br"), el("code", other)), el("td", said[one], el("small", said[other])),
           el("td", f"{likeness:.0%}", class_="n"))
        for one, other, likeness in pairs[:EXAMPLES]
    ]  # fmt: skip
    clips = len({other for _, other, _ in pairs})
    title = f"{count(clips, 'caption')} of {number(looked)} looked at say nearly what another says"
    return [el("h3", title), el("div", el("table", *lines), class_="scroll")]


def _rows(books: Books, query: str) -> list[dict[str, Any]]:
    found = books.connection.execute(query, [EXAMPLES])
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
