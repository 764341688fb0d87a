"""How a bench's rows differ from the real ones that they are made of: numbers drawn by counting, so that any part of a
ledger comes out the same by itself, in any process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

SPREAD = 0.25
"""Standard deviation of the logarithm of what a measure is multiplied by."""
TICK_HZ = 6.0
SHARES = {"black", "white", "frozen", "duplicate_frames", "clipped_dark", "clipped_bright", "interlaced", "object_area"}
"""Measures that are never above 1."""
KEPT_AS_THEY_ARE = {"fps", "crop_left", "crop_top", "crop_right", "crop_bottom"}
_SWAPS = (
    (1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F), (8, 0x00FF00FF00FF00FF),
    (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF),
)  # fmt: skip


def drawn(numbers: npt.NDArray[np.integer], salt: int) -> Hashes:
    """Return 64 random bits for each number: splitmix64 (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64((salt * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


def uniform(numbers: npt.NDArray[np.integer], salt: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each number."""
    return (drawn(numbers, salt) >> np.uint64(11)).astype(np.float64) / 2.0**53


def hexes(values: Hashes) -> list[str]:
    """Return 16 hex digits of each value."""
    return [f"{value:016x}" for value in values.tolist()]


def digests(numbers: npt.NDArray[np.integer], salt: int) -> list[str]:
    """Return 64 hex digits for each number."""
    quarters = (hexes(drawn(numbers, salt + part)) for part in range(4))
    return ["".join(parts) for parts in zip(*quarters, strict=True)]


def permuted(hashes: Hashes, owners: Ints) -> Hashes:
    """Return hashes with their 64 bits in another order, the same order for all of one owner.

    As many bits are set, and as many change from tick to tick; but no two owners' hashes lie near each other.
    """
    for stage, (shift, low) in enumerate(_SWAPS):
        mask = drawn(owners, 100 + stage) & np.uint64(low)
        swap = ((hashes >> np.uint64(shift)) ^ hashes) & mask
        hashes = hashes ^ swap ^ (swap << np.uint64(shift))
    return hashes


def noisy(hashes: Hashes, noise: npt.NDArray[np.bool_], dice: np.random.Generator) -> Hashes:
    """Return hashes of which those with noise have one bit flipped, most of them, as another encoding would."""
    flips = np.uint64(1) << dice.integers(0, 64, len(hashes), dtype=np.uint64)
    return hashes ^ np.where(noise & (dice.random(len(hashes)) < 0.7), flips, np.uint64(0))


def stretched(column: pa.Array, rows: Ints, factor: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Return lengths of lists when they last longer by a factor, and which value of the column stands in each place.

    Args:
        column: lists, a value for each tick.
        rows: which list is meant.
        factor: how much longer it lasts, for each of them.
    """
    offsets = column.offsets.to_numpy().astype(np.int64)
    old = np.diff(offsets)[rows]
    new = np.where(old > 0, np.maximum(np.rint(old * factor).astype(np.int64), 1), 0)
    place = np.arange(new.sum()) - np.repeat(np.cumsum(new) - new, new)
    inside = np.minimum((place / np.repeat(factor, new)).astype(np.int64), np.repeat(np.maximum(old - 1, 0), new))
    return new, np.repeat(offsets[rows], new) + inside


def lists(lengths: Ints, values: pa.Array | npt.NDArray) -> pa.Array:
    """Return values cut into lists of such lengths."""
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(lengths)], pa.int32()), pa.array(values))


def jittered(name: str, column: pa.Array, dice: np.random.Generator) -> pa.Array:
    """Return a measure with a plausible spread; what is not measured stays so."""
    if not pa.types.is_floating(column.type) or name in KEPT_AS_THEY_ARE:
        return column
    values = column.to_numpy(zero_copy_only=False) * np.exp(dice.normal(0, SPREAD, len(column)))
    values = np.minimum(values, 1.0) if name in SHARES else values
    return pa.array(values, pa.float64(), mask=column.is_null().to_numpy(zero_copy_only=False)).cast(column.type)


def worded(texts: Sequence[str | None], duration_s: npt.NDArray[np.float64]) -> list[str | None]:
    """Return captions that tell each clip's own length where the text tells one: `A shot of 5.3 seconds.`"""
    head, tail = "A shot of ", " seconds"
    return [
        f"{head}{seconds:.2f}{tail}{text.partition(tail)[2]}" if text and text.startswith(head) and tail in text
        else text
        for text, seconds in zip(texts, duration_s.tolist(), strict=True)
    ]  # fmt: skip


def expanded(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Return all rows of ranges, one range after the other, and which range each belongs to."""
    owner = np.repeat(np.arange(len(count)), count)
    return np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + first[owner], owner


def ranges(keys: pa.ChunkedArray, wanted: pa.Array) -> tuple[Ints, Ints, Ints]:
    """Return the order in which rows stand by key, and of each wanted key its first row in that order and their number.

    Rows of no wanted key come last.
    """
    at = pc.index_in(keys.combine_chunks(), value_set=wanted).fill_null(len(wanted)).to_numpy(zero_copy_only=False)
    order = np.argsort(at, kind="stable")
    count = np.bincount(at, minlength=len(wanted) + 1)[: len(wanted)]
    return order.astype(np.int64), (np.cumsum(count) - count).astype(np.int64), count.astype(np.int64)
