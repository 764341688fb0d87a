"""Motion between two pictures from dense optical flow: what the camera does, and what moves besides.

Speeds are per second and relative to the picture's width, so that they do not depend on size, frame rate or codec.
A tick depends on its two pictures alone: what holds over a whole clip is found in `filters/camera.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from rushes.filters.frames import SAME_CHANGE, Bars, Luma, change
from rushes.filters.similarity import GRID_PX, Grid, Image, Vector, fits, grid_of, quantile, squared

DIFFER_PX = 0.3
"""Shift from which a moving camera and a standing one are told apart by the pictures rather than by the flow."""
AGREE_LUMA = 6.0
"""Difference of luma at which two pictures agree by half."""
LOST = 0.9
"""Agreement below which the flow may have lost a fast pan, so that a start far away is tried."""
FAR_PX = 5.0
"""Shift from which a start far away is worth a second flow: nearer ones are found without."""
NEAR_PX = 4.0
"""… as are those this near to what the flow already found."""
BETTER = 1.05
"""How much better a far start must agree."""
TURN_PX = 0.7
"""Displacement by zoom and roll from which the flow is measured again on the picture brought back."""
FLASH_LUMA = 6.0
"""Change of mean luma from which brightness is levelled before pictures are compared."""
OBJECT_SPEED = 0.035
"""Speed against the camera, widths per second, at which a point counts half as moving by itself."""
OBJECT_SHARE = 0.2
"""How much this speed grows with the camera's: the flow's error does."""
PROOF_LUMA = (2.0, 4.0)
"""Levels of luma by which a point's own motion must explain the picture better than the camera's does, to count little
or fully as moving by itself: where a moving camera meets blur and coding noise, the flow goes astray …"""
PROOF_PX = 3.0
"""… before a camera that moves as much as this between two pictures; before one that stands, it is believed."""
PROOF_SIDE = 5
"""Side of the square that is compared, in pixels."""
LEAST_PX = 16
"""DIS reads past its buffers in smaller pictures."""


class Motion(NamedTuple):
    """Motion between two frames."""

    pan: float
    """The camera turns or moves right: widths per second."""
    tilt: float
    """The camera turns or moves up: widths per second."""
    zoom: float
    """The picture grows: share per second."""
    roll: float
    """The picture turns clockwise: radians per second."""
    object_speed: float
    """Mean speed of what moves besides the camera: widths per second, 0 where nothing does."""
    object_area: float
    """Share of the textured picture that moves besides the camera."""
    residual: float
    """What the camera's motion leaves over in nine tenths of the textured picture at most: share of the width."""


class _Flow(NamedTuple):
    """How each point moved."""

    moved: Vector
    """`[2n]`: u, then v, of the points of the grid."""
    field: Float[np.ndarray, "h w 2"]
    """The flow that it was read from …"""
    later: Luma
    """… to this picture: the later one, or that one brought back by a camera's motion."""


