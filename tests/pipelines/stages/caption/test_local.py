"""A local vision-language model from a folder: the plumbing, proved with one too small to say anything."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from rushes.filters.caption import FIELDS
from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.stages.caption.local import LocalCaptioner
from rushes.pipelines.store import binding

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of a few thousand random weights over bytes, as `save_pretrained` writes it."""
    logging.disable_progress_bar()
    special = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]
    words = {word: k for k, word in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    bytes_ = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    tiny: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    }
    tiny |= {"initializer_range": 0.5}  # wide, so that even these few weights tell one picture from another
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=16, **tiny).to_dict(),
            text_config=LlamaConfig(
                vocab_size=len(words), pad_token_id=0, max_position_embeddings=8192, **tiny
            ).to_dict(),
            image_token_index=words["<image>"], image_token_id=words["<image>"],
        )
    )  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "tiny-llava"
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _config(folder: Path, **changes: Any) -> CaptionConfig:
    return CaptionConfig(**{"source": "transformers", "model": str(folder), **changes})


@pytest.fixture(scope="module")
def captioner(folder: Path) -> LocalCaptioner:
    return LocalCaptioner(_config(folder), answer_tokens=8)


def _jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((64, 36)).point(lambda v: (v + shade) % 256).convert("RGB").save(data, "JPEG")
    return data.getvalue()


def _clip(number: int, **changes: Any) -> dict[str, Any]:
    times = [1.0 + k / 4 for k in range(1 + number % 2)]
    return {
        "key": f"k{number}", "uri": "a.mp4", "source_id": "s", "unit": "u", "start_s": 1.0, "end_s": 3.0,
        "duration_s": 2.0, "camera": "static", "phash": [number], "frame_s": times, "caption": None,
        "jpegs": [_jpeg(60 * number + k) for k in range(len(times))],
    } | changes  # fmt: skip


def test_what_a_model_without_training_says_is_an_error_and_never_a_caption(captioner: LocalCaptioner) -> None:
    done = captioner.caption([_clip(n) for n in range(5)])
    assert done.rows == [] and [row["key"] for row in done.errors] == [f"k{n}" for n in range(5)]
    assert {row["code"] for row in done.errors} == {"junk"} and done.fatal is None


def test_a_model_that_makes_no_caption_at_all_is_stopped(captioner: LocalCaptioner) -> None:
    done = captioner.caption([_clip(n) for n in range(caption.ENOUGH)])
    assert done.fatal is not None and "tiny-llava" in str(done.fatal)


def test_clips_answered_together_get_what_each_gets_alone(folder: Path, captioner: LocalCaptioner) -> None:
    from rushes.pipelines.stages.caption.local import _question

    talks = [_question(_clip(n)) for n in range(4)]
    together = captioner._generate(talks)
    assert together == [captioner._generate([talk])[0] for talk in talks]
    other = [_question(_clip(n) | {"jpegs": [_jpeg(200) for _ in _clip(n)["jpegs"]]}) for n in range(4)]
    assert captioner._generate(other) != together, "the pictures are looked at"


def test_a_good_answer_becomes_a_row_bound_to_its_clip(captioner: LocalCaptioner, monkeypatch: Any) -> None:
    asked: list[int] = []

    def say(talks: list[Any]) -> list[str]:
        asked.append(len(talks))
        numbers = [talk[0]["content"][2]["image"].getpixel((0, 0))[0] // 60 for talk in talks]
        good = [json.dumps(dict.fromkeys(FIELDS, f"Answer {number}.")) for number in numbers]
        return [
            text if len(talk) > 1 or number != 1 else "hm"
            for text, talk, number in zip(good, talks, numbers, strict=True)
        ]

    monkeypatch.setattr(captioner, "_generate", say)
    clips = [_clip(0), _clip(1), _clip(2), _clip(3, caption="Given."), _clip(4, jpegs=[])]
    done = captioner.caption(clips)
    assert [(row["key"], row["short"], row["source"]) for row in done.rows] == [
        ("k0", "Answer 0.", "transformers"), ("k1", "Answer 1.", "transformers"), ("k2", "Answer 2.", "transformers"),
        ("k3", "Given.", "given"),
    ]  # fmt: skip
    assert asked == [3, 1], "only the junk is asked again"
    assert [row["code"] for row in done.errors] == ["no_frames"]
    assert all(binding.holds(clip, row) for clip, row in zip(clips, done.rows, strict=False))
    assert done.rows[0]["model"] == "tiny-llava" and done.rows[0]["camera_motion"] == "static"


def test_a_batch_that_memory_does_not_hold_is_told_with_the_remedy(captioner: LocalCaptioner, monkeypatch: Any) -> None:
    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(captioner.model, "generate", full)
    with pytest.raises(caption.CaptionError, match=r"4 clips at once; lower --caption\.batch_clips"):
        captioner.caption([_clip(n) for n in range(5)])


def test_weights_that_are_not_there_are_not_drawn_at_random(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "projector" in name)
    save_file({k: v for k, v in weights.items() if k != name}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(caption.CaptionError, match=r"broken lacks 1 weights"):
        LocalCaptioner(_config(broken))


@pytest.mark.parametrize(
    "text", ['{"model_type": "no-such-type"}', '{"model_type": "llava"}', "no json", '{"model_type": "bert"}']
)
def test_a_folder_without_such_a_model_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(caption.CaptionError, match=str(tmp_path)):
        sources.captioner(_config(tmp_path))
