"""Cuts and transitions on labelled and made films, against scenedetect and TransNetV2 on the same frames."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from PIL import Image
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode, HistogramDetector

from rushes.filters import cuts as decision
from rushes.filters import transnet
from rushes.filters.shots import Boundary, boundaries, clips
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import joined, witnessed
from rushes.pipelines.stages.witness import witness
from tests.bench import gradual, jump_cuts

NEAR_FRAMES = 2
WIDTH_PX = 256  # about what scenedetect's own downscaling leaves
OURS, ALONE, NETWORK = "Rushes", "Rushes without the witness", "TransNetV2 on all frames"
Count = Counter[str]
Scans = dict[str, "Scanned"]


class Everywhere(witness.Witness):
    """The witness when it is asked about all frames that may be cuts, whatever its answer can change."""

    def ranges(self, whole: dict[str, np.ndarray]) -> list[tuple[int, int]]:
        """Return the ranges of frames beside them."""
        steps, frames = decision.candidates(whole, self.rules).steps, len(whole["time_s"])
        beside = [(max(0, at - decision.BESIDE), min(frames, at + decision.BESIDE)) for at in steps.tolist()]
        return witness.told(whole, beside)


@cache
def network(everywhere: bool = False) -> witness.Witness:
    """Return the witness, loaded once."""
    return (Everywhere if everywhere else witness.Witness)(ShotsConfig())


class Scanned:
    """What the scan and the witness say of a film."""

    def __init__(self, path: Path, everywhere: bool = False):
        source = {**room.probe(str(path), ScanConfig()), "wave": 0, "unit": "u"}
        row, _, _, small = scan_span(source, 0, 0.0, math.inf, ScanConfig())
        self.signals = joined([row])
        self.said = network(everywhere)([row], {picture["time_s"]: picture["jpeg"] for picture in small})
        self.frames = len(self.signals["time_s"])
        self.height = min(source["width"], source["height"])

    def boundaries(self, asks: bool = True) -> list[Boundary]:
        """Return what the decision finds, with the witness or without."""
        return boundaries(self.witnessed() if asks else self.signals, ShotsConfig())

    def witnessed(self) -> dict[str, np.ndarray]:
        """Return what both say of each frame."""
        return {**self.signals, **witnessed(self.signals["time_s"], self.said)}

    def as_labelled(self, label: Mapping[str, Any], frames: Iterable[int]) -> list[int]:
        """Return frames as a label counts them, which may be those of another stream than the footage."""
        probe = label["probe"]
        if min(probe["w"], probe["h"]) == self.height:
            return list(frames)
        rate = float(Fraction(probe["avg"]))
        return [round(float(self.signals["time_s"][min(at, self.frames - 1)]) * rate) for at in frames]

    def frame(self, time_s: float) -> int:
        """Return the number of the frame at a time."""
        return int(np.searchsorted(self.signals["time_s"], time_s))

    def cuts(self, asks: bool = True) -> list[int]:
        """Return the frames of cuts."""
        return [self.frame(b.start_s) for b in self.boundaries(asks) if b.kind == "cut"]

    @property
    def seconds(self) -> float:
        """Return how long it is."""
        return float(self.signals["time_s"][-1] + self.signals["duration_s"][-1])

    def keeps(self, transition: Sequence[int]) -> bool:
        """Whether a clip reaches into a transition by more than is trimmed anyway."""
        times, rules = self.signals["time_s"], ShotsConfig()
        kept, _ = clips(self.boundaries(), 0.0, self.seconds, rules, time_s=times, change=self.signals["change"])
        start_s, end_s = times[transition[0]], times[min(transition[1], self.frames - 1)]
        return any(min(end_s, clip.end_s) - max(start_s, clip.start_s) > rules.trim_s for clip in kept)

    def ranges(self) -> list[tuple[str, int, int]]:
        """Return kind, first and last frame of each gradual transition."""
        return [(b.kind, self.frame(b.start_s), self.frame(b.end_s)) for b in self.boundaries() if b.kind != "cut"]


def theirs(path: Path, alone: bool = True) -> dict[str, list[int]]:
    """Return the frames of the cuts that each of scenedetect's detectors finds, and TransNetV2 on all frames."""
    detectors = [ContentDetector(), AdaptiveDetector(), HistogramDetector()]
    found: dict[str, list[int]] = {type(detector).__name__: [] for detector in detectors}
    small: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = room.video_stream(container)
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
    said = [transnet.look(network().model, padded[at : at + 100])[25:75, 0] for at in range(0, len(rgb), 50)]
    over = np.concatenate([[0], (np.concatenate(said)[: len(rgb)] > 0.5).astype(int), [0]])
    return [int(end) for end in np.flatnonzero(np.diff(over) < 0) if end < len(rgb)]


