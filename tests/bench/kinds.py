"""Films of the kinds of footage that make false cuts, with real cuts of known places in them.

Cartoons whose drawings are held, captures that stutter, things that pass close to the camera, lights that go on and
off, titles and logos that pop in, slides, screens, flashes. They are made of the labelled footage and of what `drawn`
draws; everything follows from a seed. Films that are held out show other takes, other backgrounds and other figures
than those on which limits are chosen.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.random import Generator

from tests.bench import drawn, jump_cuts
from tests.bench.drawn import HEIGHT, WIDTH, Frame

FPS = 24
FILM_S = 60.0
SHOT_S = (2.0, 7.0)
AWAY_FRAMES = 8
"""Frames at either end of a shot in which nothing is done to it, so that a cut is a cut."""
ANIMATED = ("bigbuckbunny", "big-buck", "big_buck", "bbb", "cosmos-curate", "example3", "elephant")
"""Names of footage that is animated."""


@lru_cache(6)
def _read(footage: Path, take: jump_cuts.Take) -> list[Frame]:
    """Return the frames of a take in the size of the films, what is too wide or too high cut away."""
    frames, _ = jump_cuts.read(footage, take)
    height, width = frames[0].shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    size = max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale))
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    resized = (cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames)
    return [np.ascontiguousarray(frame[top : top + HEIGHT, left : left + WIDTH]) for frame in resized]


class World:
    """What the films of one half are made of; takes follow each other so that no two neighbours are of one film."""

    def __init__(self, footage: Path, is_tuning: bool, rng: Generator):
        self.footage, self.is_tuning, self.rng = footage, is_tuning, rng
        self._last = ""

    @cached_property
    def _takes(self) -> list[jump_cuts.Take]:
        return [take for take in jump_cuts.takes(self.footage) if take.is_tuning == self.is_tuning]

    def take(self, frames: int, animated: bool | None = None) -> list[Frame]:
        """Return a piece of a take of another film than the last one, of so many frames or as many as there are."""
        others = [t for t in self._takes if t.film != self._last]
        fits = [t for t in others if animated in (None, _is_animated(t.film))] or others
        take = fits[int(self.rng.integers(len(fits)))]
        self._last = take.film
        whole = _read(self.footage, take)
        first = int(self.rng.integers(max(1, len(whole) - frames)))
        return whole[first : first + frames]


def _is_animated(film: str) -> bool:
    return any(name in film for name in ANIMATED)


Shot = Callable[[World, Generator, int], Iterator[Frame]]


def _animation(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    way = rng.random()
    if way < 0.6:
        yield from drawn.cartoon(rng, world.is_tuning, frames)
    elif way < 0.8:
        yield from drawn.held(world.take(frames, animated=True), int(rng.integers(2, 5)))
    else:
        yield from drawn.cartoon(rng, world.is_tuning, frames, drawn.painted(world.take(1)[0]))


def _stutter(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    take, at = world.take(frames), 0
    due = AWAY_FRAMES + int(rng.integers(2, 20))
    while at < len(take):
        if at < due or at + 40 > len(take) - AWAY_FRAMES:
            yield take[at]
            at += 1
            continue
        frozen = int(rng.choice([1, 2, 3, 5, 8, 12, 20, 30]))
        for _ in range(frozen):
            yield take[at - 1]
        at += frozen if rng.random() < 0.8 else 0  # now and then it goes on where it stopped
        due = at + int(rng.choice([1, 3, 8, 15, 30]))


def _occluder(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    """A take before which hands, boxes and people pass, some of whom uncover something bright."""
    take = world.take(frames)
    sheet = rng.random() < 0.5
    corner, size = rng.integers((10, 10), (160, 90)), rng.integers((60, 40), (150, 90))
    passing: _Passing | None = None
    due = AWAY_FRAMES + int(rng.integers(1, 12))
    for number, frame in enumerate(take):
        picture = frame.copy()
        if sheet:  # a sheet of paper that lies in the scene
            far = np.minimum(corner + size, (WIDTH, HEIGHT))
            cv2.rectangle(picture, corner.tolist(), far.tolist(), (235, 240, 240), -1)
        if passing is None and number >= due and number + 30 < len(take) - AWAY_FRAMES:
            passing = _Passing.any(rng)
        if passing is not None and not passing.draw(picture):
            passing, due = None, number + int(rng.integers(6, 40))
        yield picture


@dataclass
class _Passing:
    """Something that crosses the picture, or comes before it and goes again, out of focus."""

    outline: np.ndarray
    tone: drawn.Colour
    path: np.ndarray
    blur: int
    stripes: int
    done: int = 0

    @classmethod
    def any(cls, rng: Generator) -> _Passing:
        """Return one."""
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.choice([4, 5, 12]))))
        reach = rng.uniform(50, 190) * rng.uniform(0.7, 1.0, len(angle))
        outline = np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1)
        count = int(rng.integers(6, 30))
        side = rng.permutation([[-200, 90], [520, 90], [160, 380], [160, -200]])
        ends = side[0], (side[1] if rng.random() < 0.6 else side[0])
        middle = rng.uniform((80, 50), (240, 130))
        half = np.linspace(0, 1, count // 2 + 1)[:, None]
        path = np.concatenate([ends[0] + (middle - ends[0]) * half, middle + (ends[1] - middle) * half])
        return cls(outline, drawn.colour(rng, 20, 220), path, int(rng.choice([1, 5, 15])), int(rng.choice([0, 0, 9])))

    def draw(self, picture: Frame) -> bool:
        """Draw it into a frame; return whether there is more to come."""
        points = (self.outline + self.path[self.done]).astype(np.int32)
        mask = np.zeros(picture.shape[:2], np.float32)
        cv2.fillPoly(mask, [points], 1.0)
        mask = cv2.GaussianBlur(mask, (self.blur, self.blur), 0)[..., None]
        cover = drawn.plain(self.tone)
        if self.stripes:
            cover[:: self.stripes] = cover[:: self.stripes] // 2
        picture[:] = (picture * (1 - mask) + cover * mask).astype(np.uint8)
        self.done += 1
        return self.done < len(self.path)


def _light(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    """A take in which lamps go on and off, all over or in a place, and flicker."""
    take = world.take(frames)
    gains = _gains(rng, len(take))
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    spot = np.exp(-((x - rng.uniform(0, WIDTH)) ** 2 + (y - rng.uniform(0, HEIGHT)) ** 2) / rng.uniform(60, 200) ** 2)
    spot = np.ones_like(spot) if rng.random() < 0.5 else spot
    tint = np.array([1.0, 1.0, 1.0]) if rng.random() < 0.5 else rng.uniform(0.6, 1.3, 3)
    for frame, gain in zip(take, gains, strict=True):
        lit = 1 + (gain - 1) * spot[..., None] * tint
        yield np.clip(frame * lit, 0, 255).astype(np.uint8) if gain != 1 else frame


def _gains(rng: Generator, frames: int) -> np.ndarray:
    gains, at = np.ones(frames), AWAY_FRAMES + int(rng.integers(2, 20))
    while at + 30 < frames - AWAY_FRAMES:
        length, to = int(rng.integers(4, 30)), float(rng.choice([0.15, 0.25, 0.4, 0.6, 1.5, 1.9]))
        gains[at : at + length] = to if rng.random() < 0.7 else rng.uniform(0.4, 1.3, length)
        if rng.random() < 0.5:  # lamps take a frame or two
            gains[at - 1], gains[at + length] = (1 + to) / 2, (1 + to) / 2
        at += length + int(rng.integers(6, 40))
    return gains


def _flash(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    """A take with camera flashes, a strobe, or the lamps of a police car."""
    take, way = world.take(frames), int(rng.integers(3))
    period, due = int(rng.choice([2, 3, 4, 6, 8])), AWAY_FRAMES + int(rng.integers(2, 20))
    burst = 0
    for number, frame in enumerate(take):
        quiet = number < AWAY_FRAMES or number >= len(take) - AWAY_FRAMES
        if way == 0:
            if number >= due and not quiet:
                burst, due = int(rng.integers(1, 4)), number + int(rng.integers(5, 40))
            lift = 130 * burst / 3 if burst and not quiet else 0
            burst = max(0, burst - 1)
            yield np.clip(frame * (1 + lift / 100) + lift, 0, 255).astype(np.uint8) if lift else frame
        elif way == 1:
            on = number % period < max(1, period // 3)
            yield frame if quiet else np.clip(frame * (1.4 if on else 0.3), 0, 255).astype(np.uint8)
        else:
            tint = np.array([1.6, 0.7, 0.4] if number // period % 2 else [0.4, 0.7, 1.6])
            yield frame if quiet else np.clip(frame * tint, 0, 255).astype(np.uint8)


def _overlay(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    """A take over which titles, subtitles, bands, logos and small pictures pop in and go."""
    take = world.take(frames)
    shown: list[tuple[int, Callable[[Frame], None]]] = []
    due = AWAY_FRAMES + int(rng.integers(1, 15))
    for number, frame in enumerate(take):
        if number >= due and number + 20 < len(take):
            shown.append((number + int(rng.integers(15, 80)), _title(world, rng)))
            due = number + int(rng.integers(12, 60))
        shown = [(until, put) for until, put in shown if number < min(until, len(take) - AWAY_FRAMES)]
        picture = frame.copy()
        for _, put in shown:
            put(picture)
        yield picture


def _title(world: World, rng: Generator) -> Callable[[Frame], None]:
    way, tone = str(rng.choice(["title", "subtitle", "band", "logo", "inset"])), drawn.colour(rng, 160, 250)
    line, back, font = drawn.words(rng, int(rng.integers(2, 5))), drawn.colour(rng), int(rng.choice(drawn.FONTS))
    inset = drawn.plain(back, 110, 62)
    left, top = int(rng.integers(8, 200)), int(rng.integers(8, 100))
    scale = float(rng.uniform(0.8, 1.6))

    def put(picture: Frame) -> None:
        if way == "title":
            for row, part in enumerate(line.split()):
                drawn.text(picture, part, (20, 50 + 36 * row), scale, tone, font, 3)
        elif way == "subtitle":
            drawn.text(picture, line, (30, 165), 0.55, (250, 250, 250), font)
        elif way == "band":
            cv2.rectangle(picture, (0, 130), (WIDTH, 165), back, -1)
            drawn.text(picture, line, (10, 154), 0.6, tone, font)
        elif way == "logo":
            cv2.circle(picture, (285, 28), 18, back, -1, cv2.LINE_AA)
        else:
            picture[top : top + 62, left : left + 110] = inset

    return put


def _slides(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    """A slide that is built up, or a photograph that stands or is zoomed into."""
    if rng.random() < 0.5:
        yield from drawn.slide(rng, world.is_tuning, frames)
        return
    photo, zoom = world.take(1)[0], float(rng.choice([0.0, 0.0, 0.0015]))
    for number in range(frames):
        move = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, 1 + zoom * number)
        yield np.asarray(cv2.warpAffine(photo, move, (WIDTH, HEIGHT)), np.uint8) if zoom else photo


def _screen(world: World, rng: Generator, frames: int) -> Iterator[Frame]:
    if rng.random() < 0.25:  # from the screen to a camera and back
        yield from world.take(frames)
        return
    yield from drawn.screen(rng, world.is_tuning, 2 * frames)


KINDS: dict[str, Shot] = {
    "limited animation": _animation,
    "stutter": _stutter,
    "occluders": _occluder,
    "lights": _light,
    "flashes": _flash,
    "titles and logos": _overlay,
    "slides": _slides,
    "screens": _screen,
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A film that has been written."""

    kind: str
    path: Path
    is_tuning: bool
    cuts: tuple[int, ...]
    """First frame of each shot but the first."""
    frames: int

    @property
    def minutes(self) -> float:
        """How long it is."""
        return self.frames / FPS / 60


def make(footage: Path, folder: Path, kind: str, seed: int, is_tuning: bool) -> Made:
    """Write a film of a kind, about `FILM_S` long; every other one at a low bitrate."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed, is_tuning])
    world, cuts, frames = World(footage, is_tuning, rng), list[int](), 0
    name = f"{kind.replace(' ', '_')}-{'tuning' if is_tuning else 'held'}-{seed}.mp4"
    codec, options = jump_cuts.ENCODERS["poor" if seed % 2 else "good"]
    with av.open(str(folder / name), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        while frames < FILM_S * FPS:
            cuts.append(frames)
            for picture in KINDS[kind](world, rng, round(float(rng.uniform(*SHOT_S)) * FPS)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
                frames += 1
        container.mux(stream.encode(None))
    return Made(kind=kind, path=folder / name, is_tuning=is_tuning, cuts=tuple(cuts[1:]), frames=frames)
