"""Read a finished run back and name everything that is not as its manifest and its ledger say.

    for problem in verify("RUN"):
        ...

Every byte of every shard is read once and compared with the manifest's SHA-256; what the tar holds is compared with
its side-car and with the ledger; one clip of each shard is decoded, all of them with `full`.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import archive, binding, selections, storage
from pipelines.clip import is_key
from pipelines.ledger import Ledger
from pipelines.shards import Manifest, ShardError, ShardInfo, read_manifest, read_sidecar

PACK_AGAIN = "run the same `rushes curate` again; it packs anew what is missing"
REMOVE = "remove this file and run the same command again"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    where: str
    """The shard, file, table or clip."""
    reason: str
    """What was found and what was expected."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}; {self.remedy}"


def verify(run: str, full: bool = False, selection: str = "") -> list[Problem]:
    """Return every problem of a selection's clip shards, of its latent shards if it has any, and against the ledger.

    Args:
        run: The run's folder.
        full: Whether to decode every clip rather than the first of each shard.
        selection: Which one of several; without it the only one, else the current one.
    """
    run = run.rstrip("/")
    try:
        root = selections.folder(run, "shards", selection)
    except ShardError as error:
        return [Problem(where=f"{run}/shards", reason=str(error), remedy=PACK_AGAIN)]
    name = root.rsplit("/", 1)[-1]
    problems = [*verify_shards(root, full)]
    if storage.exists(f"{run}/latents/{name}/manifest.json"):
        problems += verify_shards(f"{run}/latents/{name}", full)
    slipped = (Problem(where=key, reason=reason, remedy=binding.REMEDY) for key, reason in binding.wrong(Ledger(run)))
    return [*problems, *slipped, *_against_ledger(run, root, name)]


def verify_shards(root: str, full: bool = False) -> Iterator[Problem]:
    """Yield every problem of one folder of shards, of whatever kind, by itself."""
    try:
        manifest = read_manifest(root)
    except ShardError as error:
        yield Problem(where=root, reason=str(error), remedy=PACK_AGAIN)
        return
    yield from _unlisted(root, manifest)
    seen: dict[str, str] = {}
    for info in manifest.shards:
        if not storage.exists(f"{root}/{info.path}"):
            yield Problem(where=info.path, reason="listed in the manifest but missing", remedy=PACK_AGAIN)
            continue
        shard = _Shard(root, info, full)
        yield from shard.problems()
        for key in shard.keys:
            if key in seen:
                yield Problem(where=info.path, reason=f"{key} also stands in {seen[key]}", remedy=PACK_AGAIN)
            seen[key] = info.path


def _unlisted(root: str, manifest: Manifest) -> Iterator[Problem]:
    listed = {f"{root}/{info.path}" for info in manifest.shards}
    for uri in storage.list_files(root, recursive=True):
        if uri.endswith(".tar") and uri not in listed:
            yield Problem(where=uri, reason="a shard that the manifest does not list", remedy=REMOVE)


@dataclass
class _Shard:
    """One shard being read: each member is seen once, in order, and then forgotten."""

    root: str
    info: ShardInfo
    full: bool
    keys: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        with storage.open_read(f"{self.root}/{self.info.path}") as file:
            hashing = _Hashing(file)
            try:
                for member in archive.read(cast(BinaryIO, hashing)):
                    yield from self._member(member)
            except archive.ArchiveError as error:
                yield self._problem(str(error))
            hashing.drain()
        if hashing.size_bytes != self.info.size_bytes:
            yield self._problem(f"{hashing.size_bytes} bytes, the manifest says {self.info.size_bytes}")
        elif hashing.sha256.hexdigest() != self.info.sha256:
            yield self._problem("its bytes changed: the SHA-256 is not the manifest's")
        if len(self.keys) != self.info.samples:
            yield self._problem(f"{len(self.keys)} samples, the manifest says {self.info.samples}")
        yield from self._side_files()

    def _member(self, member: archive.Member) -> Iterator[Problem]:
        key, _, extension = member.name.partition(".")
        if not is_key(key):
            yield self._problem(f"{member.name!r} is no clip key with an extension")
            return
        if key not in self.rows:
            self.keys.append(key)
            self.rows[key] = {"offset": member.offset - archive.BLOCK}
        row = self.rows[key]
        row |= {f"{extension}_offset": member.offset, f"{extension}_bytes": len(member.data)}
        yield from self._caption(key, extension, member.data)
        if self.full or len(self.keys) == 1:
            yield from self._content(key, extension, member.data, row)

    def _caption(self, key: str, extension: str, data: bytes) -> Iterator[Problem]:
        """Check that the text of a sample is the one that was bound to this clip, from the sample alone."""
        if extension == "json":
            self.facts = _object(data)
        elif extension == "txt":
            own = self.facts.get("key") == key
            if not own or not binding.holds_in_shard(self.facts, data.decode(errors="replace")):
                yield self._problem(f"{key}: its caption was not bound to this clip, or was changed")

    def _content(self, key: str, extension: str, data: bytes, row: dict[str, Any]) -> Iterator[Problem]:
        try:
            if extension == "mp4":
                row["decoded"] = _frames(data)
            elif extension == "npy":
                row["decoded"] = len(np.load(io.BytesIO(data), allow_pickle=False))
            elif extension == "json":
                facts = json.loads(data)
                expected = len(facts["times_s"]) if self._latent(row) else facts["frames"]
                if row.get("decoded", expected) != expected:
                    yield self._problem(f"{key} decodes to {row['decoded']} frames, its facts say {expected}")
        except (av.error.FFmpegError, ValueError, KeyError, TypeError) as error:
            yield self._problem(f"{key}.{extension} cannot be read: {error!r}")

    def _latent(self, row: Mapping[str, Any]) -> bool:
        return "npy_offset" in row

    def _side_files(self) -> Iterator[Problem]:
        offsets = [row["offset"] for row in self.rows.values()] + [self.info.size_bytes - len(archive.END)]
        try:
            table = read_sidecar(self.root, self.info)
            index = storage.read_bytes(f"{self.root}/{self.info.path}.idx")
        except (OSError, ValueError) as error:
            yield self._problem(f"its side-car or index cannot be read: {error}")
            return
        if index != struct.pack(f"<{len(offsets)}Q", *offsets):
            yield self._problem("its .idx does not match the tar")
        places = [name for name in table.column_names if name in {n for row in self.rows.values() for n in row}]
        rows = {row.pop("key"): row for row in table.select(["key", *places]).to_pylist()}
        wrong = [key for key, row in rows.items() if row != {name: self.rows.get(key, {}).get(name) for name in row}]
        if list(rows) != self.keys or wrong:
            yield self._problem(f"its side-car does not match the tar ({', '.join(wrong[:3]) or 'other keys'})")

    def _problem(self, reason: str) -> Problem:
        return Problem(where=f"{self.root}/{self.info.path}", reason=reason, remedy=REMOVE)


