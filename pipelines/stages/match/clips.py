"""The clips of a ledger as they are compared: hashes, bands and what chooses among them, read block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rushes.filters import matching, sketches
from rushes.pipelines.store.columns import CROP, flat, hash_sequences, numbers, pixels, window_counts

COLUMNS = [
    "key",
    "source_id",
    "unit",
    "duration_s",
    "width",
    "height",
    "bit_rate",
    "luma_std",
    *CROP,
    "phash",
    "phash_s",
]
"""What is read of the table `clips`."""
FLOOR = 2.0
"""Standard deviation of luma, of 255, below which a clip is compared with nothing. The hashes of such pictures are made
of the grain of coding, of which any two have some in common, so that they would cost much and prove nothing. Policies
ask for more contrast than that; one that asks for less gets no more."""
BLOCK = 1 << 14
"""Clips whose lists stand in memory as Arrow columns together."""

Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips sorted by key; a clip's number is its place."""

    keys: npt.NDArray[np.bytes_]
    seq: matching.Sequences
    """Without the hashes of clips that are compared with nothing."""
    bands: npt.NDArray[np.uint32]
    """Their sketches."""
    sources: Ints
    """Number of each clip's source."""
    seconds: npt.NDArray[np.float64]
    rank: Ints
    """Place in the order of preference that can be told without a scorer: pixels, bit rate, length."""
    seen: Marks
    """What a measurement depends on: a number that changes when a clip's hashes do, or its unit was made anew."""

    def numbers(self, keys: pa.Array | pa.ChunkedArray) -> Ints:
        """Return the numbers of the clips with these keys, −1 for one that is not here."""
        return numbers_of(self.keys, byte_keys(keys))


