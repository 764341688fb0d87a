"""Cuts on the labelled films against scenedetect's detectors with their own defaults, on the same frames."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, HistogramDetector

from filters.shots import boundaries
from pipelines import footage as room
from pipelines.config import ScanConfig, ShotsConfig
from pipelines.scan import scan_span
from pipelines.shots import joined

NEAR_FRAMES = 2
WIDTH_PX = 256  # about what scenedetect's own downscaling leaves
OURS = "rushes"


def ours(path: Path) -> list[int]:
    """Return the frame numbers of our cuts."""
    source = {**room.probe(str(path), ScanConfig()), "wave": 0, "unit": "u"}
    signals = joined([scan_span(source, 0, 0.0, math.inf, ScanConfig())[0]])
    cuts = [b.start_s for b in boundaries(signals, ShotsConfig()) if b.kind == "cut"]
    return [int(np.searchsorted(signals["time_s"], cut)) for cut in cuts]


def theirs(path: Path) -> dict[str, list[int]]:
    """Return the frame numbers of the cuts that each of scenedetect's detectors finds."""
    detectors = [ContentDetector(), AdaptiveDetector(), HistogramDetector()]
    found: dict[str, list[int]] = {type(detector).__name__: [] for detector in detectors}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        code = FrameTimecode(0, fps=fps)
        for number, frame in enumerate(container.decode(stream)):
            code = FrameTimecode(number, fps=fps)
            width = min(WIDTH_PX, frame.width)
            height = round(frame.height * width / frame.width)
            bgr = frame.reformat(width, height, "bgr24", interpolation=Interpolation.BILINEAR).to_ndarray()
            for detector in detectors:
                found[type(detector).__name__] += [cut.frame_num for cut in detector.process_frame(code, bgr)]
        for detector in detectors:
            found[type(detector).__name__] += [c.frame_num for c in detector.post_process(code)]
    return found


def scored(cuts: Sequence[int], label: Mapping[str, Any]) -> Counter[str]:
    """Return how many cuts are right, wrong and missed; in uncertain and gradual ranges they are neither."""
    missing = [cut["frame"] for cut in label.get("cuts", [])]
    unscored = [*label.get("uncertain", []), *(t["frames"] for t in label.get("transitions", []))]
    count = Counter(right=0, wrong=0)
    for cut in sorted(cuts):
        near = [truth for truth in missing if abs(truth - cut) <= NEAR_FRAMES]
        if near:
            missing.remove(min(near, key=lambda truth: abs(truth - cut)))
            count["right"] += 1
        elif not any(first <= cut <= last for first, last in unscored):
            count["wrong"] += 1
    count["missed"] = len(missing)
    return count


@pytest.mark.bench
def test_cuts_against_the_detectors_of_scenedetect(footage: Path, show: Any) -> None:
    labels = json.loads((footage / "labels.json").read_text())["files"]
    names = [name for name, label in sorted(labels.items()) if label.get("cuts_exhaustive")]
    totals: dict[str, Counter[str]] = {}
    for name in names:
        for detector, cuts in {OURS: ours(footage / name), **theirs(footage / name)}.items():
            totals.setdefault(detector, Counter()).update(scored(cuts, labels[name]))
    rows = []
    for detector, n in totals.items():
        right, wrong, missed = n["right"], n["wrong"], n["missed"]
        precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
        f1 = 2 * right / max(2 * right + wrong + missed, 1)
        rows.append([detector, right, wrong, missed, f"{precision:.3f}", f"{recall:.3f}", f"**{f1:.3f}**"])
    head = ["detector", "right", "wrong", "missed", "precision", "recall", "F1"]
    show(f"Hard cuts on {len(names)} labelled films, within {NEAR_FRAMES} frames", head, rows)
    assert len({n["right"] + n["missed"] for n in totals.values()}) == 1 and totals[OURS]["right"] > 0
