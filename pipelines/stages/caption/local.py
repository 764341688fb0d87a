"""Captions from a vision-language model of `transformers` in a local folder: nothing is fetched, no code of its runs.

The model is loaded at the first clip that needs it, on the GPU if there is one, and answers several clips at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.stages.caption import prompt
from rushes.pipelines.stages.caption.answer import Junk, read
from rushes.pipelines.stages.caption.caption import (
    RETRY,
    CaptionError,
    Captions,
    Row,
    answered,
    collected,
    given,
    no_frames,
)
from rushes.pipelines.stages.caption.prompt import Clip

ANSWER_TOKENS = 1024

Turn = dict[str, Any]


class LocalCaptioner:
    """Captions of a model in a folder, as `save_pretrained` of a processor and a model writes it."""

    def __init__(self, config: CaptionConfig, answer_tokens: int = ANSWER_TOKENS):
        """Load the model. Raises CaptionError where the folder holds none, or one that is not whole."""
        self.config, self.answer_tokens = config, answer_tokens
        self.name = Path(config.model).name
        self.processor, self.model = _load(config.model)

    def caption(self, clips: Sequence[Clip]) -> Captions:
        """Return captions of clips, and an error for each that got none; see `caption.collected` for what is fatal.

        Raises CaptionError where the memory does not hold `batch_clips` clips.
        """
        answers: dict[int, Row | CaptionError] = {}
        asked: list[int] = []
        for place, clip in enumerate(clips):
            if kept := given(clip):
                answers[place] = kept
            elif clip.get("jpegs"):
                asked.append(place)
            else:
                answers[place] = no_frames(clip["key"])
        for at in range(0, len(asked), self.config.batch_clips):
            places = asked[at : at + self.config.batch_clips]
            answers |= zip(places, self._batch([clips[place] for place in places]), strict=True)
        return collected(clips, [answers[place] for place in range(len(clips))], self.config.model)

    def _batch(self, clips: Sequence[Clip]) -> Iterator[Row | CaptionError]:
        """Yield a row, or why there is none, for each clip; those whose answer is junk are asked once more."""
        talks = [_question(clip) for clip in clips]
        found = [_read(text) for text in self._generate(talks)]
        again = [place for place, answer in enumerate(found) if isinstance(answer, Junk)]
        if again:
            more = [[*talks[place], *_again(found[place])] for place in again]
            for place, text in zip(again, self._generate(more), strict=True):
                found[place] = _read(text)
        for clip, answer in zip(clips, found, strict=True):
            if isinstance(answer, Junk):
                yield CaptionError("junk", f"asked twice; {answer}", RETRY)
            else:
                yield answered(clip, "transformers", self.name, answer)

    def _generate(self, talks: Sequence[list[Turn]]) -> list[str]:
        import torch

        texts = [self.processor.apply_chat_template(talk, add_generation_prompt=True) for talk in talks]
        pictures = [[part["image"] for part in talk[0]["content"] if part["type"] == "image"] for talk in talks]
        begin = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=texts, images=pictures, padding=True, return_tensors="pt",
            add_special_tokens=not (begin and texts[0].startswith(begin)),  # some templates write it themselves
        ).to(self.model.device, dtype=self.model.dtype)  # fmt: skip
        try:
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.answer_tokens)
        except torch.OutOfMemoryError as error:
            reason = f"{self.config.model} ran out of memory with {len(talks)} clips at once"
            raise CaptionError("memory", reason, "lower --caption.batch_clips or --shots.frames_per_clip") from error
        said = tokens[:, inputs["input_ids"].shape[1] :]
        return list(self.processor.batch_decode(said, skip_special_tokens=True))


def _question(clip: Clip) -> list[Turn]:
    """Return the talk that asks for a caption, all of it the user's: not every model knows a system's voice."""
    content: list[Turn] = [{"type": "text", "text": f"{prompt.PROMPT}\n\n{prompt.facts(clip)}"}]
    for label, jpeg in zip(prompt.frame_labels(clip), clip["jpegs"], strict=True):
        picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        content += [{"type": "text", "text": label}, {"type": "image", "image": picture}]
    return [{"role": "user", "content": content}]


def _again(junk: Any) -> list[Turn]:
    turns = prompt.again(junk.answer, str(junk))
    return [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def _read(text: str) -> dict[str, str] | Junk:
    try:
        return read(text)
    except Junk as junk:
        return junk


def _load(folder: str) -> tuple[Any, Any]:
    """Return the processor and the model of a folder. Raises CaptionError naming it."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **local)
        dtype: Any = "auto" if device == "cuda" else torch.float32
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **local
        )
        model, info = loaded
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = f"{folder} is no model that transformers loads by itself: {' '.join(str(error).split())[:300]}"
        raise CaptionError("no_model", reason, REMEDY) from error
    if info["missing_keys"]:  # transformers would draw these weights at random
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise CaptionError("no_model", f"{folder} lacks {len(info['missing_keys'])} weights: {missing}", REMEDY)
    if getattr(processor, "chat_template", None) is None:
        raise CaptionError("no_model", f"{folder} has no chat template, so that it cannot be asked", REMEDY)
    processor.tokenizer.padding_side = "left"  # answers of a batch begin where their questions end
    return processor, model.to(device).eval()


REMEDY = "give --caption.model the folder of an instruction-tuned vision-language model with its processor"
