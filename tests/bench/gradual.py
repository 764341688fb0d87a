"""Films with a gradual transition of known kind and place between two takes of the footage."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from tests.bench import jump_cuts
from tests.bench.jump_cuts import Frames, Take

KINDS = ("dissolve", "wipe", "black", "white")
MOST_FRAMES = 240
"""Frames of a take that are read: 4 s at 60 a second."""
AROUND_S = 1.6
"""Seconds of each take beside the transition."""


@dataclass(frozen=True, kw_only=True)
class Gradual:
    """A made film with one transition."""

    name: str
    kind: str
    frames: Sequence[Frames]
    fps: Fraction
    first: int
    """Last frame of the old take alone."""
    last: int
    """First frame of the new take alone."""
    is_tuning: bool


def made(footage: Path, takes: Sequence[Take]) -> Iterator[Gradual]:
    """Yield a film of each kind for each pair of neighbouring takes of two films, in turns."""
    pairs = [(a, b) for a, b in pairwise(takes) if a.film != b.film]
    read = lru_cache(2)(
        lambda take: jump_cuts.read(footage, replace(take, end=min(take.end, take.first + MOST_FRAMES)))
    )
    for number, (old, new) in enumerate(pairs):
        (before, fps), (after, _) = read(old), read(new)
        size = before[0].shape[1::-1]
        after = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in after[: round(4 * fps)]]
        for kind in (KINDS[number % 4], KINDS[(number + 1 + number // 4) % 4]):
            rng = np.random.default_rng(zlib.crc32(f"{old.name} {kind}".encode()))
            length = round(float(rng.uniform(0.4, min(2.0, len(after) / float(fps) - 0.6))) * fps)
            around = max(1, min(round(AROUND_S * fps), len(before) - length, len(after) - length))
            head, tail = before[: around + length], after[: around + length]
            frames = [*head[:around], *_between(head[around:], tail[:length], kind, rng), *tail[length:]]
            yield Gradual(
                name=f"{old.name}-{kind}.mp4", kind=kind, frames=frames, fps=fps,
                first=around - 1, last=around + length, is_tuning=old.is_tuning,
            )  # fmt: skip


def _between(old: Sequence[Frames], new: Sequence[Frames], kind: str, rng: np.random.Generator) -> Iterator[Frames]:
    down, back = bool(rng.integers(2)), bool(rng.integers(2))
    for k, (a, b) in enumerate(zip(old, new, strict=True)):
        weight = (k + 1) / (len(old) + 1)
        if kind == "wipe":
            yield _wiped(a, b, weight, down, back)
        elif kind == "dissolve":
            yield cv2.addWeighted(a, 1 - weight, b, weight, 0)
        else:
            level = 255.0 if kind == "white" else 0.0
            picture, share = (a, 1 - 2 * weight) if weight < 0.5 else (b, 2 * weight - 1)
            yield np.clip(picture * share + level * (1 - share), 0, 255).astype(np.uint8)


def _wiped(a: Frames, b: Frames, weight: float, down: bool, back: bool) -> Frames:
    place = np.linspace(0, 1, a.shape[0 if down else 1], dtype=np.float32)
    place = place[::-1] if back else place
    mask = np.clip((1.05 * weight - place) / 0.05, 0, 1)
    mask = mask[:, None, None] if down else mask[None, :, None]
    return (a * (1 - mask) + b * mask).astype(np.uint8)


def write(film: Gradual, folder: Path) -> Path:
    """Encode a made film and return its path."""
    take = Take(film=film.name, first=0, end=0)
    made_ = jump_cuts.Made(take=take, variant=film.kind, frames=film.frames, fps=film.fps)
    return jump_cuts.write(made_, folder)
