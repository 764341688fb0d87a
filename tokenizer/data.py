"""Clips from shards as training batches, in an order that a resumed run takes up where it stopped.

A position is (pass over the shards, samples consumed in it) for each worker. It travels in the batch, is saved with the
weights, and a resumed reader passes over that many samples without decoding them. Crops depend on seed, pass and key,
never on the process that makes them.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.frame import VideoFrame
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rushes.pipelines.colour.picture import Screen
from rushes.pipelines.store import shards
from rushes.tokenizer.config import Stage, TrainConfig, stage_at

log = logging.getLogger(__name__)

CUT_CELLS, CUT_FRAMES = (16, 9), 4
"""Columns and rows into which a frame is divided, and steps before with which a step is compared."""
CUT_LEVELS, CUT_RATIO = 12.0, 3.0
"""Mean change of a cell, in levels of 255, and in steps before, from which it is a cut."""
Position = tuple[int, int]
"""Pass over the shards, and samples consumed in it."""
Crop = tuple[str, UInt8[np.ndarray, "t side side 3"], Position]
"""Key of a clip, pictures cut from it, and the position after it."""


class ClipError(ValueError):
    """A clip holds no video that can be decoded."""

    code = "undecodable"
    remedy = "run `rushes verify --full` on the clip shards, and pack again"


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
    clip: bytes | str, length: int | Iterator[int], side_px: int = 0
) -> Iterator[tuple[list[float], Float[Tensor, "1 3 t h w"]]]:
    """Yield times and video in [-1, 1] of each segment: at most `length` frames, fewer before a cut and at the end.

    An iterator gives the frames of each segment in turn, and cuts are not looked for.
    """
    return ((times_s, to_video(pictures)) for times_s, pictures in pictured(clip, length, side_px))


def pictured(
    clip: bytes | str, length: int | Iterator[int], side_px: int = 0
) -> Iterator[tuple[list[float], UInt8[np.ndarray, "t h w 3"]]]:
    """Yield times and 8-bit RGB pictures of each of `segments`."""
    taken: list[tuple[float, np.ndarray]] = []
    cuts = Cuts() if isinstance(length, int) else None
    lengths = itertools.repeat(length) if isinstance(length, int) else length
    most = next(lengths)
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


def crop(clip: bytes, config: TrainConfig, dice: random.Random) -> UInt8[np.ndarray, "t side side 3"]:
    """Return a random run of frames, shrunk at random and cropped to a square, mirrored half of the time.

    A clip with fewer frames is filled by its last one. Raises ClipError if nothing can be decoded, or if the clip is
    shorter than `min_frames`.
    """
    length = _length(clip)
    if 0 < length < config.min_frames:
        raise ClipError(f"it has {length} frames, fewer than min_frames={config.min_frames}")
    start = dice.random() * max(0, length - config.frames)
    chosen = list(itertools.islice(_decoded(clip), int(start), int(start) + config.frames))
    if not chosen:
        raise ClipError(
            "the clip has no frames; give a video, or if it is a clip of a shard, run `rushes verify --full`"
        )
    short = min(chosen[0][1].width, chosen[0][1].height)
    scaled = max(config.side, min(round(config.side * (1 + dice.random() * (config.shrink - 1))), short))
    width, height = (max(config.side, round(n * scaled / short)) for n in (chosen[0][1].width, chosen[0][1].height))
    left, top = (int(dice.random() * (n - config.side + 1)) for n in (width, height))
    screen = Screen()
    pictures = [screen.rgb(frame, width, height) for _, frame in chosen]
    cut = np.stack(pictures)[:, top : top + config.side, left : left + config.side]
    cut = cut[:, :, ::-1] if dice.random() < 0.5 else cut
    return np.concatenate([cut, np.repeat(cut[-1:], config.frames - len(cut), axis=0)])


def _length(clip: bytes) -> int:
    """Return the number of frames that the container names; 0 where it names none or cannot be read."""
    try:
        with av.open(io.BytesIO(clip), metadata_errors="ignore") as container:
            return container.streams.video[0].frames if container.streams.video else 0
    except av.FFmpegError:
        return 0


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
        samples = self._samples(*self.positions.get(number, (0, 0)))
        for step in itertools.count(self.first + number, workers):
            taken = list(itertools.islice(self._crops(samples, self._shape(step)), self.config.batch))
            keys = [key for key, _, _ in taken]
            yield {"video": _stack(taken), "keys": keys, "step": step, "worker": number, "position": taken[-1][2]}

    def _shape(self, step: int) -> TrainConfig:
        return shaped(self.config, stage_at(self.stages, step)) if self.stages else self.config

    def _samples(self, epoch: int, consumed: int) -> Iterator[tuple[dict[str, Any], Position]]:
        """Yield samples and the position after each, for ever. Raises ValueError where there is none to train on."""
        for now in itertools.count(epoch):
            empty = True
            for count, sample in enumerate(_read(self.root, self.config, now), start=1):
                if not is_held(sample["__key__"], self.config.holdout):
                    empty = False
                    if now > epoch or count > consumed:
                        yield sample, (now, count)
            if empty:
                raise ValueError(
                    f"{self.root} gives this reader no clip to train on; use fewer workers or devices, a smaller "
                    f"holdout than {self.config.holdout}, or pack more clips"
                )

    def _crops(self, samples: Iterator[tuple[dict[str, Any], Position]], shape: TrainConfig) -> Iterator[Crop]:
        """Yield crops of what can be decoded. Raises ValueError after a whole pass of what cannot."""
        since: int | None = None
        for sample, position in samples:
            since = position[0] if since is None else since
            if position[0] > since + 1:
                raise ValueError(
                    f"{self.root} gives this reader no clip that can be decoded; use fewer workers, or pack"
                )
            one = _crop_of(sample, shape, position[0])
            if one is not None:
                since = position[0]
                yield sample["__key__"], one, position


def shaped(config: TrainConfig, stage: Stage) -> TrainConfig:
    """Return the settings with the crops of a stage."""
    return replace(config, frames=stage.frames, side=stage.side)


def is_held(key: str, share: float) -> bool:
    """Whether a clip belongs to the share that is held out, by a hash of its key and so wherever it lies."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) < share * 2**32


