"""What a trainer is told of a clip: the first sentence of its caption, the whole of it, or its parts as JSON. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from rushes.filters.caption import FIELDS

Style = Literal["short", "long", "json"]
_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=[。！？])")


def caption_of(text: str, facts: Mapping[str, Any], style: Style) -> str:
    """Return the caption of a clip in one line: trainers take every line of a file for a caption of its own.

    Args:
        text: The caption that its sample holds.
        facts: The sample's facts, which hold the parts of a structured caption.
        style: `short` is the first sentence, `long` the whole, `json` an object of the parts that are known and, as
            `caption`, the whole.
    """
    line = " ".join(text.split())
    if style == "short":
        return _END.split(line, maxsplit=1)[0]
    if style == "json" and line:
        parts = {name: facts[name] for name in FIELDS if name not in ("short", "long") and facts.get(name)}
        return json.dumps({"caption": line, **parts}, ensure_ascii=False)
    return line
