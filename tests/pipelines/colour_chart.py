"""A colour chart in any tagging, and what a screen should show of it: the standards once more, in float64, on its own.

Nothing here is taken from the code that it is to judge; where FFmpeg can convert by itself, the tests ask it as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
PATCH_PX, ACROSS = 16, 16
PATCHES = np.array([*itertools.product((0, 0.2, 0.45, 0.7, 1), repeat=3), *((g, g, g) for g in np.linspace(0, 1, 35))])
"""R, G, B of the patches in the source's own coding."""
SPACE = {"bt709": 1, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "bt2020nc": 9, "ycgco": 8}
GAMUT = {"bt709": 1, "bt470bg": 5, "smpte170m": 6, "bt2020": 9, "smpte431": 11, "smpte432": 12}
CURVE = {"bt709": 1, "smpte170m": 6, "srgb": 13, "bt2020-10": 14, "smpte2084": 16, "arib-std-b67": 18}
_SHARES = {"bt709": (0.2126, 0.0722), "bt470bg": (0.299, 0.114), "smpte170m": (0.299, 0.114),
           "smpte240m": (0.212, 0.087), "bt2020nc": (0.2627, 0.0593)}  # fmt: skip
_POINTS = {
    "bt709": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), "bt470bg": (0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    "smpte170m": (0.63, 0.34, 0.31, 0.595, 0.155, 0.07), "bt2020": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    "smpte432": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}  # fmt: skip


@dataclass(frozen=True)
class Tagging:
    """What a frame is tagged as, and what it truly is where a tag is left out."""

    space: str = "bt709"
    full: bool = False
    pixel_format: str = "yuv420p"
    gamut: str = "bt709"
    curve: str = "bt709"
    untagged: bool = False
    size: tuple[int, int] = (PATCH_PX * ACROSS, PATCH_PX * len(PATCHES) // ACROSS)

    @property
    def bits(self) -> int:
        return av.VideoFormat(self.pixel_format).components[0].bits

    def __str__(self) -> str:
        words = [self.space, self.gamut, self.curve, "pc" if self.full else "tv", self.pixel_format]
        return "-".join([*words, *(["untagged"] if self.untagged else []), "x".join(map(str, self.size))])


def samples(tagging: Tagging) -> npt.NDArray[np.int64]:
    """Return Y, Cb, Cr of the patches, rounded as a camera rounds them."""
    red, green, blue = PATCHES.T
    if tagging.space == "ycgco":
        y, u, v = (red + 2 * green + blue) / 4, (2 * green - red - blue) / 4, (red - blue) / 2
    else:
        kr, kb = _SHARES[tagging.space]
        y = kr * red + (1 - kr - kb) * green + kb * blue
        u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    steps, most = 2 ** (tagging.bits - 8), 2**tagging.bits - 1
    if tagging.full:
        coded = [y * most, u * most + 128 * steps, v * most + 128 * steps]
    else:
        coded = [(219 * y + 16) * steps, (224 * u + 128) * steps, (224 * v + 128) * steps]
    return np.clip(np.rint(np.stack(coded, axis=1)), 0, most).astype(np.int64)


def frame(tagging: Tagging) -> av.VideoFrame:
    """Return the chart, patch beside patch, in the top left corner of a frame."""
    found = av.VideoFrame(*tagging.size, tagging.pixel_format)
    kind = np.dtype("u1" if tagging.bits == 8 else "<u2")
    for place, plane in enumerate(found.planes):
        side = PATCH_PX * plane.width // tagging.size[0]
        rows = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
        chart = samples(tagging)[:, place].reshape(-1, ACROSS).repeat(side, axis=0).repeat(side, axis=1)
        rows[: chart.shape[0], : chart.shape[1]] = chart
        plane.update(rows.tobytes())
    if not tagging.untagged:
        found.colorspace, found.color_primaries = SPACE[tagging.space], GAMUT[tagging.gamut]
        found.color_trc, found.color_range = CURVE[tagging.curve], 2 if tagging.full else 1
    return found


def seen(rgb: npt.NDArray[np.generic]) -> Numbers:
    """Return R, G, B in the middle of each patch of a chart."""
    middle = PATCH_PX // 2
    rows = len(PATCHES) // ACROSS * PATCH_PX
    return rgb[middle:rows:PATCH_PX, middle : ACROSS * PATCH_PX : PATCH_PX].reshape(-1, 3).astype(np.float64)


def wanted(tagging: Tagging) -> Numbers:
    """Return R, G, B from 0 to 255 that a screen of BT.709 should show of each patch."""
    coded = _decoded(tagging)
    if tagging.curve == "smpte2084":
        nits = _pq_inverse(coded)
    elif tagging.curve == "arib-std-b67":
        scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = 1000 * scene * (scene @ np.array([0.2627, 0.6780, 0.0593]))[:, None] ** 0.2
    elif tagging.gamut == "bt709":
        return coded * 255
    else:
        srgb = tagging.curve == "srgb"
        light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4) if srgb else coded**2.4
        light = np.clip(light @ gamut_matrix(tagging.gamut).T, 0, 1)
        shown = (
            np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
            if srgb
            else light ** (1 / 2.4)
        )
        return shown * 255
    nits = nits @ gamut_matrix(tagging.gamut).T
    brightest = np.maximum(nits.max(axis=1, keepdims=True), 1e-9)
    return 255 * np.clip(nits * _bt2390(brightest) / brightest / 203, 0, 1) ** (1 / 2.4)


def _decoded(tagging: Tagging) -> Numbers:
    """Return R, G, B from 0 to 1 of the rounded samples."""
    y, u, v = samples(tagging).T.astype(np.float64)
    steps, most = 2 ** (tagging.bits - 8), 2**tagging.bits - 1
    if tagging.full:
        y, u, v = y / most, (u - 128 * steps) / most, (v - 128 * steps) / most
    else:
        y, u, v = (y / steps - 16) / 219, (u / steps - 128) / 224, (v / steps - 128) / 224
    if tagging.space == "ycgco":
        red, green, blue = y - u + v, y + u, y - u - v
    else:
        kr, kb = _SHARES[tagging.space]
        red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
        green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], axis=1), 0, 1)


def gamut_matrix(gamut: str) -> Numbers:
    """Return the matrix from linear RGB in some primaries, white being D65, to that of BT.709."""

    def xyz(name: str) -> Numbers:
        points = np.array(_POINTS[name]).reshape(3, 2)
        whole = np.column_stack([points, 1 - points.sum(axis=1)]).T
        white = np.array([0.3127, 0.3290, 0.3583]) / 0.3290
        return whole * (np.linalg.inv(whole) @ white)

    return np.asarray(np.linalg.inv(xyz("bt709")) @ xyz(gamut))


def _pq_inverse(value: Numbers) -> Numbers:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = value ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))


def _pq(nits: Numbers) -> Numbers:
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = (nits / 10_000) ** m1
    return np.asarray(((c1 + c2 * power) / (1 + c3 * power)) ** m2)


def _bt2390(nits: Numbers) -> Numbers:
    """Return light of a display of 1000 cd/m² on one of 203. Annex of ITU-R BT.2390-8, 5.4.1, steps 1 to 4."""
    source, target = _pq(np.array(1000.0)), _pq(np.array(203.0))
    max_lum = target / source
    ks = 1.5 * max_lum - 0.5
    e1 = np.minimum(_pq(nits) / source, 1)
    t = (e1 - ks) / (1 - ks)
    p = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * max_lum
    return _pq_inverse(np.where(e1 < ks, e1, p) * source)
