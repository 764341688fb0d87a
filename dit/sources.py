"""What a clip that is generated is given: a picture or a clip at its beginning or end, or one with a box to fill in.

All are one masked video: frames that are given stand at their places, a still picture stands for those that are not.
It goes through the tokenizer as a whole, in the order of time, and the latents of what is given are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rushes.dit.config import SampleConfig
from rushes.dit.known import Box
from rushes.pipelines.store import storage
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.data import to_video, video_frames

SAME_FPS = 0.01
"""Share by which frame rates may differ and still be the same."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture or a clip."""

    option: str
    """The setting that names it."""
    path: str
    frames: int
    fps: float
    """0 of a picture."""
    height: int
    width: int

    @property
    def is_picture(self) -> bool:
        """Whether it is a single frame."""
        return self.frames == 1

    def pictures(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yield its frames in RGB."""
        return (picture for _, picture in _frames(self.path))

    def __str__(self) -> str:
        return f"{self.option}={self.path} ({self.frames} frame{'s' if self.frames > 1 else ''})"


@dataclass(frozen=True, kw_only=True)
class Given:
    """All that is given of one clip."""

    head: Source | None = None
    """How it begins; with a box, the whole clip around it."""
    tail: Source | None = None
    """How it ends."""
    goes_on: bool = False
    """Whether the whole of the head is shown, and what is generated comes behind."""
    box: Box | None = None
    """The part of the picture that is filled in."""

    @property
    def sources(self) -> list[Source]:
        """What is given, from the beginning."""
        return [source for source in (self.head, self.tail) if source]

    @property
    def fps(self) -> float:
        """Frame rate of the clips among them; 0 where there is none."""
        return next((source.fps for source in self.sources if source.fps), 0.0)

    def __str__(self) -> str:
        return " and ".join(map(str, self.sources)) or "nothing"

    def require(self, config: SampleConfig) -> None:
        """Raise ValueError where what is given has another size or frame rate than the clip that is asked for."""
        for source in self.sources:
            if (source.height, source.width) != (config.height, config.width):
                raise ValueError(
                    f"{source} is {source.width}×{source.height}, the clip is to be {config.width}×{config.height}; "
                    f"scale it, or ask for --width {source.width} --height {source.height}"
                )
            if source.fps and abs(source.fps / config.fps - 1) > SAME_FPS:
                raise ValueError(
                    f"{source} has {source.fps:.4g} frames a second, the clip is to have {config.fps:.4g}; "
                    "convert one to the rate of the other, or leave --fps out"
                )


def given(config: SampleConfig) -> Given:
    """Look at what is given. Raises ValueError for what cannot be read."""
    tail = look("last", config.last) if config.last else None
    head = next(
        (look(name, getattr(config, name)) for name in ("first", "extend", "source") if getattr(config, name)), None
    )
    if head and head.option == "extend" and head.is_picture:
        raise ValueError(f"{head} is a picture, which --first takes; give a clip to extend")
    return Given(head=head, tail=tail, goes_on=bool(config.extend), box=config.mask)


def look(option: str, path: str) -> Source:
    """Return what a file is, by reading it once. Raises ValueError where it holds no picture."""
    if storage.is_local(path) and Path(path).is_dir():
        raise ValueError(f"{option}={path} is a folder; give a picture or a video")
    times: deque[float] = deque(maxlen=1)
    frames, shape = 0, (0, 0)
    for time_s, picture in _frames(path):
        times.append(time_s)
        frames, shape = frames + 1, (picture.shape[0], picture.shape[1])
    if not frames:
        raise ValueError(f"{option}={path} holds no picture; give a picture or a video")
    fps = (frames - 1) / times[0] if frames > 1 else 0.0
    return Source(option=option, path=path, frames=frames, fps=fps, height=shape[0], width=shape[1])


def _frames(path: str) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
    return video_frames(path if storage.is_local(path) else storage.read_bytes(path))


@torch.no_grad()
def encoded(
    what: Given, tokenizer: AnyTokenizer, lengths: tuple[int, ...], rates: tuple[int, ...], known: tuple[bool, ...]
) -> Iterator[Float[Tensor, "n c h w"] | None]:
    """Yield for each segment its latents where they are given, else None, one segment in memory at a time."""
    upto = max((number for number, is_known in enumerate(known, 1) if is_known), default=0)
    pictures, device = _pictures(what, lengths, known), tokenizer.latent_mean.device
    videos = (to_video(np.stack(list(islice(pictures, length)))).to(device) for length in lengths[:upto])
    coded = codecs.stream_encode(tokenizer, zip(videos, rates, strict=False))
    for is_known, z in zip(known, coded, strict=False):
        yield z[0] if is_known else None
    yield from [None] * (len(known) - upto)


def _pictures(what: Given, lengths: tuple[int, ...], known: tuple[bool, ...]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield the frames of the masked video; in between stands the last one that was given, or the next."""
    end = list(deque(what.tail.pictures(), maxlen=lengths[-1])) if what.tail else []
    ahead = sum(lengths[: (*known, False).index(False)]) if what.head else 0
    picture = end[0] if end else None
    for picture in islice(what.head.pictures(), ahead) if what.head else ():
        yield picture
    for _ in range(sum(lengths) - ahead - len(end)):
        assert picture is not None
        yield picture
    yield from end
