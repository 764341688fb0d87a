"""What single frames and rows of frames show: light, sharpness, change, black bars, stills, flicker.

All pictures are small luma planes, [h, w] uint8, full range 0–255; all series are one number per frame.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.uint8]
Series = npt.NDArray[np.floating]

BAR_LUMA = 14
"""Bars are black in full range; this much is left for the noise of lossy coding."""
BAR_LIMIT = 0.45
"""Bars that would take more than this of a side are a dark picture."""
SAME_CHANGE = 0.08
"""Mean |Δ| of luma below which two decoded frames are the same picture, coding noise aside."""


class Bars(NamedTuple):
    """Fractions of the width or height that black bars take at each side."""

    left: float
    top: float
    right: float
    bottom: float


def light(luma: Luma) -> tuple[float, float]:
    """Return mean and standard deviation of luma, both on the scale 0–255."""
    mean, std = cv2.meanStdDev(luma)
    return float(mean[0, 0]), float(std[0, 0])


def sharpness(luma: Luma) -> float:
    """Return the variance of the Laplacian of a small picture (Pech-Pacheco et al., ICPR 2000): near 0 is blurred."""
    edges = cv2.Laplacian(luma, cv2.CV_16S)
    mean = cv2.sumElems(edges)[0] / edges.size
    return float(cv2.norm(edges, cv2.NORM_L2SQR)) / edges.size - mean * mean


def change(before: Luma, luma: Luma) -> float:
    """Return the mean |Δ| of luma between two frames, 0–255."""
    return float(cv2.norm(before, luma, cv2.NORM_L1)) / luma.size


def bars(luma: Luma) -> Bars:
    """Return the black bars of one frame; zeros where there are none or where the whole picture is dark.

    Only what is dark on both opposite sides is a bar: a dark floor or a night sky alone is picture.
    """
    top, bottom = _dark_ends(luma.max(axis=1))
    left, right = _dark_ends(luma.max(axis=0))
    height, width = luma.shape
    return Bars(
        *(
            share if share <= BAR_LIMIT else 0.0
            for share in (
                min(left, right) / width,
                min(top, bottom) / height,
                min(left, right) / width,
                min(top, bottom) / height,
            )
        )
    )


def _dark_ends(peak: npt.NDArray[np.uint8]) -> tuple[int, int]:
    bright = np.flatnonzero(peak > BAR_LUMA)
    if not len(bright):
        return 0, 0
    return int(bright[0]), len(peak) - 1 - int(bright[-1])


def crop(found: npt.NDArray[np.floating], rows: int, columns: int) -> Bars:
    """Return the bars of a clip from those of its frames: the narrowest, widened by the pixel they are exact to.

    Args:
        found: [frames, 4] bars of frames that show something; black frames tell nothing and should be left out.
        rows: height of the small pictures they were measured on.
        columns: width of them.
    """
    if not len(found):
        return Bars(0.0, 0.0, 0.0, 0.0)
    least = found.min(axis=0)
    steps = np.array([1 / columns, 1 / rows, 1 / columns, 1 / rows])
    wide = np.where(least > 0.5 * steps, least + steps, 0.0)
    return Bars(*(float(side) for side in wide))


def black_share(luma_mean: Series, luma_std: Series) -> float:
    """Return the share of frames that are black: dark all over, with nothing bright in them."""
    return _share((luma_mean < 16) & (luma_std < 8))


def white_share(luma_mean: Series, luma_std: Series) -> float:
    """Return the share of frames that are white all over."""
    return _share((luma_mean > 239) & (luma_std < 8))


def duplicate_share(changes: Series) -> float:
    """Return the share of frames that repeat the frame before; `changes` starts with the second frame."""
    return _share(changes < SAME_CHANGE)


def frozen_share(changes: Series, durations_s: Series, least_s: float = 0.5) -> float:
    """Return the share of time in which one picture stands for at least `least_s` at a stretch.

    A repeated frame of a slower original (24 to 30 fps, animation on twos) is no freeze; a still picture is, whether
    it is coded as many equal frames or as one long one.

    Args:
        changes: change of each frame against the one before; that of the first is not looked at.
        durations_s: how long each frame is shown.
        least_s: shortest freeze that counts.
    """
    if not len(changes) or durations_s.sum() <= 0:
        return 0.0
    new = changes >= SAME_CHANGE
    new[0] = True
    shown_s = np.add.reduceat(np.asarray(durations_s, np.float64), np.flatnonzero(new))
    return float(shown_s[shown_s >= least_s].sum() / shown_s.sum())


def flicker(luma_mean: Series) -> float:
    """Return the mean height of zigzags in brightness, 0–255: light that goes up and down from frame to frame.

    A fade or a pan into the sun changes brightness in one direction and does not count.
    """
    step = np.diff(np.asarray(luma_mean, np.float64))
    if len(step) < 2:
        return 0.0
    turns = step[1:] * step[:-1] < 0
    return float(np.where(turns, np.minimum(abs(step[1:]), abs(step[:-1])), 0.0).mean())


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
