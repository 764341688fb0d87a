"""The one place that turns frames into RGB for an ordinary screen (BT.709), and RGB into frames for an encoder."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from rushes.pipelines.colour import light, space, tags
from rushes.pipelines.colour.tags import Colour

Pixels = NDArray[np.uint8]
BT709 = {"color_range": 1, "colorspace": 1, "color_trc": 1, "color_primaries": 1}
"""The tags of studio range BT.709, as attributes of a frame or an encoder."""
EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
"""Without, the scaler is off by up to 3.6 levels of 255, and by 1 on average."""
_SWS = {"bt709": Colorspace.ITU709, "bt601": Colorspace.ITU601, "bt2020": Colorspace.BT2020,
        "smpte240m": Colorspace.SMPTE240M, "fcc": Colorspace.FCC}  # fmt: skip
_DEPTHS = (8, 10, 12, 14, 16)  # of FFmpeg's three planes without subsampling


class Screen:
    """Shows frames as RGB. It holds a scaler, which keeps its tables while sizes and formats stay, for one thread.

    The scaler has one thread, too: waking more costs ten times what scaling to small pictures does.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()

    def rgb(
        self,
        frame: av.VideoFrame,
        width: int,
        height: int,
        interpolation: Interpolation = Interpolation.BILINEAR,
        colour: Colour | None = None,
    ) -> Pixels:
        """Return a frame as `[height, width, 3]` RGB of BT.709 as a screen shows it, 8 bit; HDR is tone-mapped.

        Args:
            frame: as decoded; it is neither turned nor cropped.
            width: of the result.
            height: of the result.
            interpolation: how it is scaled.
            colour: what its numbers mean, where its tags do not say so; see `tags.of`.
        """
        colour = colour or tags.of(frame)
        if colour.plain:
            return cast(Pixels, self._scaled(frame, width, height, "rgb24", interpolation, colour).to_ndarray())
        codes = self._codes(frame, width, height, interpolation, colour)
        if colour.primaries == "bt709" and not colour.hdr:
            return cast(Pixels, cv2.convertScaleAbs(codes, alpha=1 / 257))
        return light.on_screen(codes, colour.primaries, colour.transfer)

    def _codes(
        self, frame: av.VideoFrame, width: int, height: int, interpolation: Interpolation, colour: Colour
    ) -> NDArray[np.uint16]:
        """Return the R, G, B that a frame holds, scaled, as 16-bit numbers of full range `[h, w, 3]`."""
        kind = whole_format(frame.format, colour)
        scaled = self._scaled(frame, width, height, kind, interpolation, colour)
        if colour.matrix == "rgb":
            return cast("NDArray[np.uint16]", scaled.to_ndarray())
        bits = scaled.format.components[0].bits
        luma, *chroma = (view(plane, bits) for plane in scaled.planes)
        samples = cv2.merge([luma, *(chroma or [np.full_like(luma, 1 << (bits - 1))] * 2)])
        wide = samples.astype(np.uint16) if bits == 8 else samples
        return cast("NDArray[np.uint16]", cv2.transform(wide, _to_codes(colour.matrix, colour.full, bits)))

    def _scaled(
        self, frame: av.VideoFrame, width: int, height: int, kind: str, interpolation: Interpolation, colour: Colour
    ) -> av.VideoFrame:
        """Return a frame scaled to a size and a format; from YUV to YUV neither matrix nor range changes.

        So any matrix will do there for one that FFmpeg does not know.
        """
        matrix, range_ = _SWS.get(colour.matrix, Colorspace.ITU601), ColorRange.JPEG if colour.full else ColorRange.MPEG
        if colour.matrix == "rgb":
            return self._scaler.reformat(
                frame, width=width, height=height, format=kind, interpolation=interpolation | EXACT, threads=1
            )
        return self._scaler.reformat(
            frame, width=width, height=height, format=kind, interpolation=interpolation | EXACT, threads=1,
            src_colorspace=matrix, src_color_range=range_,
            **({} if kind == "rgb24" else {"dst_colorspace": matrix, "dst_color_range": range_}),
        )  # fmt: skip

    def frame(self, rgb: Pixels, pixel_format: str = "yuv420p") -> av.VideoFrame:
        """Return RGB of BT.709 as a frame for an encoder: studio range and the matrix of BT.709, tagged so."""
        whole = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        found = self._scaler.reformat(
            whole, format=pixel_format, interpolation=Interpolation.BICUBIC | EXACT, threads=1,
            dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
        )  # fmt: skip
        tag(found)
        return found


def whole_format(form: av.VideoFormat, colour: Colour) -> str:
    """Return the format that holds all that pictures of some format say of their colour, in samples without sharing."""
    if colour.matrix == "rgb":
        return "rgb48le"
    bits = next((bits for bits in _DEPTHS if bits >= form.components[0].bits), _DEPTHS[-1])
    return ("gray" if colour.matrix == "grey" else "yuv444p") + ("" if bits == 8 else f"{bits}le")


def tag(target: Any) -> None:
    """Say of a frame, or of an encoder's context, that it is studio range BT.709."""
    for name, value in BT709.items():
        setattr(target, name, value)


def view(plane: VideoPlane, bits: int) -> NDArray[Any]:
    """Return the samples of a plane, `[h, w]` uint8 or uint16, without a copy."""
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    rows = np.frombuffer(cast(Any, plane), kind).reshape(-1, plane.line_size // kind.itemsize)
    return rows[: plane.height, : plane.width]


@lru_cache(maxsize=16)
def _to_codes(matrix: str, full: bool, bits: int) -> NDArray[np.float64]:
    """Return the matrix from Y, Cb, Cr to 16-bit RGB; of grey only Y counts."""
    return space.from_yuv("bt709" if matrix == "grey" else matrix, full, bits, white=float(light.CODES))
