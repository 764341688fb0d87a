"""`match`, the step between scoring and selection: brings the table `matches` of a ledger up to date. No Ray.

One part, `matches/part-all.<fingerprint>.parquet`, sorted by the keys of its couples. After more inputs came in only
couples with a clip that is new, or another, are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rushes.filters import duplicates, sketches
from rushes.filters.duplicates import ALIGNED_BY, DuplicateRules, decide, same_alignment
from rushes.pipelines.stages.match import match
from rushes.pipelines.stages.match.clips import BLOCK, COLUMNS, FLOOR, gather
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import Ledger, fingerprint
from rushes.pipelines.store.tables import TABLES

PART = "all"
ROWS = 65_536
"""Rows that are written at once."""
Say = Callable[[str], None]


def print_of(ledger: Ledger) -> str:
    """Return the fingerprint of the matches of a ledger as it is; listings, no file is opened."""
    parts = [[(part.unit, part.fingerprint) for part in ledger.parts(table)] for table in ("clips", "sketches")]
    rules = [getattr(match.DEFAULTS, name) for name in ALIGNED_BY]
    return fingerprint("match", FLOOR, rules, duplicates.PARAMETERS, sketches.PARAMETERS, *parts)


def is_current(ledger: Ledger) -> bool:
    """Whether the table `matches` is that of the ledger as it is."""
    return [part.fingerprint for part in ledger.parts("matches", PART)] == [print_of(ledger)]


def run(ledger: Ledger, say: Say = lambda text: None) -> tuple[int, int]:
    """Bring the table `matches` up to date; return its couples and how many of them were newly aligned.

    Does nothing where it is current. Raises ValueError where two clips have one key.
    """
    if is_current(ledger):
        return len(ledger.read("matches", ["same_source"])), 0
    found, new = compute(ledger, say)
    pieces = (found.slice(first, ROWS) for first in range(0, max(len(found), 1), ROWS))
    ledger.write_batches("matches", PART, pieces, print_of(ledger))
    return len(found), new


def compute(ledger: Ledger, say: Say = lambda text: None) -> tuple[pa.Table, int]:
    """Return what `run` would write and how many couples of it are new; nothing is written."""
    say("finding which clips resemble which")
    prints: dict[str, str] = {}
    for table in ("clips", "sketches"):
        for part in ledger.parts(table):
            prints[part.unit] = f"{prints.get(part.unit, '')} {part.fingerprint}"
    clips = gather(_batches(ledger, "clips", COLUMNS), _batches(ledger, "sketches", ["key", "bands"]), prints)
    found, new = match.find(clips, lambda keys: _pictures(ledger, keys), ledger.read("matches"))
    say(f"{len(clips.keys)} clips, {len(found)} couples, {new} of them newly aligned")
    return found, new


def read(ledger: Ledger, rules: DuplicateRules, say: Say = lambda text: None) -> pa.Table:
    """Return the matches of a ledger as a policy's rules align them, computed and not kept where they are not current.

    Rules that align otherwise than the defaults take the couples of the ledger, and read the hashes of their clips.
    """
    table = ledger.read("matches") if is_current(ledger) else compute(ledger, say)[0]
    if same_alignment(rules, match.DEFAULTS) or not len(table):
        return table
    say(f"aligning {len(table)} couples by the policy's {', '.join(ALIGNED_BY)}")
    keys = pc.unique(pa.concat_arrays([flat(table[side]) for side in "ab"]))
    columns = ["key", "phash", "phash_s"]
    pieces = [TABLES["clips"].empty_table().select(columns)]
    pieces += [
        pa.Table.from_batches([batch]) for batch in _batches(ledger, "clips", columns, pc.field("key").isin(keys))
    ]
    return match.realigned(table, pa.concat_tables(pieces), rules)


def _batches(
    ledger: Ledger, table: str, columns: list[str], where: ds.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a table block by block, few of them read ahead: their lists are most of a ledger."""
    dataset = ledger.dataset(table)
    if dataset is not None:
        yield from dataset.to_batches(
            columns=columns, filter=where, batch_size=BLOCK, batch_readahead=2, fragment_readahead=2
        )


def _pictures(ledger: Ledger, keys: pa.Array) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    where = pc.field("key").isin(keys) & pc.field("picture").is_valid()
    for batch in _batches(ledger, "sketches", ["key", "picture"], where):
        found |= zip(batch["key"].to_pylist(), batch["picture"].to_pylist(), strict=True)
    return found


def resembling(ledger: Ledger, meant: Callable[[pa.Array], pa.Array]) -> list[tuple[str, str]]:
    """Return couples of keys, sorted: a clip that is meant, and another that shows the same by the default rules.

    Read from the table `matches` as it stands; a ledger without it tells of none.

    Args:
        ledger: the ledger.
        meant: says which of some keys are meant.
    """
    table = ledger.read("matches")
    if not len(table):
        return []
    sides = [meant(flat(table[side])) for side in "ab"]
    table, first = (one.filter(pc.xor(*sides)) for one in (table, pa.chunked_array([sides[0]])))
    found = decide(match.measured(table), match.DEFAULTS).proven(match.unlike(table), match.DEFAULTS.max_unlike)
    rows = pa.array(np.unique(found.couples))
    couples = zip(*(table[side].take(rows).to_pylist() for side in "ab"), first.take(rows).to_pylist(), strict=True)
    return sorted((a, b) if is_first else (b, a) for a, b, is_first in couples)
