"""The tokenizer that comes with the package, under the name `shipped` wherever a model's folder is asked for.

What it was trained on, by which command, and what it can and cannot do stands in `weights/README.md`, its model card.
The name is resolved where a model is read, so that every worker takes its own copy; a folder of that name is
`./shipped`. Importing this loads no torch.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = "shipped"
FOLDER = Path(__file__).parent / "weights"


def folder_of(model: str) -> str:
    """Return the folder or object-store prefix of a saved tokenizer, given by that or by the name `shipped`."""
    return str(FOLDER) if model == SHIPPED else model.rstrip("/")
