"""What changes from frame to frame, measured in the one pass: as PySceneDetect's detectors do, and cell by cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import ContentDetector, FrameTimecode, StatsManager

from rushes.filters.corners import found_again

BINS = 64
CELLS = (9, 16)
"""Rows and columns of cells into which every picture is divided, whatever its shape."""
LOOK_BACK_S = 0.6
"""How far back a picture is compared to find what changes gradually."""
COLOURLESS = (1.0, 2.5)
"""Colourfulness (0–255) up to which a picture has no colour, its chroma being noise, and from which on it has."""
PLACE_CONTENT, PLACE_RISES = 8.0, 1.25
"""Content change from which on corners are looked for again, and by that of the frame before."""
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
WITNESS_QUALITY = 92
"""JPEG quality in which they are kept."""
KEEP_FRAMES = 75
"""Frames before and after a doubtful one whose small pictures are kept: as far as its window reaches, and more."""
PER_FRAME = ("content", "hue", "saturation", "luma", "histogram", "doubt", "key", "corners")
"""Names of the numbers of a frame that stand in the ledger."""

Pixels = npt.NDArray[np.uint8]


class _Latest(StatsManager):
    """A statistics store that keeps the last frame only, so that memory does not grow with the length of a video."""

    latest: Mapping[str, float] = {}

    def set_metrics(self, timecode: int | FrameTimecode, metric_kv_dict: dict[str, Any]) -> None:
        self.latest = metric_kv_dict


class _Colour(ContentDetector):
    """scenedetect's content detector without edges and with OpenCV's sums, in a fifth of the time.

    The numbers are the same where a picture has colour.
    """

    _hsv: cv2.typing.MatLike | None = None
    _colour = 0.0

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: npt.NDArray[np.uint8]) -> float:
        """Return the weighted change of hue, saturation and value; sums of bytes are exact, whoever takes them.

        Of pictures without colour hue and saturation tell nothing, or the noise of their coding: there value has the
        weight of all three.
        """
        hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        before, self._hsv = self._hsv, hsv
        colour_before, self._colour = self._colour, _colourfulness(hsv)
        if before is None:
            return 0.0
        pixels = before.shape[0] * before.shape[1]
        hue, sat, lum, _ = (total / pixels for total in cv2.sumElems(cv2.absdiff(before, hsv)))
        parts, share = self.Components(hue, sat, lum, 0.0), _share_of_colour(max(colour_before, self._colour))
        usual = self._weights
        weights = self.Components(
            share * usual.delta_hue, share * usual.delta_sat,
            usual.delta_lum + (1 - share) * (usual.delta_hue + usual.delta_sat), usual.delta_edges,
        )  # fmt: skip
        score = sum(part * weight for part, weight in zip(parts, weights, strict=True)) / sum(map(abs, weights))
        if self.stats_manager is not None:
            self.stats_manager.set_metrics(timecode, {self.FRAME_SCORE_KEY: score, **parts._asdict()})
        return score


def _colourfulness(hsv: cv2.typing.MatLike) -> float:
    """Return by how much the strongest of red, green and blue exceeds the weakest, on average of a picture, 0–255."""
    saturation, value = (np.ascontiguousarray(hsv[..., part]) for part in (1, 2))
    return float(cv2.mean(cv2.multiply(saturation, value, scale=1 / 255))[0])


def _share_of_colour(colourfulness: float) -> float:
    least, enough = COLOURLESS
    return min(max((colourfulness - least) / (enough - least), 0.0), 1.0)


class ContentScorer:
    """The change of each frame against the one before, measured as scenedetect's content and histogram detectors do."""

    def __init__(self) -> None:
        # Measures only: the threshold is never reached, so there is never a cut of its own to place or to filter.
        self._detector = _Colour(threshold=256.0, min_scene_len=0)
        self._stats = _Latest()
        self._detector.stats_manager = self._stats
        self._code = FrameTimecode(0, fps=1000.0)
        self._histogram: npt.NDArray[np.float32] | None = None

    def push(self, luma: Pixels, bgr: Pixels) -> dict[str, float]:
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


