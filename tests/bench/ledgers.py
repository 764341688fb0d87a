"""The ledger of a large run, made of a small real one: every row is a real row, varied, none of them repeated.

    python -m tests.bench.ledgers /tmp/large --clips 1000000 [--real RUN]

A source of the large run is a source of the real one under another identity, with other lengths, measures and hashes;
one in twenty is a copy of another: its hashes but for a bit here and there, at another size and bit rate. All tables
are there that selection, report, account, encoding and packing read; neither footage nor tars. Parts are made side by
side, each from its own numbers alone, so that equal arguments give equal rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.select import dedup, select, selections
from rushes.pipelines.store import shards
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import ROW_GROUP, SCHEMA_VERSION, Ledger, fingerprint
from rushes.pipelines.store.tables import TABLES
from tests.bench import ledger_rows as rows_of
from tests.bench import variations as vary
from tests.bench.ledger_rows import Real, Sources

SHARD_BYTES = 512 * 10**6


def make(
    out: str, clips: int, real: str, *, per_part: int = 1000, seed: int = 0, vectors: bool = False, strips: bool = True,
    workers: int = 0,
) -> Ledger:  # fmt: skip
    """Make the ledger of a run of so many clips, rounded up to whole sources, and return it.

    Args:
        out: folder of the large run; nothing may be there.
        clips: clips in it.
        real: the run that it is made of.
        per_part: clips of a unit, and so of a part file of most tables.
        seed: another one gives another run.
        vectors: whether the embeddings are there as well, 5 kB a clip.
        strips: whether the strips are there, 5 kB a clip.
        workers: processes; 0 for one on each CPU.
    """
    made, given = Ledger(out), Real.of(real)
    if made.check():
        raise ValueError(f"{out} is a run already; name another folder")
    made.create()
    for name in ("config.yaml", "policies"):
        (shutil.copytree if name == "policies" else shutil.copy)(f"{real}/{name}", f"{out}/{name}")
    work = partial(_unit, out=out, real=real, seed=seed, vectors=vectors, strips=strips)
    blocks = list(_blocks(given, clips, per_part, seed))
    workers = min(workers or os.cpu_count() or 1, len(blocks))
    if workers == 1:
        facts = [work(block) for block in blocks]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            facts = list(pool.map(work, blocks, chunksize=4))
    _plan(made, [fact["plan"] for fact in facts])
    _select(
        made, pa.concat_tables(fact["verdicts"] for fact in facts), pa.concat_tables(fact["pairs"] for fact in facts)
    )
    _pack(made, seed)
    return made


def _blocks(real: Real, clips: int, per_part: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """Yield the units, each with its range of sources."""
    numbers = np.arange(clips, dtype=np.int64)  # a source has a clip or more
    ends = np.cumsum(real.clip_counts[Sources(numbers, real, seed).templates])
    last = int(np.searchsorted(ends, clips)) + 1
    units = -(-clips // per_part)
    edges = np.searchsorted(ends[:last], np.arange(1, units) * per_part) + 1
    edges = np.unique(np.r_[0, edges, last])
    for place, (begin, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        yield f"w0000-{place:05d}", begin, end


def write(ledger: Ledger, table: str, unit: str, rows: pa.Table) -> None:
    """Write a part as `Ledger.write` does, without waiting for the disk."""
    print_ = fingerprint("bench")
    meta = {"rushes.schema": str(SCHEMA_VERSION), "rushes.table": table, "rushes.fingerprint": print_}
    folder = Path(ledger.root) / table
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        rows.cast(TABLES[table]).replace_schema_metadata(meta), folder / f"part-{unit}.{print_}.parquet",
        compression="zstd", row_group_size=ROW_GROUP.get(table, 65_536),
    )  # fmt: skip


def _unit(
    block: tuple[str, int, int], *, out: str, real: str, seed: int, vectors: bool, strips: bool
) -> dict[str, pa.Table]:
    """Write the parts of a unit; return its plan, its verdicts and its pairs."""
    unit, begin, end = block
    given, ledger = _read(real), Ledger(out)
    own = Sources(np.arange(begin, end), given, seed)
    dice = np.random.default_rng([seed, begin])
    sources, plan = rows_of.sources(own, unit, dice)
    clips, rows, owner = rows_of.clips(own, unit, dice)
    verdicts, pairs = rows_of.verdicts(own, clips, rows, owner)
    kept = np.flatnonzero(flat(verdicts["kept"]).to_numpy(zero_copy_only=False))
    kept_clips = clips.take(pa.array(kept))
    tables = {
        "sources": sources,
        "clips": clips,
        "trims": rows_of.trims(own),
        "scores": rows_of.scores(own, clips, rows, dice, vectors),
        "sketches": rows_of.sketches(given, clips, rows),
        "captions": rows_of.captions(given, kept_clips, rows[kept]),
        "encoded": rows_of.encoded(own, kept_clips, rows[kept], owner[kept], unit),
    }
    if strips:
        tables["strips"] = rows_of.of_clips(given, "strips", clips, rows)
    for name, table in tables.items():
        write(ledger, name, unit, table)
    write(ledger, "signals", f"{unit}-000", rows_of.signals(own, clips, owner))  # a scan unit is a part of one
    for stage, errors in rows_of.errors(own, clips, rows, unit).items():
        write(ledger, "errors", f"{stage}-{unit}", errors)
        if stage == "sources":
            waves = np.zeros(len(errors), int)
            unread = rows_of.columns("plan", pa.table({}), unit=errors["unit"], uri=errors["uri"], wave=waves)
            plan = pa.concat_tables([plan, unread])
    return {"plan": plan, "verdicts": verdicts, "pairs": pairs}


_REAL: dict[str, Real] = {}


def _read(run: str) -> Real:
    """Return a run, read once in a process."""
    if run not in _REAL:
        _REAL[run] = Real.of(run)
    return _REAL[run]


def _plan(ledger: Ledger, parts: list[pa.Table]) -> None:
    write(ledger, "plan", "w0000", pa.concat_tables(parts).sort_by("uri"))


def _select(ledger: Ledger, verdicts: pa.Table, pairs: pa.Table) -> None:
    """Write the selection through the door that every selection goes through, so that it counts as done."""
    at = f"{ledger.run}/policies/{verdicts['policy'][0].as_py()}.yaml"
    policy = select.read_policy(at)
    same = dedup.same_bytes(ledger.read("sources", ["source_id", "uri", "wave", "unit", "size_bytes"]), policy)
    selections.write(
        ledger, policy, select.policy_text(at), verdicts.sort_by("key"), pa.concat_tables([pairs.sort_by("key"), same])
    )


def _pack(ledger: Ledger, seed: int) -> None:
    """Write what packing leaves in the ledger, a part for each shard, and the manifest of tars that are not there."""
    policy = selections.names(ledger)[0]
    rows = ledger.read("encoded", ["key", "bucket", "size_bytes", "sha256"]).sort_by([("bucket", "ascending"),
                                                                                     ("key", "ascending")])  # fmt: skip
    infos = []
    for bucket in pc.unique(rows["bucket"]).to_pylist():
        own = rows.filter(pc.equal(rows["bucket"], bucket)).combine_chunks()
        before = np.cumsum(own["size_bytes"].to_numpy()) // SHARD_BYTES
        edges = np.flatnonzero(np.diff(before, prepend=-1, append=before[-1] + 1)).tolist()
        for index, (begin, end) in enumerate(pairwise(edges)):
            piece, path = own.slice(begin, end - begin), f"{bucket}/clips-{index:06d}.tar"
            size = len(piece)
            write(ledger, "packed", pack.shard_unit(policy, bucket, index), rows_of.columns(
                "packed", piece, policy=[policy] * size, shard=[path] * size, index=np.arange(size)))  # fmt: skip
            infos.append(shards.ShardInfo(path=path, samples=size, size_bytes=pc.sum(piece["size_bytes"]).as_py(),
                                          sha256=vary.digests(np.array([len(infos)]), 60 + seed)[0]))  # fmt: skip
    shards.write_manifest(pack.shards_root(ledger.run, policy), infos, kind="clips", fingerprint=fingerprint("bench"),
                          extra={"policy": policy})  # fmt: skip


def small_run(folder: Path) -> str:
    """Curate the demo's footage into a folder, about a minute of work, and return the run."""
    from rushes.pipelines.cli import demo_footage
    from rushes.pipelines.config import CurateConfig
    from rushes.pipelines.engine import curate
    from rushes.pipelines.progress import Reporter
    from tests.pipelines.one_process import in_one_process

    demo_footage.footage(folder / "footage")
    with in_one_process():
        curate.curate([str(folder / "footage")], str(folder / "run"), CurateConfig(), reporter=Reporter(live=False))
    return str(folder / "run")


def main() -> None:
    """Make a large run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the run that is made")
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--real", help="a small finished run; without it the demo's footage is curated first")
    parser.add_argument("--per-part", type=int, default=1000, help="clips of a unit, and so of a part file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", action="store_true", help="embeddings as well, 5 kB a clip")
    parser.add_argument("--no-strips", action="store_true", help="no strips, which take 5 kB a clip")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        real = given.real or small_run(Path(folder))
        begun = time.perf_counter()
        made = make(given.out, given.clips, real, per_part=given.per_part, seed=given.seed, vectors=given.vectors,
                    strips=not given.no_strips, workers=given.workers)  # fmt: skip
    print(f"{made.run}: {made.dataset('clips').count_rows():,} clips in {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
