"""What the page shows, asked of the ledger: numbers, samples and pictures, without a line of markup.

Every query is bounded, so that the page of a run of ten million clips is as large as that of a thousand. Samples are
drawn by a hash of the clip key: the same ledger gives the same page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.pipelines.report.accounting import REMEDY, Account, Books
from rushes.pipelines.report.measures import gather
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger, Part
from rushes.pipelines.store.storage import redact

CARDS = 200
PAIRS = 24
FAILURES = 500
TIMELINES = 80
STRIP_BYTES = 12_000_000
SMALL_BYTES, PARTS_HELD = 2**20, 8
"""Parts of strips up to this size are read whole, and so many of them stay at hand."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One clip, as a person wants to judge it."""

    key: str
    unit: str
    uri: str
    start_s: float
    end_s: float
    fate: str
    reason: str
    value: float | None
    limit: float | None
    detail: str | None
    caption: str | None
    caption_source: str | None
    facts: dict[str, Any]
    strip: bytes | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A clip that was dropped as a duplicate, and the one that stands for it."""

    kept: Card
    dropped: Card
    level: str
    distance: float | None
    offset_s: float | None
    overlap_s: float | None
    why: str | None


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a source with one fate."""

    start_s: float
    end_s: float
    fate: str
    reason: str
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A source from its first second to its last."""

    uri: str
    facts: dict[str, Any]
    stretches: list[Stretch]


@dataclass
class Strips:
    """Contact strips of a run, read until the page would become too heavy."""

    run: str
    left_bytes: int = STRIP_BYTES
    _seen: dict[str, bytes | None] = field(default_factory=dict)
    _held: dict[Part, dict[str, bytes]] = field(default_factory=dict)

    def of(self, key: str, unit: str) -> bytes | None:
        """Return the strip of a clip of a unit, or None if there is none or the page is full."""
        if key not in self._seen:
            self._seen[key] = self._read(key, unit)
        return self._seen[key]

    @cached_property
    def _parts(self) -> dict[str, list[Part]]:
        """The parts of each unit, from one listing."""
        found: dict[str, list[Part]] = {}
        for part in Ledger(self.run).snapshot().parts("strips"):
            found.setdefault(part.unit, []).append(part)
        return found

    def _read(self, key: str, unit: str) -> bytes | None:
        if self.left_bytes <= 0:
            return None
        data = next(filter(None, (self._of_part(part, key) for part in self._parts.get(unit, []))), b"")
        self.left_bytes -= len(data)
        return data or None

    def _of_part(self, part: Part, key: str) -> bytes:
        if not 0 < part.size_bytes <= SMALL_BYTES:
            return _strip_in(part, key)
        if part not in self._held:  # all its strips for one request
            while len(self._held) >= PARTS_HELD:
                self._held.pop(next(iter(self._held)))
            rows = Ledger(self.run).read_whole("strips", part)
            self._held[part] = dict(zip(rows["key"].to_pylist(), rows["webp"].to_pylist(), strict=True))
        return self._held[part].get(key, b"")


def _strip_in(part: Part, key: str) -> bytes:
    """Return the strip of a clip from a part; of its pictures only those of one row group are read."""
    with storage.open_read(part.uri) as file:
        parquet = pq.ParquetFile(file)
        before = 0
        row = pc.index(parquet.read(["key"])["key"], key).as_py()
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if before <= row < before + size:
                return bytes(parquet.read_row_group(group, ["webp"])["webp"][row - before].as_py())
            before += size
    return b""


_CARD = """
select c.key, c.unit, c.uri, c.start_s, c.end_s, f.fate, f.reason, s.value, s."limit", s.detail,
       t.short as caption, t.source as caption_source,
       c.camera, c.motion, c.width, c.height, c.fps, c.duration_s