class Places:
    """How much of each picture that changes as much as a cut does is found again in the next one."""

    def __init__(self) -> None:
        self._before: Pixels | None = None
        self._content = 0.0

    def push(self, luma: Pixels, content: float) -> float:
        """Return the share of corners found again, 0–1; NaN of a frame that changes little or as the one before.

        Args:
            luma: of the frame.
            content: its change.
        """
        before, rises = self._before, content >= max(PLACE_CONTENT, PLACE_RISES * self._content)
        self._before, self._content = luma, content
        return found_again(before, luma) if before is not None and rises else float("nan")


class Cells:
    """Which frames are worth a witness's look, from the light of their cells.

    What is said of a frame depends on the one before and on those of the `LOOK_BACK_S` before it alone.
    """

    def __init__(self) -> None:
        self._times = np.empty(0)
        self._lights = np.empty((0, *CELLS), np.int16)

    def push(self, times: Sequence[float], lights: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Return which of some frames are doubtful.

        Args:
            times: of the frames, which follow those of the call before.
            lights: `cells` of each, `[n, 9, 16]`.
        """
        known = len(self._times)
        time_s = np.concatenate([self._times, times])
        light = np.concatenate([self._lights, lights.astype(np.int16)])
        first = np.minimum(np.searchsorted(time_s, time_s - LOOK_BACK_S), np.arange(len(time_s)))
        drifts = np.abs(light - light[first]).mean(axis=(1, 2)) > DOUBT_DRIFT
        found = (drifts | _stand_out(light, first))[known:]
        kept = min(int(first[-1]), len(time_s) - 1)
        self._times, self._lights = time_s[kept:], light[kept:]
        return found


def _stand_out(light: npt.NDArray[np.int16], first: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which frames change more than the `DOUBT_FRAMES` steps before, of those since frame `first`."""
    step = np.zeros(light.shape, np.float32)
    step[1:] = np.abs(np.diff(light, axis=0))
    total, count = np.zeros_like(step), np.zeros(len(step), np.float32)
    for lag in range(1, DOUBT_FRAMES + 1):
        recent = np.arange(len(step)) - lag - 1 >= first
        recent[: lag + 1] = False
        total[recent] += step[np.flatnonzero(recent) - lag]
        count += recent
    usual = total / np.maximum(count, 1)[:, None, None]
    out = (step > DOUBT_RATIO * usual + DOUBT_STEP).mean(axis=(1, 2)) > 0.05
    mean = step.mean(axis=(1, 2))
    return np.asarray((mean >= DOUBT_STEP) & (out | (mean > DOUBT_RATIO * usual.mean(axis=(1, 2)))))


def cells(luma: Pixels) -> npt.NDArray[np.uint8]:
    """Return the mean light of each cell, `[9, 16]`."""
    return cast(npt.NDArray[np.uint8], cv2.resize(luma, CELLS[::-1], interpolation=cv2.INTER_AREA))


class Windows:
    """The small pictures of the frames around doubtful ones, in order; those at either end are always kept.

    Their frames may belong to a window around a frame of the span before or after.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Pixels]] = deque(maxlen=KEEP_FRAMES)
        self._more = KEEP_FRAMES
        self.kept: list[tuple[float, bytes]] = []

    def push(self, time_s: float, bgr: Pixels, is_doubtful: bool) -> None:
        """Take a frame, `[h, w, 3]`."""
        self._waiting.append((time_s, bgr))
        if is_doubtful:
            self._more = KEEP_FRAMES + 1
        if self._more > 0:
            self._more -= 1
            self.keep()

    def keep(self) -> None:
        """Keep the frames that wait, as at the end of a span."""
        self.kept += [(time_s, _for_witness(bgr)) for time_s, bgr in self._waiting]
        self._waiting.clear()


def _for_witness(bgr: Pixels) -> bytes:
    """Return a picture as the witness will look at it, as JPEG: in fast footage most are kept, and pixels take four
    times as much."""
    small = cv2.resize(bgr, WITNESS_PX, interpolation=cv2.INTER_LINEAR)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, WITNESS_QUALITY])[1].tobytes()
