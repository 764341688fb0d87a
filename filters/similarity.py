"""A similarity (shift, zoom, roll) fitted robustly to a flow field: the camera, whatever moves before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

GRID_PX = 4
"""Spacing of the grid on which the camera's motion is fitted."""
ROUNDS = 6
"""Rounds of re-weighting; the fit moves by less than a hundredth of a pixel after five."""
SCALE_PX = 0.35
"""Residual at which a grid point loses half its weight: about the noise of the flow."""
EDGE_SAY = 6.0
"""Say of the left, right and upper edge in the camera's motion, against 1 in the middle, where the subject is."""


class Grid(NamedTuple):
    """Where the flow is looked at, and where pictures are compared; offsets in pixels from the middle."""

    dx: Vector
    dy: Vector
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
    return Grid(
        (x - middle_x).ravel(), (y - middle_y).ravel(), _say(x, y, height, width).ravel(),
        (columns - middle_x).astype(np.float32), (rows - middle_y).astype(np.float32),
        _say(columns, rows, height, width).astype(np.float32),
    )  # fmt: skip


def _say(x: npt.NDArray, y: npt.NDArray, height: int, width: int) -> Vector:
    """Return how much a point has to say about the camera; at the lower edge stand people, not the background."""
    inward = np.minimum(np.minimum(x, width - 1 - x) / width, 0.6 * y / height)
    return 1 + (EDGE_SAY - 1) * np.clip((0.2 - inward) / 0.12, 0, 1)


def fits(grid: Grid, moved: Vector, say: Vector) -> tuple[Vector, Vector]:
    """Return the camera that explains most, and the one nearest to standing."""
    u, v = moved.reshape(2, -1)
    typical = _similarity(grid, moved, say, np.array([quantile(u, say), quantile(v, say), 0.0, 0.0]), 8 * SCALE_PX)
    standing = _similarity(grid, moved, say, np.zeros(4), 3 * SCALE_PX)
    explained = [float((say / (1 + squared(grid, moved, fit) / SCALE_PX**2)).sum()) for fit in (typical, standing)]
    return (standing if explained[1] > explained[0] else typical), standing


def squared(grid: Grid, moved: Vector, camera: Vector) -> Vector:
    """Return the squared distance of each point's motion from what a camera gives it."""
    shift_x, shift_y, zoom, roll = camera
    u, v = moved.reshape(2, -1)
    return (u - shift_x - zoom * grid.dx + roll * grid.dy) ** 2 + (v - shift_y - zoom * grid.dy - roll * grid.dx) ** 2


def _similarity(grid: Grid, moved: Vector, say: Vector, start: Vector, scale: float) -> Vector:
    """Return (shift x, shift y, zoom, roll) of u = sx + zoom·x − roll·y, v = sy + zoom·y + roll·x.

    Iteratively re-weighted least squares with Geman–McClure weights whose scale narrows from wide, so that a zoom is
    not taken for objects, to the flow's noise, so that objects lose their say.
    """
    u, v = moved.reshape(2, -1)
    dx, dy = grid.dx, grid.dy
    order = np.stack([np.ones_like(u), dx, dy, u, v, dx * dx + dy * dy, dx * u + dy * v, dx * v - dy * u])
    camera = start
    for _ in range(ROUNDS):
        weight = say / (1 + squared(grid, moved, camera) / scale**2) ** 2
        scale = max(SCALE_PX, scale / 2)
        camera = _solve((order @ weight).tolist())
    return camera


def _solve(sums: Sequence[float]) -> Vector:
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


def quantile(values: Vector, weight: Vector, share: float = 0.5) -> float:
    """Return the weighted quantile, by default the median."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] * share)]])
