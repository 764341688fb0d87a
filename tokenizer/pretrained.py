"""Others' video VAEs, frozen: what they have in common, and how their published weights are read.

Their submodules bear the names of the diffusers state dicts, so that one set of names serves module and file. Both have
the rule of `1 + factor_t · n` frames, whose first frame has a latent of its own; `tokenizer.adaptive` hides the rule.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from torch import Tensor, nn

from rushes.pipelines.store import storage

LOGVAR_RANGE = (-30.0, 20.0)  # as the published models clamp it
_FOLDER_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SHOWN = 3
Model = TypeVar("Model", bound=nn.Module)


class FrozenVAE(Protocol):
    """A causal video VAE that codes `1 + factor_t · n` frames as `1 + n` latents, sides in multiples of `factor_s`."""

    @property
    def factor_t(self) -> int:
        """Frames per latent after the first."""

    @property
    def factor_s(self) -> int:
        """Pixels per latent cell, along each side."""

    def encode(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c n y x"]:
        """Return the latents (the posterior's means, scaled as generators want them) of RGB in [-1, 1]."""

    def decode(self, z: Float[Tensor, "b c n y x"]) -> Float[Tensor, "b 3 t h w"]:
        """Return the video of latents."""


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
            f"{factor_s}; tokenizer.adaptive.encode takes any"
        )


def read(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file of weights and the settings beside it; nothing but tensors is ever unpickled.

    Args:
        path: a folder as diffusers writes it, a .safetensors file, or a .pth or .pt file of tensors by name, which may
            stand under "state_dict". Settings come from the folder's config.json; a file has none.

    Raises:
        ValueError: no weights are there, or they are damaged, or the file holds anything but tensors.
    """
    root, file = path.rstrip("/"), path
    about: dict[str, Any] = {}
    if not path.endswith((".safetensors", ".pth", ".pt")):
        file = f"{root}/{_FOLDER_WEIGHTS}"
        if not storage.exists(file):
            raise ValueError(
                f"{path} holds no {_FOLDER_WEIGHTS}; give the folder of the VAE itself (of a whole pipeline it is "
                "`vae`), or a .safetensors, .pth or .pt file"
            )
        if storage.exists(f"{root}/config.json"):
            about = json.loads(storage.read_bytes(f"{root}/config.json"))
    elif not storage.exists(file):
        raise ValueError(f"{path} does not exist; give the path of downloaded weights")
    return _tensors(file), about


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
