"""Crops for training from one clip: decoded from the key frame before them, several crops for each decode.

The packets of a clip are listed first, which reads no picture. They tell the times of all frames, so that a run of them
is drawn before anything is decoded; then decoding begins at the last key frame that is not shown after the run's first.
Whether the run came out whole is checked by its times. Where it did not, as where a stream names a key frame that is
none, the clip is decoded from its first frame: seeking never changes which pictures a crop has.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from jaxtyping import UInt8

from rushes.pipelines.colour.picture import Screen
from rushes.tokenizer.config import TrainConfig

READ_BYTES = 1 << 20
"""FFmpeg asks for so much of a clip at a time; 32 KiB, its default, takes twice as long to list the packets."""


class ClipError(ValueError):
    """A clip holds no video that can be decoded."""

    code = "undecodable"
    remedy = "run `rushes verify --full` on the clip shards, and pack again"


@dataclass(frozen=True)
class _Cut:
    """How a run of frames is cut: numbers from 0 to 1, drawn before the size of the frames is known."""

    scale: float
    places: tuple[tuple[float, float, bool], ...]
    """Of each crop how far to the right and down it lies, and whether it is mirrored."""


def crops(clip: bytes, config: TrainConfig, dice: random.Random) -> list[UInt8[np.ndarray, "t side side 3"]]:
    """Return `config.crops` crops of one random run of frames of an mp4, shrunk at random.

    Each crop is a square at a place of its own, mirrored half of the time; frames and scale they share, since these are
    what costs. A clip with fewer frames is filled by its last one. Only the crops are held, and one picture. Raises
    ClipError if nothing can be decoded, or if the clip is shorter than `min_frames`.
    """
    try:
        with av.open(io.BytesIO(clip), mode="r", metadata_errors="ignore", buffer_size=READ_BYTES) as container:
            return _crops(cast(InputContainer, container), config, dice)
    except av.FFmpegError as error:
        raise ClipError(f"the clip cannot be decoded: {error}; {ClipError.remedy}") from error


def _crops(container: InputContainer, config: TrainConfig, dice: random.Random) -> list[np.ndarray]:
    if not container.streams.video:
        raise ClipError("the clip has no video stream; shards of clips come from `rushes curate`")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # workers are processes; a second thread gains a tenth and takes a core
    packets = [packet for packet in container.demux(stream) if packet.size]
    times = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    if 0 < len(times) < config.min_frames:
        raise ClipError(f"it has {len(times)} frames, fewer than min_frames={config.min_frames}")
    start = int(dice.random() * max(0, len(times) - config.frames))
    wanted = times[start : start + config.frames]
    scale = dice.random()
    cut = _Cut(scale, tuple((dice.random(), dice.random(), dice.random() < 0.5) for _ in range(config.crops)))
    for first in sorted({_key_before(packets, wanted[0]), 0} if wanted else (), reverse=True):
        found = _pictures(stream.codec_context, packets[first:], wanted, cut, config, whole=first > 0)
        if found:
            return found
    raise ClipError("the clip has no frames; give a video, or if it is a clip of a shard, run `rushes verify --full`")


def _key_before(packets: Sequence[Packet], time: int) -> int:
    """Return the place of the last key frame shown no later than a time; frames after it refer to none before it."""
    keys = (i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts is not None)
    return max((i for i in keys if cast(int, packets[i].pts) <= time), default=0)


def _pictures(
    context: VideoCodecContext,
    packets: Sequence[Packet],
    wanted: Sequence[int],
    cut: _Cut,
    config: TrainConfig,
    whole: bool,
) -> list[np.ndarray]:
    """Return the crops of the frames at the wanted times, or of what is left of them unless they must be whole."""
    screen, seen = Screen(), list[int]()
    out: list[np.ndarray] = [np.empty((config.frames, config.side, config.side, 3), np.uint8) for _ in cut.places]
    try:
        for frame in _shown(context, packets):
            if whole and frame.pts == packets[0].pts and frame.pict_type != PictureType.I:
                return []  # some decoders show what refers to nothing
            if frame.pts is None or frame.pts < wanted[0]:
                continue
            if whole and (frame.pts != wanted[len(seen)] or frame.is_corrupt):
                return []
            _cut(screen, frame, cut, config, [one[len(seen)] for one in out])
            seen.append(frame.pts)
            if len(seen) == len(wanted):
                break
    except av.FFmpegError:
        if not whole:
            raise
    if not seen or (whole and len(seen) < len(wanted)):
        return []
    for one in out:
        one[len(seen) :] = one[len(seen) - 1]
    return out


def _shown(context: VideoCodecContext, packets: Sequence[Packet]) -> Iterator[VideoFrame]:
    """Yield the frames of packets in the order in which they are shown."""
    context.flush_buffers()  # nothing of another attempt
    for packet in packets:
        yield from context.decode(packet)
    yield from context.decode(None)


def _cut(screen: Screen, frame: VideoFrame, cut: _Cut, config: TrainConfig, out: Sequence[np.ndarray]) -> None:
    """Write the crops of one frame: it is scaled once, so that they share that cost as well."""
    side, short = config.side, min(frame.width, frame.height)
    scaled = max(side, min(round(side * (1 + cut.scale * (config.shrink - 1))), short))
    width, height = (max(side, round(n * scaled / short)) for n in (frame.width, frame.height))
    picture = screen.rgb(frame, width, height)
    for one, (across, down, mirrored) in zip(out, cut.places, strict=True):
        left, top = int(across * (width - side + 1)), int(down * (height - side + 1))
        square = picture[top : top + side, left : left + side]
        one[:] = square[:, ::-1] if mirrored else square
