"""Clips in two dimensions: their embeddings along the two directions in which a sample of them differs most.

    found = bring(Ledger("runs/first").snapshot(), "embedding")     # read where it stands, else computed and kept

Principal components (Pearson, On lines and planes of closest fit, 1901) of `SAMPLE` clips at most, spread evenly over
the units; then every clip is projected, block by block, so that memory holds the sample, and a key and two numbers of
each clip. They stand in the table `projection` under the fingerprint of the scores that they were made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import Ledger, Part, fingerprint
from rushes.pipelines.store.tables import TABLES

SCORERS = ("clip", "embedding")
"""Whose vectors are drawn: the first of them that has looked at clips."""
SAMPLE = 16_384
"""Clips that the directions are found from."""
PARTS = 64
"""Units, evenly spread, that they are taken from: of a part all vectors are read."""
ROWS = 4096
"""Vectors that are held at once while all are projected."""
ROUNDED = 1e-6
"""Variance along an axis, by that along the first, that is but the rounding of numbers."""
COLUMNS = ["key", "model", "vector"]
SEVERAL = (
    "the scorer {scorer} has vectors of several kinds in this run ({models}), whose distances mean nothing; "
    "score the run with one model"
)
NONE = "no clip of this run has an embedding; `rushes score --out {run} --score.scorers '[…, embedding]'` makes them"

Vectors = npt.NDArray[np.float32]
Say = Callable[[float], None]


def print_of(ledger: Ledger, scorer: str) -> str:
    """Return the fingerprint of the map that a ledger as it is gives; listings, no file is opened."""
    parts = [(part.unit, part.fingerprint) for part in ledger.parts("scores")]
    return fingerprint("projection", scorer, SAMPLE, PARTS, parts)


def is_current(ledger: Ledger, scorer: str) -> bool:
    """Whether the map stands in a ledger as it is."""
    return [part.fingerprint for part in ledger.parts("projection", scorer)] == [print_of(ledger, scorer)]


def bring(ledger: Ledger, scorer: str, say: Say = lambda share: None) -> pa.Table:
    """Return the rows of `projection`, computed and kept where they do not stand yet.

    Args:
        ledger: a snapshot of the run's ledger.
        scorer: whose vectors.
        say: is told how much of the work is done, 0 to 1.

    Raises ValueError where no clip has a vector, or where they are of several models, and StorageError where the map
    cannot be kept.
    """
    if is_current(ledger, scorer):
        return ledger.read_whole("projection", ledger.parts("projection", scorer)[0])
    found = compute(ledger, scorer, say)
    ledger.write("projection", scorer, found, print_of(ledger, scorer))
    return found


def compute(ledger: Ledger, scorer: str, say: Say = lambda share: None) -> pa.Table:
    """Return what `bring` keeps; nothing is written."""
    sample = _sample(ledger, scorer)
    if not len(sample):
        raise ValueError(NONE.format(run=ledger.run))
    mean, axes, explained = components(sample)
    del sample
    parts, pieces = ledger.parts("scores"), []
    for done, part in enumerate(parts):
        for keys, model, vectors in _blocks(ledger, part, scorer):
            at = (vectors - mean) @ axes.T
            pieces.append((keys, model, at.astype(np.float32)))
        say((done + 1) / len(parts))
    if len(models := {model for _, model, _ in pieces}) > 1:
        raise ValueError(SEVERAL.format(scorer=scorer, models=", ".join(sorted(models))))
    at = np.concatenate([one for _, _, one in pieces])
    rows = len(at)
    return pa.table(
        {
            "key": pa.concat_arrays([keys for keys, _, _ in pieces]),
            "scorer": pa.repeat(pa.scalar(scorer), rows),
            "model": pa.repeat(pa.scalar(models.pop()), rows),
            "x": at[:, 0],
            "y": at[:, 1],
            "explained": pa.repeat(pa.scalar(explained, pa.float32()), rows),
        }
    ).cast(TABLES["projection"])


def components(vectors: Vectors) -> tuple[Vectors, Vectors, float]:
    """Return mean `[d]` and first two principal axes `[2, d]` of vectors `[n, d]`, and their share of the variance.

    An axis points to where its largest number is above 0, so that equal vectors give equal maps.
    """
    mean = vectors.mean(0, dtype=np.float64)
    centred = vectors - mean.astype(np.float32)
    wide = centred.shape[1] <= len(centred)
    # the eigenvectors of the smaller of both products give those of the other
    values, turned = np.linalg.eigh((centred.T @ centred if wide else centred @ centred.T).astype(np.float64))
    first = turned[:, ::-1][:, :2]
    axes = np.zeros((2, centred.shape[1]))
    axes[: first.shape[1]] = (first if wide else centred.T @ first).T
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    real = np.zeros((2, 1), bool)
    real[: first.shape[1], 0] = values[::-1][:2] > ROUNDED * values[-1]
    axes = np.divide(axes, lengths, out=np.zeros_like(axes), where=real)
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    axes *= np.where(largest < 0, -1.0, 1.0)[:, None]
    whole = float(np.maximum(values, 0).sum())
    explained = float(np.maximum(values[-2:], 0).sum()) / whole if whole > 0 else 1.0
    return mean.astype(np.float32), axes.astype(np.float32), explained


def _sample(ledger: Ledger, scorer: str) -> Vectors:
    """Return vectors of clips, `[n, d]`, as many of each of some parts; none where no clip has one."""
    parts = ledger.parts("scores")
    chosen = [parts[at] for at in np.unique(np.linspace(0, len(parts) - 1, PARTS).round().astype(int))] if parts else []
    found = []
    for part in chosen:
        rows = [vectors for _, _, vectors in _blocks(ledger, part, scorer)]
        if rows:
            own = np.concatenate(rows)
            most = max(1, SAMPLE // len(chosen))
            found.append(own[np.unique(np.linspace(0, len(own) - 1, most).round().astype(int))])
    if len({own.shape[1] for own in found}) > 1:
        raise ValueError(SEVERAL.format(scorer=scorer, models="of several lengths"))
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)


def _blocks(ledger: Ledger, part: Part, scorer: str) -> Iterator[tuple[pa.Array, str, Vectors]]:
    """Yield keys, model and vectors of the clips of one part that have one."""
    where = (pc.field("scorer") == scorer) & (pc.list_value_length(pc.field("vector")) > 0)
    dataset = ledger.dataset_of("scores", part)
    for batch in dataset.to_batches(columns=COLUMNS, filter=where, batch_size=ROWS, batch_readahead=1):
        if len(batch):
            models, widths = pc.unique(batch["model"]), pc.unique(pc.list_value_length(batch["vector"]))
            if len(models) * len(widths) > 1:
                raise ValueError(SEVERAL.format(scorer=scorer, models=", ".join(map(str, models.to_pylist()))))
            vectors = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            yield flat(batch["key"]), models[0].as_py(), vectors.reshape(len(batch), -1)
