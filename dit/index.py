"""What training must know of latent shards before it reads one: where each clip lies and how its latents are made up.

It comes from the side-cars, as columns: 10⁶ clips of ten segments take about 300 MB, and no object for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rushes.pipelines.store import shards, storage
from rushes.tokenizer.codec import OURS
from rushes.tokenizer.data import marks

MEMBERS = ("npy", "json")
"""What is read of a sample."""
_COLUMNS = (
    "key", "latent_shape", "rates", "lengths", "fps", "caption", "tokenizer", "fingerprint",
    *(f"{member}_{what}" for member in MEMBERS for what in ("offset", "bytes")),
)  # fmt: skip
_AGAIN = "run `rushes latents` again"

Integers = npt.NDArray[np.int64]


class LatentError(ValueError):
    """Latents are damaged or do not belong here; the message names them and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The clips of a set of latent shards, in the order of the shards; segments of all clips one behind the other."""

    root: str
    """Folder of the shards."""
    paths: tuple[str, ...]
    """Shards below it."""
    tokenizer: str
    """Name of the tokenizer that made the latents."""
    fingerprint: str
    """Its fingerprint."""
    channels: int
    """Channels of the latents."""
    keys: npt.NDArray[np.bytes_]
    """Clip keys, [clips]."""
    shard: Integers
    """Number of each clip's shard, [clips]."""
    places: Integers
    """Offset and size in bytes of each member in the tar, [clips, members, 2]."""
    cells: Integers
    """Latent cells in height and width, [clips, 2]."""
    first: Integers
    """Number of each clip's first segment, and behind the last clip that of all segments, [clips + 1]."""
    counts: Integers
    """Latents of each segment, [segments]."""
    rates: Integers
    """Frames per latent of each segment, [segments]."""
    seconds: npt.NDArray[np.float64]
    """Length of each segment, [segments]."""
    pictures: bool
    """Whether any clip begins with a segment of one frame."""
    captions: pa.Array
    """The different captions; the empty one is that of clips without any."""
    caption: Integers
    """Number of each clip's caption, [clips]."""

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, row: int) -> str:
        """Return the key of a clip."""
        return bytes(self.keys[row]).decode()

    def held(self, rows: Integers, share: float) -> npt.NDArray[np.bool_]:
        """Return which of some clips are held out, as the tokenizer chooses them: by a hash of the key.

        One at least where there are two clips, and none where the share is 0.
        """
        if not share or len(rows) < 2:
            return np.zeros(len(rows), bool)
        found = marks(self.keys[rows].tolist())
        return found < max(share * 2**32, found.min() + 1)

    def read(self, row: int) -> dict[str, Any]:
        """Return a clip's sample, as `shards.pipeline` gives it, in one request.

        Raises LatentError where the shard is not what its side-car says.
        """
        uri, places = f"{self.root}/{self.paths[self.shard[row]]}", self.places[row]
        begin, end = int(places[:, 0].min()), int(places.sum(axis=1).max())
        view = np.empty(end - begin, np.uint8).data  # a clip may have megabytes, so members are views of them
        try:
            size_bytes = storage.read_into(uri, begin, view)
        except FileNotFoundError as error:
            raise LatentError(f"{uri} is missing; {_AGAIN}") from error
        if size_bytes != len(view):
            raise LatentError(f"{uri} ends before {self.key(row)} does: it was changed; {_AGAIN}")
        members = zip(MEMBERS, places.tolist(), strict=True)
        return {"__key__": self.key(row), **{name: view[at - begin : at - begin + n] for name, (at, n) in members}}


