"""Captions from an OpenAI-compatible server that sees the clip's frames: several requests at once, each for one clip.

A request that fails is tried again with back-off and jitter; a rate limit holds back every thread for as long as the
server asks. An answer that is no caption is answered with what was wrong with it, once; a clip whose second answer is
no better becomes an error row.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.stages.caption import prompt
from rushes.pipelines.stages.caption.answer import Junk, Nonsense, read
from rushes.pipelines.stages.caption.caption import (
    REFUSAL,
    RETRY,
    CaptionError,
    Captions,
    Row,
    answered,
    collected,
    given,
    no_frames,
)
from rushes.pipelines.stages.caption.gate import LONGEST_WAIT_S, Gate, asked_wait_s
from rushes.pipelines.stages.caption.prompt import Clip
from rushes.pipelines.store.storage import redact

FIRST_WAIT_S = 0.5  # before the first new try; it doubles with each
ANSWER_TOKENS = 1024
REFUSED = "check --caption.endpoint, --caption.model and the key in the variable that --caption.api_key_env names"


class EndpointCaptioner:
    """Captions of an OpenAI-compatible server, several requests at once."""

    def __init__(self, config: CaptionConfig, actors: int = 1):
        """Connect, as one of so many actors that share the rate. Raises CaptionError where the model is not clear."""
        from openai import OpenAI

        self.config = config
        self._key = os.environ.get(config.api_key_env) or ""
        self._refused: CaptionError | None = None
        self.address = redact(config.endpoint)
        self.gate = Gate(config.requests_per_minute / actors)
        self.client = OpenAI(
            base_url=config.endpoint,
            api_key=self._key or "none",
            timeout=config.timeout_s,
            max_retries=0,  # retries are ours: junk is retried too, and a 429 holds back every thread
        )
        self.model = config.model or self._only_model()

    def _only_model(self) -> str:
        offered = [model.id for model in self._try(lambda attempt: self.client.models.list()).data]
        if len(offered) != 1:
            raise CaptionError(
                "no_model", f"{self.address} offers {', '.join(offered) or 'no model'}",
                "name one of them as --caption.model",
            )  # fmt: skip
        return str(offered[0])

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips, and an error for each that got none.

        It is fatal where the server refuses every request of this kind (a wrong key, no such model); what was answered
        before is returned all the same. `collected` says what else is.
        """
        with ThreadPoolExecutor(max_workers=max(1, self.config.concurrency)) as pool:
            answers = list(pool.map(self._one, clips))
        return collected(clips, answers, self.address)

    def _one(self, clip: Clip) -> Row | CaptionError:
        """Return a clip's row of `captions`, bound to the very clip whose frames were sent, or why there is none."""
        kept = given(clip)
        if kept:
            return kept
        if self._refused:
            return self._refused
        try:
            if not clip.get("jpegs"):
                raise no_frames(clip["key"])
            return answered(clip, "endpoint", self.model, self._parts(clip))
        except CaptionError as error:
            if error.code == REFUSAL:
                self._refused = error  # every other request of the batch would meet the same
            return error

    def _parts(self, clip: Clip) -> dict[str, str]:
        question = prompt.question(clip)
        try:
            return self._answer(question)
        except Junk as junk:
            more = prompt.again(junk.answer, str(junk))
        try:
            return self._answer([*question, *more])
        except Junk as junk:
            raise CaptionError("junk", self._clean(f"asked twice; {junk}"), RETRY) from junk

    def _answer(self, messages: list[Any]) -> dict[str, str]:
        """Return the parts that the model answers. Raises Junk for an answer that is no caption."""
        form: Any = {"type": "json_schema", "json_schema": {"name": "caption", "strict": True, "schema": prompt.SCHEMA}}
        repair = len(messages) > 2

        def ask(attempt: int) -> dict[str, str]:
            answer = self.client.chat.completions.create(
                model=self.model,
                messages=messages,
                response_format=form,
                max_tokens=ANSWER_TOKENS,
                temperature=0.5 if attempt or repair else 0.0,  # the same question would bring the same junk again
            )
            return read(_content(answer))

        return dict(self._try(ask))

    def _try(self, ask: Any) -> Any:
        """Return what `ask` returns, asking again where that may help. Raises CaptionError where it does not."""
        import openai

        for attempt in range(self.config.retries + 1):
            self.gate.wait()
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                return ask(attempt)
            except (Nonsense, json.JSONDecodeError) as error:  # the latter: what is called JSON and is none
                failure = CaptionError("junk", self._clean(error), RETRY)
            except openai.RateLimitError as error:
                failure = CaptionError("rate_limit", self._clean(error), "lower --caption.requests_per_minute")
                self.gate.hold(asked_wait_s(error.response.headers, wait_s))
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise CaptionError(REFUSAL, f"{self.address} refuses: {self._clean(error)}", REFUSED) from error
            except openai.InternalServerError as error:
                failure = CaptionError("unreachable", self._clean(error), RETRY)
                wait_s = asked_wait_s(error.response.headers, wait_s)
            except openai.APIConnectionError as error:  # a timeout is one
                failure = CaptionError("unreachable", self._clean(error), RETRY)
            except openai.APIError as error:
                raise CaptionError("rejected", self._clean(error), RETRY) from error
            if attempt < self.config.retries:
                time.sleep(wait_s)
        raise failure

    def _clean(self, error: Exception | str) -> str:
        """Return an error as a line without secrets; servers quote the key that they refuse."""
        text = " ".join(str(error).split())
        return redact(text.replace(self._key, "…") if self._key else text)[:300]


def _content(answer: Any) -> str | None:
    """Return the text of an answer; the client hands over whatever the server sent, be it a page of HTML."""
    try:
        content = answer.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None