from {chosen} f join clips c using (key)
left join (select * from selection where policy = getvariable('policy')) s using (key)
left join captions t using (key)
"""


def cards(books: Books, strips: Strips, limit: int = CARDS) -> list[Card]:
    """Return a sample of clips in which every reason has its say and the kept ones have five times as much."""
    books.connection.execute(
        """
        create or replace temp table sampled as
        select key, fate::varchar as fate, reason, if(fate = 'kept', ceil(rank / 5), rank) as turn
        from (select *, row_number() over (partition by fate, reason order by md5(key), key) as rank from fates)
        order by turn, fate, reason, rank limit ?
        """,
        [limit],
    )
    rows = _rows(books, _CARD.format(chosen="sampled") + " order by f.turn, f.fate != 'kept', f.reason, c.key")
    return [_card(row, strips) for row in rows]


def pairs(books: Books, strips: Strips, limit: int = PAIRS) -> list[Pair]:
    """Return a sample of duplicates, each beside the clip that stands for it."""
    found = _rows(
        books,
        "select * from pairs where policy = getvariable('policy') order by kept_key, md5(key), key limit ?",
        [limit],
    )
    known = named(books, strips, [row[name] for row in found for name in ("key", "kept_key")])
    return [
        Pair(
            kept=known[row["kept_key"]],
            dropped=known[row["key"]],
            **{name: row[name] for name in ("level", "distance", "offset_s", "overlap_s", "why")},
        )
        for row in found
        if row["key"] in known and row["kept_key"] in known
    ]


def named(books: Books, strips: Strips, keys: Sequence[str]) -> dict[str, Card]:
    """Return the cards of clips, by key; those that the ledger does not know are left out."""
    books.connection.execute(
        "create or replace temp table named as select * from fates where key in (select unnest(?::varchar[]))",
        [list(keys)],
    )
    return {row["key"]: _card(row, strips) for row in _rows(books, _CARD.format(chosen="named"))}


def _card(row: dict[str, Any], strips: Strips) -> Card:
    facts = {name: row.pop(name) for name in ("camera", "motion", "width", "height", "fps", "duration_s")}
    return Card(**row, facts=facts, strip=strips.of(row["key"], row["unit"]))


def timelines(books: Books, limit: int = TIMELINES) -> list[Timeline]:
    """Return sources with what became of each of their stretches; those with failures first if there are too many."""
    books.connection.execute(
        """
        create or replace temp table shown as
        select s.*, f.input_s from firsts f join sources s using (source_id, uri)
        order by (f.lost_s > 0) desc nulls last, md5(s.uri) limit ?
        """,
        [limit],
    )
    stretches: dict[str, list[Stretch]] = {}
    for row in _rows(books, _STRETCHES):
        stretches.setdefault(row.pop("source_id"), []).append(Stretch(**row))
    names = ("video_codec", "width", "height", "fps", "input_s", "licence")
    return [
        Timeline(
            uri=row["uri"],
            facts={name: row[name] for name in names},
            stretches=stretches.get(row["source_id"], []),
        )
        for row in _rows(books, "select * from shown order by uri")
    ]


_STRETCHES = """
select * from (
    select source_id, start_s, end_s, fate, reason, key
    from (select c.source_id, c.start_s, c.end_s, f.fate::varchar as fate, f.reason, c.key,
                 row_number() over (partition by c.source_id order by c.start_s) as rank
          from (select source_id, start_s, end_s, key from clips
                where source_id in (select source_id from shown)) c join fates f using (key))
    where rank <= 400
    union all
    select source_id, start_s, end_s, if(reason = 'takedown', 'dropped', 'trimmed'), reason, null from trims
    where source_id in (select source_id from shown)
    union all
    select source_id, coalesce(start_s, 0), coalesce(start_s, 0) + seconds, 'failed', code, null from errors
    where source_id in (select source_id from shown) and seconds > 0 and coalesce(key, '') = ''
    union all
    select source_id, 0, input_s, 'dropped', 'takedown', null from shown where source_id in (from down)
) order by source_id, start_s, end_s
"""


def failures(books: Books, limit: int = FAILURES) -> list[dict[str, Any]]:
    """Return what failed, the most footage first; a source that does not add up is one of them."""
    found = _rows(
        books,
        "select stage, uri, key, start_s, seconds, code, reason, remedy from errors "
        "order by seconds desc, uri, key, code limit ?",
        [limit],
    )
    odd = [
        {"stage": "account", "uri": one.uri, "key": None, "start_s": None, "seconds": one.seconds, "code": one.code,
         "reason": one.reason, "remedy": REMEDY}
        for one in books.account.unexplained
    ]  # fmt: skip
    return sorted(found + odd, key=lambda row: -abs(row["seconds"] or 0))[:limit] if odd else found


def failed(books: Books) -> int:
    """Return the number of all failures."""
    return tally(books, "errors") + books.account.unexplained_sources


def passed_over(books: Books) -> list[dict[str, Any]]:
    """Return how many files stood in the folders of the inputs and were not taken, by suffix, the most first."""
    return _rows(
        books,
        "select suffix, sum(files)::bigint as files, sum(size_bytes)::bigint as size_bytes from passed_over "
        "group by suffix order by files desc, suffix",
    )


def mixture(books: Books) -> dict[str, list[dict[str, Any]]]:
    """Return what the footage is made of: for several labels, seconds kept and dropped of the commonest values."""
    gather(books)
    groups = {
        "Camera": ("camera", "measured"),
        "Shorter side": ("case when least(width, height) is null then null else least(width, height) || ' px' end",
                         "measured"),
        "Shape": ("case when width > height * 1.1 then 'landscape' when height > width * 1.1 then 'portrait' "
                  "when width is not null then 'square' end", "measured"),
        "Length": ("case when duration_s < 2 then '1: under 2 s' when duration_s < 5 then '2: 2 to 5 s' "
                   "when duration_s < 10 then '3: 5 to 10 s' else '4: 10 s and longer' end", "measured"),
        "Frame rate": ("printf('%g fps', round(fps, 2))", "measured"),
        "Likely content": ("sure", "scored"),
    }  # fmt: skip
    return {
        name: rows
        for name, (expression, table) in groups.items()
        if len(rows := _rows(books, _MIXTURE.format(label=expression, table=table))) > 1
    }


_MIXTURE = """
select label, sum(duration_s) filter (kept) as kept_s, sum(duration_s) filter (not kept) as other_s,
       count(*) filter (kept) as kept, count(*) as clips