def fixed_batches(root: str, config: TrainConfig, count: int = 4) -> tuple[list[UInt8[Tensor, "b 3 t h w"]], bool]:
    """Return up to `count` batches that are the same in every process and at any time, and whether they are held out.

    They are of held-out clips where there are some, else of the clips that are trained on. Raises ValueError where no
    clip can be decoded.
    """
    for held in (True, False) if config.holdout else (False,):
        samples = (s for s in _read(root, config, 0, False) if is_held(s["__key__"], config.holdout) == held)
        cut = ((sample["__key__"], _crop_of(sample, config, 0)) for sample in samples)
        good = ((key, one, (0, 0)) for key, one in cut if one is not None)
        crops = list(itertools.islice(good, count * config.batch))
        if crops:
            return [_stack(crops[i : i + config.batch]) for i in range(0, len(crops), config.batch)], held
    raise ValueError(
        f"{root} has no clip that can be decoded and trained on; run `rushes verify --full`, or pack again"
    )


def _read(root: str, config: TrainConfig, epoch: int, nodes: bool = True) -> IterableDataset:
    """Return the samples of one pass, shuffled: those of this reader, or all of them if `nodes` is false."""
    members = ("mp4", "json")
    return shards.pipeline(root, members=members, shuffle=config.shuffle, seed=config.seed, epoch=epoch, nodes=nodes)


def _crop_of(sample: dict[str, Any], shape: TrainConfig, epoch: int) -> UInt8[np.ndarray, "t h w 3"] | None:
    """Return the crop of a sample in one pass; None where it cannot be decoded, which is logged."""
    dice = random.Random(f"{shape.seed} {epoch} {sample['__key__']}")
    try:
        return crop(sample["mp4"], shape, dice)
    except ClipError as error:
        log.warning("clip %s is passed over: %s", sample["__key__"], error)
        return None


def _stack(crops: list[Crop]) -> UInt8[Tensor, "b 3 t h w"]:
    return torch.from_numpy(np.stack([one for _, one, _ in crops])).permute(0, 4, 1, 2, 3).contiguous()


def loader(dataset: ClipBatches) -> DataLoader:
    """Return a loader that hands batches on as they are, worker by worker in turn."""
    config = dataset.config
    return DataLoader(dataset, batch_size=None, num_workers=config.workers, persistent_workers=config.workers > 0)
