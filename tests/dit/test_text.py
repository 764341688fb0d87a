from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from rushes.dit.config import DiTConfig
from rushes.dit.text import Embedded, TextEncoder, TextModelError, embed_ahead, encoder_print, model_folder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(DiTConfig(text_words=12))


def test_captions_of_one_meaning_lie_closer_than_others(encoder):
    _, lengths, pooled = encoder(["a man rides a bicycle", "a cyclist on his bike", "boiling soup in a pot"])
    near, far = (torch.cosine_similarity(pooled[0], pooled[i], dim=0) for i in (1, 2))
    assert near > far + 0.3 and len(lengths) == 3
    assert pooled.std() == pytest.approx(1, abs=0.1)


def test_a_caption_is_the_same_alone_and_among_others(encoder):
    words, _, pooled = TextEncoder(encoder_config := DiTConfig(text_words=12))(["night traffic"])
    several, lengths, many = encoder(["a much longer caption of a busy street at night", "night traffic"])
    assert torch.equal(several[lengths[0] :], words) and torch.equal(many[1], pooled[0])
    assert max(lengths) <= encoder_config.text_words


def test_an_empty_caption_has_no_words(encoder):
    words, lengths, pooled = encoder(["", "  "])
    assert words.shape == (0, 384) and lengths == (0, 0) and not pooled.any()


def test_a_missing_text_model_is_named_with_the_remedy(tmp_path):
    with pytest.raises(TextModelError, match=r"model\.safetensors"):
        model_folder(str(tmp_path))


WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "ball", "rolls"]


def written(kind: str, folder: Path) -> Path:
    """Write a small encoder of a kind as it is published: T5 with its decoder, or in a pipeline's two folders, CLIP."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, T5Config, T5ForConditionalGeneration, UMT5Config, UMT5EncoderModel

    small = {"vocab_size": len(WORDS), "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
    tower = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3}
    torch.manual_seed(0)
    if kind == "t5":
        model = T5ForConditionalGeneration(T5Config(**small, decoder_start_token_id=0))
    elif kind == "umt5":
        model = UMT5EncoderModel(UMT5Config(**small))
    else:
        text = {**tower, "vocab_size": len(WORDS), "max_position_embeddings": 9, "eos_token_id": 1}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config={**tower, "image_size": 8, "patch_size": 4}))
    model.save_pretrained(folder / "text_encoder", max_shard_size="20kB" if kind == "umt5" else "1GB")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    beside = folder / ("text_encoder" if kind == "t5" else "tokenizer")
    beside.mkdir(exist_ok=True)
    words.save(str(beside / "tokenizer.json"))
    return folder / "text_encoder"


@pytest.mark.parametrize("kind", ["t5", "umt5", "clip"])
def test_published_encoders_read_captions_as_transformers_does(kind, tmp_path):
    from transformers import CLIPTextModel, T5EncoderModel, UMT5EncoderModel

    folder = written(kind, tmp_path)
    config = DiTConfig(text_model=str(folder), text_width=24, text_words=8)
    words, lengths, pooled = TextEncoder(config)(["a red ball rolls", "ball"])
    theirs = {"t5": T5EncoderModel, "umt5": UMT5EncoderModel, "clip": CLIPTextModel}[kind].from_pretrained(folder)
    expected = theirs(input_ids=torch.tensor([[3, 4, 5, 6, 1]])).last_hidden_state[0]
    assert lengths == (5, 2)
    torch.testing.assert_close(words[:5], expected.detach())
    torch.testing.assert_close(pooled[0], torch.nn.functional.normalize(words[:5].mean(dim=0), dim=0) * 24**0.5)
    assert encoder_print(config) != encoder_print(DiTConfig(text_model=str(folder), text_width=24, text_words=7))
    if kind == "clip":
        with pytest.raises(TextModelError, match="reads 9 words at most"):
            TextEncoder(DiTConfig(text_model=str(folder), text_width=24, text_words=10))


def test_what_is_no_encoder_of_text_is_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    folder = written("t5", tmp_path)
    small = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 3}
    ViTModel(ViTConfig(**small, image_size=8, patch_size=4)).save_pretrained(folder)
    with pytest.raises(TextModelError, match="no encoder of text"):
        TextEncoder(DiTConfig(text_model=str(folder), text_width=24))


@pytest.mark.parametrize("what", ["words", "weights", "more words than weights"])
def test_a_damaged_encoder_is_named_with_the_remedy(what, tmp_path):
    folder = written("t5", tmp_path)
    words, weights = folder / "tokenizer.json", folder / "model.safetensors"
    if what == "words":
        words.write_text("{}")
    elif what == "weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        words.write_text(words.read_text().replace('"rolls":6', '"rolls":7').replace('"rolls": 6', '"rolls": 7'))
    expected = {"words": "no tokenizer", "weights": "no encoder of text that can be read"}
    with pytest.raises(TextModelError, match=expected.get(what, "numbers words up to 7, the encoder in .* knows 7")):
        TextEncoder(DiTConfig(text_model=str(folder), text_width=24, text_words=8))


def test_a_width_that_does_not_fit_is_refused():
    with pytest.raises(TextModelError, match="set text_width"):
        TextEncoder(DiTConfig(text_width=512))


def test_captions_embedded_ahead_are_read_as_they_were_embedded(encoder, tmp_path):
    captions, config = ["a red ball rolls", "", "night traffic", "waves on a beach"], DiTConfig(text_words=12)
    told = []
    embed_ahead(pa.array(captions), config, tmp_path, tell=lambda *words: told.append(words[:3]))
    ahead = Embedded(tmp_path, config)
    for number, caption in enumerate(captions):
        words, _, pooled = encoder([caption])
        torch.testing.assert_close(ahead[number], (words, pooled[0]), atol=4e-3, rtol=1e-3)
    embed_ahead(pa.array(captions), config, tmp_path, tell=lambda *words: told.append(words[:3]))
    assert told == [(4, 4, "captions")], "they were embedded once"
    with pytest.raises(TextModelError, match="another encoder"):
        embed_ahead(pa.array(captions), DiTConfig(text_words=9), tmp_path)
