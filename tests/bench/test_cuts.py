"""Cuts and transitions on labelled and made films, against scenedetect and TransNetV2 on the same frames."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from PIL import Image
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, HistogramDetector

from filters import transnet
from filters.shots import Boundary, boundaries
from pipelines import footage as room
from pipelines import witness
from pipelines.config import ScanConfig, ShotsConfig
from pipelines.scan import scan_span
from pipelines.shots import joined, witnessed
from tests.bench import gradual, jump_cuts

NEAR_FRAMES = 2
WIDTH_PX = 256  # about what scenedetect's own downscaling leaves
OURS, ALONE, NETWORK = "Rushes", "Rushes without the witness", "TransNetV2 on all frames"
Count = Counter[str]
SEEN = ("whole", "pan")  # continuous films that TransNetV2 looks at as well: it is slow


@cache
def network() -> witness.Witness:
    """Return the witness, loaded once."""
    return witness.Witness()


class Scanned:
    """What the scan and the witness say of a film."""

    def __init__(self, path: Path):
        source = {**room.probe(str(path), ScanConfig()), "wave": 0, "unit": "u"}
        row, _, _, small = scan_span(source, 0, 0.0, math.inf, ScanConfig())
        self.signals = joined([row])
        self.said = network()([row], {picture["time_s"]: picture["rgb"] for picture in small})
        self.frames = len(self.signals["time_s"])

    def boundaries(self, asks: bool = True) -> list[Boundary]:
        """Return what the decision finds, with the witness or without."""
        said = witnessed(self.signals["time_s"], self.said if asks else [])
        return boundaries({**self.signals, **said}, ShotsConfig())

    def frame(self, time_s: float) -> int:
        """Return the number of the frame at a time."""
        return int(np.searchsorted(self.signals["time_s"], time_s))

    def cuts(self, asks: bool = True) -> list[int]:
        """Return the frames of cuts."""
        return [self.frame(b.start_s) for b in self.boundaries(asks) if b.kind == "cut"]

    def ranges(self) -> list[tuple[str, int, int]]:
        """Return kind, first and last frame of each gradual transition."""
        return [(b.kind, self.frame(b.start_s), self.frame(b.end_s)) for b in self.boundaries() if b.kind != "cut"]


def theirs(path: Path, alone: bool = True) -> dict[str, list[int]]:
    """Return the frames of the cuts that each of scenedetect's detectors finds, and TransNetV2 on all frames."""
    detectors = [ContentDetector(), AdaptiveDetector(), HistogramDetector()]
    found: dict[str, list[int]] = {type(detector).__name__: [] for detector in detectors}
    small: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        code = FrameTimecode(0, fps=fps)
        for number, frame in enumerate(container.decode(stream)):
            code = FrameTimecode(number, fps=fps)
            width = min(WIDTH_PX, frame.width)
            height = round(frame.height * width / frame.width)
            bgr = frame.reformat(width, height, "bgr24", interpolation=Interpolation.BILINEAR).to_ndarray()
            small.append(cv2.resize(bgr, (48, 27), interpolation=cv2.INTER_AREA)[..., ::-1])
            for detector in detectors:
                found[type(detector).__name__] += [cut.frame_num for cut in detector.process_frame(code, bgr)]
        for detector in detectors:
            found[type(detector).__name__] += [c.frame_num for c in detector.post_process(code)]
    if alone:
        found[NETWORK] = everywhere(np.stack(small))
    return found


def everywhere(rgb: np.ndarray) -> list[int]:
    """Return the cuts that TransNetV2 finds on every frame, at its own threshold, as its authors run it."""
    padded = np.concatenate([rgb[:1].repeat(25, 0), rgb, rgb[-1:].repeat(75, 0)])
    said = [transnet.look(network().model, [padded[at : at + 100]])[0, :, 0] for at in range(0, len(rgb), 50)]
    over = np.concatenate([[0], (np.concatenate(said)[: len(rgb)] > 0.5).astype(int), [0]])
    return [int(end) for end in np.flatnonzero(np.diff(over) < 0) if end < len(rgb)]


