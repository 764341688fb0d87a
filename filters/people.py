"""Bare bodies and faces in a picture: NudeNet, a YOLOv8 detector of 18 parts of the body, run on its ONNX file.

The package `nudenet` carries the network `320n` (trained at 320 px on data that its author does not publish). Its own
wrapper takes every core and loops over boxes in Python; here the file runs in onnxruntime, several pictures at once.

What to know before a limit is set (534 frames of 320 px of 61 labelled files, none of them labelled as showing nudity):

* `nsfw` cries wolf on smooth round things: a rabbit figure reached 0.70, animation 0.65 and 0.58, a frog figure 0.52,
  a slide show 0.44, a flower 0.39. How much it misses was not measured: no film here could tell.
* Faces: all boxes at `FACE` in those frames lay on faces (two films of them animated), but `FACE` was chosen on the
  same frames. Missed are faces turned up, down or aside and in the dark (most frames of a man in Tears of Steel), a
  man behind heavy blocking, most passers-by and most animated animals; the smallest found was 12 px of the 320 long.
  Which sex the network reads in a face is often wrong, so it is not told.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

RGB = UInt8[np.ndarray, "h w 3"]

SIDE_PX = 320  # what the network was trained at
BARE = (
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "ANUS_EXPOSED",
)
"""What counts as bare; the network's bare feet, armpits, bellies and men's chests do not."""
FACES = ("FACE_FEMALE", "FACE_MALE")
FACE = 0.4  # certainty from which a box is a face: above every box that lay on none (a flower reached 0.38)
OVERLAP = 0.45  # of two boxes that overlap more (intersection over union), the surer one counts: NudeNet's own value


@dataclass(frozen=True)
class Detector:
    """The network and the rows of its output that are looked at."""

    session: Any
    input: str
    bare: tuple[int, ...]
    faces: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What was seen in n pictures."""

    bare: Float[np.ndarray, "n 5"]
    """Certainty of each class of `BARE`, 0 … 1."""
    face_share: Float[np.ndarray, " n"]
    """Share of the picture under faces, 0 … 1; where they overlap it counts once."""
    faces: Int[np.ndarray, " n"]
    """Number of faces."""


def load(weights: Path, threads: int = 1) -> Detector:
    """Return the detector in a NudeNet ONNX file, on the GPU where onnxruntime has one.

    Raises ValueError where the file is missing, unreadable or another network.
    """
    session = onnx(weights, threads)
    labels = ast.literal_eval(session.get_modelmeta().custom_metadata_map.get("names", "{}"))
    rows = {name: row for row, name in labels.items()}
    if missing := [name for name in (*BARE, *FACES) if name not in rows]:
        raise ValueError(f"{weights.name} is no NudeNet: it knows no {', '.join(missing)}; pip install 'nudenet>=3.4'")
    return Detector(
        session, session.get_inputs()[0].name, tuple(rows[name] for name in BARE), tuple(rows[name] for name in FACES)
    )


def onnx(weights: Path, threads: int = 1) -> Any:
    """Return an onnxruntime session on the GPU where there is one. Raises ValueError for a file that is no ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(weights), options, providers=providers)
    except Exception as error:  # a dozen classes of its own, none with a common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"weights {weights} cannot be read as ONNX ({reason}); install their package again") from error


def look(detector: Detector, images: Sequence[RGB]) -> Seen:
    """Return what the network sees in pictures of any size, one batch of them.

    Raises ValueError where it gives no number.
    """
    squares = np.stack([prepare(image) for image in images])
    [found] = detector.session.run(None, {detector.input: squares})
    if not np.isfinite(found).all():
        raise ValueError("NudeNet gave numbers that are not finite; take nsfw and faces out of --score.scorers")
    certainty = found[:, 4:]
    faces = [
        _faces(boxes, sure, _extent(image))
        for boxes, sure, image in zip(found[:, :4], certainty[:, detector.faces].max(axis=1), images, strict=True)
    ]
    return Seen(
        certainty[:, detector.bare].max(axis=2),
        np.array([share for share, _ in faces], np.float64),
        np.array([count for _, count in faces], np.int64),
    )


def prepare(image: RGB) -> Float[np.ndarray, "3 320 320"]:
    """Return a picture in the upper left corner of a black square, 0 … 1, as the network was trained to see it."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = image
    kind = cv2.INTER_AREA if side > SIDE_PX else cv2.INTER_LINEAR
    small = cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=kind)
    return small.transpose(2, 0, 1).astype(np.float32) / 255


def _extent(image: RGB) -> tuple[int, int]:
    """Return height and width of the picture inside the network's square."""
    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _faces(
    boxes: Float[np.ndarray, "4 k"], certainty: Float[np.ndarray, " k"], extent: tuple[int, int]
) -> tuple[float, int]:
    """Return share and number of the faces among boxes (centre and size, in pixels of the network's square)."""
    sure = np.flatnonzero(certainty >= FACE)
    across, down, width, height = boxes[:, sure]
    corners = np.stack([across - width / 2, down - height / 2, width, height], axis=1).astype(float)
    kept = cv2.dnn.NMSBoxes(corners.tolist(), certainty[sure].tolist(), FACE, OVERLAP)
    mask = np.zeros(extent, bool)
    for left, top, wide, high in corners[np.asarray(kept, int)]:
        mask[max(0, round(top)) : max(0, round(top + high)), max(0, round(left)) : max(0, round(left + wide))] = True
    return float(mask.mean()), len(kept)
