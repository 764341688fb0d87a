"""What changes from frame to frame, measured in the one pass: as PySceneDetect's detectors do, and cell by cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import ContentDetector, FrameTimecode, StatsManager

BINS = 64
CELLS = (9, 16)
"""Rows and columns of cells into which every picture is divided, whatever its shape."""
FINE = 4.0
"""Steps of a level in which changes of cells are kept, up to 255 of them: small ones tell more than large ones."""
LOOK_BACK_S = 0.6
"""How far back a picture is compared to find what changes gradually."""
DOUBT_FRAMES = 4
"""Frames before that a step must stand out from to be doubtful …"""
DOUBT_RATIO = 1.5
"""… by this factor, in the whole picture or in a twentieth of its cells."""
DOUBT_STEP = 1.0
"""Levels by which the whole picture must change for it."""
DOUBT_DRIFT = 8.0
"""Levels by which cells must have changed on average within `LOOK_BACK_S` for a transition to be possible."""
WITNESS_PX = (48, 27)
"""Size of the pictures that TransNetV2 looks at."""
KEEP_FRAMES = 75
"""Frames before and after a doubtful one whose small pictures are kept: as far as its window reaches, and more."""
CELLWISE = ("cell_light", "cell_change")
"""Names of what is kept of each frame in cells."""
PER_FRAME = ("content", "hue", "saturation", "luma", "histogram", "doubt", "key")
"""Names of the numbers of a frame that stand in the ledger."""

Pixels = npt.NDArray[np.uint8]


class _Latest(StatsManager):
    """A statistics store that keeps the last frame only, so that memory does not grow with the length of a video."""

    latest: Mapping[str, float] = {}

    def set_metrics(self, timecode: int | FrameTimecode, metric_kv_dict: dict[str, Any]) -> None:
        self.latest = metric_kv_dict


class _Colour(ContentDetector):
    """scenedetect's content detector without edges and with OpenCV's sums: the same numbers in a fifth of the time."""

    _hsv: cv2.typing.MatLike | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: npt.NDArray[np.uint8]) -> float:
        """Return the weighted change of hue, saturation and value; sums of bytes are exact, whoever takes them."""
        hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        before, self._hsv = self._hsv, hsv
        if before is None:
            return 0.0
        pixels = before.shape[0] * before.shape[1]
        hue, sat, lum, _ = (total / pixels for total in cv2.sumElems(cv2.absdiff(before, hsv)))
        parts, weights = self.Components(hue, sat, lum, 0.0), self._weights
        score = sum(part * weight for part, weight in zip(parts, weights, strict=True)) / sum(map(abs, weights))
        if self.stats_manager is not None:
            self.stats_manager.set_metrics(timecode, {self.FRAME_SCORE_KEY: score, **parts._asdict()})
        return score


class ContentScorer:
    """The change of each frame against the one before, measured as scenedetect's content and histogram detectors do."""

    def __init__(self) -> None:
        # Measures only: the threshold is never reached, so there is never a cut of its own to place or to filter.
        self._detector = _Colour(threshold=256.0, min_scene_len=0)
        self._stats = _Latest()
        self._detector.stats_manager = self._stats
        self._code = FrameTimecode(0, fps=1000.0)
        self._histogram: npt.NDArray[np.float32] | None = None

    def push(self, luma: npt.NDArray[np.uint8], bgr: npt.NDArray[np.uint8]) -> dict[str, float]:
        """Return content, hue, saturation, luma (0–255) and histogram (0–2) of a frame; all 0 on the first."""
        self._detector.process_frame(self._code, bgr)
        found = self._stats.latest
        before, self._histogram = self._histogram, histogram(luma)
        return {
            "content": float(found.get("content_val", 0.0)),
            "hue": float(found.get("delta_hue", 0.0)),
            "saturation": float(found.get("delta_sat", 0.0)),
            "luma": float(found.get("delta_lum", 0.0)),
            "histogram": 0.0 if before is None else histogram_distance(before, self._histogram),
        }


