"""Captions of kept clips: the given one where there is one, else from measured facts, else from a model's endpoint.

* `TagCaptioner` works everywhere and says only what was measured (`filters/caption.py`); its rows have source `tags`.
* `EndpointCaptioner` asks an OpenAI-compatible server (vLLM, Ray Serve, llama.cpp …) that sees the clip's frames and is
  told the measured facts; its rows have source `endpoint`.

Both take clips as rows of the table `clips`, with `scores` added: the clip's rows of the table `scores` by scorer. The
endpoint also needs `jpegs`, the representative frames. A caption that came with the footage is never overwritten.
No Ray here: an actor holds a captioner and calls it with batches of clips.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from filters.caption import FIELDS, compose, near_identical
from pipelines.config import CaptionConfig
from pipelines.prompt import PROMPT, SCHEMA, Clip, Junk, found, parse, shown

__all__ = ["CaptionError", "Captioner", "Captions", "EndpointCaptioner", "TagCaptioner", "captioner", "near_identical"]

FIRST_WAIT_S = 0.5  # before the first new try; it doubles with each
LONGEST_WAIT_S = 60.0  # no server may hold a worker longer than this between two tries


class CaptionError(ValueError):
    """A clip, or every clip, could not be captioned; the message says why and what to do."""

    def __init__(self, code: str, reason: str, remedy: str):
        super().__init__(f"{reason}; {remedy}")
        self.code, self.reason, self.remedy = code, reason, remedy


@dataclass
class Captions:
    """What came of a batch of clips."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the table `captions`, in the order of the clips."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the table `errors`, for clips that got no caption."""


class Captioner(Protocol):
    """What both captioners do."""

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips, and an error for each that got none."""
        ...

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """Return rows of the table `captions`; raises CaptionError if any clip got none."""
        ...


def captioner(config: CaptionConfig) -> Captioner:
    """Return the configured captioner. Raises CaptionError where the endpoint is not named."""
    return EndpointCaptioner(config) if config.source == "endpoint" else TagCaptioner(config)


def given(clip: Clip) -> dict[str, Any] | None:
    """Return the row for a clip whose caption came with the footage, or None for one without."""
    text = (clip.get("caption") or "").strip()
    if not text:
        return None
    return _row(clip, "given", "", {"short": text, "long": text})


def _row(clip: Clip, source: str, model: str, parts: Mapping[str, str]) -> dict[str, Any]:
    return {"key": clip["key"], "source": source, "model": model} | {name: parts.get(name, "") for name in FIELDS}