class Film(NamedTuple):
    """A made film when it has been looked at."""

    made: jump_cuts.Made
    scanned: Scanned
    theirs: dict[str, list[int]]


@pytest.fixture(scope="session")
def labelled(footage: Path) -> Scans:
    """Return the scans of the films whose cuts are all labelled."""
    return {
        name: Scanned(footage / name) for name, label in sorted(labels(footage).items()) if label["cuts_exhaustive"]
    }


@pytest.fixture(scope="session")
def made_films(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Film]:
    """Return films with jump cuts and continuous ones, each looked at once by everybody, without their frames.

    TransNetV2, which is slow, sees the held-out ones with jump cuts at good quality and every sixth untouched take.
    """
    found, folder = list[Film](), tmp_path_factory.mktemp("films")
    for turn, take in enumerate(jump_cuts.takes(footage)):
        pictures, fps = jump_cuts.read(footage, take)
        encoders = ("good", ("poor", "old")[turn % 2])
        jumped = [jump_cuts.jumped(take, pictures, fps, encoder) for encoder in encoders]
        for made in [*jumped, *jump_cuts.continuous(take, pictures, fps, turn)]:
            path, jumps = jump_cuts.write(made, folder), made.variant == "jumps"
            shown = not take.is_tuning if jumps else made.variant == "whole" and turn % 6 == 0
            alone = made.encoder == "good" and shown
            scanned = Scanned(path)
            film = Film(replace(made, frames=()), scanned, theirs(path, alone))
            for at in scored(scanned.cuts(), made.cuts, _unscored(made))[1]["false"]:
                picture(path, at)
            found.append(film)
            path.unlink()
    return found


def labels(footage: Path) -> dict[str, Any]:
    """Return the labels of the footage by name."""
    found: dict[str, Any] = json.loads((footage / "labels.json").read_text())["files"]
    return {name: {"cuts_exhaustive": False, **label} for name, label in found.items()}


def _unscored(made: jump_cuts.Made) -> list[tuple[int, int]]:
    return [(at - NEAR_FRAMES, at + NEAR_FRAMES) for at in made.unseen]


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
def test_cuts_against_the_detectors_of_scenedetect_and_transnet(footage: Path, labelled: Scans, show: Any) -> None:
    totals: dict[str, Count] = defaultdict(Counter)
    raw: dict[str, Any] = {}
    looked = frames = edited = 0
    for name, film in labelled.items():
        label = labels(footage)[name]
        looked, frames = looked + len(film.said), frames + film.frames
        truth = [cut["frame"] for cut in label.get("cuts", [])]
        edited += bool(truth)
        unscored = [*(label.get("uncertain") or []), *(t["frames"] for t in label.get("transitions") or [])]
        beside = theirs(footage / name, alone=bool(truth))
        for detector, cuts in {OURS: film.cuts(), ALONE: film.cuts(asks=False), **beside}.items():
            count, lists = scored(film.as_labelled(label, cuts), truth, unscored)
            totals[detector].update(count)
            if any(lists.values()):
                raw.setdefault(name, {})[detector] = lists
        for at in raw.get(name, {}).get(OURS, {}).get("false", []):
            picture(footage / name, at)
    head = ["detector", "right", "wrong", "missed", "precision", "recall", "F1"]
    rows = [line(detector, n) for detector, n in totals.items()]
    rows.append([f"frames that the witness looked at: {looked / frames:.1%}", "", "", "", "", "", ""])
    rows.append([f"{NETWORK}: of the {edited} films with cuts, for its slowness", "", "", "", "", "", ""])
    show(f"Hard cuts on {len(labelled)} labelled films, within {NEAR_FRAMES} frames", head, rows, raw=raw)
    assert len({n["right"] + n["missed"] for n in totals.values()}) == 1
    n = totals[OURS]
    assert 2 * n["right"] / (2 * n["right"] + n["wrong"] + n["missed"]) >= 0.97
    assert looked < 0.2 * frames