from (select {label} as label, kept, duration_s from {table})
where label is not null group by label order by sum(duration_s) desc, label limit 6
"""


def distinct_sources(books: Books) -> int:
    """Return the number of sources that differ in content."""
    return int(books.connection.execute("select count(*) from firsts").fetchall()[0][0])


def tally(books: Books, table: str) -> int:
    """Return the number of rows of a table under the policy reported."""
    where = " where policy = getvariable('policy')" if table in ("selection", "pairs", "packed") else ""
    return int(books.connection.execute(f"select count(*) from {table}{where}").fetchall()[0][0])


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What one of several selections keeps."""

    policy: str
    clips: int
    seconds: float
    shared: int
    """Clips that the selection shown keeps too."""
    shared_s: float
    packed: int
    """Clips in its shards."""


def selected(books: Books) -> list[Selected]:
    """Return what each selection of the run keeps, the one shown first."""
    rows = _rows(
        books,
        """
        select s.policy, count(*) filter (kept) as clips, coalesce(sum(duration_s) filter (kept), 0) as seconds,
               count(*) filter (kept and o.key is not null) as shared,
               coalesce(sum(duration_s) filter (kept and o.key is not null), 0) as shared_s,
               any_value(coalesce(p.packed, 0)) as packed
        from selection s
        left join (select key from selection where kept and policy = getvariable('policy')) o using (key)
        left join (select policy, count(*) as packed from packed group by 1) p using (policy)
        group by s.policy order by s.policy != getvariable('policy'), s.policy
        """,
    )
    return [Selected(**row) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One gate on the way from all clips to the shards, and what is left behind it."""

    name: str
    note: str
    clips: int
    seconds: float
    dropped: int
    dropped_s: float


def funnel(account: Account, rules: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Return the gates in the order in which clips meet them: the policy's rules, then whatever else dropped clips."""
    gone = {(str(e.fate), e.reason): e for e in account.entries if e.clips and e.fate not in ("kept", "trimmed")}
    clips, seconds = sum(e.clips for e in account.entries), sum(e.seconds for e in account.entries if e.clips)
    steps = [Step(name="clips found", note="", clips=clips, seconds=seconds, dropped=0, dropped_s=0.0)]
    gates = [("dropped", str(rule.get("name") or rule.get("measure"))) for rule in rules]
    notes = dict(zip(gates, map(rule_text, rules), strict=True))
    for fate, reason in [*gates, *sorted(set(gone) - set(gates))]:
        entry = gone.get((fate, reason))
        dropped, dropped_s = (entry.clips, entry.seconds) if entry else (0, 0.0)
        clips, seconds = clips - dropped, seconds - dropped_s
        name = reason if fate == "dropped" else f"{fate}: {reason}"
        note = notes.get((fate, reason), "")
        steps.append(Step(name=name, note=note, clips=clips, seconds=seconds, dropped=dropped, dropped_s=dropped_s))
    return steps


def rule_text(rule: Mapping[str, Any]) -> str:
    """Return a rule of a policy as people write it: `quality ≥ 10`."""
    bounds = (("min", "≥"), ("max", "≤"), ("in", "is"), ("not_in", "is not"))
    texts = []
    for name, sign in bounds:
        value = rule.get(name)
        if isinstance(value, list):
            value = " or ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in value)
        if value is not None:
            texts.append(f"{sign} {value}")
    for name, side in (("keep_highest", "highest"), ("keep_lowest", "lowest")):
        if isinstance(rule.get(name), int | float):
            texts.append(f"among the {side} {100 * rule[name]:g} %")
    return f"{rule.get('measure')} {' and '.join(texts)}" + (" or missing" if rule.get("missing") == "keep" else "")


def packed(books: Books) -> tuple[int, float]:
    """Return the clips in shards and their seconds."""
    row = books.connection.execute(
        """select count(*), coalesce(sum(duration_s), 0) from fates
           where key in (select key from packed where policy = getvariable('policy'))"""
    ).fetchall()[0]
    return int(row[0]), float(row[1])


def _rows(books: Books, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    found = books.connection.execute(query, list(parameters))
    names = [column[0] for column in found.description or []]
    rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    return [{**row, "uri": redact(row["uri"])} if row.get("uri") else row for row in rows]
