"""Views over the ledger, for the joins that everybody writes.

    books = opened("runs/first")
    books.connection.execute("select key, motion, quality, fate, rule from clips_all")

The connection holds the tables of the ledger under their names and cannot read or write any other file.
"""

from __future__ import annotations

from rushes.pipelines.report import accounting
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.measures import DERIVED, TITLES
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES, told

ABOUT = {
    "clips_all": "One row for each clip: its measures, its scores in columns, its verdict under the selection that is "
    "looked at, whose copy it is, its caption and its shard.",
    "sources_all": "One row for each input, with what became of its seconds under that selection.",
    "funnel": "Where all footage went: a row for each fate and reason. Its hours add up to those of the inputs.",
}
_FATES = ("kept", "dropped", "trimmed", "failed", "pending")
_OWN: dict[str, dict[str, tuple[str, str, str]]] = {
    "clips_all": {
        **{name: (TITLES[name][1], "above 0", "of what is left of the picture inside its bars") for name in DERIVED},
        "embedding …": ("of the scorer", "", "a column for each scorer that has looked at a clip: its value"),
        "tagged": ("", "", "the five best tags: `dog 0.71, ball 0.04`"),
        "fate": ("", "kept, dropped, failed or pending", "what became of it"),
        "reason": ("", "", "the rule that dropped it, or the code of its failure"),
        "value": ("of the measure", "", "what that rule measured"),
        "limit": ("of the measure", "", "the limit that it broke"),
        "detail": ("", "", "more of it, as in selection"),
        "level": ("", "copy, excerpt or semantic", "what kind of duplicate it is"),
        "copy_of": ("", "", "key of the clip that stands for it"),
        "distance": ("bits or cosine", "0 or more", "how far from that one it is"),
        "short": ("", "", "its caption in one sentence"),
        "captioned_by": ("", "", "source of that caption"),
        "bucket": ("", "", "size, rate and such that clips of its shard share"),
        "shard": ("", "", "its tar, below shards/SELECTION/"),
        "size_bytes": ("bytes", "1 or more", "of its encoded video"),
    },
    "sources_all": {
        "uri": ("", "", "where it lies"),
        "source_id": ("", "16 hex digits", "its content; null where it could not be read"),
        "duration_s": ("seconds", "0 or more", "its length, as its header tells it"),
        "clips": ("", "0 or more", "found in it"),
        "kept_clips": ("", "0 or more", "of them kept"),
        **{f"{fate}_s": ("seconds", "0 or more", f"of it {fate}") for fate in _FATES},
        "kept_share": ("", "0 to 1", "kept seconds by all that is accounted for"),
        "code": ("", "", "what kind of failure it had, if any"),
        "remedy": ("", "", "what to do about it"),
    },
    "funnel": {
        "fate": ("", ", ".join(_FATES), "what became of it"),
        "reason": ("", "", "the rule, why it was trimmed, the code of the failure, or the stage that is to come"),
        "hours": ("hours", "0 or more", "footage"),
        "clips": ("", "0 or more", "clips"),
        "sources": ("", "0 or more", "inputs with such footage"),
    },
}
"""Unit, range and meaning of the columns that a view has besides those of tables."""
_LEFT_OUT = ("phash", "phash_s", "frame_s")
_AGGREGATES = ", ".join(f"coalesce(sum(seconds) filter (fate = '{fate}'), 0)::double as {fate}_s" for fate in _FATES)
_SOURCES = f"""
create view sources_all as
select i.uri, s.source_id, s.duration_s, coalesce(c.clips, 0) as clips, coalesce(c.kept_clips, 0) as kept_clips,
       {", ".join(f"coalesce({fate}_s, 0) as {fate}_s" for fate in _FATES)},
       kept_s / nullif({" + ".join(f"{fate}_s" for fate in _FATES)}, 0) as kept_share, e.code, e.remedy
from inputs i
left join (select uri, any_value(source_id) as source_id, any_value(duration_s) as duration_s
           from sources group by uri) s using (uri)
left join (select input, {_AGGREGATES} from lines group by input) l using (input)
left join (select input, count(*) as clips, count(*) filter (fate = 'kept') as kept_clips
           from fates group by input) c using (input)
left join (select uri, min(code) as code, min(remedy) as remedy from errors group by uri) e using (uri);

create view funnel as
select fate, reason, sum(seconds)::double / 3600 as hours, sum(clips)::bigint as clips,
       count(distinct input)::bigint as sources
from lines group by fate, reason order by fate, hours desc;
"""


def opened(run: str, selection: str | None = None) -> Books:
    """Return the books of a run, its ledger sealed and with the views, under one selection; see `accounting.account`.

    Raises NoRun for a folder that is no run, SelectionError for a selection that is not there.
    """
    Ledger(run).require()
    books = accounting.open_books(run, selection or None, sealed=True)
    books.connection.execute(_clips(books))
    books.connection.execute(_SOURCES)
    return books


def columns(view: str) -> dict[str, dict[str, str]]:
    """Return what is told of each column of a view, as `tables.told` tells it of a table's."""
    own = {
        name: dict(zip(("unit", "range", "about"), words, strict=True)) | {"source": "a view", "stage": "a view"}
        for name, words in _OWN[view].items()
    }
    return {**(_clip_columns() if view == "clips_all" else {}), **own}


def _clip_columns() -> dict[str, dict[str, str]]:
    return {field.name: told(field) for field in TABLES["clips"] if field.name not in _LEFT_OUT}


def scorers(books: Books) -> list[str]:
    """Return the scorers whose value is a measure in this run, sorted; a column of clips has its name before any."""
    found = books.connection.execute("select distinct scorer from scores where scorer is not null order by 1")
    return [name for (name,) in found.fetchall() if name not in TABLES["clips"].names and name not in DERIVED]


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as SQL takes it, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def _clips(books: Books) -> str:
    own = ", ".join(f"c.{quoted(name)}" for name in _clip_columns())
    derived = ", ".join(f"{formula} as {name}" for name, formula in DERIVED.items())
    names = scorers(books)
    # of several models the first counts, as in a policy
    values = [f"arg_min_null(value, model) filter (scorer = {literal(n)}) as {quoted(n)}" for n in names]
    scored = "".join(f", s.{quoted(name)}" for name in names)
    return f"""
create view clips_all as
select {own}, {derived}{scored}, s.tagged, f.fate, f.reason, v.value, v."limit", v.detail,
       p.level, p.kept_key as copy_of, p.distance, t.short, t.source as captioned_by, k.bucket, k.shard, e.size_bytes
from clips c
left join fates f using (key)
left join (select key, {", ".join([*values, "max(label) filter (scorer = 'tags') as tagged"])}
           from scores group by key) s using (key)
left join (select key, value, "limit", detail from selection where policy = getvariable('policy')) v using (key)
left join (select key, level, kept_key, distance from pairs
           where policy = getvariable('policy') and level != 'bytes') p using (key)
left join (select key, short, source from captions) t using (key)
left join (select key, bucket, shard from packed where policy = getvariable('policy')) k using (key)
left join (select key, size_bytes from encoded) e using (key)
"""