class _Hashing:
    """A stream read forwards only, that hashes all it passes."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size_bytes: int) -> bytes:
        data = self.file.read(size_bytes)
        self.sha256.update(data)
        self.size_bytes += len(data)
        return data

    def seek(self, size_bytes: int, _whence: int) -> None:
        self.read(size_bytes)

    def tell(self) -> int:
        return self.size_bytes

    def drain(self) -> None:
        while self.read(_CHUNK_BYTES):
            pass


def _object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _frames(mp4: bytes) -> int:
    """Return how many frames a clip decodes to, all of them decoded."""
    with av.open(io.BytesIO(mp4), "r", metadata_errors="ignore") as container:
        return sum(1 for _ in container.decode(video=0))


def _against_ledger(run: str, root: str, name: str) -> Iterator[Problem]:
    """Compare the clips in the side-cars with those that the ledger packed, and those with the ones it kept."""
    ledger = Ledger(run)
    packed = ledger.read("packed", columns=["key", "shard"], where=pc.field("policy") == name)
    try:
        sidecars = [(info.path, _keys(root, info)) for info in read_manifest(root).shards]
    except (OSError, ValueError):
        return  # told already, shard by shard
    found = {key: path for path, table in sidecars for key in table["key"].to_pylist()}
    yield from _captions_against(ledger, [table for _, table in sidecars])
    said = dict(zip(packed["key"].to_pylist(), packed["shard"].to_pylist(), strict=True))
    for key in sorted(said.keys() | found.keys()):
        if said.get(key) != found.get(key):
            places = f"the ledger says {said.get(key, 'nowhere')}, the side-cars {found.get(key, 'nowhere')}"
            yield Problem(where=key, reason=f"packed where? {places}", remedy=PACK_AGAIN)
    own = pc.field("kept") & (pc.field("policy") == name)
    selection = ledger.read("selection", columns=["key"], where=own)
    kept, failed = set(selection["key"].to_pylist()), set(ledger.read("errors", columns=["key"])["key"].to_pylist())
    for key in sorted(kept - said.keys() - failed):
        yield Problem(where=key, reason="kept by the selection but in no shard", remedy=PACK_AGAIN)
    for key in sorted(said.keys() - kept):
        yield Problem(where=key, reason="in a shard but not kept by the selection", remedy=PACK_AGAIN)


def _captions_against(ledger: Ledger, sidecars: Sequence[pa.Table]) -> Iterator[Problem]:
    """Compare the captions in the shards with those of the ledger, by their digests."""
    captions = ledger.read("captions", columns=["key", "bound"])
    bound = dict(zip(captions["key"].to_pylist(), captions["bound"].to_pylist(), strict=True))
    for table in sidecars:
        if "caption_bound" in table.column_names:  # without it the samples are told already
            for key, packed in zip(table["key"].to_pylist(), table["caption_bound"].to_pylist(), strict=True):
                if bound.get(key, packed) != packed:
                    reason = "its shard holds another caption than the ledger"
                    yield Problem(where=key, reason=reason, remedy=PACK_AGAIN)


def _keys(root: str, info: ShardInfo) -> pa.Table:
    """Return the keys of a shard and, where its samples have captions, what binds these to their clips."""
    table = read_sidecar(root, info)
    return table.select([name for name in ("key", "caption_bound") if name in table.column_names])
