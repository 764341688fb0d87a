"""A disk that is really full ends the run with one sentence; when there is room, the same command ends it well."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rushes.pipelines.engine import cluster, curate
from rushes.pipelines.progress import Reporter
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines.small_run import ALL, CONFIG, content

# What a stage makes; its last table says that a unit is done.
MADE = {
    "scan": ("ledger/frames", "ledger/windows", "ledger/signals"),
    "encode": ("encoded", "ledger/encoded"),
    "pack": ("shards", "ledger/packed"),
}


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A small file system in memory."""

    path: Path

    def resize(self, free_kib: int) -> None:
        used = sum(file.stat().st_blocks for file in self.path.rglob("*")) // 2
        self._mount(f"remount,size={used + free_kib}k")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small disk can only be mounted by root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(path=tmp_path / "disk")
    found.path.mkdir()
    found._mount("size=64m")
    yield found
    cluster.stop()
    subprocess.run(["umount", "--lazy", str(found.path)], check=True)


def test_a_full_disk_is_one_sentence_in_every_stage_and_room_ends_it_in_the_same_bytes(
    undisturbed: str, inputs: Path, disk: Disk
) -> None:
    run = disk.path / "run"
    for stage, folders in MADE.items():
        shutil.copytree(undisturbed, run, dirs_exist_ok=True)
        for folder in folders:
            shutil.rmtree(run / folder)
        disk.resize(free_kib=100)
        with pytest.raises(curate.RunFailed, match=r"cannot write .*: no space left; free some space and run the same"):
            curate.curate([str(inputs)], str(run), CONFIG, reporter=Reporter(live=False))
        done, all_ = (Ledger(where).parts(Path(folders[-1]).name) for where in (str(run), undisturbed))
        assert len(done) < len(all_) and not list(run.rglob("*.part")), f"{stage} left no part that is not whole"
        disk.resize(free_kib=65536)
        curate.curate([str(inputs)], str(run), CONFIG, reporter=Reporter(live=False))
        assert content(run, *ALL) == content(undisturbed, *ALL), stage
