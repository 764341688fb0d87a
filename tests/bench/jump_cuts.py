"""Films with jump cuts of known place, and continuous ones without any, made from continuous takes of the footage.

A jump cut leaves camera and scene as they are and takes a second or more out of a take. The takes are labelled films
without a cut and the shots of edited films, one of each group of duplicates. Everything follows from a seed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 480
"""Longer side of the made films."""
LONGEST_S = 20.0
LEAST_S = 2.4
"""Shorter takes are left alone: what stays and what goes would not fit in."""
OTHERS = 1
"""In how many ways besides its own each continuous take is shown."""
AWAY_FRAMES = 6
"""Frames left away at either end of a shot of an edited film, where labels may be off."""
LEAST_STEP = 1.0
"""Mean change (0–255) below which a join shows nothing at all: the picture stands still."""
BESIDE_S = 0.5
"""A join is visible if it changes the picture more than every ordinary step this near on either side."""

Frames = NDArray[np.uint8]
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "good": ("libx264", {"crf": "21", "preset": "veryfast", "threads": "1"}),
    "poor": ("libx264", {"crf": "35", "preset": "veryfast", "g": "24", "threads": "1"}),
    "old": ("mpeg4", {"qmin": "7", "qmax": "9", "g": "12", "threads": "1"}),
}
"""Realistic quality; low bitrate whose key frames pop; another codec with short groups of pictures."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """A range of frames of a film without any cut or transition."""

    film: str
    first: int
    end: int

    @property
    def name(self) -> str:
        """Name for files."""
        return f"{self.film.rsplit('.', 1)[0]}-{self.first}"

    @property
    def is_tuning(self) -> bool:
        """Whether limits may be chosen on it: a half of the films, by their names; the other half only judges."""
        return zlib.crc32(self.film.encode()) % 2 == 0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A made film."""

    take: Take
    variant: str
    frames: Sequence[Frames]
    fps: Fraction
    cuts: tuple[int, ...] = ()
    """First frame after each visible join."""
    unseen: tuple[int, ...] = ()
    """First frame after each join that changes no more than an ordinary step: nobody could see it."""
    encoder: str = "good"

    @property
    def name(self) -> str:
        """Name for files."""
        return f"{self.take.name}-{self.variant}-{self.encoder}.mp4"


def takes(footage: Path) -> list[Take]:
    """Return the continuous takes of the labelled footage, one film of each group of duplicates."""
    labels: dict[str, Any] = json.loads((footage / "labels.json").read_text())["files"]
    found: list[Take] = []
    groups: set[str] = set()
    for film, label in sorted(labels.items()):
        group = label.get("dup_group") or film
        if not label.get("cuts_exhaustive") or group in groups or label.get("kind") == "synthetic":
            continue
        groups.add(group)
        found += _shots(film, label)
    return found


def _shots(film: str, label: Mapping[str, Any]) -> Iterator[Take]:
    frames, fps = label["probe"]["n"], float(Fraction(label["probe"]["avg"]))
    ranges = [*(label.get("uncertain") or []), *(t["frames"] for t in label.get("transitions") or [])]
    marks = sorted([(0, 0), *((c["frame"], c["frame"]) for c in label["cuts"]), *map(tuple, ranges), (frames, frames)])
    edited = len(marks) > 2
    reached = 0
    for (_, before), (after, _) in pairwise(marks):
        reached = max(reached, before)
        away = AWAY_FRAMES if edited else 0
        first, end = reached + away, min(after - away, reached + away + round(LONGEST_S * fps))
        if end - first >= LEAST_S * fps:
            yield Take(film=film, first=first, end=end)


def read(footage: Path, take: Take) -> tuple[list[Frames], Fraction]:
    """Return the frames of a take, BGR, shrunk, and its frame rate."""
    frames: list[Frames] = []
    with av.open(str(footage / take.film)) as container:
        stream = container.streams.video[0]
        fps = Fraction(stream.average_rate or 25).limit_denominator(1001)
        for number, frame in enumerate(container.decode(stream)):
            if number >= take.end:
                break
            if number >= take.first:
                scale = min(1.0, SIDE_PX / max(frame.width, frame.height))
                width, height = (round(side * scale / 2) * 2 for side in (frame.width, frame.height))
                frames.append(frame.reformat(width, height, "bgr24").to_ndarray())
    return frames, fps


