"""How much of a picture is covered by text: burned-in titles, subtitles, watermarks, signs.

The detector is PP-OCRv6 (small), which the package `rapidocr` carries as ONNX. Only detection runs; no text is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SHORT_SIDE_PX = 320  # the detector sees frames at this short side; larger costs time and finds little more in stills


def load(weights: Path, threads: int = 1) -> Any:
    """Return the text detector of a `PP-OCRv6_det_*.onnx` file. Raises ValueError where it is missing."""
    from rapidocr import RapidOCR

    if not weights.is_file():
        raise ValueError(f"{weights} is missing; the package rapidocr carries it: pip install 'rushes[models]'")
    return RapidOCR(
        params={
            "Det.model_path": str(weights),
            "Det.limit_side_len": SHORT_SIDE_PX,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Global.use_cls": False,
            "Global.use_rec": False,
            "Global.log_level": "error",
        }
    )


def boxes(detector: Any, rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "n 4 2"]:
    """Return the corners (x, y, in pixels) of the boxes round text; none where there is no text."""
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    found = detector(bgr, use_det=True, use_cls=False, use_rec=False).boxes
    return np.zeros((0, 4, 2), np.float32) if found is None else np.asarray(found, np.float32)


def area_share(corners: Float[np.ndarray, "n 4 2"], height: int, width: int) -> float:
    """Return the share of a picture (0 … 1) that boxes cover; where boxes overlap, it counts once."""
    mask = np.zeros((height, width), np.uint8)
    for box in corners:
        cv2.fillConvexPoly(mask, np.round(box).astype(np.int32), 1)
    return float(mask.mean())
