"""A similarity (shift, zoom, roll) fitted robustly to a flow field: the camera, whatever moves before it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

GRID_PX = 4
"""Spacing of the grid on which the camera's motion is fitted."""
ROUNDS = 6
"""Rounds of re-weighting at most; the fit moves by less than a hundredth of a pixel after five."""
SETTLED_PX = 0.002
"""Change of the shift in a round, at the last scale, after which no further one is made."""
SCALE_PX = 0.35
"""Residual at which a grid point loses half its weight: about the noise of the flow."""
EDGE_SAY = 6.0
"""Say of the left, right and upper edge in the camera's motion, against 1 in the middle, where the subject is."""


class Grid(NamedTuple):
    """Where the flow is looked at, and where pictures are compared; offsets in pixels from the middle."""

    dx: Vector
    dy: Vector
    effects: Vector
    """`[4, 2n]`: what shift x, shift y, zoom and roll do to u, then to v, of each point."""
    say: Vector
    across: Image
    down: Image
    say_pixels: Image


@lru_cache(maxsize=8)
def grid_of(height: int, width: int) -> Grid:
    """Return the grid of pictures of one size."""
    y, x = np.mgrid[GRID_PX // 2 : height : GRID_PX, GRID_PX // 2 : width : GRID_PX]
    rows, columns = np.mgrid[0:height:2, 0:width:2]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    dx, dy = (x - middle_x).ravel(), (y - middle_y).ravel()
    one, none = np.ones_like(dx), np.zeros_like(dx)
    effects = np.stack([np.r_[one, none], np.r_[none, one], np.r_[dx, dy], np.r_[-dy, dx]])
    return Grid(
        dx, dy, effects, _say(x, y, height, width).ravel(),
        (columns - middle_x).astype(np.float32), (rows - middle_y).astype(np.float32),
        _say(columns, rows, height, width).astype(np.float32),
    )  # fmt: skip


def _say(x: npt.NDArray, y: npt.NDArray, height: int, width: int) -> Vector:
    """Return how much a point has to say about the camera; at the lower edge stand people, not the background."""
    inward = np.minimum(np.minimum(x, width - 1 - x) / width, 0.6 * y / height)
    return 1 + (EDGE_SAY - 1) * np.clip((0.2 - inward) / 0.12, 0, 1)


def fits(grid: Grid, moved: Vector, say: Vector) -> tuple[Vector, Vector]:
    """Return the camera, `[4]`, that explains most of a flow, and the one nearest to standing.

    The camera is (shift x, shift y, zoom, roll) of u = sx + zoom·x − roll·y, v = sy + zoom·y + roll·x, by iteratively
    re-weighted least squares with Geman–McClure weights. Their scale narrows from wide, so that a zoom is not taken
    for objects, to the flow's noise, so that objects lose their say.

    Args:
        grid: where the flow was taken.
        moved: `[2n]`, u then v, in pixels.
        say: weight of each point.
    """
    u, v = moved.reshape(2, -1)
    dx, dy = grid.dx, grid.dy
    order = np.stack([np.ones_like(u), dx, dy, u, v, dx * dx + dy * dy, dx * u + dy * v, dx * v - dy * u]).T
    cameras = np.zeros((4, 2))
    cameras[:2, 0] = quantile(u, say), quantile(v, say)
    scales = SCALE_PX * np.array([[8.0], [3.0]])
    for _ in range(ROUNDS):
        weight = say / (1 + squared(grid, moved, cameras) / scales**2) ** 2
        cameras, last = np.array([_solved(*sums) for sums in (weight @ order).tolist()]).T, cameras
        if scales.max() == SCALE_PX and np.abs(cameras - last)[:2].max() < SETTLED_PX:
            break
        scales = np.maximum(SCALE_PX, scales / 2)
    explained = (say / (1 + squared(grid, moved, cameras) / SCALE_PX**2)).sum(axis=1)
    typical, standing = cameras.T
    return (standing if explained[1] > explained[0] else typical), standing


def squared(grid: Grid, moved: Vector, cameras: Vector) -> Vector:
    """Return the squared distance of each point's motion from what cameras, `[4, k]`, give it: `[k, n]`."""
    left = moved - cameras.T @ grid.effects
    np.multiply(left, left, out=left)
    half = left.shape[1] // 2
    return cast(Vector, left[:, :half] + left[:, half:])


def _solved(
    total: float, x: float, y: float, u: float, v: float, spread: float, along: float, across: float
) -> tuple[float, float, float, float]:
    """Weighted least squares in closed form: about the weighted centre the unknowns are independent.

    Takes the weighted sums of 1, x, y, u, v, x² + y², x·u + y·v and x·v − y·u.
    """
    x, y, u, v = x / total, y / total, u / total, v / total
    spread = spread - total * (x * x + y * y) + 1e-9
    zoom = (along - total * (x * u + y * v)) / spread
    roll = (across - total * (x * v - y * u)) / spread
    return u - zoom * x + roll * y, v - zoom * y - roll * x, zoom, roll


def quantile(values: Vector, weight: Vector, share: float = 0.5) -> float:
    """Return the weighted quantile, by default the median."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] * share)]])
