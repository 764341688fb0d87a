"""Where every second of footage went: kept, dropped by a rule, trimmed, failed, or not yet decided.

No Ray, no torch: DuckDB queries the ledger, streams its Parquet parts and reads only the columns that it needs.

    account = account("runs/first")
    account.check()                      # raises AccountingError if a second is missing or counted twice
    for entry in account.entries: ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa

from rushes.pipelines.stages.select.selections import choose
from rushes.pipelines.store.ledger import TABLES, Ledger

Fate = Literal["kept", "dropped", "trimmed", "failed", "pending"]
FATES: tuple[Fate, ...] = ("kept", "dropped", "trimmed", "failed", "pending")
EXACT_DUPLICATE = "exact_duplicate"
TOLERANCE_S = 1e-3


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
class Account:
    """The account of a run under one policy."""

    policy: str | None
    """The policy whose selection is counted; None while nothing is selected."""
    policies: list[str]
    """All policies that have selected from this ledger."""
    inputs: int
    """Inputs planned, readable or not."""
    entries: list[Entry]
    """In the order of `FATES`, the largest first within each."""
    sources: pa.Table
    """One row per input: uri, source_id, input_s, kept_s, dropped_s, trimmed_s, failed_s, pending_s, unexplained_s."""

    def seconds(self, fate: Fate) -> float:
        """Return all seconds that met one fate."""
        return sum(entry.seconds for entry in self.entries if entry.fate == fate)

    def clips(self, fate: Fate) -> int:
        """Return all clips that met one fate."""
        return sum(entry.clips for entry in self.entries if entry.fate == fate)

    @property
    def input_s(self) -> float:
        """All footage that came in, in seconds."""
        return float(sum(self.sources["input_s"].to_pylist()))

    @property
    def unexplained_s(self) -> float:
        """Seconds that are missing or counted twice, summed without sign over the sources; 0 in a sound run."""
        return float(sum(abs(value) for value in self.sources["unexplained_s"].to_pylist()))

    def check(self, tolerance_s: float = TOLERANCE_S) -> None:
        """Raise AccountingError, naming the first few sources, unless every source adds up within the tolerance."""
        wrong = [
            f"{row['uri']} ({row['unexplained_s']:+.3f} s)"
            for row in self.sources.select(["uri", "unexplained_s"]).to_pylist()
            if abs(row["unexplained_s"]) > tolerance_s
        ]
        if wrong:
            raise AccountingError(
                f"{len(wrong)} of {self.sources.num_rows} sources do not add up to {tolerance_s} s: "
                f"{', '.join(wrong[:5])}; the ledger is incomplete or was edited: run the same curate command again"
            )


@dataclass(frozen=True, kw_only=True)
class Books:
    """A run's ledger opened for questions: its tables by name, and `fates`, which says what became of every clip."""

    connection: duckdb.DuckDBPyConnection
    policy: str | None
    policies: list[str]


def account(run: str, policy: str | None = None) -> Account:
    """Return the account of a run, as far as it has come.

    Several policies may select from one ledger; without `policy` the only one counts, else the one in the run's
    `config.yaml`, else the first by name. Raises SelectionError for a policy that has selected nothing here.
    """
    return settle(open_books(run, policy))


def open_books(run: str, policy: str | None = None) -> Books:
    """Open the ledger of a run under one policy; see `account` for which one."""
    connection = tables(Ledger(run), *TABLES)
    policies = [name for (name,) in connection.execute("select distinct policy from selection order by 1").fetchall()]
    chosen = choose(run, policies, policy)
    connection.execute("set variable policy = ?", [chosen or ""])
    connection.execute(_LINES)
    return Books(connection=connection, policy=chosen, policies=policies)


def settle(books: Books) -> Account:
    """Return the account of opened books."""
    found = books.connection.execute(_ENTRIES).fetchall()
    entries = [Entry(fate=f, reason=r, seconds=s, clips=c, sources=n) for f, r, s, c, n in found]
    entries.sort(key=lambda entry: (FATES.index(entry.fate), -entry.seconds, -entry.sources, entry.reason))
    (inputs,) = books.connection.execute(_INPUTS).fetchall()[0]
    return Account(
        policy=books.policy,
        policies=books.policies,
        inputs=inputs,
        entries=entries,
        sources=books.connection.sql(_PER_SOURCE).to_arrow_table(),
    )