@pytest.mark.bench
def test_jump_cuts_against_the_detectors_of_scenedetect_and_transnet(made_films: list[Film], show: Any) -> None:
    totals: dict[tuple[str, str], Count] = defaultdict(Counter)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    raw: dict[str, Any] = {}
    for made, film, beside in made_films:
        half = "tuning" if made.take.is_tuning else "held out"
        group = f"jumps, {half}" if made.variant == "jumps" else half
        for detector, cuts in {OURS: film.cuts(), ALONE: film.cuts(asks=False), **beside}.items():
            count, lists = scored(cuts, made.cuts, _unscored(made))
            totals[detector, group].update(count)
            seconds[detector, group] += film.frames / float(made.fps)
            if detector == OURS and any(lists.values()):
                raw[made.name] = lists
    rows = []
    for detector in dict.fromkeys(name for name, _ in totals):
        cells: list[Any] = [detector]
        for half in ("tuning", "held out"):
            jumps, still = totals[detector, f"jumps, {half}"], totals[detector, half]
            cuts_made = jumps["right"] + jumps["missed"]
            cells.append(f"{jumps['right'] / cuts_made:.3f}" if cuts_made else "not shown")
            cells.append(f"{600 * still['wrong'] / max(seconds[detector, half], 1):.2f}")
        rows.append(cells)
    head = ["detector", "recall, tuning", "false in 10 min, tuning", "recall, held out", "false in 10 min, held out"]
    minutes = {name: sum(seconds[name, half] for half in ("tuning", "held out")) / 60 for name in (OURS, NETWORK)}
    title = f"Jump cuts, {minutes[OURS]:.0f} min of continuous footage beside them"
    looked, frames = (sum(counts) for counts in zip(*((len(f.said), f.frames) for _, f, _ in made_films), strict=True))
    unseen = sum(len(made.unseen) for made, *_ in made_films)
    show(
        title, head, rows, raw={"films": raw, "unseen": unseen, "looked": looked, "frames": frames, "minutes": minutes}
    )
    assert looked < 0.2 * frames


@pytest.mark.bench
def test_gradual_transitions_are_found_as_ranges(
    footage: Path, labelled: Scans, made_films: list[Film], tmp_path: Path, show: Any
) -> None:
    found: dict[str, list[bool]] = defaultdict(list)
    raw: dict[str, Any] = {}
    kept_inside = 0
    for name, film in labelled.items():
        label = labels(footage)[name]
        ranges = [(kind, *film.as_labelled(label, ends)) for kind, *ends in film.ranges()]
        counted = film.as_labelled(label, range(film.frames))
        for truth in label.get("transitions") or []:
            found["labelled"].append(_overlaps(truth["frames"], ranges))
            kept_inside += film.keeps(np.searchsorted(counted, truth["frames"]))
            raw[f"{name} {truth['type']} {truth['frames']}"] = [found["labelled"][-1], ranges]
    for made in gradual.made(footage, jump_cuts.takes(footage)):
        path = gradual.write(made, tmp_path)
        ranges = Scanned(path).ranges()
        half = "tuning" if made.is_tuning else "held out"
        found[f"made, {half}: {made.kind}"].append(_overlaps((made.first, made.last), ranges))
        raw[made.name] = [made.first, made.last, ranges]
        path.unlink()
    rows: list[list[Any]] = [
        [name, sum(hits), len(hits), f"{np.mean(hits):.2f}"] for name, hits in sorted(found.items())
    ]
    rows.append(["labelled ones that a clip overlaps", kept_inside, len(found["labelled"]), ""])
    uncut = {name: film for name, film in labelled.items() if _is_continuous(labels(footage)[name])}
    moved = {made.name: film for made, film, _ in made_films if made.variant != "jumps"}
    for title, still in (("uncut films", uncut), ("continuous takes, made", moved)):
        false = {name: ranges for name, film in still.items() if (ranges := film.ranges())}
        count, minutes = sum(map(len, false.values())), sum(film.seconds for film in still.values()) / 60
        rows.append([f"false in 10 min of {title} ({minutes:.1f} min)", count, "", f"{10 * count / minutes:.2f}"])
        raw[f"false in {title}"] = false
    show("Gradual transitions, overlap of at least half", ["set", "found", "of", "share"], rows, raw=raw)
    assert np.mean(found["labelled"]) >= 0.8
    assert kept_inside == 0


def _is_continuous(label: Mapping[str, Any]) -> bool:
    return not label.get("cuts") and not label.get("transitions") and label.get("kind") != "synthetic"


def _overlaps(truth: Sequence[int], ranges: Iterable[tuple[str, int, int]]) -> bool:
    first, last = truth
    return any(min(last, end) - max(first, start) >= 0.5 * (last - first) for _, start, end in ranges)
