"""Rights in the account of a run: its footage by licence, and what was taken down. Facts, lines and markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.markup import Html, count, el, number, seconds, section, share
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.storage import redact
from rushes.pipelines.store.takedowns import Down

LICENCES = 50
"""Licences that are told apart, those of most footage; all others are one row."""
NAMED = 50
"""Takedowns and clips that are named; their numbers are always told."""
NOT_GIVEN = "not given"
Row = dict[str, Any]


def of(books: Books) -> Row:
    """Return what there is to tell of rights, as plain values: `licences` and `takedowns`."""
    found = taken(takedowns.read(books.ledger))
    for one in found["similar"]:
        one["kept"] = bool(books.connection.execute(_KEPT, [one["key"]]).fetchall())
    return {"licences": licences(books), "takedowns": found}


def licences(books: Books) -> list[Row]:
    """Return a row for each licence, that of most footage first and `licence: None`, which is not given, last.

    Each has its inputs (`sources`), their `seconds` and `clips`, and of these `kept_s`, `kept_clips` and `kept_share`,
    a share of the seconds.
    """
    found = books.connection.execute(_LICENCES, [LICENCES])
    names = [column[0] for column in found.description or []]
    rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    return [{**row, "kept_share": row["kept_s"] / row["seconds"] if row["seconds"] else None} for row in rows]


_LICENCES = """
with given as (
    select uri, min(nullif(trim(licence), '')) as licence
    from (select uri, licence from plan union all select uri, licence from sources) group by uri
), told as (
    select licence, count(distinct input) as sources, coalesce(sum(seconds), 0)::double as seconds,
           coalesce(sum(clips), 0)::bigint as clips,
           coalesce(sum(seconds) filter (fate = 'kept'), 0)::double as kept_s,
           coalesce(sum(clips) filter (fate = 'kept'), 0)::bigint as kept_clips
    from inputs left join lines using (input) left join given using (uri) group by licence
), ranked_ as (
    select *, row_number() over (order by licence is null, seconds desc, licence) as place from told
)
select if(place <= ? or licence is null, licence, 'all others') as licence, sum(sources)::bigint as sources,
       sum(seconds)::double as seconds, sum(clips)::bigint as clips, sum(kept_s)::double as kept_s,
       sum(kept_clips)::bigint as kept_clips
from ranked_ group by 1 order by bool_and(licence is null), min(place)
"""


_KEPT = "select key from selection where policy = getvariable('policy') and kept and key = ?"


def taken(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return what was taken down: how much of what was named is here, what is not, and which clips resemble it.

    Of the latter those that stay: such as are taken down by another name do not.
    """
    live = [row for row in rows if row["until"] is None]
    named = [row for row in live if row["kind"] != "similar"]
    here = [row for row in named if row["uri"] and (not row["key"] or row["end_s"] is not None)]
    absent = sorted({row["named"] for row in named} - {row["named"] for row in here})
    similar = sorted((row for row in live if row["kind"] == "similar"), key=lambda row: str(row["key"]))
    gone = takedowns.now(rows).keys(pa.array([row["key"] for row in similar], pa.string())).to_pylist()
    open_ = [row for row, is_gone in zip(similar, gone, strict=True) if not is_gone]
    return {
        "names": len({row["named"] for row in named}),
        "sources": len({row["source_id"] for row in here if not row["key"]}),
        "clips": len({row["key"] for row in here if row["key"]}),
        "withdrawn": len({(row["named"], row["until"]) for row in rows if row["until"] is not None}),
        "matched_nothing": [redact(name) for name in absent[:NAMED]],
        "matched_nothing_names": len(absent),
        "similar_dropped": len({row["key"] for row in similar} - {row["key"] for row in open_}),
        "similar": [{"key": row["key"], "uri": redact(row["uri"] or ""), "resembles": row["resembles"]}
                    for row in open_[:NAMED]],
        "similar_clips": len(open_),
    }  # fmt: skip


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what `of` found as lines for a terminal; licences only where some input has one."""
    return [*_licence_lines(found["licences"]), *taken_lines(found["takedowns"])]


def _licence_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any(row["licence"] for row in rows):
        return []
    text = ["", f"  {'licence':<34} {'seconds':>12} {'clips':>8} {'kept':>8} {'of time':>8}"]
    for row in rows:
        kept = "–" if row["kept_share"] is None else f"{100 * row['kept_share']:.1f} %"
        text += [
            f"  {row['licence'] or NOT_GIVEN:<34} {row['seconds']:>12.3f} {row['clips']:>8} "
            f"{row['kept_clips']:>8} {kept:>8}"
        ]
    return text


def taken_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what was taken down as lines for a terminal, none where nothing was."""
    if not found["names"]:
        return []
    here = f"{count(found['sources'], 'source')} and {count(found['clips'], 'clip')} of this run"
    text = ["", f"taken down: {count(found['names'], 'name')}, {here}"]
    text += [f"  nothing here is {name}; it binds what comes in later" for name in found["matched_nothing"]]
    if (more := found["matched_nothing_names"] - len(found["matched_nothing"])) > 0:
        text += [f"  … nor {more} more, in the table `takedowns`"]
    for one in found["similar"]:
        stays = "and is kept, perhaps in its place" if one["kept"] else "and stays in the ledger, not kept"
        text += [f"  {one['key']} of {one['uri']} resembles {one['resembles']}, which is taken down, {stays}"]
    if (more := found["similar_clips"] - len(found["similar"])) > 0:
        text += [f"  … and so do {more} more, in the table `takedowns`"]
    if found["similar"]:
        text += ["  --takedown-similar leaves out what resembles, too"]
    if found["sources"] or found["clips"]:
        text += ["  exports lose it when they are made again; `rushes verify RUN --export DIR` proves it"]
    return text


