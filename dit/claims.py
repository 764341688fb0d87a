"""The claims of `rushes dit toy`, each with what proves it."""

from __future__ import annotations

from rushes.dit.config import ToyConfig
from rushes.dit.toy import Figure, conditions, first, mask, mixture, picture, positions
from rushes.dit.toy_student import student
from rushes.pipelines.store import storage
from rushes.tokenizer.config import Tell, silent

CLAIMS = {
    "conditions": (conditions, "png"), "first": (first, "png"), "mask": (mask, "png"), "positions": (positions, "svg"),
    "mixture": (mixture, "svg"), "picture": (picture, "png"), "student": (student, "png"),
}  # fmt: skip


def prove(config: ToyConfig, out: str, tell: Tell = silent) -> tuple[list[Figure], str]:
    """Try one claim; return its figures, and the picture that was written: `OUT/CLAIM.png` or `.svg`."""
    claim, suffix = CLAIMS[config.claim]
    figures, picture = claim(config, tell)
    path = f"{out.rstrip('/')}/{config.claim}.{suffix}"
    storage.write_bytes(path, picture)
    return figures, path
