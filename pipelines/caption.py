"""Captions of kept clips: the given one where there is one, else from measured facts, else from a model.

* `TagCaptioner` works everywhere and says only what was measured (`filters/caption.py`); its rows have source `tags`.
* `EndpointCaptioner` (`caption_endpoint.py`) asks an OpenAI-compatible server: vLLM, Ray Serve, llama.cpp …
* `LocalCaptioner` (`caption_local.py`) runs a vision-language model of `transformers` from a folder.

All take clips as rows of the table `clips`, with `scores` added: the clip's rows of the table `scores` by scorer. The
models also need `jpegs`, the representative frames, and are told the measured facts; where their answer contradicts
these, the measured camera wins and the row says so in `checks`. A caption that came with the footage is never
overwritten and its clip never sent. Every row is bound to its clip where it is made (`binding.py`). No Ray here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filters.caption import FIELDS, compose
from filters.caption_checks import reconcile
from pipelines import binding
from pipelines.clip import NO_FRAME
from pipelines.config import CaptionConfig
from pipelines.ledger import fingerprint
from pipelines.prompt import PROMPT_DIGEST, Clip, found
from pipelines.storage import redact

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


def captioner(config: CaptionConfig, actors: int = 1) -> Captioner:
    """Return the configured captioner, one of so many at work. Raises CaptionError where its model is not there."""
    check(config)
    if config.source == "endpoint":
        from pipelines.caption_endpoint import EndpointCaptioner

        return EndpointCaptioner(config, actors)
    if config.source == "transformers":
        from pipelines.caption_local import LocalCaptioner

        return LocalCaptioner(config)
    return TagCaptioner(config)


def check(config: CaptionConfig) -> None:
    """Raise CaptionError where the source lacks what it needs: an address, the folder of a model."""
    if config.source == "endpoint" and not config.endpoint:
        raise CaptionError(
            "no_endpoint",
            "caption.source is endpoint, but caption.endpoint is empty",
            "give --caption.endpoint http://HOST:PORT/v1, or take --caption.source tags",
        )
    if config.source == "transformers" and not (config.model and (Path(config.model) / "config.json").is_file()):
        raise CaptionError(
            "no_model",
            f"caption.source is transformers, but caption.model is {config.model!r}, no folder with a config.json",
            "give --caption.model the folder of a vision-language model, as save_pretrained writes it",
        )


def made_by(config: CaptionConfig, scorers: Sequence[str]) -> str:
    """Return the fingerprint of what captions depend on; a clip captioned under it is not captioned again.

    Not the address of a server whose model is named, for a server may move; nor what the binding tells by itself, that
    a clip shows something else. Tags count, for they stand in the question.
    """
    named = [redact(config.endpoint)] if config.source == "endpoint" and not config.model else []
    model = [config.model, PROMPT_DIGEST, *named] if config.source in FRAMED else []
    return fingerprint("caption", config.source, model, "tags" in scorers)


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


class TagCaptioner:
    """Captions composed of measured facts and of ImageNet tags that are sure enough."""

    def __init__(self, config: CaptionConfig | None = None):
        self.config = config or CaptionConfig()

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips; none can fail."""
        return Captions(rows=[given(clip) or self._composed(clip) for clip in clips])

    def _composed(self, clip: Clip) -> Row:
        score = (clip.get("scores") or {}).get("tags")
        return row_of(clip, "tags", score["model"] if score else "", compose(clip, found(clip)))
