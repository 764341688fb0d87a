"""Clips from shards as training batches, in an order that a resumed run takes up where it stopped.

A position says for each worker which samples are behind it and which crops of those that it holds it has given. It
travels in the batch, is saved with the weights, and a resumed reader passes over those samples without decoding them.
Crops depend on seed, pass and key, never on the process that makes them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.frame import VideoFrame
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rushes.pipelines.colour.picture import Screen
from rushes.pipelines.store import shards
from rushes.tokenizer.config import Stage, TrainConfig, stage_at
from rushes.tokenizer.crops import ClipError, crops

log = logging.getLogger(__name__)

CUT_CELLS, CUT_FRAMES = (16, 9), 4
"""Columns and rows into which a frame is divided, and steps before with which a step is compared."""
CUT_LEVELS, CUT_RATIO = 12.0, 3.0
"""Mean change of a cell, in levels of 255, and in steps before, from which it is a cut."""
Position = tuple[int, int, int, int]
"""Pass over the shards, samples of it behind the reader, clips held besides the newest, crops given since that came."""
START: Position = (0, 0, 0, 0)


@dataclass(frozen=True)
class _Clip:
    """A clip whose crops are being given."""

    key: str
    crops: list[UInt8[np.ndarray, "t side side 3"]]
    before: tuple[int, int]
    """Its pass, and the samples of it that come before."""


@dataclass(frozen=True)
class _Crop:
    key: str
    pictures: UInt8[np.ndarray, "t side side 3"]
    after: Position
    """Where a reader goes on that makes crops of the same shape."""
    anew: Position
    """Where one goes on that makes others: past every clip that has been decoded."""


def video_frames(clip: bytes | str, side_px: int = 0) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
    """Yield time in seconds and RGB picture of each frame of a clip, given by its bytes or its path.

    Its colours are those of an ordinary screen, whatever the clip is tagged as; HDR is tone-mapped.

    Args:
        clip: An mp4's content, or the path of any video file.
        side_px: Pictures are shrunk so that the shorter side has this many pixels; 0, or a smaller picture, keeps it.

    Raises:
        ClipError: There is no video stream, or it cannot be decoded.
    """
    screen = Screen()
    for time_s, frame in _decoded(clip):
        scale = min(1.0, side_px / min(frame.width, frame.height)) if side_px else 1.0
        width, height = (round(side * scale) for side in (frame.width, frame.height))
        yield time_s, screen.rgb(frame, width, height)


def _decoded(clip: bytes | str) -> Iterator[tuple[float, VideoFrame]]:
    source = io.BytesIO(clip) if isinstance(clip, bytes) else clip
    try:
        with av.open(source, mode="r", metadata_errors="ignore") as container:
            if not container.streams.video:
                raise ClipError("the clip has no video stream; shards of clips come from `rushes curate`")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 2
            first = None
            for frame in container.decode(stream):
                if frame.time is not None:
                    first = frame.time if first is None else first
                    yield frame.time - first, frame
    except (av.FFmpegError, FileNotFoundError) as error:
        name = clip if isinstance(clip, str) else "the clip"
        raise ClipError(
            f"{name} cannot be decoded: {error}; give a video, or if it is a clip of a shard, "
            "run `rushes verify --full`"
        ) from error


def segments(
    clip: bytes | str, length: int | Iterator[int], side_px: int = 0, lone: bool = False
) -> Iterator[tuple[list[float], Float[Tensor, "1 3 t h w"]]]:
    """Yield times and video in [-1, 1] of each segment: at most `length` frames, fewer before a cut and at the end.

    An iterator gives the frames of each segment in turn, and cuts are not looked for. With `lone` the first frame is
    a segment of its own.
    """
    return ((times_s, to_video(pictures)) for times_s, pictures in pictured(clip, length, side_px, lone))


def pictured(
    clip: bytes | str, length: int | Iterator[int], side_px: int = 0, lone: bool = False
) -> Iterator[tuple[list[float], UInt8[np.ndarray, "t h w 3"]]]:
    """Yield times and 8-bit RGB pictures of each of `segments`."""
    taken: list[tuple[float, np.ndarray]] = []
    cuts = Cuts() if isinstance(length, int) else None
    lengths = itertools.repeat(length) if isinstance(length, int) else length
    most = 1 if lone else next(lengths)
    for time_s, picture in video_frames(clip, side_px):
        if (cuts is not None and cuts.before(picture)) or len(taken) == most:
            yield _segment(taken)
            taken, most = [], next(lengths)
        taken.append((time_s, picture))
    if taken:
        yield _segment(taken)


def _segment(taken: list[tuple[float, np.ndarray]]) -> tuple[list[float], UInt8[np.ndarray, "t h w 3"]]:
    return [time_s for time_s, _ in taken], np.stack([picture for _, picture in taken])


def read_video(clip: bytes | str, side_px: int = 0) -> tuple[list[float], Float[Tensor, "1 3 t h w"]]:
    """Return times in seconds and video in [-1, 1] of a whole clip, as `Tokenizer.encode` takes it.

    All of it is held in memory, 12 bytes a pixel and frame; `segments` reads films of any length. `side_px` and the
    errors are those of `video_frames`; ClipError also where there is no frame.
    """
    taken = list(video_frames(clip, side_px))
    if not taken:
        raise ClipError("the clip has no frames; shards of clips come from `rushes curate`")
    times_s, pictures = _segment(taken)
    return times_s, to_video(pictures)


class Cuts:
    """Tells where a shot begins, frame by frame and without looking ahead.

    Coarse on purpose: clips from shards hold one shot, and for any other film a cut that is missed costs quality in
    one segment, one that is none costs a latent. Curation has the detectors that must not err.
    """

    def __init__(self) -> None:
        self._light: np.ndarray | None = None
        self._steps: deque[float] = deque([0.0], maxlen=CUT_FRAMES)

    def before(self, picture: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Return whether a cut lies between the frame before and this one."""
        light = cv2.resize(picture, CUT_CELLS, interpolation=cv2.INTER_AREA).astype(np.int16)
        last, self._light = self._light, light
        if last is None:
            return False
        step = float(np.abs(light - last).mean())
        cut = step > CUT_LEVELS and step > CUT_RATIO * max(self._steps)
        self._steps.append(step)
        return cut


