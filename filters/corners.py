"""Whether two pictures show the same place: corners of the one that are found again in the other.

Where a drawing pops in, a window opens, a capture that froze goes on or a lamp goes on, most of the picture changes
and yet the place is the same: its corners are where they were, or have moved a little. After a cut there is nothing to
find.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

WIDTH_PX = 160
"""Width to which pictures are shrunk: what is left are the outlines of things."""
CORNERS, APART_PX, QUALITY = 80, 5, 0.01
"""Corners that are looked for, how far they are apart, and how strong they are by the strongest, at least."""
LEAST_PX, BAR = 24, 20
"""Pixels of a side within the bars with which a picture is looked at, and the light of bars at most."""
LEAST = 12
"""With fewer corners in the picture nothing can be told."""
PATCH = 4
"""Pixels from the middle of a patch to its edge."""
ALIKE = 0.75
"""Correlation of the patches round a corner and where it is found, at least."""
ENOUGH = 0.9
"""With that share of the corners of one picture found those of the other need not be looked for."""
LEAST_MOVED = 4
"""Corners that agree on a motion at least, which any two do."""
CONSENSUS: dict[str, Any] = {
    "method": cv2.RANSAC,
    "ransacReprojThreshold": 2.0,
    "maxIters": 100,
    "confidence": 0.95,
}
REACH: dict[str, Any] = {
    "winSize": (13, 13),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.05),
}

Luma = npt.NDArray[np.uint8]


def found_again(before: Luma, after: Luma) -> float:
    """Return the share of corners of a picture `[h, w]` that another shows as well, 0–1; NaN where it has too few.

    Those of either picture are looked for in the other, and the larger share counts: what comes before a place hides
    its corners, and has few of its own. Black bars, whose corners never go, are left out.
    """
    size = (WIDTH_PX, max(8, round(before.shape[0] * WIDTH_PX / before.shape[1])))
    a, b = _inside(_shrunk(before, size), _shrunk(after, size))
    if min(a.shape) < LEAST_PX:
        return float("nan")
    found = _found(a, b)
    return found if found >= ENOUGH else float(np.fmax(found, _found(b, a)))


def _found(a: Luma, b: Luma) -> float:
    """Return the share of corners of a picture that another shows; NaN where it has too few.

    Each is looked for where it was, which a lamp that goes on leaves alike, and where the picture has moved to (Lucas
    and Kanade, 1981, on pyramids): of those that are alike there, the ones count that one motion of a camera explains.
    """
    corners = cv2.goodFeaturesToTrack(a, CORNERS, QUALITY, APART_PX)
    if corners is None or len(corners) < LEAST:
        return float("nan")
    moved, _, _ = cv2.calcOpticalFlowPyrLK(a, b, corners, np.empty_like(corners), **REACH)
    here, there = np.asarray(corners[:, 0], np.float32), np.asarray(moved[:, 0], np.float32)
    own = _patches(a, here)
    stays, moves = (_likeness(own, _patches(b, at)) >= ALIKE for at in (here, there))
    if moves.sum() >= LEAST_MOVED:
        _, agree = cv2.estimateAffinePartial2D(here[moves], there[moves], **CONSENSUS)
        moves[moves] = agree[:, 0] > 0 if agree is not None else False
        stays |= moves
    return float(stays.mean())


def _shrunk(luma: Luma, size: tuple[int, int]) -> Luma:
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def _inside(a: Luma, b: Luma) -> tuple[Luma, Luma]:
    """Return what of two pictures is not black at their edges in both."""
    bright = np.maximum(a, b) > BAR
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    if not len(rows):
        return a[:0], b[:0]
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return np.ascontiguousarray(a[part]), np.ascontiguousarray(b[part])


def _patches(luma: Luma, at: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the patches round some points, `[n, side²]`, each less its mean."""
    padded = np.pad(luma, PATCH, mode="edge").astype(np.float32)
    height, width = luma.shape
    x, y = (
        np.clip(np.rint(values), 0, most - 1).astype(np.intp)
        for values, most in zip(at.T, (width, height), strict=True)
    )
    step = np.arange(2 * PATCH + 1)
    found = padded[(y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None, :]].reshape(len(at), -1)
    return np.asarray(found - found.mean(axis=1, keepdims=True), np.float32)


def _likeness(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the correlation of patches; 0 of flat ones."""
    power = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(power, 1.0), np.float32)