class TagCaptioner:
    """Captions composed of measured facts and of ImageNet tags that are sure enough."""

    def __init__(self, config: CaptionConfig | None = None):
        self.config = config or CaptionConfig()

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips; none can fail."""
        return Captions(rows=[given(clip) or self._composed(clip) for clip in clips])

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """Return rows of the table `captions`."""
        return self.caption(clips).rows

    def _composed(self, clip: Clip) -> dict[str, Any]:
        score = (clip.get("scores") or {}).get("tags")
        return _row(clip, "tags", score["model"] if score else "", compose(clip, found(clip)))


# --- an endpoint ----------------------------------------------------------------------------------------------------


class EndpointCaptioner:
    """Captions of an OpenAI-compatible server, several requests at once."""

    def __init__(self, config: CaptionConfig):
        """Connect. Raises CaptionError where no endpoint is named, or the server has no model of that name to offer."""
        from openai import OpenAI

        if not config.endpoint:
            raise CaptionError(
                "no_endpoint",
                "caption.source is endpoint, but caption.endpoint is empty",
                "give --caption.endpoint http://HOST:PORT/v1, or take --caption.source tags",
            )
        self.config = config
        self.pause = Pause()
        self.client = OpenAI(
            base_url=config.endpoint,
            api_key=os.environ.get(config.api_key_env) or "none",
            timeout=config.timeout_s,
            max_retries=0,  # retries are ours: junk is retried too, and a 429 holds back every thread
        )
        self.model = config.model or self._only_model()

    def _only_model(self) -> str:
        offered = [model.id for model in self._try(lambda attempt: self.client.models.list()).data]
        if len(offered) != 1:
            raise CaptionError(
                "no_model",
                f"{self.config.endpoint} offers {', '.join(offered) or 'no model'}",
                "name one of them as --caption.model",
            )
        return offered[0]

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """Return rows of the table `captions`. Raises CaptionError where a clip got none; `caption` goes on instead."""
        done = self.caption(clips)
        if done.errors:
            first = done.errors[0]
            raise CaptionError(first["code"], f"clip {first['key']}: {first['reason']}", first["remedy"])
        return done.rows

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips, and an error for each that got none.

        Raises CaptionError where the server refuses every request of this kind (a wrong key, no such model), or was
        not to be reached for any of the clips: then the server is to be looked at, not the clips.
        """
        with ThreadPoolExecutor(max_workers=max(1, self.config.concurrency)) as pool:
            answers = list(pool.map(self._one, clips))
        done = Captions()
        for answer in answers:
            (done.errors if "code" in answer else done.rows).append(answer)
        down = [error for error in done.errors if error["code"] in ("unreachable", "rate_limit")]
        if down and not any(row["source"] == "endpoint" for row in done.rows):
            reason = f"{self.config.endpoint} answered for no clip of {len(done.errors)}: {down[0]['reason']}"
            raise CaptionError(down[0]["code"], reason, down[0]["remedy"])
        return done

    def _one(self, clip: Clip) -> dict[str, Any]:
        """Return a clip's row of `captions`, or of `errors`; both carry its key, so no answer can change places."""
        kept = given(clip)
        if kept:
            return kept
        try:
            parts = self._try(lambda attempt: self._ask(clip, attempt))
        except CaptionError as error:
            if error.code == "refused":
                raise
            return _error(clip, error)
        return _row(clip, "endpoint", self.model, parts)

    def _ask(self, clip: Clip, attempt: int) -> dict[str, str]:
        if not clip.get("jpegs"):
            raise CaptionError("no_frames", f"clip {clip['key']} has no frame to show", "scan its source again")
        messages: list[Any] = [{"role": "system", "content": PROMPT}, {"role": "user", "content": shown(clip)}]
        form: Any = {"type": "json_schema", "json_schema": {"name": "caption", "strict": True, "schema": SCHEMA}}
        answer = self.client.chat.completions.create(
            model=self.model,
            messages=messages,
            response_format=form,
            max_tokens=1024,
            temperature=0.0 if attempt == 0 else 0.5,  # the same question would bring the same junk again
        )
        return parse(_content(answer))

    def _try(self, ask: Any) -> Any:
        """Return what `ask` returns, asking again where that may help. Raises CaptionError where it does not."""
        import openai

        for attempt in range(self.config.retries + 1):
            self.pause.wait()
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                return ask(attempt)
            except (Junk, json.JSONDecodeError) as error:  # the latter: what is called JSON and is none
                failure, wait_s = CaptionError("junk", str(error), REMEDY), 0.0
            except openai.RateLimitError as error:
                failure = CaptionError("rate_limit", _said(error), "lower --caption.concurrency")
                self.pause.hold(asked_wait_s(error.response.headers, wait_s))
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise CaptionError("refused", f"{self.config.endpoint} refuses: {_said(error)}", REFUSED) from error
            except (openai.APIConnectionError, openai.InternalServerError) as error:  # a timeout is the former
                failure = CaptionError("unreachable", _said(error), REMEDY)
            except openai.APIError as error:
                raise CaptionError("rejected", _said(error), REMEDY) from error
            if attempt < self.config.retries:
                time.sleep(wait_s)
        raise failure


REMEDY = "look at the server's log, then run the same command again: finished units are kept"
REFUSED = "check --caption.endpoint, --caption.model and the key in the variable that --caption.api_key_env names"


def _content(answer: Any) -> str | None:
    """Return the text of an answer; the client hands over whatever the server sent, be it a page of HTML."""
    try:
        content = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None


class Pause:
    """A gate before the server: a rate limit that one request meets holds back all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        """Let nobody through for some seconds."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self) -> None:
        """Return when the gate is open."""
        while (left := self._until - time.monotonic()) > 0:
            time.sleep(left)


def asked_wait_s(headers: Mapping[str, str], otherwise_s: float) -> float:
    """Return the seconds that a server's Retry-After asks for, within reason; a date or nonsense counts as unsaid."""
    try:
        seconds = float(headers.get("retry-after", otherwise_s))
    except ValueError:
        seconds = otherwise_s
    return min(LONGEST_WAIT_S, max(0.0, seconds))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _error(clip: Clip, error: CaptionError) -> dict[str, Any]:
    row = {name: clip.get(name) for name in ("unit", "uri", "source_id", "key", "start_s")}
    return row | {
        "stage": "caption",
        "seconds": 0.0,  # the footage is not lost; only its caption is missing
        "code": error.code,
        "reason": error.reason,
        "remedy": error.remedy,
    }
