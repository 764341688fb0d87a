"""The matrices of colour: from luma and colour differences to RGB, and from any primaries to BT.709's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Shares of red and blue in luma. ITU-T H.273, table 4.
LUMA = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}
D65, DCI = (0.3127, 0.3290), (0.314, 0.351)
# x and y of red, green and blue, and of white. ITU-T H.273, table 2.
CHROMATICITIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),
    "bt470bg": ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65),
    "smpte170m": ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    "ebu3213": ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), DCI),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
}
# From XYZ to the responses of the eye's cones, in which whites are adapted. Lam, 1985 (Bradford).
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Matrix = NDArray[np.float64]


def from_yuv(matrix: str, full: bool, bits: int = 8, white: float = 255.0) -> Matrix:
    """Return the 3×4 matrix from Y, Cb, Cr (and 1) to R, G, B, whose largest value is `white`.

    Args:
        matrix: a name of `LUMA`, or ycgco.
        full: whether the samples use all of their numbers.
        bits: of a sample.
        white: of the result.
    """
    steps = 2.0 ** (bits - 8)
    if full:
        y, c, black = white / (2**bits - 1), white / (2**bits - 1), 0.0
    else:
        y, c, black = white / (219 * steps), white / (224 * steps), 16.0 * steps
    if matrix == "ycgco":  # ITU-T H.273, equations 44 to 47
        rows = np.array([[y, -c, c], [y, c, 0], [y, -c, -c]])
    else:
        kr, kb = LUMA[matrix]
        kg = 1 - kr - kb
        rows = np.array(
            [
                [y, 0, 2 * (1 - kr) * c],
                [y, -2 * (1 - kb) * kb / kg * c, -2 * (1 - kr) * kr / kg * c],
                [y, 2 * (1 - kb) * c, 0],
            ]
        )
    offset = -rows @ np.array([black, 128.0 * steps, 128.0 * steps])
    return np.column_stack([rows, offset])


@lru_cache(maxsize=16)
def to_bt709(primaries: str) -> Matrix:
    """Return the 3×3 matrix from linear RGB of some primaries to linear RGB of BT.709's; white stays white."""
    return np.asarray(np.linalg.inv(_to_xyz("bt709")) @ _adapted(primaries) @ _to_xyz(primaries))


def luminance(primaries: str) -> Matrix:
    """Return how much red, green and blue of some primaries weigh in luminance; the sum is 1."""
    return _to_xyz(primaries)[1]


def _to_xyz(primaries: str) -> Matrix:
    *colours, white = (_xyz(*point) for point in CHROMATICITIES[primaries])
    columns = np.stack(colours, axis=1)
    return columns * np.linalg.solve(columns, white)


def _xyz(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adapted(primaries: str) -> Matrix:
    """Return the matrix that takes the white of some primaries to that of BT.709."""
    before, after = (_CONES @ _xyz(*CHROMATICITIES[name][3]) for name in (primaries, "bt709"))
    return np.asarray(np.linalg.inv(_CONES) @ np.diag(after / before) @ _CONES)
