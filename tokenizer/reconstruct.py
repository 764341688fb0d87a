"""Show what a tokenizer keeps of a video: original and reconstruction side by side, the rate of each segment below.

    rushes tokenizer reconstruct RUN/tokenizer/model VIDEO.mp4 --out side-by-side.mp4

Measured, both passes (measuring, then coding under the budget) go segment by segment, so memory does not grow with the
video; where rates are predicted, its pictures are held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile, tee

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from rushes.pipelines.colour.picture import Screen, tag
from rushes.pipelines.store import shards, storage
from rushes.tokenizer.codec import load, predicts, segments, stream_again
from rushes.tokenizer.config import Allocation, Budget, Tell, silent
from rushes.tokenizer.data import ClipError, to_pictures
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import counts
from rushes.tokenizer.plan import Segment, plan

BAR_PX = 18
_COLOURS = {1: "#b2182b", 2: "#d6604d", 4: "#ef8a62", 8: "#67a9cf", 16: "#2166ac"}


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How well a video came back."""

    out: str
    """The side-by-side video."""
    psnr: float
    """Peak signal-to-noise ratio in dB over all frames."""
    rates: list[int]
    """Frames per latent of each segment."""
    latents: int
    """Latents in all."""
    frames: int
    """Frames in all."""


@torch.no_grad()
def reconstruct(
    model: str,
    source: str,
    out: str,
    *,
    key: str = "",
    budget: Budget | None = None,
    side_px: int = 256,
    max_seconds: float = 20.0,
    allocation: Allocation = "auto",
    tell: Tell = silent,
) -> Reconstruction:
    """Write original and reconstruction side by side and return the quality.

    Args:
        model: A tokenizer's name, see `codec.load`.
        source: A video file, or the root of clip shards, then with `key`.
        out: The mp4 to write.
        key: Clip of the shards; empty takes the first one.
        budget: How many latents the video may have; none gives every segment the lowest rate.
        side_px: The shorter side is shrunk to this; 0 keeps the size.
        max_seconds: Later frames are left out.
        allocation: Whether what a segment loses at each rate is measured or predicted by the model's linear code; auto
            predicts where it has one.
        tell: Told of each segment that is looked at to choose the rates, then of each that is coded.

    Raises:
        ValueError: No tokenizer, video or clip is there, nothing can be predicted, or the budget is too small.
    """
    tokenizer = load(model).to("cuda" if torch.cuda.is_available() else "cpu")
    clip = find_clip(source, key)

    def read() -> Iterator[Segment]:
        chunks = segments(tokenizer, clip, side_px)
        return ((t, v.to(tokenizer.latent_mean.device)) for t, v in takewhile(lambda c: c[0][0] < max_seconds, chunks))

    predict = predicts(tokenizer, allocation)
    rates, lengths, chunks = plan(tokenizer, _telling(read, tell), budget or Budget(), predict=predict)
    if not rates:
        raise ClipError(f"{source} has no frames")
    error = 0.0
    with storage.open_write(out) as file:
        shown, coded = tee(chunks)  # zip takes from both by turns, so one segment is held, or one piece
        again = stream_again(tokenizer, ((video, rate) for (_, video), rate in zip(coded, rates, strict=True)))
        writer = SideBySide(file, rates, lengths)
        try:
            for number, ((times_s, video), other) in enumerate(zip(shown, again, strict=True), 1):
                error += float((other - video).square().mean(dim=(0, 1, 3, 4)).sum())
                writer.add(times_s, to_pictures(video), to_pictures(other))
                tell(number, len(rates), "segments coded", {})
        finally:
            writer.close()
    frames, latents = sum(lengths), sum(counts(lengths, rates))
    return Reconstruction(out=out, psnr=psnr(error / frames), rates=list(rates), latents=latents, frames=frames)