STILL = Motion(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Nothing moves; also the first picture, which has none before it."""
_NO_BARS = Bars(0.0, 0.0, 0.0, 0.0)


def between(before: Luma, luma: Luma, dt_s: float, bars: Bars = _NO_BARS) -> Motion:
    """Return the motion between two small luma pictures of equal size.

    The camera is a similarity (shift, zoom, roll). It is fitted to the flow from two starts, a typical one and a
    standing camera, with more say for the edges; which of them is right, the pictures tell. Where neither agrees well,
    the flow starts again from the shift that phase correlation finds. What the camera leaves over is object motion.

    Args:
        before: the earlier picture.
        luma: the later one.
        dt_s: time between them.
        bars: black bars, which belong to neither camera nor objects.
    """
    if change(before, luma) < SAME_CHANGE:
        return STILL
    width_px = before.shape[1] * _shrunk(before, bars)
    before, luma = _active(before, bars), _active(luma, bars)
    trust = texture(before)
    if trust.sum() < 1e-3 * trust.size:
        return STILL
    grid = grid_of(*before.shape)
    camera, flowed = _camera(before, luma, trust, grid)
    found = _summed(before, luma, camera, flowed, grid, trust, width_px * dt_s, dt_s)
    # Rounded to far below what can be measured, but above the rounding of sums, which may depend on how an array lies
    # in memory: the same two pictures must give the same numbers wherever a span begins.
    return Motion(*(round(float(number), 6) + 0.0 for number in found))


def _shrunk(luma: Luma, bars: Bars) -> float:
    """Return by how much a picture is shrunk; else portrait pictures would cost three times as much."""
    height, width = luma.shape
    return min(1.0, width / (height * (1 - bars.top - bars.bottom)))


def _active(luma: Luma, bars: Bars) -> Luma:
    """Return a picture without its bars, shrunk, and padded where DIS would read past its buffers."""
    height, width = luma.shape
    rows = slice(round(bars.top * height), height - round(bars.bottom * height))
    columns = slice(round(bars.left * width), width - round(bars.right * width))
    inner = luma[rows, columns]
    share, luma = _shrunk(luma, bars), np.ascontiguousarray(inner if inner.size else luma)
    if share < 1:
        size = (max(1, round(luma.shape[1] * share)), max(1, round(luma.shape[0] * share)))
        luma = cast(Luma, cv2.resize(luma, size, interpolation=cv2.INTER_AREA))
    down, right = (max(0, LEAST_PX - side) for side in luma.shape)
    return cast(Luma, cv2.copyMakeBorder(luma, 0, down, 0, right, cv2.BORDER_REPLICATE)) if down or right else luma


def flow(before: Luma, luma: Luma, start: tuple[float, float] = (0.0, 0.0)) -> Float[np.ndarray, "h w 2"]:
    """Return the displacement in pixels, (right, down), of every pixel between two pictures of at least 16 × 16.

    OpenCV's DIS (Kroeger et al., arXiv 1603.03590), preset fast, but at half the resolution instead of a quarter:
    a quarter smears the edges of objects over the ground that tells the camera's motion.

    Args:
        before: the earlier picture.
        luma: the later one.
        start: shift from which to search.
    """
    # Always given: without one, an object that was given one before begins where it last did (OpenCV 5.0).
    first = np.zeros((*before.shape, 2), np.float32)
    if any(start):
        first += np.array(start, np.float32)
    return cast(np.ndarray, _dis(before.shape).calc(before, luma, first))


@lru_cache(maxsize=8)
def _dis(shape: tuple[int, int]) -> cv2.DISOpticalFlow:
    """Return one per size: used for pictures of several sizes, it writes past its buffers (OpenCV 5.0)."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(1)
    dis.setVariationalRefinementIterations(0)
    return dis


def texture(luma: Luma) -> Float[np.ndarray, "h w"]:
    """Return a weight, 0 to 1, of how much the flow can be trusted at each pixel: flow needs texture to hold on to."""
    small = cv2.GaussianBlur(luma, (5, 5), 0)
    gradient = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    energy = cv2.blur(gradient, (9, 9))
    return energy / (energy + 12.0)


def _camera(before: Luma, luma: Luma, trust: Image, grid: Grid) -> tuple[Vector, _Flow]:
    """Return (shift x, shift y, zoom, roll) and the flow."""
    level, weight = _levelled(before, luma), trust[::2, ::2] * grid.say_pixels
    flowed = _flowed(before, luma)
    say = grid.say * _thinned(trust)
    camera, standing = fits(grid, flowed.moved, say)
    agreement = _agreement(before, level, camera, weight, grid)
    if np.abs(camera[:2]).max() > DIFFER_PX:
        rest = standing if np.abs(standing[:2]).max() < 0.5 else np.zeros(4)
        stands = _agreement(before, level, rest, weight, grid)
        if stands > agreement:
            camera, agreement = rest, stands
    shift = _shift(before, luma) if agreement < LOST else None
    if shift is not None and np.hypot(*(camera[:2] - shift)) > NEAR_PX:
        again = _flowed(before, luma, shift)
        other, _ = fits(grid, again.moved, say)
        if _agreement(before, level, other, weight, grid) > BETTER * agreement:
            camera, flowed = other, again
    return _turned(before, luma, camera, flowed, say, grid)


def _flowed(before: Luma, later: Luma, start: tuple[float, float] = (0.0, 0.0)) -> _Flow:
    field = flow(before, later, start)
    return _Flow(np.concatenate([_thinned(field[..., 0]), _thinned(field[..., 1])]), field, later)


def _thinned(pixels: npt.NDArray) -> Vector:
    return pixels[GRID_PX // 2 :: GRID_PX, GRID_PX // 2 :: GRID_PX].ravel().astype(np.float64)


def _levelled(before: Luma, luma: Luma) -> Luma:
    """Return the later picture with the mean and contrast of the earlier one where a flash lies between them."""
    (mean,), (std,) = (values[0] for values in cv2.meanStdDev(before))
    (mean_now,), (std_now,) = (values[0] for values in cv2.meanStdDev(luma))
    if abs(mean - mean_now) <= FLASH_LUMA:
        return luma
    table = np.clip(np.rint((np.arange(256) - mean_now) * (std / max(std_now, 1.0)) + mean), 0, 255)
    return cast(Luma, cv2.LUT(luma, table.astype(np.uint8)))


def _back(luma: Luma, camera: Vector) -> Luma:
    """Return the later picture as it would be had the camera not moved."""
    height, width = luma.shape
    shift_x, shift_y, zoom, roll = (float(number) for number in camera)
    grow, middle_x, middle_y = 1 + zoom, (width - 1) / 2, (height - 1) / 2
    to = np.array(
        [
            [grow, -roll, middle_x + shift_x - grow * middle_x + roll * middle_y],
            [roll, grow, middle_y + shift_y - grow * middle_y - roll * middle_x],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(Luma, cv2.warpAffine(luma, to, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _turned(before: Luma, luma: Luma, camera: Vector, flowed: _Flow, say: Vector, grid: Grid) -> tuple[Vector, _Flow]:
    """Return camera and flow measured again on the picture brought back, if it turns or grows.

    DIS takes each patch to shift only, and so finds a zoom or roll about a tenth too small.
    """
    if np.hypot(camera[2], camera[3]) * grid.spread_px < TURN_PX:
        return camera, flowed
    again = _flowed(before, _back(luma, camera))
    again = again._replace(moved=again.moved + camera @ grid.effects)
    return fits(grid, again.moved, say)[0], again


def _agreement(before: Luma, luma: Luma, camera: Vector, weight: Image, grid: Grid) -> float:
    """Return how well the later picture, brought back by a camera's motion, agrees with the earlier one: 0 to 1."""
    height, width = before.shape
    shift_x, shift_y, zoom, roll = (float(number) for number in camera)
    grow, middle_x, middle_y = 1 + zoom, (width - 1) / 2, (height - 1) / 2
    off = cv2.blur(cv2.absdiff(_back(luma, camera), before), (3, 3))[::2, ::2]
    x, y = grid.across * np.float32(grow), grid.down * np.float32(grow)
    if roll:
        x, y = x - np.float32(roll) * grid.down, y + np.float32(roll) * grid.across
    seen = (np.abs(x + np.float32(shift_x)) < middle_x) & (np.abs(y + np.float32(shift_y)) < middle_y)
    # What has left the picture counts a little, lest a shift that leaves nothing to compare should win.
    agree = np.where(seen, _agreeing()[off], np.float32(0.3))
    return float((weight * agree).sum()) / float(weight.sum())


@lru_cache(maxsize=1)
def _agreeing() -> Image:
    """Return by how much pictures agree where they differ by 0, 1, 2 … levels."""
    return np.asarray(1 / (1 + (np.arange(256) / AGREE_LUMA) ** 2), np.float32)


def _shift(before: Luma, luma: Luma) -> tuple[float, float] | None:
    """Return the whole picture's shift by phase correlation (Kuglin & Hines, 1975) if it is far and plausible."""
    height, width = before.shape
    half = (width // 2, height // 2)
    small = [cv2.resize(p, half, interpolation=cv2.INTER_AREA).astype(np.float32) for p in (before, luma)]
    (x, y), _ = cv2.phaseCorrelate(small[0], small[1], _window(*half))
    right, down = round(2 * x), round(2 * y)
    if np.hypot(right, down) < FAR_PX or abs(right) > 0.6 * width or abs(down) > 0.6 * height:
        return None
    return float(right), float(down)


@lru_cache(maxsize=8)
def _window(width: int, height: int) -> Image:
    return cast(Image, cv2.createHanningWindow((width, height), cv2.CV_32F))


def _summed(
    before: Luma, luma: Luma, camera: Vector, flowed: _Flow, grid: Grid, trust: Image, width_s: float, dt_s: float
) -> tuple[float, float, float, float, float, float, float]:
    """Return the numbers of `Motion` from pixels; `width_s` is one width in pixels times the time."""
    shift_x, shift_y, zoom, roll = (float(number) for number in camera)
    share = _thinned(trust)
    share /= share.sum()
    residual = np.sqrt(squared(grid, flowed.moved, camera[:, None])[0])
    own = float(np.hypot(np.hypot(shift_x, shift_y), np.hypot(zoom, roll) * grid.spread_px))
    limit = OBJECT_SPEED * width_s + OBJECT_SHARE * own
    moving = share * np.clip(residual / limit - 0.5, 0, 1)  # no step, which noise could push a point over
    asked = min(1.0, own / PROOF_PX)
    if asked and moving.any():
        moving *= 1 - asked * (1 - _proof(before, luma, camera, flowed))
    area = float(moving.sum())
    speed = float((moving * residual).sum()) / area / width_s if area > 0 else 0.0
    # The picture moves against the camera.
    return (
        -shift_x / width_s, shift_y / width_s, zoom / dt_s, roll / dt_s, speed, area,
        quantile(residual, share, 0.9) / width_s * dt_s,
    )  # fmt: skip


def _proof(before: Luma, luma: Luma, camera: Vector, flowed: _Flow) -> Vector:
    """Return of each point how surely the pictures say that it does not move with the camera: 0 to 1."""
    # The flow says where each point went, so what lies there is brought to where the point was.
    to = _places(*before.shape) + flowed.field
    own = cv2.remap(flowed.later, to, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    with_camera, by_itself = (
        _thinned(
            cv2.boxFilter(cv2.absdiff(_levelled(before, cast(Luma, picture)), before), cv2.CV_32F, (PROOF_SIDE,) * 2)
        )
        for picture in (_back(luma, camera), own)
    )
    least, most = PROOF_LUMA
    return np.clip((with_camera - by_itself - least) / (most - least), 0, 1)


@lru_cache(maxsize=8)
def _places(height: int, width: int) -> Float[np.ndarray, "h w 2"]:
    """Return of every pixel how far right and down it lies."""
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.dstack([across, down])
