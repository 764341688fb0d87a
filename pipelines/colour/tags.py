"""What the numbers of a picture mean: matrix, range, primaries and transfer, by its tags or, without them, by a rule.

Tags are believed. Without them,

* the matrix is BT.2020's where the transfer is PQ or HLG or the primaries are BT.2020's, else BT.709's where the longer
  side has 1280 pixels at least or the shorter one more than 576, as players guess, else BT.601's (PyAV, OpenCV and
  decord take all untagged video for BT.601, so clips never are);
* the range is that of the studio (16–235), but for formats whose name says otherwise (yuvj) and RGB;
* the primaries are BT.2020's where the transfer is PQ or HLG or the matrix BT.2020's, else BT.709's;
* the transfer is that of an ordinary screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av

# Numbers and names of ITU-T H.273, as FFmpeg has them.
RANGES = {1: "tv", 2: "pc"}
SPACES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
          10: "bt2020c", 14: "ictcp"}  # fmt: skip
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 13: "srgb",
             14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}  # fmt: skip
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
HD_PX = (576, 1280)
"""Untagged video is BT.709's if its shorter side is longer than the first, or its longer one not shorter than the
second."""

_MATRICES = {"bt709": "bt709", "fcc": "fcc", "bt470bg": "bt601", "smpte170m": "bt601", "smpte240m": "smpte240m",
             "ycgco": "ycgco", "bt2020nc": "bt2020", "bt2020c": "bt2020", "ictcp": "bt2020"}  # fmt: skip
_CURVES = {"smpte2084": "pq", "arib-std-b67": "hlg", "srgb": "srgb"}
_GAMUTS = {"bt709": "bt709", "bt470bg": "bt470bg", "smpte170m": "smpte170m", "smpte240m": "smpte170m",
           "bt2020": "bt2020", "smpte431": "smpte431", "smpte432": "smpte432", "ebu3213": "ebu3213"}  # fmt: skip
NUMBERS = {"bt709": 1, "bt601": 6, "bt2020": 9}
"""The matrices that clips are written in, by their numbers in ITU-T H.273."""
_USUAL = frozenset({"bt709", "bt470bg", "smpte170m", "ebu3213"})
_SCALED = frozenset({"bt601", "bt709", "smpte240m", "fcc", "rgb"})  # what FFmpeg's scaler turns into RGB by itself


@dataclass(frozen=True)
class Colour:
    """What the numbers of a picture mean."""

    matrix: str
    """How its samples make RGB: bt601, bt709, bt2020, smpte240m, fcc, ycgco; rgb or grey where they need no matrix.
    BT.2020 with constant luminance and ICtCp, which no camera writes, count as bt2020."""
    full: bool
    """Whether samples use all of their numbers; else those of the studio, 16–235 of 8 bits."""
    primaries: str
    """Of the light that red, green and blue stand for: bt709, bt470bg, smpte170m, ebu3213, bt2020, smpte431, smpte432.
    Others count as bt709."""
    transfer: str
    """pq, hlg, srgb, or sdr: all other curves, which screens show alike."""

    @property
    def hdr(self) -> bool:
        """Whether it holds light that is brighter than the white of an ordinary screen."""
        return self.transfer in ("pq", "hlg")

    @property
    def usual(self) -> bool:
        """Whether clips may hold its samples as they are: SDR in the matrix and the primaries of BT.709 or BT.601.

        All readers tell the matrices apart by their tags; the primaries differ little, and most readers leave them.
        """
        return not self.hdr and self.matrix in ("bt601", "bt709") and self.primaries in _USUAL

    @property
    def plain(self) -> bool:
        """Whether nothing but matrix and range lies between its samples and RGB for an ordinary screen."""
        return not self.hdr and self.primaries == "bt709" and self.matrix in _SCALED


def of(frame: av.VideoFrame) -> Colour:
    """Return what the numbers of a decoded picture mean."""
    return told(
        frame.format.name, RANGES.get(int(frame.color_range)), SPACES.get(int(frame.colorspace)),
        PRIMARIES.get(int(frame.color_primaries)), TRANSFERS.get(int(frame.color_trc)), frame.width, frame.height,
    )  # fmt: skip


def of_source(source: Mapping[str, Any]) -> Colour:
    """Return what the numbers of a source mean, by its row of the table `sources`: those of its first picture."""
    return told(
        source["pixel_format"], source["color_range"], source["color_space"], source["color_primaries"],
        source["color_transfer"], source["coded_width"], source["coded_height"],
    )  # fmt: skip


def columns(frame: av.VideoFrame) -> dict[str, Any]:
    """Return what a picture says of its colour as columns of the table `sources`; null for what it does not."""
    name, transfer = frame.format.name, TRANSFERS.get(int(frame.color_trc))
    return {
        "color_range": "pc" if name.startswith("yuvj") else RANGES.get(int(frame.color_range)),
        "color_space": SPACES.get(int(frame.colorspace)),
        "color_transfer": transfer,
        "color_primaries": PRIMARIES.get(int(frame.color_primaries)),
        "hdr": transfer in {"smpte2084", "arib-std-b67"},
    }


def numbers(source: Mapping[str, Any]) -> dict[str, int]:
    """Return matrix, primaries and transfer of a source by their numbers, those that its tags leave out filled in."""
    colour = of_source(source)
    spaces, primaries, transfers = ({name: n for n, name in names.items()} for names in (SPACES, PRIMARIES, TRANSFERS))
    told = source["color_space"]
    return {
        "matrix": spaces[told] if _MATRICES.get(told or "") == colour.matrix else NUMBERS[colour.matrix],
        "primaries": primaries[source["color_primaries"] or colour.primaries],
        "transfer": transfers[source["color_transfer"] or "bt709"],
    }


@lru_cache(maxsize=256)
def told(
    pixel_format: str,
    color_range: str | None,
    color_space: str | None,
    color_primaries: str | None,
    color_transfer: str | None,
    width: int,
    height: int,
) -> Colour:
    """Return what the numbers of a picture mean, by the names of its tags and its size as coded."""
    form = av.VideoFormat(pixel_format)
    transfer = _CURVES.get(color_transfer or "", "sdr")
    hdr = transfer in ("pq", "hlg")
    matrix = _MATRICES.get(color_space or "", "")
    if form.is_rgb or form.has_palette:
        matrix = "rgb"
    elif len(form.components) < 3:
        matrix = "grey"
    elif not matrix:
        matrix = "bt2020" if hdr or color_primaries == "bt2020" else _by_size(width, height)
    primaries = _GAMUTS.get(color_primaries or "", "")
    if not primaries:
        primaries = "bt2020" if color_primaries is None and (hdr or matrix == "bt2020") else "bt709"
    full = matrix == "rgb" or pixel_format.startswith("yuvj") or color_range == "pc"
    return Colour(matrix, full, primaries, transfer)


def _by_size(width: int, height: int) -> str:
    shorter, longer = sorted((width, height))
    return "bt709" if shorter > HD_PX[0] or longer >= HD_PX[1] else "bt601"
