"""Decoding latents of a long video: ours as a stream, the published VAEs whole; one in a process of its own.

    python -m tests.bench.streams ours 10 15000        # ten million parameters, ten minutes at 25 frames per second

Prints one line of JSON: seconds to the first frame and in all, peak memory above the model's own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rushes.tokenizer.model import stream_decode
from tests.bench.video_vaes import built, peak_mib

SIDE, CHANNELS, RATE, SEGMENT = 64, 16, 4, 16


def decoded(name: str, model: Any, frames: int) -> Iterator[Tensor]:
    """Yield the frames of random latents as soon as the model has them."""
    side = SIDE // 8
    if name == "ours":
        z = (torch.randn(1, SEGMENT // RATE, CHANNELS, side, side) for _ in range(-(-frames // SEGMENT)))
        yield from stream_decode(model, ((one, RATE) for one in z))
    else:
        yield model.decode(torch.randn(1, CHANNELS, (frames - 1) // RATE + 1, side, side)).sample


def main(name: str, millions: float, frames: int) -> dict[str, Any]:
    """Measure one model on one length."""
    model, _ = built(name, millions)
    for _ in decoded(name, model, 2 * SEGMENT + 1):
        pass  # the first call sets kernels up
    Path("/proc/self/clear_refs").write_text("5")
    before, begun, first, done = peak_mib(), time.perf_counter(), 0.0, 0
    for video in decoded(name, model, frames):
        first = first or time.perf_counter() - begun
        done += video.shape[2]
    assert done >= frames
    return {"name": name, "frames": frames, "first_s": first, "seconds": time.perf_counter() - begun,
            "peak_mib": peak_mib() - before}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
