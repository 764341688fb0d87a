"""Claims about sound: a click stays with its flash, copied or encoded, in every codec and at any frame rate."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode

WHOLE = (0.0, 0.0, 0.0, 0.0)
RATE = 48_000
FLASH_S = 2.0


def claps(path: Path, times_s: list[float], codec: str = "libx264", rate: int = RATE) -> dict[str, Any]:
    """Write black pictures with a white one at FLASH_S, and silence with a click at the same time; return its row."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options={"preset": "ultrafast", "crf": "20"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base, video.codec_context.gop_size = Fraction(1, 1000), 25
        tone = out.add_stream("aac", rate=rate, layout="stereo")
        for time_s in times_s:
            shade = 235 if abs(time_s - FLASH_S) < 1e-6 else 16
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        wave = np.zeros((2, round((times_s[-1] + 0.04) * rate)), np.float32)
        at = round(FLASH_S * rate)
        wave[:, at : at + rate // 100] = 0.9 * np.sin(np.arange(rate // 100) * 0.5)
        samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        samples.rate, samples.pts, samples.time_base = rate, 0, Fraction(1, rate)
        out.mux(tone.encode(samples))
        out.mux(tone.encode(None))
    return room.probe(str(path), ScanConfig())


def flash_and_click(mp4: bytes) -> tuple[float, float]:
    """Return when the white picture is shown and when the click begins to be heard, in seconds."""
    with av.open(io.BytesIO(mp4)) as clip:
        lights = [(frame.time or 0.0, float(frame.to_ndarray()[:64].mean())) for frame in clip.decode(video=0)]
    flash_s = max(lights, key=lambda one: one[1])[0]
    with av.open(io.BytesIO(mp4)) as clip:
        for frame in clip.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(0) > 0.3)
            if len(loud):
                return flash_s, (frame.time or 0.0) + float(loud[0]) / frame.rate
    pytest.fail("no click is heard")


EVEN = [number / 25 for number in range(100)]
UNEVEN = sorted({*(number / 25 for number in range(0, 100, 2)), 1.01, 1.05, 1.99, FLASH_S, 2.03, 2.5, 3.11})


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("times_s", [EVEN, UNEVEN], ids=["constant", "variable"])
@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 3.0), (0.52, 2.6), (0.0, math.inf)])
def test_click_and_flash_stay_within_half_a_frame(
    tmp_path: Path, codec: str, times_s: list[float], start_s: float, end_s: float
) -> None:
    row = claps(tmp_path / "a.mp4", times_s)
    pack = PackConfig(codec=codec)  # type: ignore[arg-type]
    mp4, info = encode.cut(row["uri"], row, start_s, end_s, pack, WHOLE)
    flash_s, click_s = flash_and_click(mp4)
    first_s = min(time_s for time_s in times_s if time_s >= start_s - 1e-6)
    assert info["has_audio"] and info["codec"] == codec
    assert flash_s == pytest.approx(FLASH_S - first_s, abs=0.002)
    assert abs(click_s - flash_s) < 0.02, (flash_s, click_s)


@pytest.mark.parametrize("rate", [44_100, 22_050, 96_000])
def test_a_copied_clip_has_its_sound_cut_as_exactly(tmp_path: Path, rate: int) -> None:
    row = claps(tmp_path / "a.mkv", EVEN, rate=rate)
    mp4, info = encode.cut(row["uri"], row, 1.0, 3.0, PackConfig(), WHOLE)
    flash_s, click_s = flash_and_click(mp4)
    assert info["copied"] and info["has_audio"] and flash_s == pytest.approx(1.0, abs=0.002)
    assert abs(click_s - flash_s) < 0.02, (flash_s, click_s)
    with av.open(io.BytesIO(mp4)) as clip:
        heard_s = sum(frame.samples / frame.rate for frame in clip.decode(audio=0))
    assert heard_s == pytest.approx(2.0, abs=1025 / min(rate, RATE))  # AAC comes in blocks of 1024 samples
