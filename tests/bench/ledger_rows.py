"""Rows of a large run's ledger, made of a small run's: see `ledgers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters import sketches as filters
from rushes.pipelines.store import binding
from rushes.pipelines.store.columns import flat, hash_sequences, window_counts
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES
from tests.bench import variations as vary
from tests.bench.variations import Ints

COPIES = 0.05
"""Share of sources that are copies of other sources."""
SAME_BYTES = 0.005
"""Share of sources that lie there a second time under another name."""
FAILED = 0.01
"""Share of inputs that cannot be read."""
SCALES = (1.0, 1.0, 0.75, 1.5)
PER_SOURCE = 1 << 10
"""More than the clips of any source: a clip's number is its source's times this, plus its place."""


@dataclass(frozen=True)
class Real:
    """The tables of a real run, in which every source has its place."""

    tables: Mapping[str, pa.Table]

    @classmethod
    def of(cls, run: str) -> Real:
        """Read a run; sources without clips are left out, as are copies with the bytes of another."""
        ledger = Ledger(run)
        ledger.require()
        tables = {name: ledger.read(name).combine_chunks() for name in TABLES if name not in ("frames", "windows")}
        tables["clips"] = tables["clips"].sort_by([("source_id", "ascending"), ("start_s", "ascending")])
        return cls(tables)

    @cached_property
    def source_ids(self) -> pa.Array:
        """The sources with clips, sorted."""
        return pc.unique(flat(self.tables["clips"]["source_id"]))

    @cached_property
    def keys(self) -> pa.Array:
        """The keys of all clips, in the order of the table."""
        return flat(self.tables["clips"]["key"])

    def clips_of(self, templates: Ints) -> tuple[Ints, Ints]:
        """Return the clips of such sources, and which of the given sources each belongs to."""
        _, first, count = vary.ranges(self.tables["clips"]["source_id"], self.source_ids)
        return vary.expanded(first[templates], count[templates])

    @cached_property
    def clip_counts(self) -> Ints:
        """The number of clips of each source."""
        return vary.ranges(self.tables["clips"]["source_id"], self.source_ids)[2]

    def by_source(self, name: str, templates: Ints) -> tuple[pa.Table, Ints]:
        """Return the rows of a table that belong to such sources, and which of the given sources each belongs to."""
        return self._rows(name, "source_id", self.source_ids, templates)

    def by_clip(self, name: str, clips: Ints) -> tuple[pa.Table, Ints]:
        """Return the rows of a table that belong to such clips, and which of the given clips each belongs to."""
        return self._rows(name, "key", self.keys, clips)

    def donors(self, name: str, clips: Ints) -> Ints:
        """Return the same clips, those that have no row in a table replaced by some that have: what was dropped there
        may be kept here."""
        there = np.flatnonzero(vary.ranges(self.tables[name]["key"], self.keys)[2])
        return np.where(np.isin(clips, there), clips, there[clips % max(len(there), 1)] if len(there) else clips)

    def _rows(self, name: str, column: str, wanted: pa.Array, of: Ints) -> tuple[pa.Table, Ints]:
        order, first, count = vary.ranges(self.tables[name][column], wanted)
        rows, owner = vary.expanded(first[of], count[of])
        return self.tables[name].take(pa.array(order[rows])).combine_chunks(), owner

    @cached_property
    def lost(self) -> pa.Table:
        """The error rows of inputs that could not be read at all."""
        errors = self.tables["errors"]
        return errors.filter(pc.and_(pc.is_null(errors["source_id"]), pc.is_null(errors["key"])))


@dataclass(frozen=True)
class Sources:
    """Sources of the large run by their numbers: which real source each is made of, and how it differs."""

    numbers: Ints
    real: Real
    seed: int

    @cached_property
    def origins(self) -> Ints:
        """Of copies the number of what they are copies of, of others their own."""
        found = self.numbers.copy()
        for _ in range(64):  # a copy of a copy of …
            copies = self._is_copy(found)
            if not copies.any():
                return found
            found[copies] = (vary.drawn(found[copies], 11 + self.seed) % found[copies].astype(np.uint64)).astype(int)
        raise AssertionError("a chain of 64 copies")

    def _is_copy(self, numbers: Ints) -> npt.NDArray[np.bool_]:
        return (vary.uniform(numbers, 10 + self.seed) < COPIES) & (numbers > 0)

    @property
    def copies(self) -> npt.NDArray[np.bool_]:
        """Which of them are copies."""
        return self.origins != self.numbers

    @cached_property
    def templates(self) -> Ints:
        """The real source of each."""
        return (vary.drawn(self.origins, 12 + self.seed) % np.uint64(len(self.real.source_ids))).astype(np.int64)

    @cached_property
    def factor(self) -> npt.NDArray[np.float64]:
        """How much longer each lasts than its real source."""
        return 0.75 + 0.5 * vary.uniform(self.origins, 13 + self.seed)

    @cached_property
    def scale(self) -> npt.NDArray[np.float64]:
        """How much larger its picture is; that of a copy is smaller than its origin's."""
        own = np.array(SCALES)[(vary.drawn(self.origins, 14 + self.seed) % np.uint64(len(SCALES))).astype(int)]
        return np.where(self.copies, own * (0.4 + 0.4 * vary.uniform(self.numbers, 15 + self.seed)), own)

    def ids(self, numbers: Ints) -> list[str]:
        """Return the `source_id` of each number."""
        return vary.hexes(vary.drawn(numbers, 16 + self.seed))

    @cached_property
    def uris(self) -> list[str]:
        """Where each is said to lie."""
        return self.uris_of(self.templates, self.numbers)

    def uris_of(self, templates: Ints, numbers: Ints) -> list[str]:
        """Return URIs of sources of such templates and numbers."""
        known = dict(zip(*(self.real.tables["sources"][c].to_pylist() for c in ("source_id", "uri")), strict=True))
        stems = [Path(known[name]).name.partition(".") for name in self.real.source_ids.to_pylist()]
        return [
            f"s3://bench/{number // 1000:05d}/{stems[of][0]}_{number:08d}.{stems[of][2]}"
            for of, number in zip(templates.tolist(), numbers.tolist(), strict=True)
        ]