# ------------------------------------------------------------------------------------------------------------- the page


def page(books: Books) -> list[Html]:
    """Return the parts of the page on licences and on what was taken down; the latter only where anything was."""
    return [_licences(licences(books)), _takedowns(takedowns.read(books.ledger))]


def _licences(rows: Sequence[Mapping[str, Any]]) -> Html:
    lines = [
        el(
            "tr",
            el("td", row["licence"] or el("i", NOT_GIVEN)),
            el("td", number(row["sources"]), class_="n"),
            el("td", number(row["clips"]), class_="n"),
            el("td", seconds(row["seconds"]), class_="n"),
            el("td", number(row["kept_clips"]), class_="n"),
            el("td", seconds(row["kept_s"]), class_="n"),
            el("td", share(row["kept_s"], row["seconds"]) if row["seconds"] else "–", class_="n"),
        )
        for row in rows
    ]
    columns = ("Licence", "Inputs", "Clips", "Time", "Clips kept", "Time kept", "Share of time kept")
    return section(
        "licences", "By licence",
        "As the lists of inputs give it. A rule such as {name: not_free, measure: licence, in: [CC0-1.0]} keeps what "
        "is listed and drops the rest; what has no licence goes with it, unless the rule says missing: keep.",
        _table(columns, lines, 1),
    )  # fmt: skip


def _takedowns(rows: Sequence[Mapping[str, Any]]) -> Html:
    if not rows:
        return Html("")
    down = takedowns.now(rows)
    shown = sorted(rows, key=lambda row: (str(row["since"]), str(row["named"]), str(row["key"])), reverse=True)[:NAMED]
    lines = [
        el("tr", el("td", redact(row["named"]), row["resembles"] and el("small", f"resembles {row['resembles']}")),
           el("td", row["reason"] or "–"),
           el("td", row["since"], row["until"] and el("small", f"until {row['until']}")), el("td", _meant(row, down)))
        for row in shown
    ]  # fmt: skip
    more = "" if len(shown) == len(rows) else f" The latest {number(len(shown))} of {number(len(rows))} are shown."
    return section(
        "takedowns", "Taken down",
        "Left out of selections, shards and latents, with all pictures, captions and cut clips; the same content under "
        f"another name stays out, too.{more}",
        _table(("Named", "Reason", "Since", "What it is"), lines, 4),
    )  # fmt: skip


def _meant(row: Mapping[str, Any], down: Down) -> str:
    if row["until"] is not None:
        return "withdrawn"
    if not row["dropped"] and not down.keys(pa.array([row["key"]]))[0].as_py():
        return f"clip {row['key']} is like it, and stays"
    what = f"clip {row['key']} of " if row["key"] else ""
    return f"{what}{redact(row['uri'])}" if row["uri"] else "nothing here so far; it binds what comes in later"


def _table(columns: Sequence[str], lines: Sequence[Html], texts: int) -> Html:
    """Return a table whose first columns are texts and whose others are numbers."""
    head = el(
        "tr", *(el("th", name, scope="col", class_="n" if at >= texts else "") for at, name in enumerate(columns))
    )
    return el("div", el("table", el("thead", head), el("tbody", *lines)), class_="scroll")