def jumped(take: Take, frames: Sequence[Frames], fps: Fraction, encoder: str) -> Made:
    """Return a take from which pieces of 1 to 4 s are removed, again and again, between pieces that stay."""
    rng = np.random.default_rng(zlib.crc32(f"{take.name} {encoder}".encode()))
    kept: list[Frames] = []
    joins: list[int] = []
    at, rate = 0, float(fps)
    while True:
        stay = round(rng.uniform(0.7, 2.2) * rate)
        kept += frames[at : at + stay]
        room = (len(frames) - at - stay) / rate - 0.6
        if room < 1.0:
            break
        at += stay + round(rng.uniform(1.0, min(4.0, room)) * rate)
        joins.append(len(kept))
    seen = [join for join in joins if _visible(kept, join, round(BESIDE_S * rate))]
    unseen = tuple(join for join in joins if join not in seen)
    return Made(
        take=take, variant="jumps", frames=kept, fps=fps, cuts=tuple(seen), unseen=unseen, encoder=encoder
    )  # fmt: skip


def _visible(frames: Sequence[Frames], join: int, beside: int) -> bool:
    near = range(max(1, join - beside), min(len(frames), join + beside))
    ordinary = max(_step(frames, at) for at in near if at != join)
    return _step(frames, join) > max(ordinary, LEAST_STEP)


def _step(frames: Sequence[Frames], at: int) -> float:
    return float(np.abs(frames[at].astype(np.int16) - frames[at - 1]).mean())


def continuous(take: Take, frames: Sequence[Frames], fps: Fraction, turn: int) -> Iterator[Made]:
    """Yield a take as it is, and in some of the ways that encoders, cameras and frame-rate converters may deliver it.

    There is no cut in any of them. Each take has `OTHERS` of the ways, by its turn.
    """
    yield Made(take=take, variant="whole", frames=frames, fps=fps)
    ways = [("whole", "poor"), ("whole", "old"), *((variant, "good") for variant in VARIANTS)]
    for variant, encoder in (ways[(OTHERS * turn + k) % len(ways)] for k in range(OTHERS)):
        rng = np.random.default_rng(zlib.crc32(f"{take.name} {variant}".encode()))
        changed = frames if variant == "whole" else VARIANTS[variant](frames, rng)
        yield Made(take=take, variant=variant, frames=changed, fps=fps, encoder=encoder)


def _repeated(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    return [frames[k * 4 // 5] for k in range(len(frames) * 5 // 4)]


def _dropped(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    return [frame for k, frame in enumerate(frames) if k % 5 != 2]


def _stuttering(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    found = list(frames)
    at = 10
    while at + 5 < len(found):
        held = int(rng.integers(1, 4))
        found[at + 1 : at + 1 + held] = [found[at]] * held
        at += int(rng.integers(8, 40))
    return found


def _noisy(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    tile = rng.normal(0, 10, (4, *frames[0].shape)).astype(np.float32)
    return [np.clip(frame + np.roll(tile[k % 4], (7 * k, 13 * k), (0, 1)), 0, 255).astype(np.uint8)
            for k, frame in enumerate(frames)]  # fmt: skip


def _flashing(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    found = list(frames)
    at = int(rng.integers(12, 30))
    while at + 12 < len(found):
        gain, lift, last = rng.uniform(1.1, 1.8), rng.uniform(10, 70), int(rng.integers(1, 5))
        for k in range(last):
            fall = 1 - k / last
            found[at + k] = np.clip(found[at + k] * (1 + (gain - 1) * fall) + lift * fall, 0, 255).astype(np.uint8)
        at += int(rng.integers(20, 60))
    return found


def _panning(frames: Sequence[Frames], rng: np.random.Generator) -> list[Frames]:
    """A crop that sweeps over the take, standing still between fast pans, as a camera on a head does."""
    height, width = (side // 4 * 2 for side in frames[0].shape[:2])
    place = np.array([0.5, 0.5])
    found: list[Frames] = []
    while len(found) < len(frames):
        target, length = rng.random(2), int(rng.integers(8, 30))
        ease = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, length))
        path = [*(place + (target - place) * e for e in ease), *[target] * int(rng.integers(2, 20))]
        for y, x in path[: len(frames) - len(found)]:
            frame = frames[len(found)]
            top, left = round(y * (frame.shape[0] - height)), round(x * (frame.shape[1] - width))
            found.append(np.ascontiguousarray(frame[top : top + height, left : left + width]))
        place = target
    return found


VARIANTS: dict[str, Callable[[Sequence[Frames], np.random.Generator], list[Frames]]] = {
    "repeated": _repeated,
    "dropped": _dropped,
    "stutter": _stuttering,
    "noise": _noisy,
    "flash": _flashing,
    "pan": _panning,
}


def write(made: Made, folder: Path) -> Path:
    """Encode a made film and return its path."""
    path = folder / made.name
    codec, options = ENCODERS[made.encoder]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=made.fps, options=options)
        stream.height, stream.width = made.frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in made.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "bgr24")))
        container.mux(stream.encode(None))
    return path