def to_video(pictures: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 3 t h w"]:
    """Return 8-bit RGB pictures as a batch of one video in [-1, 1]."""
    return torch.from_numpy(pictures).permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1)


def to_pictures(video: Float[Tensor, "1 3 t h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    """Return a batch of one video in [-1, 1] as 8-bit RGB pictures."""
    pictures = np.ascontiguousarray(video[0].detach().float().clamp(-1, 1).permute(1, 2, 3, 0).cpu().numpy())
    rows = pictures.reshape(-1, pictures.shape[2] * 3)
    levels = cv2.addWeighted(rows, 127.5, rows, 0.0, 127.5, dtype=cv2.CV_8U)  # scales, rounds and limits in one pass
    return levels.reshape(pictures.shape)


class ClipBatches(IterableDataset):
    """Endless batches of crops: `video` uint8 [b, 3, t, side, side], `keys`, `step`, `worker` and the `position` after.

    Workers take turns, so each knows the step that its next batch is for, and by it the stage. A resumed reader must
    begin at a step that is a multiple of the number of workers.

    Args:
        root: Root of clip shards.
        config: Seed, shape and number of the crops.
        positions: Where each worker begins.
        stages: Stages of the training; none reads every batch in the shape of `config`.
        first: Step of the first batch.
    """

    def __init__(
        self,
        root: str,
        config: TrainConfig,
        positions: Mapping[int, Position] | None = None,
        *,
        stages: tuple[Stage, ...] = (),
        first: int = 0,
    ):
        self.root, self.config, self.stages, self.first = root, config, stages, first
        self.positions = dict(positions or {})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        position = self.positions.get(number, START)
        steps = itertools.count(self.first + number, workers)
        for shape, run in itertools.groupby(steps, self._shape):
            crops = self._crops(position, shape)
            for step in run:
                taken = list(itertools.islice(crops, self.config.batch))
                position = taken[-1].after if self._shape(step + workers) == shape else taken[-1].anew
                keys, video = [one.key for one in taken], _stack([one.pictures for one in taken])
                yield {"video": video, "keys": keys, "step": step, "worker": number, "position": position}

    def _shape(self, step: int) -> TrainConfig:
        return shaped(self.config, stage_at(self.stages, step)) if self.stages else self.config

    def _crops(self, position: Position, shape: TrainConfig) -> Iterator[_Crop]:
        """Yield crops from a position on, for ever.

        With each clip that is decoded comes its first crop, the second of an earlier one, the third of one before that,
        so that the clips of a batch differ, and work and memory are the same at any time. A position names the oldest
        clip that still has crops to give; a resumed reader decodes from there on, and gives what had not been given.
        """
        epoch, behind, known, given = position
        apart = -(-shape.batch // shape.crops)  # decodes between two crops of a clip
        held: deque[_Clip] = deque(maxlen=apart * (shape.crops - 1) + 1)
        for number, clip in enumerate(self._clips(self._samples(epoch, behind), shape)):
            held.append(clip)
            turns = range(min(shape.crops, (len(held) - 1) // apart + 1)) if number >= known else ()
            for turn in turns[given:] if number == known else turns:
                one = held[len(held) - 1 - apart * turn]
                after, anew = (*held[0].before, len(held) - 1, turn + 1), (clip.before[0], clip.before[1] + 1, 0, 0)
                yield _Crop(one.key, one.crops[turn], after, anew)

    def _samples(self, epoch: int, behind: int) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
        """Yield samples, and how many of which pass come before. Raises ValueError where there is none to train on."""
        for now in itertools.count(epoch):
            empty = True
            for count, sample in enumerate(_read(self.root, self.config, now)):
                if not is_held(sample["__key__"], self.config.holdout):
                    empty = False
                    if now > epoch or count >= behind:
                        yield sample, (now, count)
            if empty:
                raise ValueError(
                    f"{self.root} gives this reader no clip to train on; use fewer workers or devices, a smaller "
                    f"holdout than {self.config.holdout}, or pack more clips"
                )

    def _clips(self, samples: Iterator[tuple[dict[str, Any], tuple[int, int]]], shape: TrainConfig) -> Iterator[_Clip]:
        """Yield the clips that can be decoded. Raises ValueError after a whole pass of such that cannot."""
        since: int | None = None
        for sample, before in samples:
            since = before[0] if since is None else since
            if before[0] > since + 1:
                raise ValueError(
                    f"{self.root} gives this reader no clip that can be decoded; use fewer workers, or pack"
                )
            found = _crops_of(sample, shape, before[0])
            if found:
                since = before[0]
                yield _Clip(sample["__key__"], found, before)


def shaped(config: TrainConfig, stage: Stage) -> TrainConfig:
    """Return the settings with the crops of a stage."""
    return replace(config, frames=stage.frames, side=stage.side)


def is_held(key: str, share: float) -> bool:
    """Whether a clip belongs to the share that is held out, by a hash of its key and so wherever it lies."""
    return int(marks([key.encode()])[0]) < share * 2**32


def marks(keys: Iterable[bytes]) -> Int64[np.ndarray, " keys"]:
    """Return the hashes of clips' keys, below 2³²: of all clips the share with the lowest marks is held out."""
    digests = b"".join([hashlib.blake2b(key, digest_size=4).digest() for key in keys])
    return np.frombuffer(digests, ">u4").astype(np.int64)


def begins_with_picture(key: str, share: float) -> bool:
    """Whether a clip is one of the share whose first frame is a segment of its own: those of the highest marks.

    So held-out clips, which have the lowest, are as few of them as of others, until the shares meet.
    """
    return bool(marks([key.encode()])[0] >= (1 - share) * 2**32)


def held_share(root: str, config: TrainConfig) -> float:
    """Return the share that holds out what `holdout` does, or where that is nothing the clip that comes next.

    0 where nothing is to be held out, or where that would be the only clip.
    """
    root = shards.find(root)
    sidecars = (shards.read_sidecar(root, info) for info in shards.read_manifest(root).shards) if config.holdout else ()
    found = marks(key.encode() for table in sidecars for key in table["key"].to_pylist())
    return max(config.holdout, (int(found.min()) + 1) / 2**32) if len(found) > 1 else 0.0


def fixed_batches(root: str, config: TrainConfig, count: int = 4) -> tuple[list[UInt8[Tensor, "b 3 t h w"]], bool]:
    """Return up to `count` batches that are the same in every process and at any time, and whether they are held out.

    They are of held-out clips where there are some, else of the clips that are trained on. Raises ValueError where no
    clip can be decoded.
    """
    for held in (True, False) if config.holdout else (False,):
        samples = (s for s in _read(root, config, 0, False) if is_held(s["__key__"], config.holdout) == held)
        found = (_crops_of(sample, replace(config, crops=1), 0) for sample in samples)
        pictures = list(itertools.islice(itertools.chain.from_iterable(found), count * config.batch))
        if pictures:
            return [_stack(pictures[i : i + config.batch]) for i in range(0, len(pictures), config.batch)], held
    raise ValueError(
        f"{root} has no clip that can be decoded and trained on; run `rushes verify --full`, or pack again"
    )


def _read(root: str, config: TrainConfig, epoch: int, nodes: bool = True) -> IterableDataset:
    """Return the samples of one pass, shuffled: those of this reader, or all of them if `nodes` is false."""
    members = ("mp4", "json")
    return shards.pipeline(root, members=members, shuffle=config.shuffle, seed=config.seed, epoch=epoch, nodes=nodes)


def _crops_of(sample: dict[str, Any], shape: TrainConfig, epoch: int) -> list[UInt8[np.ndarray, "t h w 3"]]:
    """Return the crops of a sample in one pass; none where it cannot be decoded, which is logged."""
    dice = random.Random(f"{shape.seed} {epoch} {sample['__key__']}")
    try:
        return crops(sample["mp4"], shape, dice)
    except ClipError as error:
        log.warning("clip %s is passed over: %s", sample["__key__"], error)
        return []


def _stack(pictures: list[UInt8[np.ndarray, "t h w 3"]]) -> UInt8[Tensor, "b 3 t h w"]:
    return torch.from_numpy(np.stack(pictures)).permute(0, 4, 1, 2, 3).contiguous()


def loader(dataset: ClipBatches) -> DataLoader:
    """Return a loader that hands batches on as they are, worker by worker in turn."""
    config = dataset.config
    return DataLoader(dataset, batch_size=None, num_workers=config.workers, persistent_workers=config.workers > 0)
