"""A similarity (shift, zoom, roll) fitted robustly to a flow field: the camera, whatever moves before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Camera = tuple[float, float, float, float]
"""Shift x, shift y, zoom and roll."""

GRID_PX = 4
"""Spacing of the grid on which the camera's motion is fitted."""
ROUNDS = 6
"""Rounds of re-weighting at most; the fit moves by less than a hundredth of a pixel after five."""
SETTLED_PX = 0.002
"""Change of the shift in a round, at the last scale, after which no further one is made."""
SCALE_PX = 0.35
"""Residual at which a grid point loses half its weight: about the noise of the flow."""
WIDE = (8.0, 3.0)
"""By how much wider the scale is at first, from the typical shift and from a standing camera; halved in each round."""
EDGE_SAY = 6.0
"""Say of the left, right and upper edge in the camera's motion, against 1 in the middle, where the subject is."""


class Grid(NamedTuple):
    """Where the flow is looked at, and where pictures are compared; offsets in pixels from the middle."""

    dx: Vector
    dy: Vector
    far: Vector
    """Squared distance from the middle …"""
    spread_px: float
    """… and the root of its mean."""
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
    far = dx * dx + dy * dy
    return Grid(
        dx, dy, far, float(np.sqrt(far.mean())), effects, _say(x, y, height, width).ravel(),
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
    order = _ordered(grid, u, v)
    sums, narrow = order[:-1].T, SCALE_PX**2
    cameras = [(quantile(u, say), quantile(v, say), 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]
    for number in range(ROUNDS):
        scales = np.maximum(1, np.array(WIDE) / 2**number) ** 2 * narrow
        weight = _left(order, cameras)
        weight /= scales[:, None]
        weight += 1
        weight *= weight
        np.divide(say, weight, out=weight)
        last, cameras = cameras, [_solved(*found) for found in (weight @ sums).tolist()]
        if max(WIDE) <= 2**number and _apart(cameras, last) < SETTLED_PX:
            break
    explained = (say / (1 + _left(order, cameras) / narrow)).sum(axis=1)
    typical, standing = np.array(cameras)
    return (standing if explained[1] > explained[0] else typical), standing


def _ordered(grid: Grid, u: Vector, v: Vector) -> Vector:
    """Return of each point 1, x, y, u, v, x² + y², x·u + y·v, x·v − y·u and u² + v²: `[9, n]`.

    Weighted sums of all but the last give the best camera; all of them, what a camera leaves over.
    """
    order = np.empty((9, len(u)))
    order[0], order[1], order[2], order[3], order[4], order[5] = 1, grid.dx, grid.dy, u, v, grid.far
    order[6] = grid.dx * u + grid.dy * v
    order[7] = grid.dx * v - grid.dy * u
    order[8] = u * u + v * v
    return order


def _left(order: Vector, cameras: Sequence[Camera]) -> Vector:
    """Return the squared distance of each point's motion from what cameras give it, `[k, n]`, multiplied out.

    So it takes one product of small matrices for each round; `squared` takes the differences first, which is exact to
    the last digit where almost nothing is left.
    """
    parts = [
        (x * x + y * y, 2 * (x * zoom + y * roll), 2 * (y * zoom - x * roll), -2 * x, -2 * y,
         zoom * zoom + roll * roll, -2 * zoom, -2 * roll, 1.0)
        for x, y, zoom, roll in cameras
    ]  # fmt: skip
    return cast(Vector, np.array(parts) @ order)


def _apart(cameras: Sequence[Camera], others: Sequence[Camera]) -> float:
    """Return by how many pixels the shifts of cameras differ at most."""
    pairs = zip(cameras, others, strict=True)
    return max(abs(here - there) for a, b in pairs for here, there in zip(a[:2], b[:2], strict=True))


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
