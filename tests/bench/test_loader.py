"""Crops of 32 frames from 720p shards, one core: by seeking and several crops a decode, against one a whole decode.

The other loader is the one that came before: it decodes a clip from its first frame and takes one crop. Target: 4 ×.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.colour.picture import Screen
from rushes.pipelines.stages.encode.encode import ENCODERS, KEY_FRAME_S
from rushes.pipelines.store import shards
from rushes.tokenizer import data
from rushes.tokenizer.config import TrainConfig

ROUNDS, BATCHES = 5, 8
CONFIG = TrainConfig(batch=4, frames=32, side=128, shuffle=8)
FILMS = {"sam2__01_dog.mp4": 289, "sam2__02_cups.mp4": 300, "PySceneDetect__testvideo.mp4": 180}
"""720p films and their frames: ten seconds, the longest a clip becomes by default being of that order."""


def coded(film: Path, frames: int) -> bytes:
    """A clip as the curation encodes it."""
    out = io.BytesIO()
    encoder, options = ENCODERS["h264"]
    with av.open(str(film)) as source, av.open(out, "w", format="mp4") as target:
        rate = Fraction(source.streams.video[0].average_rate or 25).limit_denominator(1001)
        stream = target.add_stream(encoder, rate=rate, options={**options, "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.gop_size = 1, round(KEY_FRAME_S * rate)
        for frame in itertools.islice(source.decode(video=0), frames):
            frame.pict_type, frame.pts = 0, None
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return out.getvalue()


def whole(clip: bytes, config: TrainConfig, dice: random.Random) -> list[np.ndarray]:
    """One crop of a clip that is decoded from its first frame."""
    with av.open(io.BytesIO(clip), metadata_errors="ignore") as container:
        length = container.streams.video[0].frames
        start = int(dice.random() * max(0, length - config.frames))
        container.streams.video[0].codec_context.thread_count = 2
        chosen = list(itertools.islice(container.decode(video=0), start, start + config.frames))
    short = min(chosen[0].width, chosen[0].height)
    scaled = max(config.side, min(round(config.side * (1 + dice.random() * (config.shrink - 1))), short))
    width, height = (max(config.side, round(n * scaled / short)) for n in (chosen[0].width, chosen[0].height))
    left, top = (int(dice.random() * (n - config.side + 1)) for n in (width, height))
    screen = Screen()
    pictures = np.stack([screen.rgb(frame, width, height) for frame in chosen])
    return [np.ascontiguousarray(pictures[:, top : top + config.side, left : left + config.side])]


def crops_a_second(batches: Iterator[dict[str, Any]], count: int) -> float:
    start = time.process_time()
    made = sum(len(batch["keys"]) for batch in itertools.islice(batches, count))
    return made / (time.process_time() - start)


@pytest.mark.bench
def test_crops_a_second_and_core(
    footage: Path, bunny: Path, write_720p: Callable[[dict[str, bytes]], str], show: Any, monkeypatch: Any
) -> None:
    clips = {name: coded(footage / name, frames) for name, frames in FILMS.items()}
    root = write_720p({**clips, "bunny": coded(bunny, 132)})
    plain = data.crops
    found: dict[str, list[float]] = {"whole decodes": [], "1 crop": [], "2 crops": [], "4 crops": [], "8 crops": []}
    readers: dict[str, Iterator[dict[str, Any]]] = {}
    for name in found:
        count = int(name[0]) if name[0].isdigit() else 1
        config = TrainConfig(**{**vars(CONFIG), "crops": count})
        readers[name] = iter(data.ClipBatches(root, config))
    for _, (name, speeds) in itertools.product(range(ROUNDS + 1), found.items()):
        monkeypatch.setattr(data, "crops", whole if name == "whole decodes" else plain)
        speeds.append(crops_a_second(readers[name], BATCHES))
    ratios = {name: median(b / a for a, b in zip(found["whole decodes"][1:], found[name][1:], strict=True))
              for name in found}  # fmt: skip
    rows = [[name, f"{median(speeds[1:]):.1f}", f"{ratios[name]:.1f} ×"] for name, speeds in found.items()]
    show(
        f"Crops of 32 frames a second of CPU time from 720p shards, medians of {ROUNDS}",
        ["loader", "crops a second", "against whole decodes"], rows, found,
    )  # fmt: skip
    assert ratios["4 crops"] >= 4


@pytest.fixture
def write_720p(tmp_path: Path) -> Callable[[dict[str, bytes]], str]:
    def write(clips: dict[str, bytes]) -> str:
        keys = {f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-000000000": clip for name, clip in clips.items()}
        samples = [shards.Sample(key, [("mp4", clip), ("json", b"{}"), ("txt", b"")]) for key, clip in keys.items()]
        info = shards.write_shard(str(tmp_path), "b", "clips", 0, samples)
        shards.write_manifest(str(tmp_path), [info], kind="clips", fingerprint="bench")
        return str(tmp_path)

    return write
