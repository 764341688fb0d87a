"""What a computer draws: cartoons on twos and threes, slides and screens; frame by frame, from a random generator.

Every function yields the frames of one shot, in which there is no cut. Half of the styles, those of the held-out films,
are drawn in no film on which limits are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 180
INK = (30, 25, 25)
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_TRIPLEX)
WORDS = ("the", "rushes", "of", "a", "day", "are", "seen", "in", "evening", "by", "those", "who", "cut", "them", "else")

Frame = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = NDArray[np.float64]


def colour(rng: Generator, low: int = 30, high: int = 235) -> Colour:
    """Return a colour."""
    blue, green, red = rng.integers(low, high, 3).tolist()
    return blue, green, red


def plain(tone: Colour, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    """Return a picture of one colour."""
    return np.full((height, width, 3), tone, np.uint8)


def words(rng: Generator, count: int) -> str:
    """Return some words."""
    return " ".join(rng.choice(WORDS, count).tolist())


# Backgrounds, twice as wide as the picture, so that it can pan.


def _ramp(a: Colour, b: Colour, width: int) -> Frame:
    weight = np.linspace(0, 1, HEIGHT)[:, None, None]
    return np.repeat((np.array(a) * (1 - weight) + np.array(b) * weight).astype(np.uint8), width, axis=1)


def _hills(rng: Generator) -> Frame:
    picture = _ramp(colour(rng, 120), colour(rng, 150), 2 * WIDTH)
    for depth in range(3):
        x = np.arange(2 * WIDTH)
        top = HEIGHT * (0.4 + 0.18 * depth) + 14 * np.sin(x / rng.uniform(20, 70) + rng.uniform(0, 6))
        outline = np.stack([x, top], 1).astype(np.int32)
        body = np.concatenate([outline, [[2 * WIDTH, HEIGHT], [0, HEIGHT]]]).astype(np.int32)
        cv2.fillPoly(picture, [body], colour(rng))
        cv2.polylines(picture, [outline], False, INK, 1, cv2.LINE_AA)
    return picture


def _room(rng: Generator) -> Frame:
    picture = plain(colour(rng, 90, 220), 2 * WIDTH)
    cv2.rectangle(picture, (0, 130), (2 * WIDTH, HEIGHT), colour(rng, 40, 150), -1)
    for left in range(10, 2 * WIDTH - 60, int(rng.integers(70, 130))):
        top, wide, tall = int(rng.integers(15, 70)), int(rng.integers(25, 60)), int(rng.integers(30, 60))
        cv2.rectangle(picture, (left, top), (left + wide, top + tall), colour(rng), -1)
        cv2.rectangle(picture, (left, top), (left + wide, top + tall), INK, 1)
    return picture


def _doodle(rng: Generator) -> Frame:
    picture = plain(colour(rng, 150), 2 * WIDTH)
    for _ in range(220):
        at = (int(rng.integers(2 * WIDTH)), int(rng.integers(HEIGHT)))
        cv2.circle(picture, at, int(rng.integers(3, 16)), colour(rng), -1 if rng.random() < 0.6 else 1, cv2.LINE_AA)
    return picture


def _city(rng: Generator) -> Frame:
    picture = _ramp(colour(rng, 20, 90), colour(rng, 90, 200), 2 * WIDTH)
    left = 0
    while left < 2 * WIDTH:
        wide, tall, tone = int(rng.integers(24, 60)), int(rng.integers(50, 150)), colour(rng, 30, 170)
        cv2.rectangle(picture, (left, HEIGHT - tall), (left + wide, HEIGHT), tone, -1)
        for x in range(left + 4, left + wide - 4, 9):
            for y in range(HEIGHT - tall + 5, HEIGHT - 6, 12):
                cv2.rectangle(picture, (x, y), (x + 4, y + 6), (150, 230, 250) if rng.random() < 0.5 else INK, -1)
        left += wide
    return picture


def _stars(rng: Generator) -> Frame:
    picture = _ramp(colour(rng, 5, 60), colour(rng, 20, 110), 2 * WIDTH)
    for _ in range(150):
        cv2.circle(picture, (int(rng.integers(2 * WIDTH)), int(rng.integers(HEIGHT))), 1, (230, 240, 250), -1)
    cv2.circle(picture, (int(rng.integers(2 * WIDTH)), 40), 22, (190, 230, 240), -1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, 150), (2 * WIDTH, HEIGHT), colour(rng, 10, 80), -1)
    return picture


def _paper(rng: Generator) -> Frame:
    picture = np.clip(238 + rng.normal(0, 3, (HEIGHT, 2 * WIDTH, 1)).repeat(3, 2), 0, 255).astype(np.uint8)
    for _ in range(25):
        points = rng.integers(0, (2 * WIDTH, HEIGHT), (4, 2)).astype(np.int32)
        cv2.polylines(picture, [points], False, colour(rng, 20, 120), 1, cv2.LINE_AA)
    return picture


def _bricks(rng: Generator) -> Frame:
    wall, seam = colour(rng), colour(rng)
    picture, wide, tall = plain(seam, 2 * WIDTH), int(rng.integers(16, 60)), int(rng.integers(8, 30))
    for row, top in enumerate(range(0, HEIGHT, tall)):
        for left in range(-wide * (row % 2) // 2, 2 * WIDTH, wide):
            tone = [int(np.clip(part + rng.integers(-12, 12), 0, 255)) for part in wall]
            cv2.rectangle(picture, (left + 1, top + 1), (left + wide - 2, top + tall - 2), tone, -1)
    return picture


def _forest(rng: Generator) -> Frame:
    picture = _ramp(colour(rng, 100), colour(rng, 40, 160), 2 * WIDTH)
    for _ in range(int(rng.integers(20, 60))):
        x, wide, tone = int(rng.integers(2 * WIDTH)), int(rng.integers(3, 16)), colour(rng, 10, 120)
        cv2.line(
            picture, (x, HEIGHT), (x + int(rng.integers(-15, 15)), int(rng.integers(0, 80))), tone, wide, cv2.LINE_AA
        )
        for _ in range(int(rng.integers(0, 5))):
            at = (x + int(rng.integers(-25, 25)), int(rng.integers(0, 90)))
            cv2.circle(picture, at, int(rng.integers(6, 22)), colour(rng, 30, 180), -1, cv2.LINE_AA)
    return picture


def _clouds(rng: Generator) -> Frame:
    rough = rng.normal(0, 1, (int(rng.integers(3, 12)), int(rng.integers(6, 24)), 1)).astype(np.float32)
    soft = cv2.resize(rough, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    weight = 1 / (1 + np.exp(-soft * float(rng.uniform(1, 6))))
    return np.asarray(np.array(colour(rng)) * weight + np.array(colour(rng)) * (1 - weight), np.uint8)


def _checks(rng: Generator) -> Frame:
    side, a, b = int(rng.integers(8, 70)), np.array(colour(rng)), np.array(colour(rng))
    y, x = np.mgrid[:HEIGHT, : 2 * WIDTH]
    turned = x + float(rng.uniform(-1, 1)) * y
    odd = ((turned // side + (y // side if rng.random() < 0.6 else 0)) % 2)[..., None]
    return np.asarray(a * odd + b * (1 - odd), np.uint8)


def _sea(rng: Generator) -> Frame:
    picture = _ramp(colour(rng, 90), colour(rng, 20, 150), 2 * WIDTH)
    x = np.arange(2 * WIDTH)
    for top in np.linspace(float(rng.uniform(30, 110)), HEIGHT, int(rng.integers(5, 16))):
        wave = top + rng.uniform(1, 7) * np.sin(x / rng.uniform(5, 40) + rng.uniform(0, 6))
        cv2.polylines(picture, [np.stack([x, wave], 1).astype(np.int32)], False, colour(rng), 2, cv2.LINE_AA)
    return picture


def _plain(rng: Generator) -> Frame:
    return plain(colour(rng), 2 * WIDTH)


BACKGROUNDS: dict[bool, tuple[Callable[[Generator], Frame], ...]] = {
    True: (_hills, _room, _doodle, _bricks, _forest, _clouds, _checks, _sea, _plain),
    False: (_city, _stars, _paper),
}
"""By whether films made with them are for tuning."""


def _background(rng: Generator, is_tuning: bool) -> Frame:
    return BACKGROUNDS[is_tuning][int(rng.integers(len(BACKGROUNDS[is_tuning])))](rng)


# Figures of parts that turn on joints.


@dataclass(frozen=True)
class Figure:
    """What a character looks like."""

    shape: str
    skin: Colour
    cloth: Colour
    size: float
    """Height by that of the picture."""


@dataclass(frozen=True)
class Pose:
    """How a character stands in one drawing."""

    x: float
    y: float
    arms: tuple[float, float] = (0.4, 0.4)
    legs: tuple[float, float] = (0.2, 0.2)
    mouth: float = 0.1
    turned: float = 0.0
    """Where it looks, −1 to 1."""
    lean: float = 0.0


SHAPES = {True: ("round", "boxy", "stout"), False: ("thin", "eared")}


def draw(picture: Frame, figure: Figure, pose: Pose) -> None:
    """Draw a character into a picture."""
    unit = figure.size * HEIGHT / 4
    foot = np.array([pose.x * WIDTH, pose.y * HEIGHT])
    hip, neck = _off(foot, 0, -1.3 * unit), _off(foot, 0.6 * unit * pose.lean, -2.5 * unit)
    head, thick = (
        _off(neck, 0.3 * unit * pose.lean, -0.75 * unit),
        max(1, int(unit * (0.12 if figure.shape == "thin" else 0.3))),
    )
    for side, leg, arm in zip((-1, 1), pose.legs, pose.arms, strict=True):
        _limb(picture, hip, _off(hip, side * unit * np.sin(leg), 1.3 * unit * np.cos(leg)), thick, figure.cloth)
        shoulder = _off(neck, side * 0.4 * unit, 0.25 * unit)
        _limb(
            picture,
            shoulder,
            _off(shoulder, side * 1.3 * unit * np.sin(arm), 1.3 * unit * np.cos(arm)),
            thick,
            figure.skin,
        )
    if figure.shape == "stout":
        middle, reach = (neck + hip) / 2, (int(0.9 * unit), int(0.8 * unit))
        cv2.ellipse(picture, (int(middle[0]), int(middle[1])), reach, 0, 0, 360, figure.cloth, -1, cv2.LINE_AA)
        cv2.ellipse(picture, (int(middle[0]), int(middle[1])), reach, 0, 0, 360, INK, max(1, thick // 6), cv2.LINE_AA)
    elif figure.shape != "thin":
        body = np.array(
            [
                _off(at, side * wide * unit, 0)
                for at, side, wide in ((neck, -1, 0.5), (neck, 1, 0.5), (hip, 1, 0.6), (hip, -1, 0.6))
            ]
        )
        cv2.fillPoly(picture, [body.astype(np.int32)], figure.cloth)
        cv2.polylines(picture, [body.astype(np.int32)], True, INK, max(1, thick // 6), cv2.LINE_AA)
    else:
        _limb(picture, neck, hip, thick, figure.cloth)
    _face(picture, figure, pose, head, unit)


def _off(point: Point, right: float, down: float) -> Point:
    return point + np.array([right, down])


def _limb(picture: Frame, a: Point, b: Point, thick: int, tone: Colour) -> None:
    ends = [(int(x), int(y)) for x, y in (a, b)]
    cv2.line(picture, ends[0], ends[1], INK, thick + 2, cv2.LINE_AA)
    cv2.line(picture, ends[0], ends[1], tone, thick, cv2.LINE_AA)


def _face(picture: Frame, figure: Figure, pose: Pose, head: Point, unit: float) -> None:
    x, y, r = int(head[0]), int(head[1]), max(2, int(0.75 * unit))
    if figure.shape == "eared":
        for side in (-1, 1):
            cv2.circle(picture, (x + side * int(0.7 * r), y - int(0.8 * r)), r // 2, figure.skin, -1, cv2.LINE_AA)
    if figure.shape == "boxy":
        cv2.rectangle(picture, (x - r, y - r), (x + r, y + r), figure.skin, -1)
        cv2.rectangle(picture, (x - r, y - r), (x + r, y + r), INK, 1)
    else:
        cv2.circle(picture, (x, y), r, figure.skin, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), r, INK, max(1, r // 20), cv2.LINE_AA)
    look = int(0.35 * r * pose.turned)
    for side in (-1, 1):
        cv2.circle(picture, (x + look + side * r // 3, y - r // 5), max(1, r // 6), (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(picture, (x + look + side * r // 3 + look // 4, y - r // 5), max(1, r // 12), INK, -1, cv2.LINE_AA)
    size = (max(1, r // 3), max(1, int(0.45 * r * pose.mouth)))
    cv2.ellipse(picture, (x + look, y + r // 2), size, 0, 0, 360, (40, 30, 120), -1, cv2.LINE_AA)


def _two(rng: Generator, low: float, high: float) -> tuple[float, float]:
    return float(rng.uniform(low, high)), float(rng.uniform(low, high))


@dataclass
class Acting:
    """A character and what it does: the pose of its next drawing, which may be much like the last one."""

    figure: Figure
    pose: Pose
    does: str
    rng: Generator
    _plan: list[Pose] = field(default_factory=list)

    def step(self) -> Pose:
        """Return the pose of the next drawing."""
        if not self._plan:
            self._plan = getattr(self, f"_{self.does}")()
        self.pose = self._plan.pop(0)
        return self.pose

    def _talks(self) -> list[Pose]:
        rng, pose = self.rng, self.pose
        if rng.random() < 0.15:
            pose = replace(pose, turned=float(rng.uniform(-1, 1)), arms=_two(rng, 0, 2.8))
        return [replace(pose, mouth=float(rng.choice([0.1, 0.4, 0.8, 1.0]))) for _ in range(int(rng.integers(1, 6)))]

    def _waves(self) -> list[Pose]:
        rng, pose = self.rng, self.pose
        new = replace(
            pose,
            arms=_two(rng, -0.3, 3.0),
            turned=float(rng.uniform(-1, 1)),
            lean=float(rng.uniform(-0.5, 0.5)),
        )
        return [new] * int(rng.integers(1, 9))

    def _jumps(self) -> list[Pose]:
        rng, pose = self.rng, self.pose
        rise = np.array([0, 0.35, 0.5, 0.35, 0]) * rng.uniform(0.5, 1.4)
        air = [replace(pose, y=pose.y - float(up), arms=(2.6, 2.6), legs=(0.6, 0.6)) for up in rise[1:-1]]
        return [*[pose] * int(rng.integers(2, 12)), *air, pose]

    def _runs(self) -> list[Pose]:
        x = (self.pose.x + 0.3 + float(self.rng.uniform(0.03, 0.09))) % 1.6 - 0.3
        swing = -0.7 if self.pose.legs[0] > 0 else 0.7
        return [replace(self.pose, x=x, legs=(swing, swing), arms=(swing + 0.2, 0.2 - swing))]

    def _appears(self) -> list[Pose]:
        away = replace(self.pose, y=2.5)
        there = replace(self.pose, y=1.0, x=float(self.rng.uniform(0.2, 0.8)), arms=_two(self.rng, 0, 2.8))
        return [*[away] * int(self.rng.integers(4, 12)), *[there] * int(self.rng.integers(4, 16))]


DOES = ("talks", "waves", "jumps", "runs", "appears")


def cartoon(rng: Generator, is_tuning: bool, frames: int, ground: Frame | None = None) -> Iterator[Frame]:
    """Yield a shot of limited animation: drawings held for two to six frames, on a background that stands or pans.

    Args:
        rng: what everything follows from.
        is_tuning: which styles are drawn.
        frames: how many.
        ground: a background to stand in for one that is drawn; it is mirrored for pans.
    """
    background = _background(rng, is_tuning)
    if ground is not None:
        background = np.hstack([ground, ground[:, ::-1]])
    speed = float(rng.choice([0, 0, 0, 1, 2.5]))
    size = float(rng.choice([0.5, 0.8, 1.1, 2.0, 3.0]))  # the largest are faces alone
    cast = [_actor(rng, is_tuning, size, k) for k in range(1 if size > 1.5 else int(rng.integers(1, 4)))]
    hold, sparkles = int(rng.choice([2, 2, 3, 3, 4, 6])), rng.random() < 0.3
    drawing: list[tuple[Figure, Pose]] = []
    lights: NDArray[np.intp] = np.empty((0, 3), np.intp)
    for number in range(frames):
        if number % hold == 0:
            drawing = [(actor.figure, actor.step()) for actor in cast]
            lights = rng.integers(0, (WIDTH, HEIGHT, 8), (40, 3)) if sparkles else lights
        left = WIDTH - abs(int(speed * number) % (2 * WIDTH) - WIDTH)  # to the end of the background and back
        picture = np.ascontiguousarray(background[:, left : left + WIDTH])
        for x, y, r in lights.tolist():
            cv2.drawMarker(picture, (x, y), (220, 250, 255), cv2.MARKER_STAR, 2 + r)
        for figure, pose in drawing:
            draw(picture, figure, pose)
        yield picture


def _actor(rng: Generator, is_tuning: bool, size: float, place: int) -> Acting:
    figure = Figure(
        str(rng.choice(SHAPES[is_tuning])), colour(rng, 90), colour(rng), size * float(rng.uniform(0.8, 1.2))
    )
    x = float(rng.uniform(0.35, 0.65)) if size > 1.5 else 0.2 + 0.3 * place
    below = 0.95 if size < 1.5 else 0.72 * figure.size + 0.55  # of a face alone the shoulders are at the bottom
    does = str(rng.choice(DOES[:2] if size > 1.5 else DOES))
    return Acting(figure, Pose(x, below), does, rng)


# Slides and screens.


def text(
    picture: Frame, line: str, at: tuple[int, int], scale: float, tone: Colour, font: int = FONTS[0], thick: int = 1
) -> None:
    """Write a line of text, its lower left corner at a place."""
    cv2.putText(picture, line, at, font, scale, tone, thick, cv2.LINE_AA)


def slide(rng: Generator, is_tuning: bool, frames: int) -> Iterator[Frame]:
    """Yield a slide of a talk on which points, arrows and boxes come up one by one."""
    ground = colour(rng, 170, 250) if is_tuning else colour(rng, 10, 90)
    ink = colour(rng, 10, 80) if is_tuning else colour(rng, 180, 250)
    picture, font = plain(ground), int(rng.choice(FONTS))
    cv2.rectangle(picture, (0, 0), (WIDTH, 34), colour(rng), -1)
    text(picture, words(rng, 3), (10, 24), 0.7, ink, font)
    due = sorted(rng.integers(8, max(frames - 8, 9), int(rng.integers(2, 6))).tolist())
    row = 60
    for number in range(frames):
        while due and number >= due[0]:
            due.pop(0)
            if rng.random() < 0.3:
                corner = int(rng.integers(150, 200)), int(rng.integers(45, 80))
                cv2.rectangle(picture, corner, (corner[0] + 110, corner[1] + 80), colour(rng), -1)
            else:
                text(picture, "- " + words(rng, int(rng.integers(2, 6))), (14, row), 0.5, ink, font)
                row += 24
        yield picture.copy()


@dataclass
class Window:
    """A window of a screen."""

    left: int
    top: int
    page: Frame
    height: int
    shift: int = 0


def screen(rng: Generator, is_tuning: bool, frames: int) -> Iterator[Frame]:
    """Yield a recorded screen: windows open, close, are scrolled and typed into; menus and dialogs come and go."""
    desk = _background(rng, is_tuning)[:, :WIDTH].copy()
    cv2.rectangle(desk, (0, HEIGHT - 10), (WIDTH, HEIGHT), colour(rng, 20, 80), -1)
    open_: list[Window] = [_window(rng, is_tuning)]
    wait, does, left = int(rng.integers(8, 30)), "", 0
    pointer = np.array([100.0, 100.0])
    for _ in range(frames):
        wait -= 1
        if wait <= 0:
            does = str(rng.choice(["open", "close", "scroll", "page", "menu", "rest"]))
            wait = left = int(rng.integers(6, 40))
            if does == "open" and len(open_) < 4:
                open_.append(_window(rng, is_tuning))
            elif does == "close" and open_:
                open_.pop()
            elif does == "page" and open_:
                open_[-1].shift += open_[-1].height - 20
        if does == "scroll" and open_:
            open_[-1].shift += 6
        picture = desk.copy()
        for window in open_:
            _show(picture, window)
        pointer = np.clip(pointer + rng.normal(0, 3, 2), 5, (WIDTH - 5, HEIGHT - 5))
        if does == "menu" and wait > left // 2:
            at = int(pointer[0]), int(pointer[1])
            cv2.rectangle(picture, at, (at[0] + 70, at[1] + 80), (235, 235, 235), -1)
        cv2.drawMarker(picture, (int(pointer[0]), int(pointer[1])), (0, 0, 0), cv2.MARKER_TRIANGLE_UP, 6, 2)
        yield picture


def _window(rng: Generator, is_tuning: bool) -> Window:
    wide, tall = int(rng.integers(90, 240)), int(rng.integers(70, 140))
    page = plain((248, 248, 248) if is_tuning else (40, 36, 34), wide, 900)
    for row in range(14, 900, 11):
        tone = (40, 40, 40) if is_tuning else colour(rng, 130, 250)
        text(page, words(rng, int(rng.integers(1, 9))), (6 + 10 * int(rng.integers(3)), row), 0.3, tone)
        if rng.random() < 0.06:
            cv2.rectangle(page, (10, row), (wide - 20, row + 40), colour(rng), -1)
    return Window(int(rng.integers(0, WIDTH - wide)), int(rng.integers(0, HEIGHT - tall - 12)), page, tall)


def _show(picture: Frame, window: Window) -> None:
    shift = window.shift % (len(window.page) - window.height)
    page = window.page[shift : shift + window.height - 10]
    bottom, right = window.top + 10 + len(page), window.left + page.shape[1]
    picture[window.top : window.top + 10, window.left : right] = (150, 110, 90)
    picture[window.top + 10 : bottom, window.left : right] = page
    cv2.rectangle(picture, (window.left, window.top), (right, bottom), INK, 1)


def painted(photo: Frame) -> Frame:
    """Return a photograph as a background painter would lay it out: smooth, in few tones."""
    smooth = cv2.bilateralFilter(photo, 9, 60, 9)
    return np.asarray(smooth // 24 * 24 + 12, np.uint8)


def held(frames: Sequence[Frame], count: int) -> Iterator[Frame]:
    """Yield frames, each n-th shown n times: animation on twos, threes or more."""
    for number in range(len(frames)):
        yield frames[number // count * count]
