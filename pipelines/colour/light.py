"""From coded RGB to light, and back to the code values of an ordinary screen: BT.709, 8 bit.

An ordinary screen has a gamma of 2.4 (ITU-R BT.1886), and its white is the diffuse white of HDR, 203 cd/m² (ITU-R
BT.2408). Brighter light, up to 1000 cd/m², is rolled off by the curve of ITU-R BT.2390 on the brightest of red, green
and blue, so that hues stay. What lies outside the primaries of BT.709 is cut off, as FFmpeg's zscale does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from rushes.pipelines.colour import space

WHITE_NITS = 203.0
"""Light of a sheet of white paper in HDR, and of white on the screen."""
PEAK_NITS = 1000.0
"""Light of the brightest highlights that keep their shape; most HDR is mastered to it, and HLG is shown at it."""
GAMMA = 2.4
SYSTEM_GAMMA = 1.2  # of HLG at 1000 cd/m²; ITU-R BT.2100, table 5
CODES = 65_535
MOST = 128.0  # times white: more than 10 000 cd/m² in any primaries
BLOCK_PX = 16_384  # pixels that are worked on at once: what is made of them stays in the processor's caches

Codes = NDArray[np.uint16]
Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]


def pq_to_nits(value: Numbers) -> Numbers:
    """Return the light, in cd/m², of PQ values from 0 to 1. ITU-R BT.2100, table 4."""
    power = value ** (1 / 78.84375)
    ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10_000 * ratio ** (1 / 0.1593017578125))


def nits_to_pq(nits: Numbers) -> Numbers:
    """Return the PQ values of light in cd/m²; the inverse of `pq_to_nits`."""
    power = (nits / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg_to_scene(value: Numbers) -> Numbers:
    """Return the light of the scene, from 0 to 1, of HLG values from 0 to 1. ITU-R BT.2100, table 5."""
    high = (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(value <= 0.5, value**2 / 3, high)


def rolled_off(nits: Numbers) -> Numbers:
    """Return light with its highlights brought below `WHITE_NITS`. ITU-R BT.2390, 5.4.1, black being 0."""
    top = float(nits_to_pq(np.array(PEAK_NITS)))
    most = float(nits_to_pq(np.array(WHITE_NITS))) / top
    knee = 1.5 * most - 0.5
    e1 = np.minimum(nits_to_pq(nits) / top, 1)
    t = np.maximum(e1 - knee, 0) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return np.where(e1 < knee, nits, pq_to_nits(curve * top))


def _to_light(value: Numbers, transfer: str) -> Numbers:
    """Return the light of code values from 0 to 1: of the scene for HLG, else of the screen, white being 1."""
    if transfer == "pq":
        return pq_to_nits(value) / WHITE_NITS
    if transfer == "hlg":
        return hlg_to_scene(value)
    if transfer == "srgb":  # IEC 61966-2-1
        return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.asarray(value**GAMMA)


def _to_code(light: Numbers, transfer: str) -> Numbers:
    """Return the code values of light on the screen: where only primaries change, by the curve that they came with."""
    if transfer == "srgb":
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(light ** (1 / GAMMA))


@dataclass(frozen=True, eq=False)
class _Tables:
    """The steps from code values to the screen, each a table of 65 536 values or a matrix."""

    light: NDArray[np.float32]
    """By code value."""
    weights: NDArray[np.float32] | None
    """Of red, green and blue in luminance, `[1, 3]`, for HLG."""
    system: NDArray[np.float32] | None
    """What light of the scene is multiplied by, by the square root of its luminance."""
    matrix: NDArray[np.float32]
    """To the primaries of BT.709."""
    gain: NDArray[np.float32] | None
    """What light is multiplied by, by the square root of the brightest of red, green and blue; for HDR."""
    code: Pixels
    """Code values of the screen, by the square root of light."""


@lru_cache(maxsize=8)
def _tables(primaries: str, transfer: str) -> _Tables:
    share = np.arange(CODES + 1) / CODES
    bright = np.maximum(share, 0.5 / CODES) ** 2  # never 0: it is divided by
    return _Tables(
        light=_to_light(share, transfer).astype(np.float32),
        weights=space.luminance(primaries).astype(np.float32)[None] if transfer == "hlg" else None,
        system=(PEAK_NITS / WHITE_NITS * bright ** (SYSTEM_GAMMA - 1)).astype(np.float32),
        matrix=space.to_bt709(primaries).astype(np.float32),
        gain=_gain(bright).astype(np.float32) if transfer in ("pq", "hlg") else None,
        code=np.round(255 * _to_code(share**2, transfer)).astype(np.uint8),
    )


def _gain(bright: Numbers) -> Numbers:
    """Return what light is multiplied by where its brightest part is this share of `MOST`."""
    light = bright * MOST
    return rolled_off(light * WHITE_NITS) / WHITE_NITS / light


def on_screen(codes: Codes, primaries: str, transfer: str) -> Pixels:
    """Return RGB of 16 bit, full range, in some primaries and transfer (see `tags.Colour`) as a screen shows it, 8 bit.

    `codes` is `[h, w, 3]`, and so is the result.
    """
    tables = _tables(primaries, transfer)
    found = np.empty(codes.shape, np.uint8)
    rows = max(1, BLOCK_PX // codes.shape[1])
    for first in range(0, len(codes), rows):
        found[first : first + rows] = _shown(codes[first : first + rows], tables)
    return found


def _shown(codes: Codes, tables: _Tables) -> Pixels:
    light = cv2.LUT(codes, tables.light)
    if tables.weights is not None and tables.system is not None:
        light = _times(light, cv2.LUT(_roots(cv2.transform(light, tables.weights)), tables.system))
    light = cv2.transform(light, tables.matrix)
    if tables.gain is not None:
        brightest = cv2.reduce(light.reshape(-1, 3), 1, cv2.REDUCE_MAX).reshape(light.shape[:2])
        light = _times(light, cv2.LUT(_roots(brightest * np.float32(1 / MOST)), tables.gain))
    return cast(Pixels, cv2.LUT(_roots(light), tables.code))


def _times(light: Any, gain: Any) -> Any:
    return cv2.multiply(light, cv2.merge([gain] * 3))


def _roots(light: Any) -> Codes:
    """Return the places in a table by square root of light from 0 to 1; what lies outside takes the nearest."""
    root = cv2.sqrt(np.clip(light, 0, 1)) * np.float32(CODES)
    return (root + np.float32(0.5)).astype(np.uint16)


@lru_cache(maxsize=4)
def greys(transfer: str) -> Pixels:
    """Return what a screen shows of the 256 greys of 8 bit, full range, in some transfer."""
    codes = np.repeat((np.arange(256, dtype=np.uint16) * 257)[None, :, None], 3, axis=2)
    return np.ascontiguousarray(on_screen(codes, "bt709", transfer)[0, :, 0])