def read_index(root: str) -> Index:
    """Return the index of a set of latent shards, on disk or in an object store.

    Raises LatentError where the folder holds no latents, those of an earlier format or of several tokenizers, or where
    a shard is not the one that its side-car or the manifest describes.
    """
    root = shards.find(root)
    manifest = shards.read_manifest(root)
    if manifest.kind != "latents":
        raise LatentError(f"{root} holds {manifest.kind}, not latents; run `rushes latents` and give its folder")
    if not manifest.samples:
        raise LatentError(f"{root} holds no clip; run `rushes latents` and give its folder")
    tables = list(_sidecars(root, manifest.shards))
    rows = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    shape, rates, lengths = (_list(rows, name) for name in ("latent_shape", "rates", "lengths"))
    first = np.concatenate([[0], np.cumsum(rates.value_lengths().to_numpy(zero_copy_only=False))])
    flat = {name: np.asarray(column.flatten(), np.int64) for name, column in (("rates", rates), ("lengths", lengths))}
    counts = -(-flat["lengths"] // flat["rates"])
    shapes = np.asarray(shape.flatten(), np.int64).reshape(len(rows), -1)
    _agree(root, rows, shapes, np.add.reduceat(counts, first[:-1]))
    captions = _column(rows, "caption").fill_null("").dictionary_encode()
    fps = np.repeat(_column(rows, "fps").to_numpy(zero_copy_only=False).astype(float), np.diff(first))
    return Index(
        root=root,
        paths=tuple(info.path for info in manifest.shards),
        tokenizer=str(rows["tokenizer"][0].as_py() or OURS),
        fingerprint=str(rows["fingerprint"][0].as_py()),
        channels=int(shapes[0, 1]),
        keys=_column(rows, "key").to_numpy(zero_copy_only=False).astype("S26"),
        shard=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        places=np.stack([rows[name].to_numpy() for name in _COLUMNS[-2 * len(MEMBERS) :]], axis=1).reshape(
            len(rows), len(MEMBERS), 2
        ),
        cells=shapes[:, 2:],
        first=first,
        counts=counts,
        rates=flat["rates"],
        seconds=flat["lengths"] / fps,
        pictures=bool((flat["lengths"][first[:-1]] == 1).any()),
        captions=captions.dictionary,
        caption=captions.indices.to_numpy().astype(np.int64),
    )


def _sidecars(root: str, infos: Sequence[shards.ShardInfo]) -> Iterator[pa.Table]:
    for info in infos:
        uri = f"{root}/{info.sidecar}"
        try:
            table = shards.read_sidecar(root, info, _COLUMNS)
            size = storage.size(f"{root}/{info.path}")
        except FileNotFoundError as error:
            raise LatentError(f"{root}/{info.path} or its side-car is missing; {_AGAIN}") from error
        missing = sorted(set(_COLUMNS) - {"tokenizer"} - set(table.column_names))
        if missing:
            raise LatentError(
                f"{uri} does not tell {', '.join(missing)} of its clips, as those of earlier versions; {_AGAIN}"
            )
        if shards.described(table) != info or size != info.size_bytes or len(table) != info.samples:
            raise LatentError(
                f"{root}/{info.path} is not the shard that its manifest describes: it was changed; {_AGAIN}"
            )
        if "tokenizer" not in table.column_names:
            table = table.append_column("tokenizer", pa.nulls(len(table), pa.string()))
        yield table.select(_COLUMNS)


def _agree(root: str, rows: pa.Table, shapes: Integers, latents: Integers) -> None:
    """Raise LatentError where clips are of several tokenizers, or contradict themselves."""
    prints = sorted(map(str, rows["fingerprint"].unique().to_pylist()))
    if len(prints) != 1:
        raise LatentError(f"{root} mixes latents of {len(prints)} tokenizers ({prints}); encode them all again")
    if shapes.shape[1] != 4 or not (shapes > 0).all():
        raise LatentError(f"{root} has latents without a shape [latents, channels, h, w]; {_AGAIN}")
    if len(set(shapes[:, 1].tolist())) != 1:
        raise LatentError(f"latents of {sorted(set(shapes[:, 1].tolist()))} channels in {root}; encode all again")
    wrong = np.flatnonzero(shapes[:, 0] != latents)
    if len(wrong):
        key, told, own = rows["key"][int(wrong[0])], shapes[wrong[0], 0], latents[wrong[0]]
        raise LatentError(f"{key}: {told} latents and {own} by its rates; they must agree; {_AGAIN}")


def _column(rows: pa.Table, name: str) -> pa.Array:
    found = rows[name]
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _list(rows: pa.Table, name: str) -> pa.ListArray:
    column = _column(rows, name)
    if not pa.types.is_list(column.type) or column.null_count:
        raise LatentError(f"some latents do not tell their {name}; {_AGAIN}")
    return column