def tables(ledger: Ledger, *names: str) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection in which tables of the ledger can be queried by name, on disk or in a bucket.

    A table without parts is an empty one, so queries work on a run that has just begun.
    """
    connection = duckdb.connect(":memory:", config={"threads": 2})
    for name in names:
        dataset = ledger.dataset(name)
        connection.register(name, ledger.read(name) if dataset is None else dataset)
    return connection


# A source is identified by content: of several inputs with the same content the first is scanned, the others are
# dropped as exact duplicates. `lines` has one row per (input, fate, reason); everything else is a sum over it.
_LINES = f"""
create temp table ranked as
select source_id, uri, coalesce(duration_s, 0) as duration_s,
       row_number() over (partition by source_id order by wave, unit, uri) as rank
from sources;

create temp table lost as  -- failures of whole sources or of stretches of them; a failed clip is counted as a clip
select coalesce(e.source_id, s.source_id) as source_id, e.code, sum(e.seconds) as seconds
from (select * from errors where key is null or key = '') e
left join (select uri, min(source_id) as source_id from sources group by uri) s using (uri)
group by all;

create temp table firsts as
select r.source_id, r.uri, r.duration_s, s.covered_s, l.lost_s, l.code,
       case when l.lost_s > 0 and s.covered_s is not null
                 then greatest(r.duration_s, s.covered_s + l.lost_s)  -- a broken file may promise more than it has
            else coalesce(s.covered_s, r.duration_s) end as input_s
from ranked r
left join (select source_id, sum(covered_s) as covered_s from signals group by 1) s using (source_id)
left join (select source_id, coalesce(sum(seconds), 0) as lost_s, min(code) as code from lost group by 1) l
       using (source_id)
where r.rank = 1;

create temp table fates as
select c.key, c.source_id, c.duration_s,
       case when e.key is not null then 'failed' when s.kept then 'kept'
            when s.kept is not null then 'dropped' else 'pending' end as fate,
       case when e.key is not null then e.code when s.kept then 'kept'
            when s.kept is not null then coalesce(s.rule, 'unnamed') else 'select' end as reason
from clips c
left join (select key, kept, rule from selection where policy = getvariable('policy')) s using (key)
left join (select key, min(code) as code from errors where seconds > 0 and key != '' group by key) e using (key);

create temp table lines as
select f.uri, x.fate, x.reason, x.seconds, x.clips
from firsts f join (
    select source_id, fate, reason, sum(duration_s) as seconds, count(*) as clips from fates group by all
    union all
    select source_id, 'trimmed', reason, sum(end_s - start_s), 0 from trims group by all
) x using (source_id)
union all  -- a source that failed before anything of it was decoded is lost whole, whatever its error row says
select f.uri, 'failed', l.code, if(f.covered_s is null, if(l.code = f.code, f.duration_s, 0), l.seconds), 0
from firsts f join lost l using (source_id)
union all
select uri, 'dropped', '{EXACT_DUPLICATE}', duration_s, 0 from ranked where rank > 1
union all
select uri, 'pending', 'scan', duration_s, 0 from firsts where covered_s is null and code is null
union all
select f.uri, 'pending', 'shots', f.covered_s, 0 from firsts f
where f.covered_s > 0 and f.source_id not in (select source_id from clips union select source_id from trims)
union all  -- inputs that could not be opened have no known length, yet they count
select uri, 'failed', code, 0, 0 from errors
where (key is null or key = '') and source_id is null and uri not in (select uri from sources) group by uri, code
union all
select uri, 'pending', 'probe', 0, 0 from plan
where uri not in (select uri from sources union select uri from errors where uri is not null)
"""

_ENTRIES = """
select fate, reason, sum(seconds)::double, sum(clips)::bigint, count(distinct uri)::bigint from lines group by all
"""

_INPUTS = "select count(distinct uri)::bigint from (select uri from plan union select uri from lines)"

_PER_SOURCE = """
select uri, source_id, input_s, kept_s, dropped_s, trimmed_s, failed_s, pending_s,
       input_s - kept_s - dropped_s - trimmed_s - failed_s - pending_s as unexplained_s
from (
    select l.uri, any_value(r.source_id) as source_id,
           any_value(coalesce(f.input_s, r.duration_s, 0)) as input_s,
           coalesce(sum(seconds) filter (fate = 'kept'), 0) as kept_s,
           coalesce(sum(seconds) filter (fate = 'dropped'), 0) as dropped_s,
           coalesce(sum(seconds) filter (fate = 'trimmed'), 0) as trimmed_s,
           coalesce(sum(seconds) filter (fate = 'failed'), 0) as failed_s,
           coalesce(sum(seconds) filter (fate = 'pending'), 0) as pending_s
    from (select uri, fate, seconds from lines union all select uri, 'none', 0 from ranked) l
    left join ranked r using (uri) left join firsts f using (uri)
    group by l.uri
) order by uri
"""
