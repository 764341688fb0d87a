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
CLIP_LUMA = 4
"""Levels from black or white within which a pixel is clipped."""
FLICKER_HZ = 2.0
"""Slower changes of brightness are events in the scene."""
FLICKER_LEAST_S = 0.9
"""Shortest clip whose flicker can be told."""
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


def clipped(luma: Luma) -> tuple[float, float]:
    """Return the shares of a picture's pixels that are as good as black and as good as white: detail lost for good."""
    return cv2.countNonZero(cv2.inRange(luma, 0, CLIP_LUMA)) / luma.size, (  # type: ignore[call-overload]
        cv2.countNonZero(cv2.inRange(luma, 255 - CLIP_LUMA, 255)) / luma.size  # type: ignore[call-overload]
    )


def exposure(luma_mean: Series) -> float | None:
    """Return by how many stops a clip is brighter than one that averages 18 % grey; negative is under-exposed.

    None for a black clip. Takes luma for a power of 2.2 of the light, as screens do.
    """
    mean = float(np.mean(luma_mean, dtype=np.float64)) if len(luma_mean) else 0.0
    return float(2.2 * np.log2(mean / 255) - np.log2(0.18)) if mean >= 1 else None


def flicker(luma_mean: Series, time_s: Series) -> float | None:
    """Return the height, 0–255, of the strongest periodic change of brightness faster than `FLICKER_HZ`.

    It is the same at any frame rate that can show the period. A fade, or a pan into the sun, has no period and hardly
    counts. None for less than `FLICKER_LEAST_S`, which cannot tell.
    """
    count = len(luma_mean)
    if count < 8 or time_s[-1] - time_s[0] < FLICKER_LEAST_S:
        return None
    even_s = np.linspace(time_s[0], time_s[-1], count)
    level = np.interp(even_s, time_s, np.asarray(luma_mean, np.float64))
    level -= np.polynomial.Polynomial.fit(even_s, level, 3)(even_s)
    window = np.hanning(count + 2)[1:-1]
    size = 4 * count  # padded, so that a period between two lines of the spectrum is not seen too low
    height = 4 * abs(np.fft.rfft(level * window, size)) / window.sum()
    height[-8:] /= 2  # nearly alternating frames: the line and its mirror image fall together
    rate_hz = np.fft.rfftfreq(size, float(even_s[1] - even_s[0]))
    return float(height[rate_hz >= FLICKER_HZ].max(initial=0.0))


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
