"""Motion from dense optical flow at a fixed rate: what the camera does, and what moves besides.

Speeds are per second and relative to the picture's width, so that they do not depend on size, frame rate or codec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

Luma = npt.NDArray[np.uint8]

GRID_PX = 4
"""Spacing of the grid on which the camera's motion is fitted."""
ROUNDS = 6
"""Rounds of re-weighting; the fit moves by less than a hundredth of a pixel after five."""
SCALE_PX = 0.35
"""Residual at which a grid point loses half its weight: about the noise of the flow."""
OBJECT_PX = 0.75
"""Residual above which a grid point belongs to something that moves by itself."""
STILL = 0.012
"""Camera speed, widths per second, below which a camera stands (a tripod's wobble and the flow's noise)."""


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


class Camera(NamedTuple):
    """The camera of a clip; the speeds are means over its ticks, with their sign."""

    label: str
    """static, pan, tilt, zoom, roll, shake or moving."""
    speed: float
    """Mean speed of the camera's motion over the picture: widths per second."""
    shake: float
    """Mean change of pan and tilt from tick to tick: widths per second."""
    pan: float
    tilt: float
    zoom: float
    roll: float


class Flow:
    """Dense flow between small luma pictures: OpenCV's DIS (Kroeger et al., arXiv 1603.03590), preset fast.

    At 128 pixels the fastest preset loses a pan of half a width per second; this one follows it for 0.1 ms more a tick.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, before: Luma, luma: Luma) -> Float[np.ndarray, "h w 2"]:
        """Return the displacement in pixels, (right, down), of every pixel of `before`."""
        return cast(np.ndarray, self._dis.calc(before, luma, cast(Any, None)))


def flow(before: Luma, luma: Luma) -> Float[np.ndarray, "h w 2"]:
    """Return the displacement in pixels, (right, down), of every pixel between two frames; `Flow` for many."""
    return Flow()(before, luma)


def texture(luma: Luma) -> Float[np.ndarray, "h w"]:
    """Return a weight, 0 to 1, of how much the flow can be trusted at each pixel: flow needs texture to hold on to."""
    small = cv2.GaussianBlur(luma, (5, 5), 0)
    gradient = cv2.magnitude(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    energy = cv2.blur(gradient, (9, 9))
    return energy / (energy + 12.0)


def split(field: Float[np.ndarray, "h w 2"], dt_s: float, weight: Float[np.ndarray, "h w"] | None = None) -> Motion:
    """Split a flow field into the camera's motion and what moves besides.

    The camera is a similarity (shift, zoom, roll) fitted robustly: iteratively re-weighted least squares with
    Geman–McClure weights, so that what moves by itself loses its say. What the fit leaves over is object motion.

    Args:
        field: displacements in pixels.
        dt_s: time between the two frames.
        weight: trust in each pixel, such as `texture`; all alike by default.
    """
    height, width = field.shape[:2]
    points = _points(height, width)
    at = (slice(GRID_PX // 2, None, GRID_PX),) * 2
    moved = np.concatenate([field[at][..., 0].ravel(), field[at][..., 1].ravel()]).astype(np.float64)
    trust = np.ones(len(moved) // 2) if weight is None else weight[at].ravel().astype(np.float64)
    if trust.sum() < 1e-6:
        return Motion(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    shift_x, shift_y, zoom, roll = params = _similarity(points, moved, trust)
    residual = np.sqrt(_squared(points, moved, params))
    moving = trust * (residual > OBJECT_PX)
    area = float(moving.sum() / trust.sum())
    speed = float((moving * residual).sum() / moving.sum()) / width / dt_s if area > 0 else 0.0
    # Rounded to far below what can be measured, but above the rounding of sums, which may depend on how an array lies
    # in memory: the same two pictures must give the same numbers wherever a span begins.
    pan, tilt = -shift_x / width / dt_s, shift_y / width / dt_s  # the picture moves against the camera
    found = (pan, tilt, zoom / dt_s, roll / dt_s, speed, area)
    return Motion(*(round(float(number), 6) + 0.0 for number in found))


@lru_cache(maxsize=16)
def _points(height: int, width: int) -> npt.NDArray[np.float64]:
    """Return `[4, 2n]`: what shift x, shift y, zoom and roll do to u, then to v, of each point of the grid."""
    y, x = np.mgrid[GRID_PX // 2 : height : GRID_PX, GRID_PX // 2 : width : GRID_PX]
    dx, dy = x.ravel() - (width - 1) / 2, y.ravel() - (height - 1) / 2
    one, none = np.ones_like(dx), np.zeros_like(dx)
    return np.stack([np.r_[one, none], np.r_[none, one], np.r_[dx, dy], np.r_[-dy, dx]])


def _squared(points: npt.NDArray, moved: npt.NDArray, params: npt.NDArray) -> npt.NDArray[np.float64]:
    """Return the squared distance of each point's motion from what a similarity gives it."""
    left = (moved - params @ points).reshape(2, -1)
    return np.einsum("kn,kn->n", left, left)


