"""A picture of a leg: which worker was at which step when, in a real run on labelled footage with a simulated GPU.

    pytest -m bench -s tests/bench/test_timeline.py     # tests/bench/results/timeline.png

The GPU is a number that Ray is told; the models of the process that has it run on a core. What counts is the order of
things: films are scored while others are still decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.engine import cluster, curate
from rushes.pipelines.progress import Reporter
from tests.bench import sleepers
from tests.bench.conftest import RESULTS

COLOURS = {"scan": "#4477aa", "witness": "#ee6677", "shots": "#ccbb44", "score": "#228833", "sources": "#bbbbbb",
           "encode": "#66ccee", "caption": "#aa3377", "pack": "#777777"}  # fmt: skip
WIDTH, LANE, LEFT = 1500, 34, 150
Row = dict[str, Any]


def draw(did: list[Row], file: Path) -> None:
    """Draw a lane for each worker, a bar for each step of a unit."""
    began, ended = min(one["began"] for one in did), max(one["ended"] for one in did)
    lanes = sorted({one["worker"] for one in did}, key=lambda name: min(d["began"] for d in did if d["worker"] == name))
    image = Image.new("RGB", (LEFT + WIDTH + 20, (len(lanes) + 3) * LANE), "white")
    pen = ImageDraw.Draw(image)
    for number, lane in enumerate(lanes):
        top = number * LANE + 6
        pen.text((8, top + 6), f"worker {lane.split()[-1]}", "black")
        for one in (d for d in did if d["worker"] == lane):
            left, right = (LEFT + (one[edge] - began) / (ended - began) * WIDTH for edge in ("began", "ended"))
            pen.rectangle([left, top, max(right, left + 1), top + LANE - 10], COLOURS.get(one["step"], "black"))
    for number, (step, colour) in enumerate(COLOURS.items()):
        at = LEFT + number * 120
        pen.rectangle([at, (len(lanes) + 1) * LANE, at + 16, (len(lanes) + 1) * LANE + 14], colour)
        pen.text((at + 22, (len(lanes) + 1) * LANE), step, "black")
    pen.text((LEFT, (len(lanes) + 2) * LANE), f"{ended - began:.0f} s from end to end", "black")
    image.save(file)


@pytest.mark.bench
def test_films_are_scored_while_others_are_decoded(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, show: Any
) -> None:
    did: list[Row] = []
    stream = cluster.stream

    def recorded(*given: Any, **more: Any) -> Iterator[Row]:
        for task in stream(*given, **more):
            did.extend(task["did"])
            yield task

    monkeypatch.setattr(cluster, "stream", recorded)
    with sleepers.nodes({"num_cpus": 2, "num_gpus": 1}):
        curate.curate(
            [str(footage)], str(tmp_path / "run"), CurateConfig(), through="score", reporter=Reporter(live=False)
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw(did, RESULTS / "timeline.png")
    scans = [(one["began"], one["ended"]) for one in did if one["step"] == "scan"]
    gpu = {one["worker"] for one in did if one["step"] == "score"}
    looks = [(one["began"], one["ended"]) for one in did if one["worker"] in gpu]
    over, first = max(ended for _, ended in scans), min(began for began, _ in looks)
    busy = sum(min(ended, over) - began for began, ended in looks if began < over) / (over - first)
    scored = sum(one["step"] == "score" and one["began"] < over for one in did)
    rows = [[f"{len(scans)}", f"{over - first:.0f}", f"{busy:.2f}", f"{scored}"]]
    head = [
        "units",
        "both at work, s",
        "of that the GPU's process busy",
        "units scored before the last one was scanned",
    ]
    show("Scan and models at the same time, labelled footage, a simulated GPU", head, rows, did)
    assert len(gpu) == 1 and not gpu & {one["worker"] for one in did if one["step"] == "scan"}
    assert busy >= 0.9 and scored and first < min(ended for _, ended in scans) + 15
