"""Others' video VAEs, frozen: what they have in common, and how their published weights are found and read.

Their submodules bear the names of the diffusers state dicts, so that one set of names serves module and file. All have
the rule of `1 + factor_t · n` frames, whose first frame has a latent of its own; `tokenizer.frozen` hides the rule.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from torch import Tensor, nn

from rushes.pipelines.store import storage

LOGVAR_RANGE = (-30.0, 20.0)  # as the published models clamp it
_FOLDER_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = ".index.json"
_FILES = (".safetensors", ".pth", ".pt", _INDEX)
_SHOWN = 3
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the published weights of a VAE come from."""

    kind: str
    """What stands before the colon where a tokenizer is asked for."""
    model: str
    """Its class in diffusers."""
    files: tuple[str, ...]
    """Names of the original files."""
    get: str
    """The command that gets one of them, for people."""


def check_video(video: Tensor, factor_t: int, factor_s: int) -> None:
    """Raise ValueError for what a frozen VAE cannot code exactly: it would drop frames or fail deep inside."""
    if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point() or 0 in video.shape:
        raise ValueError(
            f"a video is floating point [batch, 3, frames, height, width] in [-1, 1], "
            f"not {video.dtype} {list(video.shape)}; for 8-bit frames divide by 127.5 and subtract 1"
        )
    t, h, w = video.shape[2:]
    if t % factor_t != 1 or h % factor_s or w % factor_s:
        raise ValueError(
            f"{t} frames of {h}×{w} do not fit a VAE that takes 1 + {factor_t}·n frames and sides in multiples of "
            f"{factor_s}; what tokenizer.codec loads takes any"
        )


def read(path: str, source: Source) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a VAE's weights and the settings beside them; nothing but tensors is ever unpickled.

    Args:
        path: a folder as diffusers writes it (of the VAE, or of a whole pipeline), a folder with an original file, a
            .safetensors, .pth or .pt file of tensors by name, which may stand under "state_dict", the index of a file
            in parts, or a hub's name. Settings come from the folder's config.json; a file has none.
        source: what these weights are called, and how they are got.

    Raises:
        ValueError: no weights are there, or a part of them is missing, or they are damaged, or a file holds anything
            but tensors; the message names it and the remedy.
    """
    file = _located(path.rstrip("/"), source)
    root = file.rpartition("/")[0]
    beside = f"{root}/config.json" if root else "config.json"
    own = file.endswith(_INDEX) or (file != path and file.endswith(_FOLDER_WEIGHTS))  # not of a file given by name
    about = _settings(beside) if own and storage.exists(beside) else {}
    if not file.endswith(_INDEX):
        return _tensors(file), about
    weights: dict[str, Tensor] = {}
    for part in _parts(file, source):
        weights |= _tensors(part)
    return weights, about


def _settings(file: str) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read_bytes(file)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({error}); get it with the weights again") from error


def _located(path: str, source: Source) -> str:
    """Return the file of weights, or of their index, that a path means."""
    if path.endswith(_FILES):
        if storage.exists(path):
            return path
        raise ValueError(f"{source.kind}:{path}: there is no file {path}; get the weights with {source.get}")
    names = [f"{_FOLDER_WEIGHTS}{suffix}" for suffix in ("", _INDEX)]
    candidates = [*names, *(f"vae/{name}" for name in names), *source.files]
    for name in candidates:
        if storage.exists(f"{path}/{name}"):
            return f"{path}/{name}"
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) and not storage.exists(path):
        return _located(_from_hub(path, source), source)
    raise ValueError(
        f"{source.kind}:{path}: the folder holds none of {', '.join(candidates)}; get the weights with {source.get}"
    )


def _parts(index: str, source: Source) -> list[str]:
    """Return the files that an index names. Raises ValueError for an index that is damaged or lacks a part."""
    try:
        names = sorted(set(json.loads(storage.read_bytes(index))["weight_map"].values()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error!r}); get it with the weights again") from error
    root = index.rpartition("/")[0]
    files = [f"{root}/{name}" if root else name for name in names]
    missing = [name for name, file in zip(names, files, strict=True) if "/" in name or not storage.exists(file)]
    if missing:
        raise ValueError(
            f"{index} names {len(names)} files, and of these {', '.join(missing)} are not beside it; copy or download "
            f"them there, or get the weights in one file with {source.get}"
        )
    return files


def _from_hub(name: str, source: Source) -> str:
    """Return the local folder of a hub's repository, of which nothing but the VAE is downloaded."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ValueError(
            f"{source.kind}:{name} is no folder here, and to ask a hub huggingface_hub is not installed"
        ) from error
    try:
        return hub.snapshot_download(name, allow_patterns=["vae/*", *source.files])
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:  # not there, not allowed, no network
        raise ValueError(
            f"{source.kind}:{name} is no folder here, and the hub did not give it ({type(error).__name__}); where "
            f"there is a network, get the weights with {source.get}"
        ) from error


def _tensors(file: str) -> dict[str, Tensor]:
    data = storage.read_bytes(file)
    try:
        if file.endswith(".safetensors"):
            return tensors_from(data)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is damaged or holds more than tensors, and is not read: {error}") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{file} holds no tensors by name; give a file of weights alone")
    return dict(found)


def fill(model: Model, weights: Mapping[str, Tensor], *, expected: str, path: str) -> Model:
    """Return the model with these weights, in evaluation mode and frozen.

    Args:
        model: takes the weights in its own precision.
        weights: tensors by the model's own names.
        expected: what the weights should have been, for people.
        path: where they came from.

    Raises:
        ValueError: weights are missing, left over or of another shape; the message names the first of each kind.
    """
    wanted = model.state_dict()
    shared = wanted.keys() & weights.keys()
    reshaped = [name for name in sorted(shared) if wanted[name].shape != weights[name].shape]
    faults = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - wanted.keys()),
        "of another shape": [f"{n} {list(weights[n].shape)} for {list(wanted[n].shape)}" for n in reshaped],
    }
    told = "; ".join(f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names)
    if told:
        raise ValueError(f"the weights in {path} are not {expected}: {told}")
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def check_class(about: Mapping[str, Any], name: str, path: str) -> None:
    """Raise ValueError where the settings beside some weights are of another model."""
    found = about.get("_class_name", name)
    if found != name:
        raise ValueError(f"{path} holds {found}, but {name} was expected")
