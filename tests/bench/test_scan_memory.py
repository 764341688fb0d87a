"""Peak memory of the scan on 10 s and on 6 min of the same footage, as it is and at 1080p. Target: within 1.2 ×."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

REPO = Path(__file__).parents[2]
TIMES = 36  # ten seconds each
CHILD = """
import math, sys
from pathlib import Path
from rushes.pipelines.media import footage
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.stages.scan.scan import scan_span
source = {**footage.probe(sys.argv[1], ScanConfig()), "wave": 0, "unit": "u"}
row, frames, errors, _ = scan_span(source, 0, 0.0, math.inf, ScanConfig())
assert row["frames"] and not errors, errors
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(row["frames"], round(row["covered_s"]), int(peak.split()[1]) * 1024, sum(len(f["jpeg"]) for f in frames))
"""


def looped(path: Path, out: Path, times: int) -> Path:
    """Write a film `times` over, its packets copied."""
    with av.open(str(out), "w") as sink:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(path)) as container:
                source = container.streams.video[0]
                stream = stream or sink.add_stream_from_template(source)
                end = offset
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.stream = stream
                    sink.mux(packet)
                offset = end
    return out


def enlarged(path: Path, out: Path, width: int = 1920, height: int = 1080) -> Path:
    """Write a film at another size."""
    with av.open(str(path)) as container, av.open(str(out), "w") as sink:
        source = container.streams.video[0]
        stream = sink.add_stream("libx264", rate=source.average_rate, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in container.decode(source):
            small = frame.reformat(width, height, "yuv420p")
            small.pts, small.time_base, small.pict_type = frame.pts, frame.time_base, 0
            sink.mux(stream.encode(small))
        sink.mux(stream.encode(None))
    return out


def peak(path: Path) -> tuple[int, int, int, int]:
    """Return frames, seconds, the peak of a fresh process in bytes, and the bytes of the candidate pictures."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=REPO, capture_output=True, text=True, check=True
    )
    frames, seconds, size, jpegs = map(int, done.stdout.split())
    return frames, seconds, size, jpegs


@pytest.mark.bench
@pytest.mark.parametrize("large", [False, True], ids=["as it is", "1080p"])
def test_memory_of_the_scan(bikes: Path, tmp_path: Path, large: bool, show: Any) -> None:
    film = enlarged(bikes, tmp_path / "large.mp4") if large else bikes
    found = {"10 s": peak(film), "6 min": peak(looped(film, tmp_path / "long.mp4", TIMES))}
    short, long = found.values()
    rows: list[list[Any]] = [
        [f"{s} s", n, f"{size / 2**20:.0f}", f"{jpegs / 2**20:.1f}"] for n, s, size, jpegs in (short, long)
    ]
    rows.append(["**ratio**", f"{long[0] / short[0]:.1f}", f"{long[2] / short[2]:.2f}", f"{long[3] / short[3]:.1f}"])
    name = f"Peak memory of scan_span, a fresh process each, {'1080p' if large else 'small film'}"
    show(name, ["film", "frames", "peak, MiB", "of it JPEG, MiB"], rows, found)
    assert long[0] == TIMES * short[0] and long[2] <= 1.2 * short[2]
