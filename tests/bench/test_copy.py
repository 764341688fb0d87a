"""A clip copied against the same clip encoded, in CPU time, in turns; and what a second of footage costs by codec.

And the settings of x264: time, size and quality by those that it has by itself.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode

ROUNDS = 3
WHOLE = (0.0, 0.0, 0.0, 0.0)
JOBS = {
    "copied": PackConfig(copy="keyframes"),
    "h264": PackConfig(copy="never"),
    "hevc": PackConfig(copy="never", codec="hevc"),
    "av1": PackConfig(copy="never", codec="av1"),
}


@pytest.mark.bench
def test_a_copy_against_an_encode(bikes: Path, bunny: Path, show: Callable[..., None]) -> None:
    rows: list[list[Any]] = []
    raw: dict[str, Any] = {}
    for path, end_s in ((bikes, 10.0), (bunny, 5.28)):
        row = room.probe(str(path), ScanConfig())
        took: dict[str, list[float]] = {name: [] for name in JOBS}
        for number in range(ROUNDS):
            for name in list(JOBS)[:: 1 if number % 2 else -1]:
                began = time.process_time()
                data, info = encode.cut(str(path), row, 0.0, end_s, JOBS[name], WHOLE)
                took[name].append(time.process_time() - began)
                assert info["copied"] == (name == "copied")
                raw.setdefault(path.name, {"cpu_s": took, "bytes": {}})["bytes"][name] = len(data)
        costs = {name: median(times) for name, times in took.items()}
        cells = [f"{cost / row['duration_s']:.3f}" for cost in costs.values()]
        rows.append(
            [f"{path.name}, {row['width']}×{row['height']}", *cells, f"{costs['h264'] / costs['copied']:.1f} ×"]
        )
    head = ["CPU s for a second of footage", *JOBS, "h264 / copied"]
    show("A clip copied against encoded", head, rows, raw=raw)
    assert all(float(row[-1].split()[0]) > 1 for row in rows)


TAKES = {
    "learning-area__crystal.mp4": 0,
    "learning-area__rabbit.mp4": 0,
    "moviepy__big_buck_bunny_0_30.webm": 24,
    "p5.js-website__DiagonalCrosswalkYongeDundas.mp4": 0,
    "sample-videos__bottle-detection.mp4": 0,
    "shared-assets__tears-of-steel-battle-clip-medium.webm": 0,
}
"""Films, and from which frame on they are encoded."""
FRAMES = 100
SETTINGS = {
    "ours": {**encode.ENCODERS["h264"][1], "crf": str(PackConfig().crf)},
    "veryfast": {"preset": "veryfast", "crf": "20"},
    "superfast": {"preset": "superfast", "crf": "21.5"},
    "medium": {"preset": "medium", "crf": "20"},
}


@pytest.mark.bench
def test_what_settings_of_x264_cost(footage: Path, show: Callable[..., None]) -> None:
    took: dict[str, dict[str, list[float]]] = {name: {} for name in SETTINGS}
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in SETTINGS}
    for film, first in TAKES.items():
        with av.open(str(footage / film)) as container:
            shown = container.decode(video=0)
            frames = [frame.reformat(format="yuv420p") for frame, at in zip(shown, range(first + FRAMES), strict=False)
                      if at >= first]  # fmt: skip
        for number in range(ROUNDS):
            for name in list(SETTINGS)[:: 1 if number % 2 else -1]:
                data, cost = _encoded(frames, SETTINGS[name])
                took[name].setdefault(film, []).append(cost)
                if not number:
                    found[name][film] = [len(data), *_psnr(frames, data)]
    rows = [
        [
            name,
            f"{fmean(_by(took, name, film) for film in TAKES):.2f}",
            f"{fmean(found[name][film][0] / found['veryfast'][film][0] for film in TAKES):.2f}",
            f"{fmean(found[name][film][1] for film in TAKES):.2f}",
            f"{fmean(found[name][film][2] for film in TAKES):.2f}",
        ]
        for name in SETTINGS
    ]
    head = ["x264", "CPU time by veryfast", "size by veryfast", "PSNR (dB)", "worst frame (dB)"]
    show("Settings of x264 on 6 films, one thread, medians of 3", head, rows, raw={"cpu_s": took, "found": found})
    assert float(rows[0][1]) < 0.8


def _by(took: dict[str, dict[str, list[float]]], name: str, film: str) -> float:
    return median(took[name][film]) / median(took["veryfast"][film])


def _encoded(frames: list[av.VideoFrame], settings: dict[str, str]) -> tuple[bytes, float]:
    sink = io.BytesIO()
    began = time.process_time()
    with av.open(sink, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        context.time_base, context.thread_count, context.gop_size = Fraction(1, 25), 1, 50
        context.options = settings
        for at, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.pict_type = at, Fraction(1, 25), 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return sink.getvalue(), time.process_time() - began


def _psnr(frames: list[av.VideoFrame], data: bytes) -> tuple[float, float]:
    """Return the PSNR of the luma of a film and of its worst frame."""
    with av.open(io.BytesIO(data)) as container:
        errors = [
            float(((_luma(a) - _luma(b)) ** 2).mean()) for a, b in zip(frames, container.decode(video=0), strict=True)
        ]
    mean, worst = (10 * float(np.log10(255**2 / max(error, 1e-9))) for error in (fmean(errors), max(errors)))
    return mean, worst


def _luma(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray()[: frame.height].astype(np.float32)
