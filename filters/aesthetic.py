"""Aesthetic score: an affine head on OpenCLIP image embeddings, as LAION trained them.

Two public heads fit: `sa_0_4_vit_l_14_linear.pth` (LAION-Aesthetics V1, one linear layer) and
`sac+logos+ava1-l14-linearMSE.pth` (V2, five linear layers with nothing between them but dropout). Both are affine when
they run, so both fold into one weight vector and one bias. Scores run from about 1 to 10; higher is better.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rushes.filters.embed import tensors


@dataclass(frozen=True)
class Head:
    """score = weight · embedding + bias, for embeddings of unit length."""

    weight: Float[np.ndarray, " d"]
    bias: float


def load(path: Path) -> Head:
    """Return the head in a state dict of one linear layer or a chain of them, folded into one.

    Raises ValueError where the file is missing, no plain state dict, or its layers do not chain to one number.
    """
    layers = {name: value.double().numpy() for name, value in tensors(path).items()}
    weights = sorted((name for name in layers if name.endswith("weight")), key=_number)
    if not weights:
        raise ValueError(f"{path} holds no linear layer, only {', '.join(sorted(layers)) or 'nothing'}")
    fold, bias = np.eye(layers[weights[0]].shape[-1]), np.zeros(layers[weights[0]].shape[-1])
    for name in weights:
        matrix = layers[name]
        if matrix.ndim != 2 or matrix.shape[1] != len(fold):
            raise ValueError(f"{path}: {name} of shape {matrix.shape} does not follow a layer of width {len(fold)}")
        shift = layers.get(name.removesuffix("weight") + "bias", np.zeros(len(matrix)))
        fold, bias = matrix @ fold, matrix @ bias + shift
    if len(fold) != 1:
        raise ValueError(f"{path} gives {len(fold)} numbers for a picture; an aesthetic head gives one")
    return Head(fold[0], float(bias[0]))


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found else 0


def check(head: Head, width: int, model: str) -> None:
    """Raise ValueError, naming both widths, where a head reads embeddings of another width than a model gives."""
    if width != len(head.weight):
        raise ValueError(
            f"the aesthetic head reads embeddings of {len(head.weight)} numbers, the OpenCLIP model {model} gives "
            f"{width}; take the head that was trained for this model (LAION's heads: ViT-L-14 openai)"
        )


def scores(head: Head, embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Return the aesthetic score of each unit-length embedding."""
    return embeddings @ head.weight + head.bias