def scored(
    cuts: Iterable[int], truth: Sequence[int], unscored: Sequence[Sequence[int]]
) -> tuple[Count, dict[str, Any]]:
    """Return how many cuts are right, wrong and missed, and which; in unscored ranges they are neither."""
    missing, wrong, right = list(truth), [], 0
    for cut in sorted(cuts):
        near = [frame for frame in missing if abs(frame - cut) <= NEAR_FRAMES]
        if near:
            missing.remove(min(near, key=lambda frame: abs(frame - cut)))
            right += 1
        elif not any(first <= cut <= last for first, last in unscored):
            wrong.append(cut)
    return Counter(right=right, wrong=len(wrong), missed=len(missing)), {"false": wrong, "missed": missing}


def line(name: str, n: Mapping[str, int]) -> list[Any]:
    """Return a row of a table."""
    right, wrong, missed = n["right"], n["wrong"], n["missed"]
    precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
    f1 = 2 * right / max(2 * right + wrong + missed, 1)
    return [name, right, wrong, missed, f"{precision:.3f}", f"{recall:.3f}", f"**{f1:.3f}**"]


def picture(path: Path, at: int) -> None:
    """Write the two frames of a false cut side by side into the folder of `RUSHES_BENCH_PICTURES`, if that is set."""
    folder = os.environ.get("RUSHES_BENCH_PICTURES")
    if not folder:
        return
    with av.open(str(path)) as container:
        frames = [
            frame.to_ndarray(format="rgb24") for n, frame in enumerate(container.decode(video=0)) if n in (at - 1, at)
        ]
    Path(folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(frames)).save(Path(folder) / f"{path.stem}-{at:06d}.png")


@pytest.mark.bench
def test_cuts_against_the_detectors_of_scenedetect_and_transnet(footage: Path, show: Any) -> None:
    labels = json.loads((footage / "labels.json").read_text())["files"]
    names = [name for name, label in sorted(labels.items()) if label.get("cuts_exhaustive")]
    totals: dict[str, Count] = defaultdict(Counter)
    raw: dict[str, Any] = {}
    looked = frames = 0
    for name in names:
        label, film = labels[name], Scanned(footage / name)
        looked, frames = looked + len(film.said), frames + film.frames
        truth = [cut["frame"] for cut in label.get("cuts", [])]
        unscored = [*(label.get("uncertain") or []), *(t["frames"] for t in label.get("transitions") or [])]
        found = {OURS: film.cuts(), ALONE: film.cuts(asks=False), **theirs(footage / name)}
        for detector, cuts in found.items():
            count, lists = scored(cuts, truth, unscored)
            totals[detector].update(count)
            if any(lists.values()):
                raw.setdefault(name, {})[detector] = lists
        for at in raw.get(name, {}).get(OURS, {}).get("false", []):
            picture(footage / name, at)
    head = ["detector", "right", "wrong", "missed", "precision", "recall", "F1"]
    rows = [line(detector, n) for detector, n in totals.items()]
    rows.append([f"frames that the witness looked at: {looked / frames:.1%}", "", "", "", "", "", ""])
    show(f"Hard cuts on {len(names)} labelled films, within {NEAR_FRAMES} frames", head, rows, raw=raw)
    assert len({n["right"] + n["missed"] for n in totals.values()}) == 1
    n = totals[OURS]
    assert 2 * n["right"] / (2 * n["right"] + n["wrong"] + n["missed"]) >= 0.97
    assert looked < 0.2 * frames