def columns(name: str, rows: pa.Table, **other: Any) -> pa.Table:
    """Return rows of a table with other columns in place of some; columns that the table has not are left out."""
    columns = {field.name: rows[field.name] if field.name in rows.column_names else None for field in TABLES[name]}
    columns |= {column: values for column, values in other.items() if column in columns}
    size = len(next(iter(other.values())))
    arrays = [pa.nulls(size, f.type) if columns[f.name] is None else columns[f.name] for f in TABLES[name]]
    return pa.table({f.name: _as(values, f.type) for f, values in zip(TABLES[name], arrays, strict=True)})


def _as(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return flat(values).cast(kind)
    return pa.array(values).cast(kind) if isinstance(values, np.ndarray) else pa.array(values, kind)


def sources(own: Sources, unit: str, dice: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `sources` and `plan`; some sources lie there twice."""
    rows = own.real.tables["sources"].take(pc.index_in(own.real.source_ids, own.real.tables["sources"]["source_id"])
                                           .take(pa.array(own.templates)))  # fmt: skip
    size = len(own.numbers)
    bytes_ = (rows["size_bytes"].to_numpy() * own.factor * own.scale * np.exp(dice.normal(0, 0.3, size))).astype(int)
    full = vary.digests(own.numbers, 20)
    ids = own.ids(own.numbers)
    found = columns(
        "sources", rows, source_id=ids, uri=own.uris, unit=[unit] * size, wave=np.zeros(size, int), size_bytes=bytes_,
        digest=[a + b[16:] for a, b in zip(ids, full, strict=True)], digest_full=full,
        duration_s=rows["duration_s"].to_numpy() * own.factor, width=_even(rows["width"], own.scale),
        height=_even(rows["height"], own.scale), bit_rate=_rate(rows["bit_rate"], own.scale),
    )  # fmt: skip
    again = found.filter(pa.array(vary.uniform(own.numbers, 21) < SAME_BYTES))
    uris = [uri.replace("_", "_again_") for uri in again["uri"].to_pylist()]
    found = pa.concat_tables([found, columns("sources", again, uri=uris)])
    return found, columns("plan", found, uri=found["uri"])


def _even(values: pa.ChunkedArray, scale: npt.NDArray[np.float64]) -> Ints:
    return np.maximum(2 * np.rint(values.to_numpy() * scale / 2), 16).astype(np.int64)


def _rate(values: pa.ChunkedArray, scale: npt.NDArray[np.float64]) -> Ints:
    return (values.to_numpy() * scale**1.5).astype(np.int64)


def clips(own: Sources, unit: str, dice: np.random.Generator) -> tuple[pa.Table, Ints, Ints]:
    """Return the rows of `clips`, which real clip each was made of, and which of the unit's sources it belongs to."""
    rows, owner = own.real.clips_of(own.templates)
    real = own.real.tables["clips"].take(pa.array(rows)).combine_chunks()
    factor, scale = own.factor[owner], own.scale[owner]
    start_s, end_s = (real[name].to_numpy() * factor for name in ("start_s", "end_s"))
    base = own.real.tables["clips"]
    lengths, at = vary.stretched(flat(base["phash"]), rows, factor)
    numbers = own.origins[owner] * PER_SOURCE + (rows - rows[np.searchsorted(owner, owner)])
    hashes = vary.permuted(flat(base["phash"]).values.to_numpy()[at], np.repeat(numbers, lengths))
    hashes = vary.noisy(hashes, np.repeat(own.copies[owner], lengths), dice)
    ticks = (np.arange(len(at)) - np.repeat(np.cumsum(lengths) - lengths, lengths)) / vary.TICK_HZ
    times = flat(real["frame_s"])
    measures = {f.name: vary.jittered(f.name, flat(real[f.name]), dice) for f in TABLES["clips"]}
    ids = pa.array(own.ids(own.numbers)).take(pa.array(owner))
    made = columns(
        "clips", real, **{**measures, "key": _keys(ids, start_s), "source_id": ids, "unit": [unit] * len(rows),
        "uri": pa.array(own.uris).take(pa.array(owner)), "wave": np.zeros(len(rows), int),
        "start_s": start_s, "end_s": end_s, "duration_s": end_s - start_s,
        "frames": np.maximum(np.rint(real["frames"].to_numpy() * factor), 1).astype(int),
        "source_duration_s": real["source_duration_s"].to_numpy() * factor,
        "width": _even(real["width"], scale), "height": _even(real["height"], scale),
        "bit_rate": _rate(real["bit_rate"], scale), "phash": vary.lists(lengths, hashes),
        "phash_s": vary.lists(lengths, ticks.astype(np.float32)),
        "frame_s": vary.lists(pc.list_value_length(times).to_numpy(),
                              times.flatten().to_numpy() * np.repeat(factor, pc.list_value_length(times)))},
    )  # fmt: skip
    return made, rows, owner


def _keys(ids: pa.Array, start_s: npt.NDArray[np.float64]) -> list[str]:
    """Return the keys of clips, as `clip.clip_key` makes them."""
    return [f"{name}-{ms:09d}" for name, ms in zip(ids.to_pylist(), np.rint(start_s * 1000).astype(int).tolist(),
                                                   strict=True)]  # fmt: skip


def trims(own: Sources) -> pa.Table:
    """Return the rows of `trims`."""
    rows, owner = own.real.by_source("trims", own.templates)
    factor, at = own.factor[owner], pa.array(owner)
    return columns("trims", rows, source_id=pa.array(own.ids(own.numbers)).take(at), uri=pa.array(own.uris).take(at),
                    start_s=rows["start_s"].to_numpy() * factor, end_s=rows["end_s"].to_numpy() * factor)  # fmt: skip


def signals(own: Sources, clips: pa.Table, owner: Ints) -> pa.Table:
    """Return a row for each source, of one span and without its series."""
    rows, of = own.real.by_source("trims", own.templates)
    trimmed = (rows["end_s"].to_numpy() - rows["start_s"].to_numpy()) * own.factor[of]
    size = len(own.numbers)
    covered = np.bincount(owner, clips["duration_s"].to_numpy(), size) + np.bincount(of, trimmed, size)
    frames = np.bincount(owner, clips["frames"].to_numpy(), size).astype(int)
    return columns("signals", pa.table({}), source_id=own.ids(own.numbers), span=np.zeros(size, int),
                    start_s=np.zeros(size), end_s=np.full(size, np.inf), frames=frames, covered_s=covered)  # fmt: skip


def of_clips(real: Real, name: str, clips: pa.Table, rows: Ints, **other: Any) -> pa.Table:
    """Return the rows that belong to clips in a table by key, with other columns in place of some."""
    found, owner = real.by_clip(name, rows)
    return columns(name, found, **{"key": clips["key"].take(pa.array(owner)), **other})


def scores(own: Sources, clips: pa.Table, rows: Ints, dice: np.random.Generator, vectors: bool) -> pa.Table:
    """Return the rows of `scores`; without their vectors unless these are asked for."""
    found, owner = own.real.by_clip("scores", rows)
    column = flat(found["vector"]) if vectors else pa.nulls(len(found), TABLES["scores"].field("vector").type)
    if vectors:
        values = column.flatten().to_numpy()
        values = values + dice.normal(0, 0.3 * values.std(), len(values)).astype(np.float32)
        column = vary.lists(pc.list_value_length(column).fill_null(0).to_numpy(), values)
    return columns("scores", found, key=clips["key"].take(pa.array(owner)), vector=column,
                    value=vary.jittered("value", flat(found["value"]), dice))  # fmt: skip


def sketches(real: Real, clips: pa.Table, rows: Ints) -> pa.Table:
    """Return the sketches of the new hashes; the picture of a still clip is the real one."""
    seq = hash_sequences(clips, np.ones(len(clips), np.bool_))
    bands = filters.bands(seq.hashes, seq.counts)
    return of_clips(real, "sketches", clips, rows, bands=vary.lists(window_counts(seq) * filters.BANDS, bands.ravel()))


def captions(real: Real, clips: pa.Table, rows: Ints) -> pa.Table:
    """Return captions that tell each clip's own length, bound to it; of clips whose real one has none, none."""
    found, owner = real.by_clip("captions", real.donors("captions", rows))
    own = clips.take(pa.array(owner))
    made = columns("captions", found, key=own["key"], long=vary.worded(found["long"].to_pylist(),
                                                                        own["duration_s"].to_numpy()))  # fmt: skip
    seen = own.select(list(binding.CLIP_COLUMNS)).to_pylist()
    bound = [binding.bind(clip, caption) for clip, caption in zip(seen, made.to_pylist(), strict=True)]
    return columns("captions", made, bound=bound, pictures=[binding.pictures(clip) for clip in seen])


def encoded(own: Sources, clips: pa.Table, rows: Ints, owner: Ints, unit: str) -> pa.Table:
    """Return the rows of `encoded` of the kept clips, one behind the other in the tar of their unit."""
    found, of = own.real.by_clip("encoded", own.real.donors("encoded", rows))
    factor, scale = own.factor[owner[of]], own.scale[owner[of]]
    size = np.maximum(found["size_bytes"].to_numpy() * factor * scale**1.5, 1000).astype(int)
    blocks = 512 + -(-size // 512) * 512
    return columns(
        "encoded", found, key=clips["key"].take(pa.array(of)), unit=[unit] * len(of), wave=np.zeros(len(of), int),
        offset=np.cumsum(blocks) - blocks + 512, size_bytes=size, sha256=vary.digests(own.numbers[owner[of]] + of, 30),
        frames=np.rint(found["frames"].to_numpy() * factor).astype(int),
        duration_s=found["duration_s"].to_numpy() * factor,
        width=_even(found["width"], scale), height=_even(found["height"], scale),
    )  # fmt: skip


def errors(own: Sources, clips: pa.Table, rows: Ints, unit: str) -> dict[str, pa.Table]:
    """Return the error rows by stage: those of the real sources and clips, and some inputs that could not be read."""
    lost = pa.array(vary.uniform(own.numbers, 40) < FAILED)
    numbers = own.numbers[lost.to_numpy(zero_copy_only=False)]
    parts = []
    if len(own.real.lost) and len(numbers):
        chosen = own.real.lost.take(pa.array(numbers % len(own.real.lost)))
        uris = [f"s3://bench/unread/{number:08d}.mp4" for number in numbers.tolist()]
        parts.append(columns("errors", chosen, uri=uris, unit=[unit] * len(uris)))
    of_source, owner = own.real.by_source("errors", own.templates)
    whole = pc.is_null(of_source["key"]).to_numpy(zero_copy_only=False)
    of_source, owner = of_source.filter(pa.array(whole)), owner[whole]
    for name, values in (("start_s", None), ("seconds", None)):
        values = flat(of_source[name]).to_numpy(zero_copy_only=False) * own.factor[owner]
        of_source = of_source.set_column(of_source.schema.get_field_index(name), name, pa.array(values, pa.float64()))
    at = pa.array(owner)
    parts.append(columns("errors", of_source, uri=pa.array(own.uris, pa.string()).take(at), unit=[unit] * len(at),
                          source_id=pa.array(own.ids(own.numbers), pa.string()).take(at)))  # fmt: skip
    of_clip, of = own.real.by_clip("errors", rows)
    made = clips.take(pa.array(of))
    lost_s = pc.if_else(pc.greater(of_clip["seconds"], 0), made["duration_s"], 0.0)
    parts.append(columns("errors", of_clip, unit=[unit] * len(of), seconds=lost_s,
                          **{name: made[name] for name in ("key", "uri", "source_id", "start_s")}))  # fmt: skip
    every = pa.concat_tables(parts)
    return {stage: every.filter(pc.equal(every["stage"], stage)) for stage in pc.unique(every["stage"]).to_pylist()}


def verdicts(own: Sources, clips: pa.Table, rows: Ints, owner: Ints) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `selection` and `pairs`: as the real clips were judged, but the copies are the duplicates."""
    found, of = own.real.by_clip("selection", rows)
    policy = found["policy"].to_pylist()
    first = np.array([name == policy[0] for name in policy], bool)
    assert first.all(), f"the real run has several selections ({', '.join(sorted(set(policy)))}); give one with one"
    assert len(of) == len(rows), "the real run is not finished"
    limits = pc.equal(found["stage"], "limits").fill_null(False)
    copy = own.copies[owner] & ~limits.to_numpy()
    origin = _keys(pa.array(own.ids(own.origins)).take(pa.array(owner)), clips["start_s"].to_numpy())
    distance = 0.7 + 0.1 * vary.uniform(own.numbers[owner], 50)
    is_copy, is_kept = pa.array(copy), pa.array(~copy & ~limits.to_numpy())

    def told(name: str, as_copy: Any, kind: pa.DataType) -> pa.Array:
        judged = pc.if_else(limits, found[name], pa.scalar(None, kind))
        return flat(pc.if_else(is_copy, pa.array(as_copy, kind), judged))

    size = len(rows)
    verdicts = columns(
        "selection", found, key=clips["key"], unit=clips["unit"], kept=is_kept, duration_s=clips["duration_s"],
        stage=told("stage", ["duplicates"] * size, pa.string()), rule=told("rule", ["duplicate"] * size, pa.string()),
        value=told("value", distance, pa.float64()), limit=told("limit", np.full(size, 12.0), pa.float64()),
        detail=told("detail", [f"copy of {key}" for key in origin], pa.string()),
    )  # fmt: skip
    chosen = pa.array(np.flatnonzero(copy))
    uris = own.uris_of(own.templates, own.origins)
    pairs = columns(
        "pairs", pa.table({}), policy=found["policy"].take(chosen), level=["copy"] * len(chosen),
        key=clips["key"].take(chosen), kept_key=pa.array(origin).take(chosen), uri=clips["uri"].take(chosen),
        kept_uri=pa.array(uris).take(pa.array(owner)).take(chosen), distance=distance[copy],
        limit=np.full(len(chosen), 12.0), unit=["bits"] * len(chosen), speed=np.ones(len(chosen)),
        offset_s=np.zeros(len(chosen)), overlap_s=clips["duration_s"].take(chosen),
        why=["a larger picture is preferred over a smaller one"] * len(chosen),
    )  # fmt: skip
    return verdicts, pairs
