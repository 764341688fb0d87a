"""A small set of shards with real clips of odd shapes, made once; no ledger is needed to export it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import footage
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.store import shards
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.shards import Sample
from tests.tokenizer.conftest import excerpt

BARS = (0.0, 0.0, 0.0, 0.0)
LONG = "A street, “busy”, with bikes. The camera stands;\nit is day."
CLIPS = {
    # name: first picture, pictures, size, caption
    "exact": (0, 65, (96, 64), LONG),
    "long": (0, 180, (100, 60), "Bikes, then \"more\" bikes;\r\n'a' car: #1, 50 %, {x} \\ [y]!"),
    "short": (100, 5, (96, 64), "Too short to learn from."),
    "mute": (60, 50, (64, 96), "A portrait of a street."),
    "wordless": (60, 50, (96, 64), ""),
}
"""Of 25 fps each. At 16 fps these are 42, 115, 3, 32 and 32 frames."""


def key_of(number: int) -> str:
    return clip_key("fedcba9876543210", number)


KEYS = {name: key_of(number) for number, name in enumerate(CLIPS)}


def sample(name: str, film: Path, caption: str) -> Sample:
    row = footage.probe(str(film), ScanConfig())
    mp4, info = encode.cut(str(film), row, 0.0, row["duration_s"], PackConfig(), BARS)
    facts = {
        "key": KEYS[name], "uri": f"s3://user:secret@films/day/{name}.mp4", "start_s": 3.5, "licence": "CC-BY-4.0",
        "rights": "somebody", "caption": caption, "subject": "bikes", "setting": "", **info,
        "sha256": hashlib.sha256(mp4).hexdigest(),
    }  # fmt: skip
    members = [("mp4", mp4), ("json", json.dumps(facts).encode()), ("txt", caption.encode())]
    return Sample(KEYS[name], members)


def write(run: Path, samples: list[Sample]) -> None:
    """Two shards of a selection: all but the last, and the last."""
    root = str(run / "shards" / "day")
    infos = [
        shards.write_shard(root, "b", "clips", 0, samples[:-1]),
        shards.write_shard(root, "c", "clips", 0, samples[-1:]),
    ]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")


def clips(folder: Path, bikes: Path) -> dict[str, Sample]:
    """Cut the clips into a folder and return a sample of each."""
    made = {}
    for name, (first, frames, size, caption) in CLIPS.items():
        film = folder / f"{name}.mp4"
        film.write_bytes(excerpt(bikes, first, frames, *size))
        made[name] = sample(name, film, caption)
    return made


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, bikes: Path) -> dict[str, Sample]:
    return clips(tmp_path_factory.mktemp("films"), bikes)


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Sample]) -> str:
    """A run with nothing but shards; none may change it."""
    run = tmp_path_factory.mktemp("shot") / "run"
    write(run, list(samples.values()))
    return str(run)