@pytest.mark.bench
def test_jump_cuts_against_the_detectors_of_scenedetect_and_transnet(footage: Path, tmp_path: Path, show: Any) -> None:
    totals: dict[tuple[str, str], Count] = defaultdict(Counter)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    raw: dict[str, Any] = {}
    unseen = looked = frames = 0
    for number, take in enumerate(jump_cuts.takes(footage)):
        pictures, fps = jump_cuts.read(footage, take)
        half = "tuning" if take.is_tuning else "held out"
        encoders = ("good", ("poor", "old")[number % 2])
        films = [jump_cuts.jumped(take, pictures, fps, encoder) for encoder in encoders]
        for made in [*films, *jump_cuts.continuous(take, pictures, fps)]:
            path = jump_cuts.write(made, tmp_path)
            film = Scanned(path)
            looked, frames, unseen = looked + len(film.said), frames + film.frames, unseen + len(made.unseen)
            jumps = made.variant == "jumps"
            found = {
                OURS: film.cuts(),
                ALONE: film.cuts(asks=False),
                **theirs(path, alone=jumps or made.variant in SEEN),
            }
            group = f"jumps, {half}" if jumps else half
            around = [(at - NEAR_FRAMES, at + NEAR_FRAMES) for at in made.unseen]
            for detector, cuts in found.items():
                count, lists = scored(cuts, made.cuts, around)
                totals[detector, group].update(count)
                seconds[detector, group] += len(made.frames) / float(fps)
                if detector == OURS and any(lists.values()):
                    raw[made.name] = lists
                    for at in lists["false"]:
                        picture(path, at)
            path.unlink()
    rows = []
    for detector in dict.fromkeys(name for name, _ in totals):
        cells: list[Any] = [detector]
        for half in ("tuning", "held out"):
            jumps, still = totals[detector, f"jumps, {half}"], totals[detector, half]
            cells.append(f"{jumps['right'] / max(jumps['right'] + jumps['missed'], 1):.3f}")
            cells.append(f"{600 * still['wrong'] / max(seconds[detector, half], 1):.2f}")
        rows.append(cells)
    head = ["detector", "recall, tuning", "false in 10 min, tuning", "recall, held out", "false in 10 min, held out"]
    minutes = sum(seconds[OURS, half] for half in ("tuning", "held out")) / 60
    title = f"Jump cuts, {minutes:.0f} min of continuous footage beside them"
    show(title, head, rows, raw={"films": raw, "unseen": unseen, "looked": looked, "frames": frames})
    assert looked < 0.2 * frames


@pytest.mark.bench
def test_gradual_transitions_are_found_as_ranges(footage: Path, tmp_path: Path, show: Any) -> None:
    found: dict[str, list[bool]] = defaultdict(list)
    raw: dict[str, Any] = {}
    labels = json.loads((footage / "labels.json").read_text())["files"]
    for name, label in sorted(labels.items()):
        if not label.get("transitions") or not label.get("cuts_exhaustive"):
            continue
        ranges = Scanned(footage / name).ranges()
        for truth in label["transitions"]:
            found["labelled"].append(_overlaps(truth["frames"], ranges))
            raw[f"{name} {truth['type']} {truth['frames']}"] = [found["labelled"][-1], ranges]
    takes = jump_cuts.takes(footage)
    for film in gradual.made(footage, takes):
        path = gradual.write(film, tmp_path)
        ranges = Scanned(path).ranges()
        found[f"made: {film.kind}"].append(_overlaps((film.first, film.last), ranges))
        raw[film.name] = [found[f"made: {film.kind}"][-1], film.first, film.last, ranges]
        path.unlink()
    false, seconds = 0, 0.0
    for take in takes:
        film = Scanned(footage / take.film)
        inside = [r for r in film.ranges() if r[2] > take.first and r[1] < take.end and labels[take.film]["cuts"] == []]
        false, seconds = false + len(inside), seconds + float(film.signals["time_s"][-1])
        raw[f"false in {take.name}"] = inside
    rows: list[list[Any]] = [[name, sum(hits), len(hits), f"{np.mean(hits):.2f}"] for name, hits in found.items()]
    rows.append(["false in 10 min of continuous footage", false, "", f"{600 * false / seconds:.2f}"])
    show("Gradual transitions, overlap of at least half", ["set", "found", "of", "share"], rows, raw=raw)
    assert np.mean(found["labelled"]) >= 0.8


def _overlaps(truth: Sequence[int], ranges: Iterable[tuple[str, int, int]]) -> bool:
    first, last = truth
    return any(min(last, end) - max(first, start) >= 0.5 * (last - first) for _, start, end in ranges)