def _telling(read: Callable[[], Iterator[Segment]], tell: Tell) -> Callable[[], Iterator[Segment]]:
    """Return what opens a video as `read` does, and tells of the segments the first time, when rates are chosen."""
    openings = itertools.count()

    def told() -> Iterator[Segment]:
        for number, segment in enumerate(read(), 1):
            yield segment
            tell(number, 0, "segments looked at", {})

    return lambda: read() if next(openings) else told()


def find_clip(source: str, key: str) -> bytes | str:
    """Return the path of a video file, or the bytes of a clip where the source is the root of shards."""
    if not storage.exists(f"{source.rstrip('/')}/manifest.json"):
        if key:
            raise ValueError(f"{source} holds no shards (no manifest.json), so there is no clip {key} in it")
        return source if storage.is_local(source) else storage.read_bytes(source)
    for sample in shards.pipeline(source, members=("mp4",), nodes=False):
        if key in ("", sample["__key__"]):
            return sample["mp4"]
    raise ValueError(f"{source} has no clip {key}; its keys stand in the side-cars (*.parquet) beside the shards")


def write_video(out: str, times_s: Sequence[float], video: Float[Tensor, "1 3 t h w"]) -> None:
    """Write a video in [-1, 1] as an mp4, its frames at their times in seconds; of an odd side a row or column goes."""
    with storage.open_write(out) as file:
        writer = Film(file)
        try:
            for time_s, picture in zip(times_s, to_pictures(video), strict=True):
                writer.show(time_s, picture)
        finally:
            writer.close()


class Film:
    """Writes pictures to an mp4, each at its time."""

    def __init__(self, file: object):
        self.container = av.open(file, "w", format="mp4")
        self.stream: av.VideoStream | None = None
        self.screen = Screen()

    def show(self, time_s: float, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append a picture."""
        picture = picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2]
        frame = self.screen.frame(np.ascontiguousarray(picture))
        frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
        self.container.mux(self._stream(frame.width, frame.height).encode(frame))

    def _stream(self, width: int, height: int) -> av.VideoStream:
        if self.stream is None:
            self.stream = self.container.add_stream("libx264", rate=30, options={"crf": "16"})
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
            self.stream.codec_context.time_base = Fraction(1, 90_000)
            self.stream.codec_context.thread_count = 2
            tag(self.stream.codec_context)
        return self.stream

    def close(self) -> None:
        """Write what the encoder still holds and end the file."""
        if self.stream is not None:
            self.container.mux(self.stream.encode(None))
        self.container.close()


class SideBySide(Film):
    """Writes pairs of pictures with a bar below: the rate of each segment, and where we are."""

    def __init__(self, file: object, rates: Sequence[int], lengths: Sequence[int]):
        super().__init__(file)
        self.rates, self.lengths, self.shown = rates, lengths, 0

    def add(
        self, times_s: Sequence[float], left: UInt8[np.ndarray, "t h w 3"], right: UInt8[np.ndarray, "t h w 3"]
    ) -> None:
        """Append frames at their times."""
        for time_s, a, b in zip(times_s, left, right, strict=True):
            picture = np.concatenate([a, b], axis=1)
            self.show(time_s, np.concatenate([picture, self._bar(picture.shape[1])]))
            self.shown += 1

    def _bar(self, width: int) -> UInt8[np.ndarray, "bar w 3"]:
        bar = Image.new("RGB", (width, BAR_PX), "#202020")
        draw = ImageDraw.Draw(bar)
        each, start = width / sum(self.lengths), 0.0
        for rate, length in zip(self.rates, self.lengths, strict=True):
            stop = start + length * each
            draw.rectangle((start, 3, max(start, stop - 2), BAR_PX - 1), fill=_COLOURS.get(rate, "#888888"))
            if stop - start > 14:
                draw.text((start + 4, 4), str(rate), fill="white")
            start = stop
        now = min(self.shown * each, width - 1)
        draw.rectangle((now, 0, now + 1, BAR_PX), fill="white")
        return np.asarray(bar)
