"""Where every second of footage went: kept, dropped by a rule, trimmed, failed, or not yet decided.

No Ray, no torch: DuckDB queries the ledger, streams its Parquet parts and reads only the columns that it needs, each
part once.

    account = account("runs/first")
    for entry in account.entries: ...   # their seconds add up to account.input_s

What a source's clips, trims and failures leave unexplained is a failure of that source, `unaccounted`, and what they
count twice is taken off again, `counted_twice`, with a minus: one odd file never keeps a run from its account.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import duckdb

from rushes.filters.policy import TAKEDOWN
from rushes.pipelines.stages.select.selections import choose, names
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.sql import reading, tables
from rushes.pipelines.store.tables import TABLES

Fate = Literal["kept", "dropped", "trimmed", "failed", "pending"]
FATES: tuple[Fate, ...] = ("kept", "dropped", "trimmed", "failed", "pending")
EXACT_DUPLICATE = "exact_duplicate"
UNACCOUNTED, COUNTED_TWICE = "unaccounted", "counted_twice"
TOLERANCE_S = 1e-3
NAMED = 500
"""Sources that do not add up are named up to here; their number and their seconds are always told."""


class AccountingError(ValueError):
    """The seconds of some sources do not add up; the message names them."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the account: footage that met the same fate for the same reason."""

    fate: Fate
    reason: str
    """The rule that dropped it, why it was trimmed, the code of the failure, or the stage that is still to come."""
    seconds: float
    clips: int
    sources: int


@dataclass(frozen=True, kw_only=True)
class Unexplained:
    """A source whose clips, trims and failures do not add up to it."""

    uri: str
    seconds: float
    """What is missing; below 0 what is counted twice."""

    @property
    def code(self) -> str:
        """The reason under which it stands in the account."""
        return UNACCOUNTED if self.seconds > 0 else COUNTED_TWICE

    @property
    def reason(self) -> str:
        """What is wrong, as a sentence without its end."""
        told = "are neither in a clip nor trimmed nor lost by a known error"
        return f"{abs(self.seconds):.3f} s of it {told if self.seconds > 0 else 'are counted twice'}"


REMEDY = (
    "the rest of it was used; remux the file (ffmpeg -i IN -c copy OUT) and curate the new one to get the whole of it, "
    "and please report it with the file"
)
"""What to do about a source that does not add up."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account of a run under one policy."""

    policy: str | None
    """The policy whose selection is counted; None while nothing is selected."""
    policies: list[str]
    """All policies that have selected from this ledger."""
    inputs: int
    """Inputs planned, readable or not."""
    input_s: float
    """All footage that came in, in seconds."""
    entries: list[Entry]
    """In the order of `FATES`, the largest first within each; their seconds sum to `input_s`."""
    unexplained: list[Unexplained] = field(default_factory=list)
    """The sources that do not add up, those with most seconds first, `NAMED` at most."""
    unexplained_sources: int = 0
    """How many there are."""
    unexplained_s: float = 0.0
    """Seconds that are missing or counted twice, summed without sign over the sources; 0 in a sound run."""

    def seconds(self, fate: Fate) -> float:
        """Return all seconds that met one fate."""
        return sum(entry.seconds for entry in self.entries if entry.fate == fate)

    def clips(self, fate: Fate) -> int:
        """Return all clips that met one fate."""
        return sum(entry.clips for entry in self.entries if entry.fate == fate)

    def check(self) -> None:
        """Raise AccountingError, naming the first few sources, unless each adds up by itself, to a millisecond."""
        if self.unexplained_sources:
            wrong = ", ".join(f"{one.uri} ({one.seconds:+.3f} s)" for one in self.unexplained[:5])
            raise AccountingError(f"{self.unexplained_sources} sources do not add up to {TOLERANCE_S} s: {wrong}")


