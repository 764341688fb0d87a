"""Who looks at clips when a diffusion transformer is evaluated, and makes those that are generated.

A clip's vector is made of EfficientNet-Lite0's pooled features (ImageNet) of some of its frames: their mean, which
tells what is shown, and the root mean square of their steps, which tells how it changes, and the order of frames with
it. The Fréchet distance of such vectors is neither FID nor FVD, and not to be compared with them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from rushes.dit import sample
from rushes.dit.config import EvalConfig, SampleConfig
from rushes.dit.data import LatentClip, facts_of
from rushes.dit.frechet import distances
from rushes.dit.model import DiT
from rushes.dit.plan import generator
from rushes.dit.text import TextEncoder
from rushes.filters import camera, embed, motion
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import silent

AT_ONCE = 2
"""Frames that the network of features looks at together; more are slower on a core."""
STRIP_PX, SHOWN = 64, 8
"""Height of the pictures of strips, and generated clips that are shown at most."""
TICK_HZ, LUMA_PX = 15, 128
"""Pictures a second and their width, in which motion is measured, as in a scan."""
Frames = UInt8[np.ndarray, "t h w 3"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is kept of a clip."""

    vector: Float[np.ndarray, " d"]
    """Mean of its frames' features, then root mean square of their steps."""
    shuffled: Float[np.ndarray, " d"]
    """The same of its frames in random order."""
    strip: Frames
    """Its frames, small."""
    key: str
    """Key of the clip, or the seed of one that is generated."""

    @property
    def shown(self) -> Float[np.ndarray, " d"]:
        """What it shows, without how it changes."""
        return self.vector[: len(self.vector) // 2]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Everything that looks at clips or makes them."""

    dit: DiT
    codec: AnyTokenizer
    text: TextEncoder
    features: embed.Lite0
    config: EvalConfig

    def real(self, clip: LatentClip) -> Seen:
        """Return what is seen of a clip of the latents."""
        return self._seen(plan_of(clip), clip.latents.float().to(self.dit.device), clip.key)

    def generated(self, planned: sample.Plan, seed: int, prompt: str, facts: dict[str, float]) -> Seen:
        """Return what is seen of a clip that is generated."""
        return self._seen(planned, self.latents(planned, seed, prompt, facts), f"{seed}")

    def latents(
        self, planned: sample.Plan, seed: int, prompt: str, facts: dict[str, float]
    ) -> Float[torch.Tensor, "l c h w"]:
        """Return latents that are generated."""
        config = self.config
        asked = SampleConfig(
            prompt=prompt, facts=facts, fps=planned.fps, steps=config.steps, sampler=config.sampler,
            guidance=config.guidance, shift=config.shift, seed=seed,
        )  # fmt: skip
        guided = sample.Guided(self.dit, sample.condition(asked, self.dit, self.text), asked, silent, times=1)
        return guided.generate(planned, [None] * len(planned.counts))

    def frames(
        self, planned: sample.Plan, latents: Float[torch.Tensor, "l c h w"]
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Return the frames of latents, a segment at a time."""
        return sample.frames_of(self.codec, latents.split(list(planned.counts)), planned)

    def _seen(self, planned: sample.Plan, latents: Float[torch.Tensor, "l c h w"], key: str) -> Seen:
        total = sum(planned.lengths)
        wanted = set(np.linspace(0, total - 1, min(self.config.frames, total)).round().astype(int).tolist())
        frames = [frame for number, frame in enumerate(self.frames(planned, latents)) if number in wanted]
        found = [embed.look_lite0(self.features, frames[i : i + AT_ONCE])[0] for i in range(0, len(frames), AT_ONCE)]
        looked = np.concatenate(found)
        order = generator("shuffled", self.config.seed, key).permutation(len(looked))
        return Seen(vector=vector_of(looked), shuffled=vector_of(looked[order]), strip=_small(frames), key=key)


def vector_of(looked: Float[np.ndarray, "t d"]) -> Float[np.ndarray, " 2*d"]:
    """Return mean and root mean square of the steps of the features of frames; of one frame no steps."""
    steps = np.diff(looked, axis=0) if len(looked) > 1 else np.zeros_like(looked)
    return np.concatenate([looked.mean(axis=0), np.sqrt(np.square(steps).mean(axis=0))]).astype(np.float64)


def plan_of(clip: LatentClip) -> sample.Plan:
    """Return what a clip of latents is made up of, for one to be generated like it, or to be decoded."""
    facts, (h, w) = clip.facts, clip.latents.shape[-2:]
    full_h, full_w = facts["latent_shape"][-2:]
    height, width = (-(-int(facts[name]) // side) for name, side in (("height", full_h), ("width", full_w)))
    return sample.Plan(
        lengths=tuple(int(length) for length in facts["lengths"][: len(clip.rates)]),
        height=min(int(facts["height"]), height * h), width=min(int(facts["width"]), width * w),
        fps=float(facts["fps"]), rates=clip.rates, counts=clip.counts, cells=(h, w),
    )  # fmt: skip


def facts_of_clip(clip: LatentClip, dit: DiT) -> dict[str, float]:
    """Return the facts of a clip that the network takes."""
    given = facts_of([clip.facts], dit.config.facts)[0].tolist()
    return {name: value for name, value in zip(dit.config.facts, given, strict=True) if np.isfinite(value)}


def camera_of(frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> camera.Camera:
    """Return what the camera does in a clip, as a scan measures it: some 15 pictures a second, 128 pixels wide."""
    every, ticks, before = max(1, round(fps / TICK_HZ)), [], None
    for number, frame in enumerate(frames):
        if number % every:
            continue
        height, width = frame.shape[:2]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        luma = cv2.resize(grey, (LUMA_PX, max(2, round(LUMA_PX * height / width))), interpolation=cv2.INTER_AREA)
        if before is not None:
            ticks.append(motion.between(before, luma.astype(np.uint8), every / fps))
        before = luma.astype(np.uint8)
    columns = {name: np.array([getattr(tick, name) for tick in ticks]) for name in ("pan", "tilt", "zoom", "roll")}
    return camera.camera(columns, np.full(len(ticks), every / fps), aspect=width / height)


def sheet(made: Sequence[Seen], known: Sequence[Seen]) -> bytes:
    """Return a PNG of generated clips, each above the training clip nearest to it."""
    rows, edge = [], 4
    for clip in made[:SHOWN]:
        pair = [clip]
        if known:
            table = distances(clip.shown[None], np.stack([one.shown for one in known]))
            pair.append(known[int(table.argmin())])
        for one in pair:
            rows.append(np.concatenate(list(one.strip), axis=1))
        rows.append(np.full((edge, 1, 3), 255, np.uint8))
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 1), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(filled)).save(buffer, "png")
    return buffer.getvalue()


def _small(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Frames:
    height, width = frames[0].shape[:2]
    size = (max(1, round(STRIP_PX * width / height)), STRIP_PX)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
