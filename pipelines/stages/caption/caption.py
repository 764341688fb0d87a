"""Captions of kept clips: the given one where there is one, else from measured facts, else from a model.

* `TagCaptioner` works everywhere and says only what was measured (`filters/caption.py`); its rows have source `tags`.
* `EndpointCaptioner` (`endpoint.py`) asks an OpenAI-compatible server: vLLM, Ray Serve, llama.cpp …
* `LocalCaptioner` (`local.py`) runs a vision-language model of `transformers` from a folder.

All take clips as rows of the table `clips`, with `scores` added: the clip's rows of the table `scores` by scorer. The
models also need `jpegs`, the representative frames, and are told the measured facts; where their answer contradicts
these, the measured camera wins and the row says so in `checks`. A caption that came with the footage is never
overwritten and its clip never sent. Every row is bound to its clip where it is made (`binding.py`). No Ray here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rushes.filters.caption import FIELDS
from rushes.filters.caption_checks import reconcile
from rushes.pipelines.stages.caption.prompt import PROMPT_DIGEST, Clip
from rushes.pipelines.store import binding
from rushes.pipelines.store.clip import NO_FRAME

Row = dict[str, Any]
FRAMED = ("endpoint", "transformers")
"""Sources that look at frames; their captions cost something and are never made twice."""
RETRY = "look at the model's or the server's log, then run the same command with --retry-failed; what is there is kept"

REFUSAL = "refused"  # code of an error that every other request would meet as well
ENOUGH = 8
"""Clips of one batch, none of which got a caption, that tell of a model that can make none."""


class CaptionError(ValueError):
    """A clip, or every clip, could not be captioned; the message says why and what to do."""

    def __init__(self, code: str, reason: str, remedy: str):
        super().__init__(f"{reason}; {remedy}")
        self.code, self.reason, self.remedy = code, reason, remedy


def no_frames(key: str) -> CaptionError:
    """Return what to say of a clip that a model cannot be shown."""
    return CaptionError("no_frames", f"clip {key} has no frame to show", NO_FRAME)


@dataclass
class Captions:
    """What came of a batch of clips."""

    rows: list[Row] = field(default_factory=list)
    """Rows of the table `captions`, in the order of the clips."""
    errors: list[Row] = field(default_factory=list)
    """Rows of the table `errors`, for clips that got no caption."""
    fatal: CaptionError | None = None
    """Why no other batch need be tried: the model or the server is to be looked at, not the clips."""


class Captioner(Protocol):
    """What all captioners do."""

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips, and an error for each that got none."""
        ...


def given(clip: Clip) -> Row | None:
    """Return the row for a clip whose caption came with the footage, or None for one without."""
    text = (clip.get("caption") or "").strip()
    if not text:
        return None
    return row_of(clip, "given", "", {"short": text, "long": text})


def answered(clip: Clip, source: str, model: str, parts: Mapping[str, str]) -> Row:
    """Return the row for what a model said about a clip, the measured camera put in place of a contradiction."""
    settled, checks = reconcile(parts, clip)
    row = row_of(clip, source, model, settled)
    return row | {"prompt": PROMPT_DIGEST, "checks": "; ".join(map(str, checks))}


def row_of(clip: Clip, source: str, model: str, parts: Mapping[str, str]) -> Row:
    """Return a row of `captions`, bound to its clip."""
    row = {"key": clip["key"], "source": source, "model": model} | {name: parts.get(name, "") for name in FIELDS}
    return row | {"pictures": binding.pictures(clip), "bound": binding.bind(clip, row)}


def failed(clip: Clip, error: CaptionError) -> Row:
    """Return the row of `errors` for a clip that got no caption."""
    row = {name: clip.get(name) for name in ("unit", "uri", "source_id", "key", "start_s")}
    return row | {
        "stage": "caption",
        "seconds": 0.0,  # the footage is not lost; only its caption is missing
        "code": error.code,
        "reason": error.reason,
        "remedy": error.remedy,
    }


def collected(clips: Sequence[Clip], answers: Sequence[Row | CaptionError], whose: str) -> Captions:
    """Return what came of a batch, from an answer for each of its clips.

    It is fatal where the model refuses, is not to be reached for any clip, or makes a caption for none of `ENOUGH`: ten
    million clips would cost the same call each, for nothing.
    """
    done = Captions()
    blamed: list[CaptionError] = []
    for clip, answer in zip(clips, answers, strict=True):
        if isinstance(answer, CaptionError):
            done.errors.append(failed(clip, answer))
            blamed += [answer] if answer.code != "no_frames" else []
        else:
            done.rows.append(answer)
    refused = [error for error in blamed if error.code == REFUSAL]
    down = any(error.code in ("unreachable", "rate_limit") for error in blamed)
    if refused:
        done.fatal = refused[0]
    elif blamed and (down or len(blamed) >= ENOUGH) and all(row["source"] == "given" for row in done.rows):
        reason = f"{whose} made a caption for no clip of {len(blamed)}: {blamed[0].reason}"
        done.fatal = CaptionError(blamed[0].code, reason, "look at its log or take another, then run the command again")
    return done
