"""Read a finished run back and name everything that is not as its manifest and its ledger say.

    for problem in verify("RUN"):
        ...

Every byte of every shard is read once and compared with the manifest's SHA-256; what the tar holds is compared with
its side-car and with the ledger, and each sample with its own facts. The first clip of each shard, the last and a few
chosen by their keys are decoded, all of them with `full`. Memory holds one sample and what names the others.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.pack import removed
from rushes.pipelines.stages.pack.samples import Checked
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import archive, binding, storage
from rushes.pipelines.store.clip import is_key
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.shards import Manifest, ShardError, ShardInfo, read_manifest, read_sidecar, sets

DECODED = 3
"""Clips of a shard that are decoded besides the first and the last."""
_CHUNK_BYTES = 2**20
_OTHERS = re.compile(r"manifest\.json|[A-Za-z0-9_-]+/[A-Za-z0-9_-]+_stats\.json|\.nv-meta/[A-Za-z0-9_.-]+")


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


def verify(run: str, full: bool = False, selection: str = "", *, reporter: Reporter | None = None) -> list[Problem]:
    """Return every problem of a selection's clip shards, of its latent shards if it has any, and against the ledger.

    What is left of footage that was taken down is one, wherever in the run it is.

    Args:
        run: The run's folder.
        full: Whether to decode every clip rather than a few of each shard.
        selection: Which one of several; without it the only one, else the current one.
        reporter: Where progress is shown.

    Raises NoRun or SchemaMismatch where there is no run of ours, SelectionError or ShardError for a selection that it
    does not have.
    """
    run, ledger = run.rstrip("/"), Ledger(run)
    ledger.require()
    name = _meant(ledger, selection)
    root, again = f"{run}/shards/{name}", selections.pack_command(run, name)
    gone = [Problem(where=where, reason=reason, remedy=remedy) for where, reason, remedy in removed.left(ledger)]
    if not storage.exists(f"{root}/manifest.json"):
        reason = "its manifest.json is missing: nothing was packed yet, or packing has not finished"
        return [Problem(where=root, reason=reason, remedy=f"run `{again}`"), *gone]
    packed = ledger.read("packed", columns=["key", "shard", "sha256"], where=pc.field("policy") == name)
    problems = [*verify_shards(root, full, reporter, again=again, packed=packed)]
    if storage.exists(f"{run}/latents/{name}/manifest.json"):
        encode = f"rushes latents {run} --selection {name}"
        problems += verify_shards(f"{run}/latents/{name}", full, reporter, again=encode)
    remedy = f"remove the part files of ledger/captions that were changed and run `{again}`"
    with reporter.work("verify") if reporter else nullcontext():
        slipped = [Problem(where=key, reason=reason, remedy=remedy) for key, reason in binding.wrong(ledger)]
        return [*problems, *slipped, *_against_ledger(ledger, root, name, packed, again), *gone]


def _meant(ledger: Ledger, wanted: str) -> str:
    """Return the selection to check: the wanted one, packed or not, else what `selections.folder` takes."""
    selected, packed = selections.names(ledger), sets(f"{ledger.run}/shards")
    if wanted or not packed:
        there = sorted({*selected, *packed})
        return selections.choose(ledger.run, there, wanted) or selections.current(ledger.run) or "default"
    return selections.folder(ledger.run).rsplit("/", 1)[-1]


def verify_shards(
    root: str, full: bool = False, reporter: Reporter | None = None, *, again: str = "rushes curate",
    packed: pa.Table | None = None,
) -> Iterator[Problem]:  # fmt: skip
    """Yield every problem of one folder of shards, of whatever kind, by itself.

    Args:
        root: The folder.
        full: Whether to decode every sample.
        reporter: Where progress is shown.
        again: The command that makes anew what is missing there.
        packed: Columns key, shard and sha256 of what the ledger says was packed there, if it is known.
    """
    try:
        manifest = read_manifest(root)
    except ShardError as error:
        yield Problem(where=root, reason=str(error), remedy=f"run `{again}`")
        return
    yield from _unlisted(root, manifest, again)
    found: list[Problem] = []
    rows = _shard_by_shard(root, manifest, full, found, again, packed)
    for _ in rows if reporter is None else reporter.follow("verify", rows, len(manifest.shards), 0):
        yield from found
        found.clear()


def _shard_by_shard(
    root: str, manifest: Manifest, full: bool, found: list[Problem], again: str, packed: pa.Table | None
) -> Iterator[dict[str, Any]]:
    """Add what is found in each shard, and yield a row for the progress."""
    seen: dict[str, str] = {}
    of_shard = _by_shard(packed)
    for info in manifest.shards:
        if not storage.exists(f"{root}/{info.path}"):
            found.append(Problem(where=info.path, reason="listed in the manifest but missing", remedy=f"run `{again}`"))
            yield {"items": 0, "seconds": 0.0, "errors": 1}
            continue
        rows = of_shard.get(info.path)
        mp4s = {} if rows is None else dict(zip(rows["key"].to_pylist(), rows["sha256"].to_pylist(), strict=True))
        shard = _Shard(root, info, manifest.kind, full, again, mp4s)
        found += shard.problems()
        for key in shard.rows:
            if key in seen:
                reason = f"{key} also stands in {seen[key]}"
                found.append(Problem(where=info.path, reason=reason, remedy=f"run `{again}`"))
            seen[key] = info.path
        seconds = info.stats.get("duration_s", {}).get("sum", 0.0)
        yield {"items": len(shard.rows), "seconds": seconds, "errors": len(found)}


def _by_shard(packed: pa.Table | None) -> dict[str, pa.Table]:
    """Return what the ledger packed, by shard; sorted once, for filtering anew for each takes shards × clips."""
    if packed is None:
        return {}
    rows, at, found = packed.sort_by("shard"), 0, {}
    for count in rows["shard"].value_counts().to_pylist():
        found[count["values"]] = rows.slice(at, count["counts"])
        at += count["counts"]
    return found


def _unlisted(root: str, manifest: Manifest, again: str) -> Iterator[Problem]:
    listed = {path for info in manifest.shards for path in (info.path, f"{info.path}.idx", info.sidecar)}
    for uri in storage.list_files(root, recursive=True):
        path = uri.removeprefix(root).lstrip("/")
        if path not in listed and not _OTHERS.fullmatch(path):
            kind = "a shard" if path.endswith(".tar") else "a file"
            reason = f"{kind} that the manifest does not list"
            yield Problem(where=uri, reason=reason, remedy=f"remove this file and run `{again}`")


class _Shard:
    """One shard being read: each member is seen once, in order, and then forgotten."""

    def __init__(self, root: str, info: ShardInfo, kind: str, full: bool, again: str, packed: Mapping[str, str]):
        self.root, self.info, self.kind, self.full, self.again, self.packed = root, info, kind, full, again, packed
        self.rows: dict[str, dict[str, Any]] = {}
        self.sample: Checked | None = None
        self.sidecar: pa.Table | None = None

    def problems(self) -> Iterator[Problem]:
        try:
            self.sidecar = read_sidecar(self.root, self.info)
            self.chosen = _chosen(self.sidecar["key"].to_pylist())
        except (OSError, ValueError, KeyError) as error:
            yield self._problem(f"its side-car cannot be read: {error}")
            self.full = True  # nothing tells which clips to choose
        with storage.open_read(f"{self.root}/{self.info.path}") as file:
            hashing = _Hashing(file)
            try:
                for member in archive.read(cast(BinaryIO, hashing)):
                    yield from self._member(member)
            except archive.ArchiveError as error:
                yield self._problem(str(error))
            hashing.drain()
        yield from self._ended()
        if hashing.size_bytes != self.info.size_bytes:
            yield self._problem(f"{hashing.size_bytes} bytes, the manifest says {self.info.size_bytes}")
        elif hashing.sha256.hexdigest() != self.info.sha256:
            yield self._problem("its bytes changed: the SHA-256 is not the manifest's")
        if len(self.rows) != self.info.samples:
            yield self._problem(f"{len(self.rows)} samples, the manifest says {self.info.samples}")
        yield from self._side_files()

    def _member(self, member: archive.Member) -> Iterator[Problem]:
        key, _, extension = member.name.partition(".")
        if not is_key(key) or not extension.isalnum():
            yield self._problem(f"{member.name!r} is no clip key with an extension")
            return
        if self.sample is None or key != self.sample.key:
            yield from self._ended()
            if key in self.rows:
                yield self._problem(f"{key} stands in it twice")
            self.sample = Checked(key, self.kind, self.full or key in self.chosen)
            self.rows[key] = {"offset": member.offset - archive.BLOCK}
        self.rows[key] |= {f"{extension}_offset": member.offset, f"{extension}_bytes": len(member.data)}
        yield from map(self._problem, self.sample.add(extension, member.data))

    def _ended(self) -> Iterator[Problem]:
        if self.sample is not None:
            yield from map(self._problem, self.sample.end())
            key, video = self.sample.key, self.sample.sha256
            agrees = video and video == self.sample.facts.get("sha256", video)  # else it is told already
            if agrees and video != (self.packed.get(key) or video):
                yield self._problem(f"{key}.mp4 is not the video that the ledger packed: the SHA-256 is another")
        self.sample = None

    def _side_files(self) -> Iterator[Problem]:
        offsets = [row["offset"] for row in self.rows.values()] + [self.info.size_bytes - len(archive.END)]
        try:
            index = storage.read_bytes(f"{self.root}/{self.info.path}.idx")
        except OSError as error:
            yield self._problem(f"its index cannot be read: {error}")
        else:
            if index != struct.pack(f"<{len(offsets)}Q", *offsets):
                yield self._problem("its .idx does not match the tar")
        if self.sidecar is None:
            return
        table = self.sidecar
        places = [name for name in table.column_names if name in {n for row in self.rows.values() for n in row}]
        rows = {row.pop("key"): row for row in table.select(["key", *places]).to_pylist()}
        wrong = [key for key, row in rows.items() if row != {name: self.rows.get(key, {}).get(name) for name in row}]
        if list(rows) != list(self.rows) or wrong:
            yield self._problem(f"its side-car does not match the tar ({', '.join(wrong[:3]) or 'other keys'})")

    def _problem(self, reason: str) -> Problem:
        return Problem(
            where=f"{self.root}/{self.info.path}", reason=reason, remedy=f"remove this file and run `{self.again}`"
        )


def _chosen(keys: Sequence[str]) -> set[str]:
    """Return which clips of a shard are decoded: its borders, and a few drawn by their keys."""
    drawn = sorted(keys, key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest())
    return {*keys[:1], *keys[-1:], *drawn[:DECODED]}


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


def _against_ledger(ledger: Ledger, root: str, name: str, packed: pa.Table, again: str) -> Iterator[Problem]:
    """Compare the clips in the side-cars with those that the ledger packed, and those with the ones it kept."""
    remedy = f"run `{again}`"
    try:
        sidecars = [(info.path, _keys(root, info)) for info in read_manifest(root).shards]
    except (OSError, ValueError):
        return  # told already, shard by shard
    found = {key: path for path, table in sidecars for key in table["key"].to_pylist()}
    yield from _captions_against(ledger, [table for _, table in sidecars], remedy)
    said = dict(zip(packed["key"].to_pylist(), packed["shard"].to_pylist(), strict=True))
    for key in sorted(said.keys() | found.keys()):
        if said.get(key) != found.get(key):
            places = f"the ledger says {said.get(key, 'nowhere')}, the side-cars {found.get(key, 'nowhere')}"
            yield Problem(where=key, reason=f"packed where? {places}", remedy=remedy)
    own = pc.field("kept") & (pc.field("policy") == name)
    selection = ledger.read("selection", columns=["key"], where=own)
    kept, failed = set(selection["key"].to_pylist()), set(ledger.read("errors", columns=["key"])["key"].to_pylist())
    for key in sorted(kept - said.keys() - failed):
        yield Problem(where=key, reason="kept by the selection but in no shard", remedy=remedy)
    for key in sorted(said.keys() - kept):
        yield Problem(where=key, reason="in a shard but not kept by the selection", remedy=remedy)


def _captions_against(ledger: Ledger, sidecars: Sequence[pa.Table], remedy: str) -> Iterator[Problem]:
    """Compare the captions in the shards with those of the ledger, by their digests."""
    captions = ledger.read("captions", columns=["key", "bound"])
    bound = dict(zip(captions["key"].to_pylist(), captions["bound"].to_pylist(), strict=True))
    for table in sidecars:
        if "caption_bound" in table.column_names:  # without it the samples are told already
            for key, packed in zip(table["key"].to_pylist(), table["caption_bound"].to_pylist(), strict=True):
                if bound.get(key, packed) != packed:
                    reason = "its shard holds another caption than the ledger"
                    yield Problem(where=key, reason=reason, remedy=remedy)


def _keys(root: str, info: ShardInfo) -> pa.Table:
    """Return the keys of a shard and, where its samples have captions, what binds these to their clips."""
    table = read_sidecar(root, info)
    return table.select([name for name in ("key", "caption_bound") if name in table.column_names])