@dataclass(frozen=True, kw_only=True)
class Books:
    """A run's ledger opened for questions: its tables by name, and `fates`, which says what became of every clip."""

    run: str
    ledger: Ledger
    """Its parts as they were when the books were opened."""
    connection: duckdb.DuckDBPyConnection
    policy: str | None
    policies: list[str]

    @cached_property
    def account(self) -> Account:
        """The account of the run under the policy."""
        return _settled(self)


def account(run: str, policy: str | None = None) -> Account:
    """Return the account of a run, as far as it has come.

    Several policies may select from one ledger; without `policy` the only one counts, else the one in the run's
    `config.yaml`, else the first by name. Raises SelectionError for a policy that has selected nothing here.
    """
    return open_books(run, policy).account


def open_books(run: str, policy: str | None = None, sealed: bool = False) -> Books:
    """Open the ledger of a run under one policy; see `account` for which one, and `tables` for `sealed`."""
    ledger = Ledger(run).snapshot()
    with reading(ledger):
        connection = tables(ledger, *TABLES, sealed=sealed)
        found = connection.execute("select distinct policy from selection order by 1").fetchall()
        policies = [name for (name,) in found] or names(ledger)  # where no clip is left, selections have no rows
        chosen = choose(run, policies, policy)
        connection.execute("set variable policy = ?", [chosen or ""])
        connection.execute(_LINES)
    return Books(run=run, ledger=ledger, connection=connection, policy=chosen, policies=policies)


def _settled(books: Books) -> Account:
    ask = books.connection.execute
    entries = [Entry(fate=f, reason=r, seconds=s, clips=c, sources=n) for f, r, s, c, n in ask(_ENTRIES).fetchall()]
    entries.sort(key=lambda entry: (FATES.index(entry.fate), -entry.seconds, -entry.sources, entry.reason))
    inputs, input_s = ask(_INPUTS).fetchall()[0]
    number, seconds = ask("select count(*), coalesce(sum(abs(seconds)), 0) from unexplained").fetchall()[0]
    named = ask("select uri, seconds from unexplained order by abs(seconds) desc, uri limit ?", [NAMED]).fetchall()
    return Account(
        policy=books.policy,
        policies=books.policies,
        inputs=inputs,
        input_s=input_s,
        entries=entries,
        unexplained=[Unexplained(uri=storage.redact(uri), seconds=lost) for uri, lost in named],
        unexplained_sources=number,
        unexplained_s=seconds,
    )


