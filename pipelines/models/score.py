"""Model scores of clips: each scorer looks at a clip's representative frames and gives one value, label or vector.

A scorer says what it sees and decides nothing; limits live in policies. Scorers that need the same network share one
pass of it: `embedding` and `tags` EfficientNet-Lite0, `clip` and `aesthetic` OpenCLIP, `nsfw` and `faces` NudeNet
(`eyes.py`). No Ray here: a worker holds a `Scorer` and calls it with batches of clips.

| scorer | value | label | vector |
|---|---|---|---|
| embedding | mean cosine between the clip's frames, 1 = all alike | | 1280 numbers, unit length |
| tags | probability of the best tag, 0 … 1 | the five best: `dog 0.71, ball 0.04` | |
| quality | median of 100 − BRISQUE: **higher is better**, clean 50 … 100; null where flat | `flat` where null | |
| text | mean share of the picture under text, 0 … 1 | | |
| nsfw | certainty of the surest bare part of a body in any frame, 0 … 1 | which, where 0.2 or surer: `buttocks` | |
| faces | mean share of the picture under faces, 0 … 1 | most faces in one frame: `2` | |
| clip | mean cosine between the clip's frames | | OpenCLIP embedding, unit length |
| aesthetic | mean of LAION's score, about 1 … 10, higher is better | | |
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.models import eyes, weights
from rushes.pipelines.models.eyes import RGB, Eye, Look
from rushes.pipelines.models.weights import MissingModel
from rushes.pipelines.store.clip import NO_FRAME

__all__ = ["SCORERS", "FrameError", "Kind", "MissingModel", "ModelError", "Reading", "Scorer", "check"]

log = logging.getLogger("rushes")
NAMED_FROM = 0.2  # certainty below which NudeNet itself takes nothing for found


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a scorer says of one clip."""

    value: float | None
    """None where it was measured and is not defined; see the label."""
    label: str = ""
    vector: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A scorer: which eye it uses and how it reads the frames of one clip."""

    eye: str
    read: Callable[[Look], Reading]
    model: Callable[[ScoreConfig], str]
    """Name of the model; scores of another name are others."""
    title: str
    """As the report calls it."""
    unit: str = ""
    """Of its value, and between which numbers it lies."""
    """Names model and weights in the table, without paths."""


class FrameError(ValueError):
    """A clip's representative frames are missing or unreadable."""

    code, remedy = "no_frame", NO_FRAME


class ModelError(ValueError):
    """A network gave numbers that are none; the message names it."""

    code, remedy = "model_failed", "take its scorer out of --score.scorers, or install its weights again"


