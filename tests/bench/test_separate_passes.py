"""The signals of the scan made as others make them, each by a pass of its own, against the one pass. Target: 2.5 ×.

PySceneDetect through its own API; flow, hashes, black/freeze and candidate frames each by a loop over PyAV's frames at
the sizes and rates that the scan has, with the same OpenCV and Pillow calls a script would use.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scenedetect import ContentDetector, detect

from rushes.filters import hashes
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.stages.scan.scan import is_step, scan_span
from tests.bench.test_scan_speed import Cost, cost

NAMES = ("big-buck-bunny-480p-30s__video.mp4", "cosmos-curate__test_video_30s.mp4", "sam2__02_cups.mp4",
         "learning-area__elf.mp4", "mediabunny__video-h265.mp4", "libopenshot__test.avi")  # fmt: skip
SCAN = ScanConfig()
ROUNDS = 3


def frames(source: dict[str, Any], rate_hz: float = 1e6) -> Iterator[av.VideoFrame]:
    before_s = -1.0
    with av.open(source["uri"]) as container:
        for frame in container.decode(video=0):
            if is_step(before_s, frame.time or 0.0, rate_hz):
                yield frame
            before_s = frame.time or 0.0


def grey(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    size = (SCAN.width_px, round(SCAN.width_px * frame.height / frame.width))
    return cv2.resize(frame.to_ndarray(format="gray"), size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def shots(source: dict[str, Any]) -> None:
    detect(source["uri"], ContentDetector())


def flow(source: dict[str, Any]) -> None:
    dis, before = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST), None
    for frame in frames(source, SCAN.tick_hz):
        luma = grey(frame)
        if before is not None:
            dis.calc(before, luma, None)  # type: ignore[call-overload]
        before = luma


def perceptual(source: dict[str, Any]) -> None:
    for frame in frames(source, SCAN.tick_hz):
        hashes.phash(grey(frame))


def black_and_freeze(source: dict[str, Any]) -> None:
    before = None
    for frame in frames(source):
        luma = grey(frame)
        cv2.meanStdDev(luma)
        if before is not None:
            cv2.norm(before, luma, cv2.NORM_L1)
        before = luma


def candidates(source: dict[str, Any]) -> None:
    for frame in frames(source, SCAN.candidate_hz):
        picture = frame.to_image()
        picture.thumbnail((SCAN.candidate_side_px, SCAN.candidate_side_px))
        picture.save(io.BytesIO(), "JPEG", quality=85)


PASSES: tuple[Callable[[dict[str, Any]], None], ...] = (shots, flow, perceptual, black_and_freeze, candidates)


@pytest.mark.bench
def test_one_pass_against_separate_passes(films: list[dict[str, Any]], show: Any) -> None:
    cv2.setNumThreads(1)
    chosen = [film for film in films if film["uri"].rsplit("/", 1)[-1] in NAMES] or films
    rows, sums, raw = [], np.zeros((2, 2)), []
    for film in chosen:
        rounds: list[tuple[Cost, list[Cost]]] = [
            (
                cost(lambda film=film: scan_span(film, 0, 0.0, np.inf, SCAN, 1)),  # type: ignore[misc]
                [cost(lambda film=film, one=one: one(film)) for one in PASSES],  # type: ignore[misc]
            )
            for _ in range(ROUNDS)
        ]
        ours = np.array([median(scan[kind] for scan, _ in rounds) for kind in (0, 1)])
        each = np.array(
            [[median(theirs[k][kind] for _, theirs in rounds) for kind in (0, 1)] for k in range(len(PASSES))]
        )
        sums += [ours, each.sum(0)]
        name = film["uri"].rsplit("/", 1)[-1]
        raw.append(
            {"file": name, "scan": ours.tolist(), **dict(zip([p.__name__ for p in PASSES], each.tolist(), strict=True))}
        )
        rows.append([f"{name} {film['width']}×{film['height']}", f"{ours[0]:.2f}", f"{each[:, 0].sum():.2f}",
                     *(f"{x:.2f}" for x in each.sum(0) / ours)])  # fmt: skip
    rows.append(["**all**", f"{sums[0, 0]:.2f}", f"{sums[1, 0]:.2f}", *(f"{x:.2f}" for x in sums[1] / sums[0])])
    head = ["file", "one pass, CPU s", "separate, CPU s", "faster, CPU", "faster, wall"]
    show(f"One pass against {len(PASSES)} separate passes (medians of {ROUNDS})", head, rows, raw)
    assert sums.min() > 0