def _similarity(points: npt.NDArray, moved: npt.NDArray, trust: npt.NDArray) -> npt.NDArray[np.float64]:
    """Return (shift x, shift y, zoom, roll) of u = sx + zoom·x − roll·y, v = sy + zoom·y + roll·x."""
    u, v = moved.reshape(2, -1)
    dx, dy = points[2].reshape(2, -1)
    order = np.stack([np.ones_like(u), dx, dy, u, v, dx * dx + dy * dy, dx * u + dy * v, dx * v - dy * u])
    params = np.array([_median(u, trust), _median(v, trust), 0.0, 0.0])
    scale = 8 * SCALE_PX  # wide at first, so that a zoom is not taken for objects
    for _ in range(ROUNDS):
        weight = trust / (1 + _squared(points, moved, params) / scale**2) ** 2
        scale = max(SCALE_PX, scale / 2)
        params = _solve((order @ weight).tolist())
    return params


def _solve(sums: Sequence[float]) -> npt.NDArray[np.float64]:
    """Weighted least squares in closed form: about the weighted centre the unknowns are independent.

    Args:
        sums: weighted sums of 1, x, y, u, v, x² + y², x·u + y·v and x·v − y·u.
    """
    total, x, y, u, v, spread, along, across = sums
    x, y, u, v = x / total, y / total, u / total, v / total
    spread = spread - total * (x * x + y * y) + 1e-9
    zoom = (along - total * (x * u + y * v)) / spread
    roll = (across - total * (x * v - y * u)) / spread
    return np.array([u - zoom * x + roll * y, v - zoom * y - roll * x, zoom, roll])


def _median(values: npt.NDArray, weight: npt.NDArray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


def camera(ticks: Mapping[str, npt.NDArray[np.floating]], aspect: float = 16 / 9) -> Camera:
    """Summarise the camera over the ticks of one clip.

    The first tick of a clip compares it with what stood before and must be left out.

    Args:
        ticks: arrays `pan`, `tilt`, `zoom`, `roll`, one number per tick.
        aspect: width by height of the picture.
    """
    pan, tilt, zoom, roll = (np.asarray(ticks[name], np.float64) for name in ("pan", "tilt", "zoom", "roll"))
    if not len(pan):
        return Camera("static", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    speed = float(camera_speed(pan, tilt, zoom, roll, aspect).mean())
    shake = float(np.hypot(np.diff(pan), np.diff(tilt)).mean()) if len(pan) > 1 else 0.0
    means = (float(pan.mean()), float(tilt.mean()), float(zoom.mean()), float(roll.mean()))
    return Camera(camera_label(*means, speed=speed, shake=shake, aspect=aspect), speed, shake, *means)


def camera_speed(
    pan: npt.NDArray, tilt: npt.NDArray, zoom: npt.NDArray, roll: npt.NDArray, aspect: float = 16 / 9
) -> npt.NDArray[np.float64]:
    """Return the root mean square over the picture of the camera's motion, in widths per second."""
    return np.sqrt(pan**2 + tilt**2 + _reach(aspect) ** 2 * (zoom**2 + roll**2))


def _reach(aspect: float) -> float:
    """Root mean square distance of a pixel from the centre, in widths."""
    return float(np.sqrt((1 + aspect**-2) / 12))


def camera_label(
    pan: float, tilt: float, zoom: float, roll: float, *, speed: float, shake: float, aspect: float = 16 / 9
) -> str:
    """Return static, pan, tilt, zoom, roll, shake or moving from a clip's mean camera motion.

    A steady move adds up over the clip and its largest part names it, if it clearly is the largest; motion that does
    not add up is shake.
    """
    if speed < STILL:
        return "static"
    parts = {"pan": abs(pan), "tilt": abs(tilt), "zoom": abs(zoom) * _reach(aspect), "roll": abs(roll) * _reach(aspect)}
    name = max(parts, key=lambda part: parts[part])
    steady = float(np.sqrt(sum(part**2 for part in parts.values())))
    if steady < 0.4 * speed:
        return "shake" if shake > 0.5 * speed else "moving"
    others = max(value for part, value in parts.items() if part != name)
    return name if parts[name] > 1.6 * others else "moving"