class Scorer:
    """What one worker holds: every configured model, loaded once, on the GPU where there is one."""

    def __init__(self, config: ScoreConfig):
        """Load the models. Raises MissingModel, or ValueError for a name that is no scorer."""
        check(config)
        self.config = config
        self.kinds = {name: SCORERS[name] for name in dict.fromkeys(config.scorers)}
        used = dict.fromkeys(kind.eye for kind in self.kinds.values())
        self.eyes: dict[str, Eye] = {name: eyes.EYES[name](config) for name in used}
        self.sizes = {name: eyes.frames_at_once(name, config.batch_frames) for name in used}
        self.notes: list[str] = []
        """What people should know of the way the models ran; whoever reads it empties it."""

    def __call__(self, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows of the table `scores`, a row per clip and scorer, in the order of the clips.

        Args:
            clips: `key`, `jpegs` (bytes of the representative frames) and, optionally, the measured bars `crop_left`,
                `crop_top`, `crop_right`, `crop_bottom` as shares of the picture, which are cut off before models look.

        Raises FrameError naming the clip that has no frame or an unreadable one, ModelError naming a failed network.
        """
        looks = self._look([len(clip["jpegs"]) for clip in clips], _pictures(clips))
        rows = []
        for clip, look in zip(clips, looks, strict=True):
            for name, kind in self.kinds.items():
                reading = kind.read(look[kind.eye])
                rows.append(
                    {
                        "key": clip["key"],
                        "scorer": name,
                        "model": kind.model(self.config),
                        "value": reading.value,
                        "label": reading.label,
                        "vector": list(reading.vector),
                    }
                )
        return rows

    def _look(self, counts: Sequence[int], pictures: Iterator[RGB]) -> list[dict[str, Look]]:
        """Return what each eye saw of each clip; pictures are held one batch at a time, across clips."""
        seen: dict[str, list[Look]] = {name: [] for name in self.eyes}
        for batch in _batches(pictures, self.config.batch_frames):
            for name in self.eyes:
                seen[name].extend(self._seen(name, batch))
        whole = {name: _joined(parts) for name, parts in seen.items()}
        ends = np.cumsum(counts)
        spans = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
        return [
            {name: {field: rows[span] for field, rows in look.items()} for name, look in whole.items()}
            for span in spans
        ]

    def _seen(self, name: str, batch: Sequence[RGB]) -> Iterator[Look]:
        """Yield what an eye sees of a batch, in pieces that its memory holds; a piece that was too large is halved."""
        at = 0
        while at < len(batch):
            piece = batch[at : at + self.sizes[name]]
            try:
                look = self.eyes[name](piece)
            except Exception as error:  # onnxruntime's classes have no common base; all but one cause goes on upwards
                if len(piece) == 1 or not eyes.out_of_memory(error):
                    raise
                self.sizes[name] = len(piece) // 2
            else:
                yield _finite(name, look)
                at += len(piece)
                continue
            eyes.free()  # outside of the handler, whose traceback holds on to what did not fit
            self._note(f"{name}: {len(piece)} frames at once do not fit in memory; going on with {self.sizes[name]}")

    def _note(self, text: str) -> None:
        log.warning(text)
        self.notes.append(text)


def _finite(name: str, look: Look) -> Look:
    """Return what an eye saw. Raises ModelError where a number is none."""
    for field, values in look.items():
        if field not in eyes.UNDEFINED and not np.isfinite(values).all():
            raise ModelError(f"the network {name} gave {field} that is not finite")
    return look


def check(config: ScoreConfig) -> None:
    """Make sure that every configured scorer exists and finds its weights, before anything runs.

    Weights that are given by URL or by pretrained tag are fetched now. Raises ValueError for an unknown scorer or a
    head of another model, and MissingModel that names the model and what gets it.
    """
    for name in config.scorers:
        if name not in SCORERS:
            raise ValueError(f"there is no scorer {name!r}; choose from {', '.join(SCORERS)}")
        weights.require(name, config)
    if "aesthetic" in config.scorers:
        from rushes.filters import aesthetic, embed

        if width := embed.configured_width(config.clip_model):
            aesthetic.check(aesthetic.load(weights.head(config)), width, config.clip_model)


def _pictures(clips: Sequence[Mapping[str, Any]]) -> Iterator[RGB]:
    for clip in clips:
        if not clip["jpegs"]:
            raise FrameError(f"clip {clip['key']} has no representative frame to look at")
        bars = tuple(float(clip.get(f"crop_{side}") or 0.0) for side in ("left", "top", "right", "bottom"))
        for jpeg in clip["jpegs"]:
            yield without_bars(decode(jpeg, clip["key"]), bars)


def decode(jpeg: bytes, key: str) -> RGB:
    """Return the pixels of a JPEG. Raises FrameError naming the clip where it is damaged."""
    from PIL import Image

    try:
        return np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    except OSError as error:  # PIL raises subclasses of it for what is no picture, and for one cut short
        raise FrameError(f"a frame of clip {key} is no readable JPEG ({error})") from error


def without_bars(image: RGB, bars: tuple[float, ...]) -> RGB:
    """Return a picture without its bars (left, top, right, bottom shares); whole where nothing would remain."""
    height, width = image.shape[:2]
    left, top, right, bottom = bars
    inner = image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]
    return np.ascontiguousarray(inner) if inner.size else image


def _batches(pictures: Iterator[RGB], size: int) -> Iterator[list[RGB]]:
    batch: list[RGB] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _joined(parts: Sequence[Look]) -> Look:
    return {field: np.concatenate([part[field] for part in parts]) for field in (parts[0] if parts else ())}


# --- readings -------------------------------------------------------------------------------------------------------


def _read_vector(look: Look, field: str) -> Reading:
    from rushes.filters import embed

    return Reading(value=embed.agreement(look[field]), vector=embed.pool(look[field]).astype(np.float32).tolist())


def _read_tags(look: Look) -> Reading:
    from rushes.filters import tags

    found = tags.tags(look["probabilities"])
    return Reading(value=found[0].probability, label=tags.render(found))


def _read_quality(look: Look) -> Reading:
    defined = look["quality"][~np.isnan(look["quality"])]
    return Reading(value=float(np.median(defined))) if len(defined) else Reading(value=None, label="flat")


def _read_nsfw(look: Look) -> Reading:
    from rushes.filters import people

    surest = look["bare"].max(axis=0)
    value = float(surest.max())
    part = people.BARE[int(surest.argmax())].removesuffix("_EXPOSED").replace("_", " ").lower()
    return Reading(value=value, label=part if value >= NAMED_FROM else "")


def _read_faces(look: Look) -> Reading:
    return Reading(value=float(look["face_share"].mean()), label=str(int(look["faces"].max())))


def _read_mean(look: Look, field: str) -> Reading:
    return Reading(value=float(look[field].mean()))


def _package(name: str) -> str:
    return f"{name}-{importlib.metadata.version(name)}"


def _lite0_name(config: ScoreConfig) -> str:
    return weights.lite0().stem


def _people_name(config: ScoreConfig) -> str:
    return f"{_package('nudenet')} {weights.nudenet().stem}"


def _clip_name(config: ScoreConfig) -> str:
    return f"{Path(config.clip_model).name} {Path(config.clip_weights).name}".strip()


def _head_name(config: ScoreConfig) -> str:
    return f"{_clip_name(config)} {Path(config.aesthetic_head).name}"


SCORERS: dict[str, Kind] = {
    "embedding": Kind(
        eye="lite0",
        read=partial(_read_vector, field="features"),
        model=_lite0_name,
        title="Likeness",
        unit="mean cosine of the clip's frames",
    ),
    "tags": Kind(eye="lite0", read=_read_tags, model=_lite0_name, title="Surest tag", unit="sureness, 0–1"),
    "quality": Kind(
        eye="brisque",
        read=_read_quality,
        model=lambda config: _package("brisque"),
        title="Quality",
        unit="100 − BRISQUE, 100 is clean",
    ),
    "text": Kind(
        eye="text",
        read=partial(_read_mean, field="area"),
        model=lambda config: weights.text_detector().stem,
        title="Overlay text",
        unit="share of the picture",
    ),
    "nsfw": Kind(
        eye="people", read=_read_nsfw, model=_people_name, title="Nudity", unit="sureness of the surest part, 0–1"
    ),
    "faces": Kind(eye="people", read=_read_faces, model=_people_name, title="Faces", unit="share of the picture"),
    "clip": Kind(
        eye="clip",
        read=partial(_read_vector, field="embedding"),
        model=_clip_name,
        title="CLIP likeness",
        unit="mean cosine of the frames",
    ),
    "aesthetic": Kind(
        eye="clip",
        read=partial(_read_mean, field="aesthetic"),
        model=_head_name,
        title="Aesthetic",
        unit="LAION score, about 1–10",
    ),
}
"""Every scorer by name. Adding one is a row here, and an eye in `eyes.py` if it needs a new network."""
