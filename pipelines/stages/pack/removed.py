"""Proof that nothing is left of what was taken down: in no table, no picture, no cut clip, no shard, no latents.

    for where, reason, remedy in left(Ledger("RUN")):
        ...

All selections are looked at, whichever is checked otherwise, and what lies about without a table that knows of it.
What was made before of clips, such as a trained model or a video of `reconstruct`, is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import archive, storage, takedowns
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.encoded import encoded_uri
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.shards import ShardError, read_manifest, read_sidecar, sets
from rushes.pipelines.store.takedowns import Down

Left = tuple[str, str, str]
BY_KEY = ("clips", "strips", "sketches", "scores", "captions", "encoded", "labels", "projection")
BY_SELECTION = ("selection", "packed", "rates")
BY_SOURCE = ("frames", "windows", "signals", "witness")
SHOWN = 5
"""Of what is left in one place so many are named."""


def left(ledger: Ledger) -> Iterator[Left]:
    """Yield what is left in a run of what was taken down: where, what, and what to do about it."""
    down = takedowns.now(takedowns.read(ledger))
    if down:
        yield from _in_tables(ledger, down)
        yield from _in_tars(ledger, down)
        yield from _in_shards(ledger, down)
        yield from _beside(ledger, down)


def _in_tables(ledger: Ledger, down: Down) -> Iterator[Left]:
    for table in BY_KEY:
        every = (key for batch in ledger.batches(table, ["key"]) for key in _keys(batch["key"], down))
        yield from _named(f"{ledger.root}/{table}", every, _again(ledger))
    for table in BY_SELECTION:
        for part in ledger.parts(table):
            keys = _keys(flat(ledger.read_part(part, table, ["key"])["key"]), down)
            again = _made_by("latents" if table == "rates" else table, ledger, part.unit.partition(".")[0])
            yield from _named(f"{ledger.root}/{table}", keys, f"run `{again}`")
    for table in BY_SOURCE:
        yield from _named(f"{ledger.root}/{table}", _sources(ledger, table, down), _again(ledger))


def _made_by(kind: str, ledger: Ledger, selection: str) -> str:
    """Return the command that makes the latents of a selection, or all else of it."""
    encode = f"rushes latents {ledger.run} --selection {selection}"
    return encode if kind == "latents" else selections.pack_command(ledger.run, selection)


def _sources(ledger: Ledger, table: str, down: Down) -> Iterator[str]:
    """Yield where a table holds a source that was taken down; of pictures also where it holds a clip of another one."""
    pictures = table in ("frames", "windows")
    whole = pa.array(sorted(down.sources), pa.string())
    parts = pa.array(sorted(down.stretches), pa.string())
    for batch in ledger.batches(table, ["source_id", *(["time_s"] if pictures else [])]):
        yield from pc.unique(batch["source_id"].filter(pc.is_in(batch["source_id"], value_set=whole))).to_pylist()
        for row in batch.filter(pc.is_in(batch["source_id"], value_set=parts)).to_pylist() if pictures else ():
            stretches = down.stretches[row["source_id"]]
            if any(start_s <= row["time_s"] < end_s for start_s, end_s in stretches):
                yield f"{row['source_id']} at {row['time_s']:.3f} s"


def _in_tars(ledger: Ledger, down: Down) -> Iterator[Left]:
    """Look into the tars of cut clips of the units concerned, and at those that no table knows."""
    root = f"{ledger.run}/encoded"
    units = ledger.read("units", ["unit", "source_id"])
    concerned = pa.array(sorted({*down.sources, *down.stretches}), pa.string())
    named = set(units.filter(pc.is_in(units["source_id"], value_set=concerned))["unit"].to_pylist())
    live = {encoded_uri(ledger.run, part.unit, part.fingerprint): part.unit for part in ledger.parts("encoded")}
    for uri in storage.list_files(root):
        if uri not in live or live[uri] in named:
            try:
                yield from _named(uri, _keys(members(uri), down), _again(ledger))
            except archive.ArchiveError as error:
                yield uri, f"cannot be searched for what was taken down: {error}", f"remove it and {_again(ledger)}"


def members(uri: str) -> pa.Array:
    """Return the keys in a tar; only headers are read."""
    keys: list[str] = []

    def note(name: str) -> bool:
        keys.append(name.partition(".")[0])
        return False

    with storage.open_read(uri) as file:
        for _ in archive.read(file, note):
            pass
    return pa.array(keys, pa.string())


def _in_shards(ledger: Ledger, down: Down) -> Iterator[Left]:
    for kind in ("shards", "latents"):
        for name in sets(f"{ledger.run}/{kind}"):
            root = f"{ledger.run}/{kind}/{name}"
            again = _made_by(kind, ledger, name)
            try:
                for info in read_manifest(root).shards:
                    keys = _keys(flat(read_sidecar(root, info)["key"]), down)
                    yield from _named(f"{root}/{info.path}", keys, f"run `{again}`")
            except (ShardError, OSError, ValueError, KeyError) as error:
                yield root, f"cannot be searched for what was taken down: {error}", f"run `{again}`"


def _beside(ledger: Ledger, down: Down) -> Iterator[Left]:
    """Look at captions under way, and at the page of the run, which shows pictures."""
    for uri in storage.list_files(f"{ledger.run}/captions"):
        with storage.open_read(uri) as file:
            keys = _keys(flat(pq.read_table(file, columns=["key"])["key"]), down)
            yield from _named(uri, keys, _again(ledger))
    page = (storage.read_if_there(f"{ledger.run}/report/index.html") or b"").decode(errors="replace")
    meant = [f"{source}-" for source in sorted(down.sources)]
    meant += [clip_key(source, start_s) for source, own in down.stretches.items() for start_s, _ in own]
    yield from _named(f"{ledger.run}/report/index.html", (name for name in meant if f"c-{name}" in page),
                      f"run `rushes report {ledger.run}`")  # fmt: skip


def _keys(keys: pa.Array, down: Down) -> Iterator[str]:
    yield from keys.filter(down.keys(keys)).to_pylist()


def _named(where: str, found: Iterator[str], remedy: str) -> Iterator[Left]:
    """Yield one line for all that is left in one place."""
    names = sorted(set(found))
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield where, f"holds what was taken down: {', '.join(names[:SHOWN])}{more}", remedy


def _again(ledger: Ledger) -> str:
    return f"run `rushes pack --out {ledger.run}`"
