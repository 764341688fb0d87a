"""Whether two still pictures are the same: a perceptual hash cannot tell one title card from the next.

A hash of 64 bits sees where the light is, not what is written there. So still clips, whose motion cannot prove
anything, are compared picture by picture on a finer grid, and every small part must agree.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIDE = 64
CELL = 4
"""Side of the parts that must agree, in pixels of the grid: about a letter of a title."""
SHIFT = 1
"""Pixels by which the pictures may be shifted: what bars are measured wrong by."""
LEAST_STD = 4.0
"""A picture of less contrast, of 255, holds nothing that could be compared."""

Grid = npt.NDArray[np.uint8]


def grid(luma: npt.NDArray[np.uint8], bars: tuple[float, float, float, float]) -> Grid:
    """Return a picture without its bars on a grid of 64×64.

    Args:
        luma: [h, w] picture.
        bars: left, top, right and bottom fractions that are not picture.
    """
    import cv2  # a selection only compares grids, and answers sooner without it

    from rushes.filters.hashes import inside

    return cv2.resize(inside(luma, bars), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def unlike(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return how unlike pictures are in the part where they differ most, in standard deviations of the picture.

    Light and contrast are taken out first. 0 for the same picture, some tenths after strong compression, 1 and more for
    another word; infinite for a picture without contrast.

    Args:
        a: [n, 64, 64] grids.
        b: [n, 64, 64] grids.
    """
    one, other = _normal(a), _normal(b)
    best = np.full(len(a), np.inf)
    core = slice(CELL, SIDE - CELL)
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            moved = np.roll(other, (down, right), axis=(1, 2))
            square = (one - moved)[:, core, core] ** 2
            cells = square.reshape(len(a), -1, CELL, (SIDE - 2 * CELL) // CELL, CELL).mean(axis=(2, 4))
            best = np.minimum(best, np.sqrt(cells.max(axis=(1, 2))))
    return np.where(np.isnan(best), np.inf, best)


def _normal(grids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return grids with mean 0 and deviation 1; NaN where there is no contrast."""
    values = grids.astype(np.float64)
    std = values.std(axis=(1, 2), keepdims=True)
    return (values - values.mean(axis=(1, 2), keepdims=True)) / np.where(std < LEAST_STD, np.nan, std)