def histogram(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the histogram that scenedetect's HistogramDetector makes, of a luma that need not be made from BGR."""
    counts = cv2.calcHist([luma], [0], None, [BINS], [0, 256])
    return cv2.normalize(counts, counts).ravel().astype(np.float32, copy=False)


def histogram_distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return 1 − correlation of two histograms: 0 for equal ones, as scenedetect's HistogramDetector compares them."""
    return max(0.0, 1.0 - float(cv2.compareHist(a, b, cv2.HISTCMP_CORREL)))


class Step(NamedTuple):
    """What one frame shows in cells, and whether somebody should look closer."""

    light: bytes
    """Mean luma of each cell, row by row."""
    change: bytes
    """Mean change of the luma of each cell against the frame before, in quarters of a level."""
    is_doubtful: bool


class Cells:
    """Light and change of each cell of every frame, and which frames are worth a witness's look.

    What is said of a frame depends on the one before and on those of the `LOOK_BACK_S` before it alone.
    """

    def __init__(self) -> None:
        self._before: tuple[float, Pixels] | None = None
        self._lights: deque[tuple[float, npt.NDArray[np.int16]]] = deque()
        self._steps: deque[tuple[float, npt.NDArray[np.float32]]] = deque(maxlen=DOUBT_FRAMES)

    def push(self, time_s: float, luma: Pixels) -> Step:
        """Measure a frame."""
        light, change = shrunk(luma), np.zeros(CELLS, np.float32)
        if self._before is not None:
            change = shrunk(np.asarray(cv2.absdiff(luma, self._before[1]), np.uint8))
        levels = np.round(light).astype(np.uint8)
        drifts = self._drifts(time_s, levels.astype(np.int16))
        doubt = drifts or self._stands_out(time_s, change)
        self._steps.append((time_s if self._before is None else self._before[0], change))
        self._before = time_s, luma
        fine = np.minimum(np.round(change * FINE), 255).astype(np.uint8)
        return Step(light=levels.tobytes(), change=fine.tobytes(), is_doubtful=doubt)

    def _stands_out(self, time_s: float, change: npt.NDArray[np.float32]) -> bool:
        if float(change.mean()) < DOUBT_STEP:
            return False
        recent = [step for since_s, step in self._steps if since_s >= time_s - LOOK_BACK_S]
        usual = np.mean(recent, axis=0) if recent else np.zeros(CELLS, np.float32)
        out = change > DOUBT_RATIO * usual + DOUBT_STEP
        return bool(out.mean() > 0.05 or change.mean() > DOUBT_RATIO * usual.mean())

    def _drifts(self, time_s: float, light: npt.NDArray[np.int16]) -> bool:
        self._lights.append((time_s, light))
        while self._lights[0][0] < time_s - LOOK_BACK_S:
            self._lights.popleft()
        return float(np.abs(light - self._lights[0][1]).mean()) > DOUBT_DRIFT


def shrunk(luma: Pixels) -> npt.NDArray[np.float32]:
    """Return the mean of each cell."""
    return np.asarray(cv2.resize(luma.astype(np.float32), CELLS[::-1], interpolation=cv2.INTER_AREA), np.float32)


class Windows:
    """The small pictures of the frames around doubtful ones, in order; those at either end are always kept.

    Their frames may belong to a window around a frame of the span before or after.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque(maxlen=KEEP_FRAMES)
        self._more = KEEP_FRAMES
        self.kept: list[tuple[float, bytes]] = []

    def push(self, time_s: float, bgr: Pixels, is_doubtful: bool) -> None:
        """Take a frame."""
        small = cv2.resize(bgr, WITNESS_PX, interpolation=cv2.INTER_AREA)
        self._waiting.append((time_s, cv2.cvtColor(small, cv2.COLOR_BGR2RGB).tobytes()))
        if is_doubtful:
            self._more = KEEP_FRAMES + 1
        if self._more > 0:
            self._more -= 1
            self.kept += self._waiting
            self._waiting.clear()

    def end(self) -> None:
        """Keep the last frames as well."""
        self.kept += self._waiting
        self._waiting.clear()
