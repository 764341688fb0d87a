"""Shards: the contract between curation and training, for clips and for latents alike. A leaf: no Ray, torch on demand.

    ROOT/<bucket>/NAME-000000.tar       samples KEY.mp4 KEY.json KEY.txt (clips) or KEY.npy KEY.json KEY.txt (latents)
    ROOT/<bucket>/NAME-000000.parquet   side-car: a row per sample with its place in the tar and its facts
    ROOT/<bucket>/NAME-000000.tar.idx   offsets of the samples, as Megatron Energon wants them
    ROOT/<bucket>/NAME_stats.json       counts, hours and ranges of the bucket
    ROOT/manifest.json                  what belongs to the set, with sizes and SHA-256; written last
    ROOT/.nv-meta/                      Megatron Energon's description of the same shards

A run holds a set for each of its selections, `RUN/shards/<selection>/`; `find` tells which one is meant.

Equal samples give equal bytes: POSIX ustar headers, no clock, no user. A shard appears under its name whole or not at
all. What is read back is taken for untrusted: keys and sizes are checked and nothing is unpickled.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.store import archive, storage
from rushes.pipelines.store.clip import is_key

if TYPE_CHECKING:
    from webdataset import DataPipeline

SHARDS_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_EXT = re.compile(r"[a-z0-9_]+")
_PATH = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+-[0-9]{6}\.tar")
_STATS = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+_stats\.json")


class ShardError(ValueError):
    """A shard, its manifest or its side-car is not as the contract says; the message names it and the remedy."""


@dataclass(frozen=True)
class Sample:
    """One clip as it stands in a shard."""

    key: str
    """Clip key; see `rushes.pipelines.store.clip.clip_key`."""
    members: list[tuple[str, bytes]]
    """Extension and content of each member, in the order in which they are written."""


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What the manifest says about one shard."""

    path: str
    """Path below the root: `<bucket>/NAME-000000.tar`."""
    samples: int
    """Number of samples."""
    size_bytes: int
    """Size of the tar."""
    sha256: str
    """SHA-256 of the tar."""
    stats: dict[str, Any] = field(default_factory=dict)
    """For each numeric fact: `sum`, `min` and `max` over the samples that have it, and their `count`."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.path.split("/", 1)[0]

    @property
    def sidecar(self) -> str:
        """Path of the side-car below the root."""
        return self.path.removesuffix(".tar") + ".parquet"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The list of the shards that belong to one set."""

    kind: str
    """clips or latents."""
    fingerprint: str
    """Fingerprint of the configuration that made them."""
    shards: list[ShardInfo]
    """The shards in order of bucket and number."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else the writer recorded."""

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)


# -------------------------------------------------------------------------------------------------------------- writing


def plan_shards(sizes: Sequence[tuple[str, int]], limit_bytes: int) -> list[list[str]]:
    """Return the keys of each shard, in the order given, so that no tar exceeds `limit_bytes`.

    Sizes are those of whole samples in a tar, that is sums of `archive.member_bytes`. A sample that is larger than the
    limit by itself gets a shard of its own.
    """
    shards: list[list[str]] = []
    filled = 0
    for key, size_bytes in sizes:
        if not shards or filled + size_bytes > limit_bytes:
            shards.append([])
            filled = len(archive.END)
        shards[-1].append(key)
        filled += size_bytes
    return shards


def write_shard(root: str, bucket: str, name: str, index: int, samples: Iterable[Sample]) -> ShardInfo:
    """Write one shard with its side-car and index; return what the manifest needs to know of it.

    Streams: memory is bounded by one sample and the facts of the others. Nothing appears under the shard's name unless
    all samples were written. The side-car comes last, so a side-car is proof of a whole shard. Raises ShardError for a
    key, name or member that the contract forbids, for a key that comes twice and for a shard without samples.
    """
    if not _NAME.fullmatch(bucket) or not _NAME.fullmatch(name) or not 0 <= index < 10**6:
        raise ShardError(f"{bucket}/{name}-{index}: buckets and names are made of A-Z a-z 0-9 _ -, numbers below 10⁶")
    path = f"{bucket}/{name}-{index:06d}.tar"
    uri = f"{root.rstrip('/')}/{path}"
    sidecar = uri.removesuffix(".tar") + ".parquet"
    storage.remove(sidecar)
    with storage.open_write(uri) as file:
        tar = archive.Writer(file)
        rows = _write_samples(tar, samples)
        tar.end()
    info = ShardInfo(path=path, samples=len(rows), size_bytes=tar.offset, sha256=tar.sha256, stats=_stats(rows))
    ends = [row["offset"] for row in rows] + [tar.offset - len(archive.END)]
    storage.write_bytes(f"{uri}.idx", struct.pack(f"<{len(ends)}Q", *ends))
    storage.write_bytes(sidecar, _sidecar_bytes(rows, info))
    return info