# A source is identified by content: of several inputs with the same content the first is scanned, the others are
# dropped as exact duplicates. Inputs and sources get numbers, which are joined faster than their names. `lines` has one
# row per (input, fate, reason); everything else is a sum over it.
_ENUM = ", ".join(f"'{fate}'" for fate in FATES)
_LINES = f"""
create temp table inputs as
select uri, (row_number() over ())::integer as input
from (select uri from plan union select uri from sources
      union select uri from errors where (key is null or key = '') and source_id is null and uri is not null);

create temp table down as  -- what the ledger was made without
select distinct source_id from takedowns where applied and key is null and source_id is not null;

create temp table ranked as
select i.input, s.source_id, s.uri, coalesce(s.duration_s, 0) as duration_s,
       row_number() over (partition by source_id order by wave, unit, uri) as rank
from sources s join inputs i using (uri);

create temp table lost as  -- failures of whole sources or of stretches of them; a failed clip is counted as a clip
select coalesce(e.source_id, s.source_id) as source_id, e.code, sum(e.seconds) as seconds,
       coalesce(sum(e.seconds) filter (coalesce(e.stage, '') not in ('witness', 'shots')), 0) as undecoded_s
from (select * from errors where key is null or key = '') e
left join (select uri, min(source_id) as source_id from ranked group by uri) s using (uri)
group by all;

create temp table firsts as
select r.input, r.source_id, r.uri, r.duration_s, s.covered_s, l.lost_s, l.code,
       -- what was decoded, and what could not be; a header may promise more than there ever was
       coalesce(s.covered_s + coalesce(l.undecoded_s, 0), r.duration_s) as input_s
from ranked r
left join (select source_id, sum(covered_s) as covered_s from signals group by 1) s using (source_id)
left join (select source_id, coalesce(sum(seconds), 0) as lost_s, sum(undecoded_s) as undecoded_s, min(code) as code
           from lost group by 1) l using (source_id)
where r.rank = 1;

create temp table fates as
select c.key, c.unit, f.input, c.duration_s,
       case when e.key is not null then 'failed' when s.kept then 'kept'
            when s.kept is not null then 'dropped' else 'pending' end::enum ({_ENUM}) as fate,
       case when e.key is not null then e.code when s.kept then 'kept'
            when s.kept is not null then coalesce(s.rule, 'unnamed') else 'select' end as reason
from (select key, unit, source_id, duration_s from clips) c
left join firsts f using (source_id)
left join (select key, kept, rule from selection where policy = getvariable('policy')) s using (key)
left join (select key, min(code) as code from errors where seconds > 0 and key != '' group by key) e using (key);

create temp table cut as
select f.input, reason, sum(end_s - start_s) as seconds, count(*) as clips
from trims join firsts f using (source_id) group by all;

create temp table lines as
select input, fate, reason, sum(duration_s) as seconds, count(*) as clips
from fates where input is not null group by all
union all
select input, if(reason = '{TAKEDOWN}', 'dropped', 'trimmed')::enum ({_ENUM}), reason, seconds,
       if(reason = '{TAKEDOWN}', clips, 0) from cut
union all  -- a source that failed before anything of it was decoded is lost whole, whatever its error row says
select f.input, 'failed', l.code, if(f.covered_s is null, if(l.code = f.code, f.duration_s, 0), l.seconds), 0
from firsts f join lost l using (source_id) where source_id not in (from down)
union all
select input, 'dropped', if(source_id in (from down), '{TAKEDOWN}', '{EXACT_DUPLICATE}'), duration_s, 0
from ranked where rank > 1
union all
select input, 'dropped', '{TAKEDOWN}', input_s, 0 from firsts where source_id in (from down)
union all
select input, 'pending', 'scan', duration_s, 0 from firsts
where covered_s is null and code is null and source_id not in (from down)
union all
select input, 'pending', 'shots', covered_s, 0 from firsts
where covered_s > 0 and input not in (select input from fates where input is not null union select input from cut)
      and source_id not in (select source_id from lost where seconds > undecoded_s and source_id is not null)
union all  -- inputs that could not be opened have no known length, yet they count
select distinct i.input, 'failed', code, 0, 0 from errors e join inputs i using (uri)
where (key is null or key = '') and e.source_id is null and input not in (select input from ranked)
union all
select input, 'pending', 'probe', 0, 0 from inputs
where input not in (select input from ranked) and uri not in (select uri from errors where uri is not null);

create temp table unexplained as
select uri, input, seconds from (
    select i.uri, i.input, coalesce(f.input_s, 0) + coalesce(again_s, 0) - coalesce(told_s, 0) as seconds
    from inputs i left join firsts f using (input)
    left join (select input, sum(duration_s) as again_s from ranked where rank > 1 group by 1) using (input)
    left join (select input, sum(seconds) as told_s from lines group by 1) using (input)
) where abs(seconds) > {TOLERANCE_S};

insert into lines
select input, 'failed', if(seconds > 0, '{UNACCOUNTED}', '{COUNTED_TWICE}'), seconds, 0 from unexplained;
"""

_ENTRIES = """
select fate, reason, sum(seconds)::double, sum(clips)::bigint, count(distinct input)::bigint from lines group by all
"""

_INPUTS = """
select count(*)::bigint, (coalesce((select sum(input_s) from firsts), 0)
                          + coalesce((select sum(duration_s) from ranked where rank > 1), 0))::double
from inputs
"""
