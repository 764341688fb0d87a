"""Clips that are near in meaning, by the cosine of their embeddings; and how much each should weigh.

FAISS finds the neighbours: exactly for few clips, in inverted lists of 8-bit vectors for many, which takes a byte per
number instead of four. Distances are then taken anew from the vectors themselves, so that what is accepted never
depends on how it was found. Seeds are fixed and one thread works: the same vectors give the same clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

EXACT = 20_000
"""Up to so many clips are compared all with all; more by inverted lists."""
NEIGHBOURS = 32
"""Nearest clips that are looked at for each one."""
PROBES = 16
"""Inverted lists that are searched for each clip."""
BLOCK = 4096
TRAIN_PER_LIST = 64
SEED = 20


def near(vectors: Vectors, min_cosine: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return pairs of rows [n, 2] whose cosine is at least a limit, the lower one first, sorted, and their cosines.

    Args:
        vectors: [n, d] embeddings of any length; a row with NaN is near nothing.
        min_cosine: the limit.
    """
    rows, units = _units(vectors)
    if len(rows) < 2:
        return np.empty((0, 2), np.int64), np.empty(0)
    with _one_thread():
        index = _index(units)
        codes = [
            _upper(first, index.search(units[first : first + BLOCK], min(NEIGHBOURS, len(rows)))[1])
            for first in range(0, len(rows), BLOCK)
        ]
    code = np.unique(np.concatenate(codes))
    a, b = code >> 32, code & 0xFFFFFFFF
    cosine = np.concatenate([np.empty(0), *(_cosines(units, a[at], b[at]) for at in _slices(len(a)))])
    alike = cosine >= min_cosine
    return np.stack([rows[a[alike]], rows[b[alike]]], axis=1), cosine[alike]


def clusters(vectors: Vectors, count: int | None = None) -> Ints:
    """Return the cluster of each row by k-means on the sphere, numbered by size, the largest 0; −1 for a row with NaN.

    Args:
        vectors: [n, d] embeddings.
        count: number of clusters; √n of them where it is None.
    """
    rows, units = _units(vectors)
    found = np.full(len(vectors), -1, np.int64)
    if not len(rows):
        return found
    count = max(1, min(len(rows), round(len(rows) ** 0.5) if count is None else count))
    with _one_thread():
        means = faiss.Kmeans(
            units.shape[1], count, niter=20, seed=SEED, spherical=True, min_points_per_centroid=1,
            max_points_per_centroid=TRAIN_PER_LIST * 4,
        )  # fmt: skip
        means.train(units)
        label = np.concatenate([means.index.search(units[at], 1)[1][:, 0] for at in _slices(len(rows))])
    sizes = np.bincount(label, minlength=count)
    order = np.lexsort((np.arange(count), -sizes))
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    found[rows] = place[label]
    return found


def weights(cluster: Ints) -> npt.NDArray[np.float64]:
    """Return a weight for each clip, in proportion to 1/√(size of its cluster), 1 on average; a clip of none has 1."""
    found = np.ones(len(cluster))
    placed = cluster >= 0
    if placed.any():
        raw = 1 / np.sqrt(np.bincount(cluster[placed]))[cluster[placed]]
        found[placed] = raw / raw.mean()
    return found


def _units(vectors: Vectors) -> tuple[Ints, Vectors]:
    """Return the rows that have a vector, and these at unit length."""
    length = np.linalg.norm(vectors, axis=1)
    rows = np.flatnonzero(np.isfinite(length) & (length > 0))
    return rows, np.ascontiguousarray(vectors[rows] / length[rows, None], np.float32)


def _index(units: Vectors) -> faiss.Index:
    count, width = units.shape
    index: Any = faiss.IndexFlatIP(width)
    if count > EXACT:
        lists = int(4 * count**0.5)
        index = faiss.IndexIVFScalarQuantizer(
            index, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        index.nprobe, index.cp.seed, index.cp.niter = PROBES, SEED, 8
        picked = np.random.default_rng(SEED).permutation(count)[: lists * TRAIN_PER_LIST]
        index.train(units[np.sort(picked)])
    for at in _slices(count):
        index.add(units[at])
    return index


def _upper(first: int, found: Ints) -> Ints:
    """Return neighbours of rows from `first` on as codes of pairs, the lower row first."""
    row = np.repeat(np.arange(first, first + len(found)), found.shape[1])
    other = found.ravel()
    use = (other >= 0) & (other != row)
    row, other = row[use], other[use]
    return np.unique(np.minimum(row, other) << 32 | np.maximum(row, other))


def _cosines(units: Vectors, a: Ints, b: Ints) -> npt.NDArray[np.float64]:
    return np.einsum("nd,nd->n", units[a].astype(np.float64), units[b].astype(np.float64))


def _slices(count: int) -> Iterator[slice]:
    return (slice(first, first + BLOCK) for first in range(0, count, BLOCK))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats must not depend on how many threads make them."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