def _write_samples(tar: archive.Writer, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        if not is_key(sample.key) or sample.key in rows:
            raise ShardError(f"{sample.key!r} comes twice or is no clip key (16 hex digits, '-', 9 digits)")
        rows[sample.key] = _write_sample(tar, sample)
    if not rows:
        raise ShardError("a shard without samples; plan shards with at least one")
    return list(rows.values())


def _write_sample(tar: archive.Writer, sample: Sample) -> dict[str, Any]:
    extensions = [extension for extension, _ in sample.members]
    if not extensions or len(set(extensions)) < len(extensions) or not all(map(_EXT.fullmatch, extensions)):
        raise ShardError(f"{sample.key}: members {extensions} must be distinct lower-case extensions without a dot")
    row: dict[str, Any] = {"key": sample.key, "offset": tar.offset, "size_bytes": 0}
    for extension, data in sample.members:
        row |= {f"{extension}_offset": tar.add(f"{sample.key}.{extension}", data), f"{extension}_bytes": len(data)}
    row["size_bytes"] = tar.offset - row["offset"]
    row["facts"] = json.loads(dict(sample.members).get("json", b"{}"))
    return row


def _stats(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["facts"].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, []).append(value)
    return {
        name: {"count": len(found), "sum": sum(found), "min": min(found), "max": max(found)}
        for name, found in sorted(values.items())
    }


def _sidecar_bytes(rows: list[dict[str, Any]], info: ShardInfo) -> bytes:
    """Return the side-car as Parquet; its metadata repeat the shard's manifest entry, so a manifest can be rebuilt."""
    table = pa.Table.from_pylist([{**row.pop("facts"), **row} for row in rows])
    for column, kind in enumerate(table.schema):
        if pa.types.is_list(kind.type) and pa.types.is_null(kind.type.value_type):
            table = table.set_column(column, kind.name, table.column(column).cast(pa.list_(pa.string())))
    places = [name for row in rows[:1] for name in row]
    table = table.select([*places, *sorted(set(table.column_names) - set(places))])
    table = table.replace_schema_metadata({"rushes.shard": json.dumps(asdict(info), sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


# --------------------------------------------------------------------------------------------------------- the manifest


def read_info(root: str, path: str) -> ShardInfo:
    """Return what `write_shard` returned for a shard, from its side-car. Raises ShardError if there is none."""
    uri = f"{root.rstrip('/')}/{path.removesuffix('.tar')}.parquet"
    data = storage.read_if_there(uri)
    if data is None:
        raise ShardError(f"{uri} is missing, so {path} was not finished; pack again")
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    if b"rushes.shard" not in metadata:
        raise ShardError(f"{uri} is no side-car of a shard")
    return ShardInfo(**json.loads(metadata[b"rushes.shard"]))


def read_sidecar(root: str, info: ShardInfo, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the side-car of a shard: a row per sample with `key`, `offset`, `size_bytes`, `<ext>_offset`, facts.

    Where only some `columns` are asked for, those that it lacks are left out.
    """
    with storage.open_read(f"{root.rstrip('/')}/{info.sidecar}") as file, pq.ParquetFile(file) as sidecar:
        there = sidecar.schema_arrow.names
        return sidecar.read(columns=there if columns is None else [name for name in columns if name in there])


def described(sidecar: pa.Table) -> ShardInfo | None:
    """Return what `write_shard` returned for the shard of a side-car that was read; None for what is no side-car."""
    told = (sidecar.schema.metadata or {}).get(b"rushes.shard")
    return None if told is None else ShardInfo(**json.loads(told))


def write_manifest(
    root: str, infos: Iterable[ShardInfo], *, kind: str, fingerprint: str, extra: Mapping[str, Any] | None = None
) -> Manifest:
    """Write the buckets' statistics, Energon's description and, last, `manifest.json`; return the manifest."""
    root = root.rstrip("/")
    shards = sorted(infos, key=lambda info: info.path)
    manifest = Manifest(kind=kind, fingerprint=fingerprint, shards=shards, extra=dict(extra or {}))
    for (bucket, name), members in _by_name(shards).items():
        storage.write_bytes(f"{root}/{bucket}/{name}_stats.json", _json(_bucket_stats(members)))
    for path, text in _energon(manifest).items():
        storage.write_bytes(f"{root}/.nv-meta/{path}", text)
    record = {
        "rushes_shards": SHARDS_VERSION,
        "kind": kind,
        "fingerprint": fingerprint,
        "samples": manifest.samples,
        "size_bytes": sum(shard.size_bytes for shard in shards),
        "extra": manifest.extra,
        "shards": [asdict(shard) for shard in shards],
    }
    storage.write_bytes(f"{root}/manifest.json", _json(record))
    return manifest


def sets(root: str) -> list[str]:
    """Return the names of the sets of shards in a folder such as `RUN/shards`, one for each selection."""
    root = root.rstrip("/")
    return [name for name in storage.list_folders(root) if storage.exists(f"{root}/{name}/manifest.json")]


def find(root: str, selection: str = "", current: str = "") -> str:
    """Return the folder of a set of shards: the given one if it has a manifest, else the set in it that is meant.

    Args:
        root: A set of shards, or a folder of several such as `RUN/shards`.
        selection: Which of several; without it the only one.
        current: Which one where there are several and none was asked for.

    Raises ShardError that lists the sets where there are several and none is meant, or not the one asked for.
    """
    root = root.rstrip("/")
    if storage.exists(f"{root}/manifest.json"):
        if selection:
            raise ShardError(f"{root} is one set of shards, so there is no selection {selection} to choose in it")
        return root
    there = sets(root)
    chosen = selection or (there[0] if len(there) == 1 else current)
    if not there:
        raise ShardError(
            f"{root}/manifest.json is missing: this is no folder of shards, or packing has not finished; pack again"
        )
    if chosen not in there:
        asked = f"no selection {selection!r}" if selection else "several selections"
        raise ShardError(
            f"{root} holds {asked}: {', '.join(there)}; give {root}/{there[0]}, or --selection {there[0]} on the "
            "command line"
        )
    return f"{root}/{chosen}"


def read_manifest(root: str) -> Manifest:
    """Return the manifest of a set of shards, found as `find` does.

    Raises ShardError where it is missing, foreign or names odd paths.
    """
    uri = f"{find(root)}/manifest.json"
    try:
        record = json.loads(storage.read_bytes(uri))
        version = record["rushes_shards"]
        shards = [ShardInfo(**shard) for shard in record["shards"]]
        manifest = Manifest(
            kind=record["kind"], fingerprint=record["fingerprint"], shards=shards, extra=record["extra"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{uri} is damaged ({error!r}); pack again") from error
    if version != SHARDS_VERSION:
        raise ShardError(f"{uri} has shard version {version}, this version of rushes reads {SHARDS_VERSION}")
    for shard in shards:
        if not _PATH.fullmatch(shard.path):
            raise ShardError(f"{uri} names {shard.path!r}, which is no <bucket>/NAME-000000.tar; pack again")
    return manifest


def prune(root: str, manifest: Manifest) -> list[str]:
    """Remove shards, their side files and statistics that the manifest does not list; return the paths removed."""
    root = root.rstrip("/")
    listed = {shard.path.removesuffix(".tar") for shard in manifest.shards}
    described = {f"{bucket}/{name}_stats.json" for bucket, name in _by_name(manifest.shards)}
    removed = []
    gone = []
    for uri in storage.list_files(root, recursive=True):
        path = uri.removeprefix(root).lstrip("/")
        stem = re.sub(r"\.(tar|tar\.idx|parquet)$", "", path)
        stale = _PATH.fullmatch(f"{stem}.tar") and stem not in listed and stem != path
        if stale or (_STATS.fullmatch(path) and path not in described):
            gone.append(uri)
            removed.append(path)
    storage.remove_many(gone)
    return removed


def shard_uris(root: str, buckets: Sequence[str] | None = None) -> list[str]:
    """Return the URIs of the shards of a set, found as `find` does, or of some of its buckets.

    Raises ShardError for an unknown bucket.
    """
    root = find(root)
    shards = read_manifest(root).shards
    known = {shard.bucket for shard in shards}
    unknown = set(buckets or ()) - known
    if unknown:
        raise ShardError(f"{root} has no bucket {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    return [f"{root}/{shard.path}" for shard in shards if buckets is None or shard.bucket in buckets]


def _by_name(shards: Iterable[ShardInfo]) -> dict[tuple[str, str], list[ShardInfo]]:
    groups: dict[tuple[str, str], list[ShardInfo]] = {}
    for shard in shards:
        bucket, file = shard.path.split("/", 1)
        groups.setdefault((bucket, file.rsplit("-", 1)[0]), []).append(shard)
    return groups


def _bucket_stats(shards: Sequence[ShardInfo]) -> dict[str, Any]:
    facts: dict[str, dict[str, Any]] = {}
    for shard in shards:
        for name, one in shard.stats.items():
            seen = facts.setdefault(name, {"count": 0, "sum": 0, "min": one["min"], "max": one["max"]})
            seen |= {"count": seen["count"] + one["count"], "sum": seen["sum"] + one["sum"]}
            seen |= {"min": min(seen["min"], one["min"]), "max": max(seen["max"], one["max"])}
    return {
        "shards": len(shards),
        "samples": sum(shard.samples for shard in shards),
        "size_bytes": sum(shard.size_bytes for shard in shards),
        "facts": {name: {**one, "mean": one["sum"] / one["count"]} for name, one in sorted(facts.items())},
    }


def _energon(manifest: Manifest) -> dict[str, bytes]:
    """Return the files of `.nv-meta/`, as `energon prepare` writes them; JSON is YAML, so no YAML writer is needed.

    `dataset.yaml` is for task encoders with a cooker. `video.yaml` is for those without, and for `energon info` and
    `lint`, which cannot read what needs a cooker: `--dataset-config video.yaml`.
    """
    counts = {shard.path: shard.samples for shard in manifest.shards}
    crude = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    split = {"exclude": [], "split_parts": {"train": list(counts), "val": [], "test": []}}
    files: dict[str, dict[str, Any]] = {
        "dataset.yaml": crude,
        "split.yaml": split,
        ".info.yaml": {"shard_counts": counts},
    }
    if manifest.kind == "clips":
        kind = {"__module__": "megatron.energon", "__class__": "VidQASample"}
        files["video.yaml"] = {"sample_type": kind, "field_map": {"video": "mp4", "context": "txt"}}
    return {name: _json(record) for name, record in files.items()}


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


# -------------------------------------------------------------------------------------------------------------- reading


def pipeline(
    root: str,
    *,
    buckets: Sequence[str] | None = None,
    shuffle: int = 0,
    seed: int = 0,
    epoch: int = 0,
    repeat: bool = False,
    members: Sequence[str] = ("mp4", "json", "txt"),
    nodes: bool = True,
) -> DataPipeline:
    """Return a `webdataset.DataPipeline` of the samples of a set: dicts of `__key__`, `__url__` and bytes by extension.

    Add stages of webdataset with `.compose(webdataset.map(…))`.

    Each sample goes to exactly one node (rank) and one DataLoader worker: by shards where there are enough of them,
    else sample by sample, so that no reader starves. The order depends on `seed` and `epoch` alone. Opens files through
    `storage`, on disk or in an object store, without a shell; unpickles nothing.

    Args:
        root: Folder of the manifest, or one that holds only that set; see `find`.
        buckets: Buckets to read; all by default.
        shuffle: Samples in the shuffle buffer; 0 keeps the order of the shards and in them.
        seed: Seed of the shuffle.
        epoch: Number of the first pass.
        repeat: Whether to go on for ever, each pass an epoch of its own, rather than end after one.
        members: Extensions to read; others are skipped without being read. A sample without one of them is an error.
        nodes: Whether to split by node; False gives every node everything.

    Raises ShardError for a missing manifest, an unknown bucket and, while iterating, for a damaged shard.
    """
    import webdataset

    root = find(root)
    manifest = read_manifest(root)
    uris = shard_uris(root, buckets)
    chosen = [shard.samples for shard in manifest.shards if buckets is None or shard.bucket in buckets]
    order = _Order(tuple(uris), sum(chosen), shuffle, seed, epoch, repeat)
    return webdataset.DataPipeline(functools.partial(_samples, order, tuple(members), nodes))


@dataclass(frozen=True)
class _Order:
    uris: tuple[str, ...]
    samples: int
    shuffle: int
    seed: int
    epoch: int
    repeat: bool


def _samples(order: _Order, members: tuple[str, ...], nodes: bool) -> Iterator[dict[str, Any]]:
    """Yield the share of this node and worker, pass by pass."""
    import webdataset.filters
    from webdataset.utils import pytorch_worker_info

    rank, world, worker, workers = pytorch_worker_info()
    reader, readers = (rank * workers + worker, world * workers) if nodes else (worker, workers)
    if order.repeat and order.samples < readers:
        raise ShardError(f"{order.samples} samples cannot feed {readers} readers for ever; use fewer workers")
    for epoch in itertools.count(order.epoch) if order.repeat else (order.epoch,):
        dice = random.Random(f"{order.seed} {epoch}")
        uris = dice.sample(order.uris, len(order.uris)) if order.shuffle else order.uris
        share = _share(uris, reader, readers, members)
        yield from webdataset.filters._shuffle(share, order.shuffle, order.shuffle, dice) if order.shuffle else share


def _share(uris: Sequence[str], reader: int, readers: int, members: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    by_shard = len(uris) >= readers
    count = itertools.count()
    for number, uri in enumerate(uris):
        if by_shard and number % readers == reader:
            yield from read_shard(uri, members)
        elif not by_shard:
            yield from read_shard(uri, members, lambda: next(count) % readers == reader)


def read_shard(uri: str, members: Sequence[str], wanted: Callable[[], bool] = lambda: True) -> Iterator[dict[str, Any]]:
    """Yield the samples of one shard as dicts of `__key__`, `__url__` and the members' bytes.

    `wanted` is asked once for each sample; unwanted samples are skipped without being read. Raises ShardError where the
    shard is damaged, a name is no clip key with an extension or a sample lacks one of the members.
    """
    current, taken, given = "", 0, 0
    take = False

    def select(name: str) -> bool:
        nonlocal current, take, taken
        key, _, extension = name.partition(".")
        if not is_key(key) or not _EXT.fullmatch(extension):
            raise ShardError(f"{uri}: {name!r} is no clip key with an extension")
        if key != current:
            current, take = key, wanted()
            taken += take
        return take and extension in members

    try:
        with storage.open_read(uri) as file:
            found = ((member.name.partition("."), member.data) for member in archive.read(file, select))
            for key, group in itertools.groupby(found, key=lambda one: one[0][0]):
                yield _sample(uri, key, [(name[2], data) for name, data in group], members)
                given += 1
    except archive.ArchiveError as error:
        raise ShardError(f"{uri} {error}; `rushes verify` names every damaged shard") from error
    if given < taken:
        raise ShardError(f"{uri}: {taken - given} samples have none of the members {list(members)} asked for")


def _sample(uri: str, key: str, found: list[tuple[str, bytes]], members: Sequence[str]) -> dict[str, Any]:
    if sorted(extension for extension, _ in found) != sorted(members):
        raise ShardError(f"{uri}: {key} has {[one for one, _ in found]} of the members {list(members)} asked for")
    return {"__key__": key, "__url__": uri, **dict(found)}
