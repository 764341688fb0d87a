"""Which clips resemble which, whatever a policy says of it: couples are found, aligned and measured. Pure.

All couples that sketches propose are aligned. Those that are the same footage by the default rules link clips to groups
that are completed, so that a policy finds every couple that it asks for without looking at a hash. A couple that was
measured before is taken over, if both clips are what they were: the outcome is that of measuring all of them now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rushes.filters import matching, sketches, stills, survivors
from rushes.filters.duplicates import DuplicateRules, Measured, decide, measure
from rushes.pipelines.stages.match.clips import Clips, Ints
from rushes.pipelines.store.columns import flat, hash_sequences, numbers
from rushes.pipelines.store.tables import TABLES

DEFAULTS = DuplicateRules()
"""By what the couples of the ledger are aligned and groups are linked."""
PICTURES = 256
"""Couples of still clips whose pictures are compared at once."""

Pictures = Callable[[pa.Array], Mapping[str, bytes]]
"""Returns, for keys of clips, the pictures of those that are still: column `picture` of the table `sketches`."""
_ALIGNED = [field.name for field in fields(matching.Alignment) if field.name != "speed"]


def find(clips: Clips, pictures: Pictures, before: pa.Table | None = None) -> tuple[pa.Table, int]:
    """Return the rows of the table `matches`, sorted, and how many of them were not taken over from before.

    Args:
        clips: all clips.
        pictures: where the pictures of still clips are.
        before: rows of the table `matches`, of these clips or others.
    """
    known = _Known(clips, before)
    pairs = sketches.candidates(sketches.Sketches(hashes=clips.seq.hashes, counts=clips.seq.counts, bands=clips.bands))
    proposed, new = known.measured(pairs, pictures)
    linked = decide(measured(proposed), DEFAULTS).proven(unlike(proposed), DEFAULTS.max_unlike)
    more = survivors.closure(pairs[linked.couples], clips.rank, clips.seconds)
    more = more[~np.isin(_codes(more), _codes(pairs))]
    completing, newer = known.measured(more, pictures)
    order = np.argsort(np.concatenate([_codes(pairs), _codes(more)]), kind="stable")
    return pa.concat_tables([proposed, completing]).take(pa.array(order)).combine_chunks(), new + newer


def measured(table: pa.Table) -> Measured:
    """Return rows of the table `matches` as `filters.duplicates` takes them."""

    def alignment(prefix: str, speed: npt.NDArray[np.float64]) -> matching.Alignment:
        columns = {name: numbers(flat(table[prefix + name])) for name in _ALIGNED if name != "ticks"}
        ticks = np.nan_to_num(numbers(flat(table[f"{prefix}ticks"]))).astype(np.int64)
        return matching.Alignment(speed=speed, ticks=ticks, **columns)

    return Measured(
        lengths=np.stack([numbers(flat(table[f"hashes_{side}"])) for side in "ab"], axis=1).astype(np.int64),
        same_source=flat(table["same_source"]).to_numpy(zero_copy_only=False).astype(np.bool_),
        plain=alignment("", np.ones(len(table))),
        timed=alignment("timed_", numbers(flat(table["timed_speed"]))),
    )


def unlike(table: pa.Table) -> npt.NDArray[np.float64]:
    """Return how unlike the pictures of couples are, NaN where there are not two that can be compared."""
    return numbers(flat(table["unlike"]))


def realigned(table: pa.Table, clips: pa.Table, rules: DuplicateRules) -> pa.Table:
    """Return rows of the table `matches` as other rules align them; which couples there are stays.

    Args:
        table: the rows.
        clips: key, phash and phash_s of all clips that they name.
        rules: `ALIGNED_BY` of them.
    """
    clips = clips.take(pa.compute.sort_indices(clips["key"])).combine_chunks()
    seq = hash_sequences(clips, np.ones(len(clips), np.bool_))
    sides = [pa.compute.index_in(flat(table[side]), value_set=flat(clips["key"])) for side in "ab"]
    pairs = np.stack([side.to_numpy(zero_copy_only=False) for side in sides], axis=1).astype(np.int64)
    same = flat(table["same_source"]).to_numpy(zero_copy_only=False).astype(np.bool_)
    columns = _columns(measure(seq, pairs, same, rules))
    return pa.table({name: columns.get(name, table[name]) for name in table.column_names}, schema=table.schema)


def _codes(pairs: Ints) -> Ints:
    return pairs[:, 0] << 32 | pairs[:, 1]


class _Known:
    """What was measured before of these clips, and what measures the rest."""

    def __init__(self, clips: Clips, before: pa.Table | None):
        self.clips = clips
        table = TABLES["matches"].empty_table() if before is None else before
        pairs = np.stack([clips.numbers(table[side]) for side in "ab"], axis=1)
        seen = np.stack([flat(table[f"seen_{side}"]).to_numpy(zero_copy_only=False) for side in "ab"], axis=1)
        same = np.flatnonzero((pairs >= 0).all(axis=1))
        same = same[(clips.seen[pairs[same]] == seen[same]).all(axis=1)]
        codes = _codes(pairs[same])
        order = np.argsort(codes)
        self.table, self.rows, self.codes = table, same[order], codes[order]

    def measured(self, pairs: Ints, pictures: Pictures) -> tuple[pa.Table, int]:
        """Return a row for each of the pairs, in their order, and how many of them are new."""
        codes = _codes(pairs)
        place = np.minimum(np.searchsorted(self.codes, codes), max(len(self.codes) - 1, 0))
        old = self.codes[place] == codes if len(self.codes) else np.zeros(len(codes), np.bool_)
        found = pa.concat_tables([self.table.take(pa.array(self.rows[place[old]], pa.int64())),
                                  _rows(self.clips, pairs[~old], pictures)])  # fmt: skip
        turn = np.argsort(np.r_[np.flatnonzero(old), np.flatnonzero(~old)], kind="stable")
        return found.take(pa.array(turn)), int((~old).sum())


def _rows(clips: Clips, pairs: Ints, pictures: Pictures) -> pa.Table:
    """Return the rows of pairs of clips that were not measured before."""
    same = clips.sources[pairs[:, 0]] == clips.sources[pairs[:, 1]]
    columns = _columns(measure(clips.seq, pairs, same, DEFAULTS))
    for side, numbers_ in zip("ab", pairs.T, strict=True):
        keys = pa.array(clips.keys[numbers_].astype(object), pa.binary()).cast(pa.string())
        columns |= {side: keys, f"seen_{side}": pa.array(clips.seen[numbers_])}
    columns["unlike"] = _unlike(columns["a"], columns["b"], pictures)
    return pa.table({name: columns[name] for name in TABLES["matches"].names}).cast(TABLES["matches"])


def _columns(found: Measured) -> dict[str, pa.Array]:
    """Return what was measured as columns of the table `matches`."""
    tried = ~np.isnan(found.timed.speed)
    columns = {"hashes_a": found.lengths[:, 0], "hashes_b": found.lengths[:, 1], "same_source": found.same_source}
    columns |= {name: getattr(found.plain, name) for name in _ALIGNED}
    made = {name: pa.array(values, TABLES["matches"].field(name).type) for name, values in columns.items()}
    for name in ("speed", *_ALIGNED):
        kind = TABLES["matches"].field(f"timed_{name}").type
        made[f"timed_{name}"] = pa.array(getattr(found.timed, name), mask=~tried).cast(kind)
    return made


def _unlike(a: pa.Array, b: pa.Array, pictures: Pictures) -> pa.Array:
    """Return how unlike the pictures of couples of still clips are, null for all other couples."""
    sides = list(zip(a.to_pylist(), b.to_pylist(), strict=True))
    there = pictures(pa.compute.unique(pa.concat_arrays([a, b]))) if sides else {}
    found = np.full(len(sides), np.nan)
    both = [row for row, (one, other) in enumerate(sides) if one in there and other in there]
    for first in range(0, len(both), PICTURES):
        rows = both[first : first + PICTURES]
        grids = (np.stack([_grid(there[sides[row][side]]) for row in rows]) for side in (0, 1))
        found[rows] = stills.unlike(*grids)
    return pa.array(found, mask=~np.isfinite(found))


def _grid(picture: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(picture, np.uint8).reshape(stills.SIDE, stills.SIDE)
