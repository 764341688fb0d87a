from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from rushes.dit.config import DiTConfig
from rushes.dit.text import Embedded, TextEncoder, TextModelError, embed_ahead, model_folder


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
