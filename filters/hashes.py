"""Perceptual hashes: 64 bits that say what a picture looks like, whatever its codec, size or black bars."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 32
KEPT = 8
NO_BARS = (0.0, 0.0, 0.0, 0.0)


def phash(luma: npt.NDArray[np.uint8], bars: tuple[float, float, float, float] = NO_BARS) -> int:
    """Return the 64-bit DCT hash of a picture, as an int that fits uint64.

    The picture inside the bars is shrunk to 32×32 and transformed; bit k tells whether the k-th of the lowest 8×8
    coefficients lies above their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    2010, §3.2). A flat or black picture has a hash too, but one of noise: look at the standard deviation of its luma.

    Args:
        luma: [h, w] picture.
        bars: left, top, right and bottom fractions that are not picture.
    """
    small = cv2.resize(inside(luma, bars), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:KEPT, :KEPT].ravel()
    rest = low[1:]  # the first coefficient is the mean, which says nothing of the picture's structure
    bits = low > np.partition(rest, len(rest) // 2)[len(rest) // 2]  # their median: np.median takes four times as long
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def inside(luma: npt.NDArray[np.uint8], bars: tuple[float, float, float, float]) -> npt.NDArray[np.uint8]:
    """Return the part of a picture inside its bars; the whole picture where the bars would leave less than 8 pixels."""
    height, width = luma.shape
    left, right = round(bars[0] * width), width - round(bars[2] * width)
    top, bottom = round(bars[1] * height), height - round(bars[3] * height)
    if right - left < KEPT or bottom - top < KEPT:
        return luma
    return luma[top:bottom, left:right]


def hamming(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the number of differing bits, 0–64, of hashes or arrays of them; the arrays broadcast."""
    return np.bitwise_count(np.asarray(a, np.uint64) ^ np.asarray(b, np.uint64))
