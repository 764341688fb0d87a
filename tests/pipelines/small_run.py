"""A small run that several tests look at: what goes in, its settings in code and as typed, what must come out equal."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from rushes.pipelines.config import CurateConfig, PackConfig, ScoreConfig
from tests.tokenizer.conftest import excerpt

CONFIG = CurateConfig(pack=PackConfig(shard_mb=2.0, max_side_px=144), score=ScoreConfig(scorers=["quality"]))
FLAGS = ["--pack.shard_mb", "2", "--pack.max_side_px", "144", "--score.scorers", "[quality]"]
ALL = ("ledger", "shards", "encoded")


def gather(bikes: Path, folder: Path) -> None:
    """Lay out traffic with cuts, its bytes again, a man in a car twice, and a text that says it is a video."""
    folder.mkdir()
    shutil.copy(bikes, folder / "bikes.mp4")
    shutil.copy(bikes, folder / "same_bytes.mp4")
    shutil.copy(bikes.parent / "carphone_pristine.mp4", folder / "car.mp4")
    shutil.copy(bikes.parent / "carphone_distorted.mp4", folder / "car_distorted.mp4")
    (folder / "notes.mp4").write_text("no video at all\n" * 50)


def content(run: str | Path, *parts: str) -> dict[str, str]:
    """Return every file below some folders of a run, temporary ones too, with its digest."""
    root = Path(run)
    files = [file for part in parts for file in (root / part).rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


SHOTS = ((0, 30), (60, 30), (85, 30), (160, 30), (200, 30), (120, 30))
"""First picture and number of pictures of each film: short, so that a kill costs little, and of other footage each."""
SIZES = ((320, 136), (256, 144))
"""Of these by turns, so that their clips go into shards of two buckets."""


def films(bikes: Path, folder: Path) -> None:
    """Lay out six films, a unit each, so that one can be done and another half written; and what is none."""
    folder.mkdir()
    for number, (first, frames) in enumerate(SHOTS):
        (folder / f"{number}.mp4").write_bytes(excerpt(bikes, first, frames, *SIZES[number % 2]))
    (folder / "notes.mp4").write_text("no video at all\n" * 50)
