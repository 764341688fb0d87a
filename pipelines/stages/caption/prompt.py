"""What a captioning model is asked. Pure: no network, no clock.

The wording has a digest, `PROMPT_DIGEST`, which stands with every caption and in the fingerprint of the stage: another
wording makes captions anew, and an old caption tells what was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rushes.filters import tags
from rushes.filters.caption import FIELDS, camera, camera_motion, compose
from rushes.filters.caption_checks import CAMERA_MOTIONS, SHOT_SIZES

Clip = Mapping[str, Any]

ASKED = {
    "subject": "who or what is seen",
    "action": "what happens",
    "setting": "where",
    "shot_size": f"one of: {', '.join(SHOT_SIZES)}",
    "camera_motion": f"one of: {', '.join(CAMERA_MOTIONS)}; keep to the measured camera",
    "light": "the light and its direction",
    "style": "photograph, animation, film stock, colours, mood",
    "short": "the clip in one sentence of at most 25 words",
    "long": "the clip in 60 to 120 words, in order of time",
}
assert tuple(ASKED) == FIELDS

_ENUMS = {"shot_size": SHOT_SIZES, "camera_motion": CAMERA_MOTIONS}
SCHEMA = {
    "type": "object",
    "properties": {
        name: {"type": "string", "description": what} | ({"enum": ["", *_ENUMS[name]]} if name in _ENUMS else {})
        for name, what in ASKED.items()
    },
    "required": list(ASKED),
    "additionalProperties": False,
}

PROMPT = (
    "You caption clips for training a video generator. You see frames of one clip, in order of time; each is preceded "
    "by its time. The clip is one shot without a cut. Describe only what the frames show. Measured facts come from "
    "instruments: do not contradict them. Leave a field empty rather than guess, but never short and long. Answer in "
    "English with one JSON object and nothing else, with these fields:\n"
    + "\n".join(f"{k}: {v}" for k, v in ASKED.items())
)

_AGAIN = "That was no usable answer: {wrong}. Look at the frames again and answer with the JSON object alone."
_FRAME = "Frame {number} of {count}, at {time_s:.2f} s"
PROMPT_DIGEST = hashlib.sha256(json.dumps([PROMPT, SCHEMA, _AGAIN, _FRAME]).encode()).hexdigest()[:12]


def question(clip: Clip) -> list[dict[str, Any]]:
    """Return the messages that ask for a clip's caption, in the form of the OpenAI API."""
    return [{"role": "system", "content": PROMPT}, {"role": "user", "content": shown(clip)}]


def again(answer: str, wrong: str) -> list[dict[str, Any]]:
    """Return the messages that follow a bad answer: the answer, and what was wrong with it."""
    return [
        {"role": "assistant", "content": answer[:2000]},
        {"role": "user", "content": _AGAIN.format(wrong=wrong)},
    ]


def shown(clip: Clip) -> list[dict[str, Any]]:
    """Return the user's message: the measured facts as text, then each frame after its time, as a data URL."""
    content: list[dict[str, Any]] = [{"type": "text", "text": facts(clip)}]
    for label, jpeg in zip(frame_labels(clip), clip["jpegs"], strict=True):
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        content += [{"type": "text", "text": label}, {"type": "image_url", "image_url": {"url": url}}]
    return content


def frame_labels(clip: Clip) -> list[str]:
    """Return what stands before each frame of a clip: its number and its time from the clip's start."""
    times = clip["frame_s"]
    return [
        _FRAME.format(number=number, count=len(times), time_s=time_s - clip["start_s"])
        for number, time_s in enumerate(times, 1)
    ]


def found(clip: Clip) -> list[tags.Tag]:
    """Return the tags that were scored for a clip; none where the scorer did not run."""
    score = (clip.get("scores") or {}).get("tags")
    return tags.parse(score["label"]) if score else []


def facts(clip: Clip) -> str:
    """Return what was measured of a clip, as lines for a prompt."""
    measured = compose(clip, found(clip))
    lines = [] if clip.get("duration_s") is None else [f"length: {clip['duration_s']:.1f} s, one shot"]
    if measured["camera_motion"]:
        lines.append(f"camera: {camera(clip)} (camera_motion: {camera_motion(clip)})")
    named = {"movement": "action", "light": "light", "form": "style", "seen, by a classifier": "subject"}
    for name, part in named.items():
        luma = f" (mean luma {clip['luma_mean']:.0f} of 255)" if part == "light" and measured[part] else ""
        lines += [f"{name}: {measured[part]}{luma}"] if measured[part] else []
    return "Measured facts\n" + "\n".join(lines)
