"""What a captioning model is asked, and how its answer is read. Pure: no network, no clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from filters import tags
from filters.caption import FIELDS, compose

Clip = Mapping[str, Any]
LONGEST_ANSWER, LONGEST_TEXT = 100_000, 5000  # characters; a model that runs wild fills no ledger

ASKED = {
    "subject": "who or what is seen",
    "action": "what happens",
    "setting": "where",
    "shot_size": "extreme close-up, close-up, medium shot, full shot, wide shot or extreme wide shot",
    "camera_motion": "how the camera moves; keep to the measured camera",
    "light": "the light and its direction",
    "style": "photograph, animation, film stock, colours, mood",
    "short": "the clip in one sentence of at most 25 words",
    "long": "the clip in 60 to 120 words, in order of time",
}
assert tuple(ASKED) == FIELDS

SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string", "description": what} for name, what in ASKED.items()},
    "required": list(ASKED),
    "additionalProperties": False,
}

PROMPT = (
    "You caption clips for training a video generator. You see frames of one clip, in order of time. Describe only "
    "what they show. Measured facts come from instruments: do not contradict them. Leave a field empty rather than "
    "guess. Answer with one JSON object and nothing else, with these fields:\n"
    + "\n".join(f"{k}: {v}" for k, v in ASKED.items())
)


class Junk(ValueError):
    """An answer that is no caption."""


def found(clip: Clip) -> list[tags.Tag]:
    """Return the tags that were scored for a clip; none where the scorer did not run."""
    score = (clip.get("scores") or {}).get("tags")
    return tags.parse(score["label"]) if score else []


def shown(clip: Clip) -> list[dict[str, Any]]:
    """Return the user's message: the measured facts as text, then the frames as data URLs."""
    images = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in clip["jpegs"]]
    return [
        {"type": "text", "text": facts(clip)},
        *({"type": "image_url", "image_url": {"url": image}} for image in images),
    ]


def facts(clip: Clip) -> str:
    """Return what was measured of a clip, as lines for a prompt."""
    measured = compose(clip, found(clip))
    named = {
        "camera": "camera_motion",
        "movement": "action",
        "light": "light",
        "form": "style",
        "seen, by a classifier": "subject",
    }
    lines = [f"{name}: {measured[part]}" for name, part in named.items() if measured[part]]
    if clip.get("duration_s") is not None:
        lines.insert(0, f"length: {clip['duration_s']:.1f} s")
    return "Measured facts\n" + "\n".join(lines)


def parse(answer: str | None) -> dict[str, str]:
    """Return the parts of a caption in a model's answer, whatever stands round the JSON. Raises Junk."""
    decoder = json.JSONDecoder()
    text = (answer or "")[:LONGEST_ANSWER]
    for start in (k for k, letter in enumerate(text) if letter == "{"):
        try:
            read, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(read, dict) and _text(read.get("short")) and _text(read.get("long")):
            return {name: _text(read.get(name)) for name in FIELDS}
    raise Junk(f"the model's answer holds no caption: {text[:120]!r}")


def _text(value: Any) -> str:
    """Return a field as one line of text; models give lists and nulls where a string was asked for."""
    if isinstance(value, list):
        value = ", ".join(item for item in value if isinstance(item, str))
    if not isinstance(value, str):
        return ""
    whole = value.encode("utf-8", "ignore").decode()  # JSON may hold half a surrogate pair, Parquet may not
    return " ".join(whole.split())[:LONGEST_TEXT]