def byte_keys(keys: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Return keys as bytes of one length, which are sorted and searched without an object for each."""
    return np.array(flat(keys).cast(pa.binary()).to_numpy(zero_copy_only=False), np.bytes_)


def numbers_of(sorted_keys: npt.NDArray[np.bytes_], keys: npt.NDArray[np.bytes_]) -> Ints:
    """Return where keys stand among sorted ones, −1 for one that does not."""
    if not len(sorted_keys):
        return np.full(len(keys), -1)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[place] == keys, place, -1)


def gather(
    clips: Iterable[pa.RecordBatch], kept_sketches: Iterable[pa.RecordBatch], prints: Mapping[str, str]
) -> Clips:
    """Return the clips of a ledger, ready to be compared.

    Args:
        clips: table `clips`, the `COLUMNS` of it, in any order.
        kept_sketches: table `sketches`, its keys and bands; a clip that is not in it is sketched anew.
        prints: fingerprints of each unit's parts.

    Raises ValueError where a key stands twice.
    """
    found = _Gathered()
    for block in _blocks(clips):
        found.add(block, prints)
    keys = np.concatenate(found.keys)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if len(twice := keys[1:][keys[1:] == keys[:-1]]):
        raise ValueError(
            f"{len(np.unique(twice))} clip keys stand in several rows, such as {twice[0].decode()}; "
            "equal sources must be scanned once"
        )
    seq = matching.joined(found.parts)
    found.parts.clear()
    seq = seq.at(order)
    pixels_, rate, seconds = (np.concatenate(some)[order] for some in (found.pixels, found.rate, found.seconds))
    worst_last = [np.where(np.isnan(values), np.inf, -values) for values in (seconds, rate, pixels_)]
    rank = np.empty(len(keys), np.int64)
    rank[np.lexsort(worst_last)] = np.arange(len(keys))
    return Clips(
        keys=keys,
        seq=seq,
        bands=_bands(seq, keys, kept_sketches),
        sources=np.unique(np.concatenate(found.sources)[order], return_inverse=True)[1].astype(np.int64),
        seconds=seconds,
        rank=rank,
        seen=np.concatenate(found.seen)[order],
    )


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield batches, some of which are small, as tables of about a block."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= BLOCK:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


@dataclass(frozen=True)
class _Gathered:
    """What was read so far, a piece for each block."""

    keys: list[npt.NDArray[np.bytes_]] = field(default_factory=lambda: [np.empty(0, "S1")])
    parts: list[matching.Sequences] = field(default_factory=lambda: [_none()])
    sources: list[npt.NDArray[np.bytes_]] = field(default_factory=lambda: [np.empty(0, "S1")])
    seconds: list[npt.NDArray[np.float64]] = field(default_factory=lambda: [np.empty(0)])
    rate: list[npt.NDArray[np.float64]] = field(default_factory=lambda: [np.empty(0)])
    pixels: list[npt.NDArray[np.float64]] = field(default_factory=lambda: [np.empty(0)])
    seen: list[Marks] = field(default_factory=lambda: [np.empty(0, np.uint64)])

    def add(self, block: pa.Table, prints: Mapping[str, str]) -> None:
        seq = hash_sequences(block, ~(numbers(flat(block["luma_std"])) < FLOOR))
        self.parts.append(seq)
        self.keys.append(byte_keys(block["key"]))
        self.sources.append(byte_keys(block["source_id"]))
        self.seconds.append(numbers(flat(block["duration_s"])))
        self.rate.append(numbers(flat(block["bit_rate"])))
        self.pixels.append(pixels(block))
        self.seen.append(_seen(seq) ^ _print_marks(flat(block["unit"]), prints))


def _none() -> matching.Sequences:
    return matching.sequences(np.empty(0, np.uint64), np.empty(0), np.zeros(1, np.int64))


def _seen(seq: matching.Sequences) -> Marks:
    """Return a number for each clip that depends on its hashes and when they were taken."""
    found = _mixed(np.ascontiguousarray(seq.first_s).view(np.uint64))
    heads = seq.starts[:-1][seq.counts > 0]
    if len(heads):
        found[seq.counts > 0] += np.add.reduceat(_mixed(seq.hashes + seq.slots.astype(np.uint64) * _ODD), heads)
    return found


def _mixed(values: Marks) -> Marks:
    """Return the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _print_marks(units: pa.Array, prints: Mapping[str, str]) -> Marks:
    encoded = units.dictionary_encode("encode")
    marks = [
        int.from_bytes(hashlib.sha256(prints.get(unit or "", "").encode()).digest()[:8], "big")
        for unit in encoded.dictionary.to_pylist()
    ]
    return np.array(marks, np.uint64)[encoded.indices.to_numpy(zero_copy_only=False)]


def _bands(
    seq: matching.Sequences, keys: npt.NDArray[np.bytes_], kept: Iterable[pa.RecordBatch]
) -> npt.NDArray[np.uint32]:
    """Return the bands of all clips; those that the ledger lacks, or has of other hashes, are made."""
    number = window_counts(seq)
    ends = np.r_[0, np.cumsum(number)]
    found = np.empty((ends[-1], sketches.BANDS), np.uint32)
    lacking = number > 0
    for batch in kept:
        column = batch["bands"]
        offsets = column.offsets.to_numpy().astype(np.int64)
        values = column.values.to_numpy(zero_copy_only=False)
        at = numbers_of(keys, byte_keys(batch["key"]))
        fits = np.flatnonzero((at >= 0) & (np.diff(offsets) == number[at] * sketches.BANDS) & (number[at] > 0))
        many = number[at[fits]]
        turn = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        to, rows = (np.repeat(first, many) + turn for first in (ends[at[fits]], offsets[fits] // sketches.BANDS))
        found[to] = values[: len(values) // sketches.BANDS * sketches.BANDS].reshape(-1, sketches.BANDS)[rows]
        lacking[at[fits]] = False
    if lacking.any():
        found[np.repeat(lacking, number)] = sketches.bands(
            seq.hashes[np.repeat(lacking, seq.counts)], seq.counts[lacking]
        )
    return found
