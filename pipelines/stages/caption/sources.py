"""Where captions come from: the source that the settings name, what it needs, and what a caption depends on. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rushes.filters.caption import WORDING, compose
from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.stages.caption.caption import FRAMED, Captioner, CaptionError, Captions, Row, given, row_of
from rushes.pipelines.stages.caption.prompt import PROMPT_DIGEST, Clip, found
from rushes.pipelines.store.ledger import fingerprint
from rushes.pipelines.store.storage import redact


def captioner(config: CaptionConfig, actors: int = 1) -> Captioner:
    """Return the configured captioner, one of so many at work. Raises CaptionError where its model is not there."""
    check(config)
    if config.source == "endpoint":
        from rushes.pipelines.stages.caption.endpoint import EndpointCaptioner

        return EndpointCaptioner(config, actors)
    if config.source == "transformers":
        from rushes.pipelines.stages.caption.local import LocalCaptioner

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
    words = [config.model, PROMPT_DIGEST, *named] if config.source in FRAMED else [WORDING]
    return fingerprint("caption", config.source, words, "tags" in scorers)


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
