"""The tokenizer that comes with the package, under the name `shipped` wherever a model's folder is asked for.

What it was trained on, by which command, and what it can and cannot do stands in `weights/README.md`, its model card.
The name is resolved where a model is read, so that every worker takes its own copy; a folder of that name is
`./shipped`. `tokenizer.codec` reads what a name means; importing this loads no torch.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = "shipped"
FROZEN = ("wan", "hunyuan")
"""Kinds of others' frozen VAEs, which stand before a colon and a path."""
FOLDER = Path(__file__).parent / "weights"


def folder_of(model: str) -> str:
    """Return the folder or object-store prefix of a saved tokenizer, given by that or by the name `shipped`.

    Raises ValueError for a frozen VAE, which no training starts from.
    """
    if frozen_kind(model)[0]:
        raise ValueError(
            f"{model} is a frozen VAE, and a tokenizer of ours is needed here: give its folder or `shipped`"
        )
    return str(FOLDER) if model == SHIPPED else model.rstrip("/")


def frozen_kind(model: str) -> tuple[str, str]:
    """Return kind and path of a frozen VAE, given as `wan:PATH` or `hunyuan:PATH`; the kind is empty for ours."""
    kind, colon, path = model.partition(":")
    return (kind, path) if colon and kind in FROZEN else ("", model)
