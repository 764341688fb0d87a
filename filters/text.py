"""How much of a picture is covered by text: burned-in titles, subtitles, watermarks, signs.

The detector is PP-OCRv6 (small), which the package `rapidocr` carries as ONNX. Only detection runs; no text is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# Chosen on real frames of 320 px: at 224 px titles, watermarks and counters are found in 75 ms on one core; at 736 px,
# the package's default, it takes 950 ms and half of the pictures without text get a box. ImageNet's scaling finds faint
# watermarks with more certainty than the package's default of ½.
SHORT_SIDE_PX = 224
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LONGEST = (
    4  # long side ÷ short side: the detector blows the short side up to 224 px, and 1×320 px took it 36 s and 3 GB
)
TALLEST_LINE = 0.5  # of the picture's short side: larger boxes are whole objects, which the detector takes for a letter


def load(weights: Path, threads: int = 1, cuda: bool = False) -> Any:
    """Return the text detector of a `PP-OCRv6_det_*.onnx` file.

    Raises ValueError where it is missing or unreadable. Without CUDA in onnxruntime, `cuda` leaves it on the CPU.
    """
    from rapidocr import RapidOCR

    if not weights.is_file():
        raise ValueError(f"{weights} is missing; the package rapidocr carries it: pip install 'rushes[models]'")
    settings = {
        "Det.model_path": str(weights),
        "Det.limit_side_len": SHORT_SIDE_PX,
        "Det.mean": MEAN,
        "Det.std": DEVIATION,
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "EngineConfig.onnxruntime.use_cuda": cuda,
        "Global.use_cls": False,
        "Global.use_rec": False,
        "Global.log_level": "error",
    }
    detector = RapidOCR(params=settings)
    try:
        boxes(detector, np.zeros((1, 1, 3), np.uint8))  # the package reads the file at the first picture
    except Exception as error:  # onnxruntime's classes have no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"weights {weights} cannot be read as ONNX ({reason}); install rapidocr again") from error
    return detector


def boxes(detector: Any, rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4 2"]:
    """Return the corners (x, y, in pixels) of the boxes round lines of text; none where there is no text."""
    bgr = _padded(np.ascontiguousarray(rgb[:, :, ::-1]))
    found = detector(bgr, use_det=True, use_cls=False, use_rec=False).boxes
    corners = np.zeros((0, 4, 2), np.float32) if found is None else np.asarray(found, np.float32)
    return corners[line_heights(corners) <= TALLEST_LINE * min(rgb.shape[:2])]


def _padded(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return a picture at most `LONGEST` times as long as it is wide, its last row or column repeated."""
    height, width = image.shape[:2]
    least = -(-max(height, width) // LONGEST)
    return cv2.copyMakeBorder(image, 0, max(0, least - height), 0, max(0, least - width), cv2.BORDER_REPLICATE)


def line_heights(corners: Float[np.ndarray, "n 4 2"]) -> Float[np.ndarray, " n"]:
    """Return the height of the line of text in each box, whatever its direction: the box's shorter side, in pixels."""
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    return sides.min(axis=1)


def area_share(corners: Float[np.ndarray, "n 4 2"], height: int, width: int) -> float:
    """Return the share of a picture (0 … 1) that boxes cover; where boxes overlap, it counts once."""
    mask = np.zeros((height, width), np.uint8)
    for box in corners:
        cv2.fillConvexPoly(mask, np.round(box).astype(np.int32), 1)
    return float(mask.mean())
