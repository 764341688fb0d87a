"""Words of people as what the network takes: the camera's motion as measured facts, and a file of prompts."""

from __future__ import annotations

import re

from rushes.pipelines.store import storage

WAYS = {
    "pan": {"left": -1, "right": 1},
    "tilt": {"down": -1, "up": 1},
    "zoom": {"out": -1, "in": 1},
    "roll": {"left": -1, "right": 1},
}
"""Signs of the facts; a roll to the right turns the picture clockwise."""
PACES = {"slow": 0.04, "": 0.2, "fast": 0.5}
"""Widths a second. Captions say slow below 0.08 and fast above 0.4 (`filters/caption.py`)."""
REACH = 0.33
"""Widths by which the average pixel moves at a zoom of 100 % or a roll of 1 radian, in a picture of 16:9."""
STILL = dict.fromkeys((*WAYS, "shake"), 0.0)
_FILLING = {"slowly": "slow", "quick": "fast", "quickly": "fast"}
_IGNORED = {"to", "the", "and", "a", "camera", "shot"}


def camera(text: str) -> dict[str, float]:
    """Return the measured facts that words for the camera mean: `pan left, slow` is {"pan": -0.04}.

    A pace stands before its move or behind it; moves are parted by commas or `and`. `static` makes all of them 0.

    Raises ValueError for words that mean nothing here, and for moves that contradict each other.
    """
    moves: list[list[str]] = []
    for part in re.split(r"\band\b|[,;+]", text.lower()):
        words = [_FILLING.get(word, word) for word in re.findall(r"[a-z]+", part) if word not in _IGNORED]
        if moves and words and words[0] in PACES and len(words) == 1:
            moves[-1] += words
        elif words:
            moves.append(words)
    if text.strip() and not moves:
        raise ValueError(f"camera={text!r} says nothing; give static, or moves such as `pan left, slow`")
    found: dict[str, float] = {}
    for words in moves:
        for name, value in _move(words, text).items():
            if found.get(name, value) != value:
                raise ValueError(f"camera={text!r} asks for {name} twice; give one move of each kind")
            found[name] = value
    return found


def _move(words: list[str], text: str) -> dict[str, float]:
    if words == ["static"]:
        return STILL
    paces = [word for word in words if word in PACES]
    name, *ways = (word for word in words if word not in PACES) if len(words) > len(paces) else ("",)
    if name not in WAYS or len(ways) != 1 or ways[0] not in WAYS[name] or len(paces) > 1:
        moves = "; ".join(f"{name} {' or '.join(ways)}" for name, ways in WAYS.items())
        raise ValueError(
            f"camera={text!r}: {' '.join(words)!r} is no move that is known; give static, or {moves}, with slow or fast"
        )
    widths = PACES[paces[0] if paces else ""]
    return {name: WAYS[name][ways[0]] * (widths / REACH if name in ("zoom", "roll") else widths)}


def prompts(path: str) -> list[str]:
    """Return the prompts of a text file, one a line; empty lines are passed over. Raises ValueError where none is."""
    if not storage.exists(path):
        raise ValueError(f"prompts={path} is not there; give a text file with a prompt a line")
    try:
        found = [line.strip() for line in storage.read_bytes(path).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts={path} is no text in UTF-8 ({error}); save it as such") from error
    if not found:
        raise ValueError(f"prompts={path} holds no prompt; write one a line")
    return found
