"""How a captioning model's answer is read: what is no caption is named, never patched. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rushes.filters.caption import FIELDS
from rushes.pipelines.stages.caption.prompt import ASKED

LONGEST_ANSWER = 100_000  # characters; a model that runs wild is read no further
LONGEST = dict.fromkeys(FIELDS, 400) | {"short": 500, "long": 4000}
"""Most characters of a field; more is a model that runs wild."""
SHORTEST = {"short": 3, "long": 3}

_REFUSAL = re.compile(
    r"(?:^|[.!?]\s+)(?:i['’]?m sorry|i am sorry|sorry, |i apologi[sz]e|i can(?:no|['’])t|i can not|i won['’]t|i am "
    r"(?:unable|not able)|i['’]m (?:unable|not able)|as an ai\b|unfortunately, i)",
    re.IGNORECASE,
)
_ECHOES = ("measured facts", "json object", "you caption clips", "do not contradict", "leave a field empty")


class Junk(ValueError):
    """An answer that is no caption; the message says what is wrong, for people and for the model."""

    answer: str = ""
    """The answer, where it is worth showing to the model again."""


class Nonsense(Junk):
    """An answer without any JSON object: what a server in trouble sends, not a model that misunderstood."""


def read(answer: str | None) -> dict[str, str]:
    """Return the parts of a caption in a model's answer, whatever stands round the JSON. Raises Junk."""
    try:
        return _parts(_found((answer or "")[:LONGEST_ANSWER]))
    except Junk as junk:
        junk.answer = answer or ""
        raise


def _parts(said: Mapping[str, Any]) -> dict[str, str]:
    parts = {name: _text(name, said.get(name)) for name in FIELDS}
    for name, text in parts.items():
        if not SHORTEST.get(name, 0) <= len(text) <= LONGEST[name]:
            least = f"from {SHORTEST[name]} " if name in SHORTEST else ""
            raise Junk(f"{name} has {len(text)} characters, expected {least}to {LONGEST[name]}")
        _refuse(name, text)
    return parts


def _found(text: str) -> dict[str, Any]:
    """Return the object with a short and a long caption, or else the last object there is."""
    decoder, last = json.JSONDecoder(), None
    for start in (k for k, letter in enumerate(text) if letter == "{"):
        try:
            read, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(read, dict):
            if {"short", "long"} <= read.keys():
                return read
            last = read
    if last is not None:
        missing = [name for name in ("short", "long") if name not in last]
        raise Junk(f"it has no {' and no '.join(missing)}: {text[:120]!r}")
    if _REFUSAL.search(text):
        raise Junk(f"it refuses: {text[:120]!r}")
    raise Nonsense(f"it holds no JSON object: {text[:120]!r}")


def _text(name: str, value: Any) -> str:
    """Return a field as one line of text; models give lists and nulls where a string was asked for."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        raise Junk(f"{name} is {json.dumps(value)[:60]}, expected text")
    whole = value.encode("utf-8", "ignore").decode()  # JSON may hold half a surrogate pair, Parquet may not
    return " ".join(whole.split())


def _refuse(name: str, text: str) -> None:
    """Raise Junk for text that describes no clip: a refusal, the question again, markup."""
    plain = text.lower()
    if _REFUSAL.search(text):
        raise Junk(f"{name} refuses: {text[:80]!r}")
    if plain.rstrip(".") == ASKED[name].lower() or any(echo in plain for echo in _ECHOES):
        raise Junk(f"{name} repeats the question: {text[:80]!r}")
    if "```" in text or '{"' in text:
        raise Junk(f"{name} holds markup: {text[:80]!r}")
