"""Where shots begin and end: per-frame change measured by PySceneDetect's detectors, decided over the whole series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import ContentDetector, FrameTimecode, HistogramDetector, StatsManager

BINS = 64


class _Latest(StatsManager):
    """A statistics store that keeps the last frame only, so that memory does not grow with the length of a video."""

    latest: Mapping[str, float] = {}

    def set_metrics(self, timecode: int | FrameTimecode, metric_kv_dict: dict[str, Any]) -> None:
        self.latest = metric_kv_dict


class ContentScorer:
    """The change of each frame against the one before, measured by scenedetect's content and histogram detectors."""

    def __init__(self) -> None:
        self._detector = ContentDetector(threshold=256.0)  # measures only: never reached, so never a cut of its own
        self._stats = _Latest()
        self._detector.stats_manager = self._stats
        self._histogram: npt.NDArray[np.float32] | None = None

    def push(self, time_s: float, bgr: npt.NDArray[np.uint8]) -> dict[str, float]:
        """Return content, hue, saturation, luma, edges (0–255) and histogram (0–2) of a frame; all 0 on the first."""
        self._detector.process_frame(FrameTimecode(max(time_s, 0.0), fps=1000.0), bgr)
        found = self._stats.latest
        before, self._histogram = self._histogram, HistogramDetector.calculate_histogram(bgr, bins=BINS)
        return {
            "content": float(found.get("content_val", 0.0)),
            "hue": float(found.get("delta_hue", 0.0)),
            "saturation": float(found.get("delta_sat", 0.0)),
            "luma": float(found.get("delta_lum", 0.0)),
            "edges": float(found.get("delta_edges", 0.0)),
            "histogram": 0.0 if before is None else histogram_distance(before, self._histogram),
        }


def histogram_distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return 1 − correlation of two histograms: 0 for equal ones, as scenedetect's HistogramDetector compares them."""
    return max(0.0, 1.0 - float(cv2.compareHist(a, b, cv2.HISTCMP_CORREL)))
