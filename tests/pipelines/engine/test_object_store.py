"""A run whose inputs and outputs are in an object store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import s3fs

from rushes.pipelines.cli.main import main
from rushes.pipelines.export import verify as exported
from rushes.pipelines.report import accounting
from rushes.pipelines.stages.pack import verify
from rushes.pipelines.store import shards
from rushes.pipelines.store.ledger import Ledger

REPO = Path(__file__).parents[3]


def test_a_run_from_bucket_to_bucket(s3: str, bikes: Path, tmp_path: Path, one_process: None):
    store = s3fs.S3FileSystem()
    store.put(str(bikes), f"{s3}/footage/deep/bikes.mp4")
    store.pipe(f"{s3}/footage/notes.mp4", b"no video at all\n" * 50)
    command = [sys.executable, "-m", "rushes.pipelines.cli.main", "curate", f"{s3}/footage/", "--out", f"{s3}/run",
               "--score.scorers", "[quality]", "--pack.max_side_px", "144", "--json"]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(REPO)}
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert [failure["uri"] for failure in found["failures"]] == [f"{s3}/footage/notes.mp4"]

    run = f"{s3}/run"
    assert verify.verify(run, full=True) == []
    accounting.account(run).check()
    kept = {row["key"] for row in Ledger(run).read("selection").to_pylist() if row["kept"]}
    read = [sample["__key__"] for sample in shards.pipeline(f"{run}/shards")]
    assert len(read) == len(set(read)) and set(read) == kept and kept

    assert store.exists(f"{run}/report/index.html")
    names = [name for name in store.find(f"{run}/ledger") if name.endswith(".parquet")]
    before = {name: store.info(name)["LastModified"] for name in names}
    assert main(command[3:]) == 3
    store.invalidate_cache()
    assert {name: store.info(name)["LastModified"] for name in names} == before
    _loses_a_clip_everywhere(run, tmp_path, sorted(kept)[0], f"{s3}/footage/deep/bikes.mp4")


def _loses_a_clip_everywhere(run: str, folder: Path, key: str, uri: str) -> None:
    """What is taken down leaves the bucket and, when they are made again, the exports of it."""
    out = folder / "train"
    export = ["export", run, "--to", "folder", "--for", "wan", "--multiple", "2", "--out", str(out)]
    (folder / "list.csv").write_text(f'key,reason\n{key},"asked for, by ""letter"""\n')
    assert main(export) == 0 and (out / "videos" / f"{key}.mp4").exists()
    assert main(["curate", "--takedown", str(folder / "list.csv"), "--out", run]) == 3
    assert verify.verify(run) == [] and key not in {one["__key__"] for one in shards.pipeline(f"{run}/shards")}
    assert any(key in problem for problem in exported.of_run(run, str(out)))
    assert main(export) == 0 and exported.of_run(run, str(out)) == []
    assert not [path for path in out.rglob("*") if key in path.name]
    (row,) = Ledger(run).read("takedowns").to_pylist()
    assert (row["named"], row["reason"], row["uri"]) == (key, 'asked for, by "letter"', uri) and row["since"]
