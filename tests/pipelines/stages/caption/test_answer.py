"""Reading answers: a caption is found in what models write round it, and whatever is none is called junk."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.caption import FIELDS
from rushes.pipelines.stages.caption.answer import LONGEST, Junk, Nonsense, read
from rushes.pipelines.stages.caption.prompt import ASKED

GOOD = {"short": "A dog runs.", "long": "A brown dog runs over a wet path."}


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD)}\n```",
        f'<think>{{"maybe": 1}} {{hm</think> Here: {json.dumps(GOOD | {"extra": [1]})} Bye.',
        json.dumps(GOOD | {"short": ["A dog runs."], "subject": None}),
        json.dumps(GOOD | {"short": "A dog\n runs.\ud800"}),
    ],
)
def test_a_caption_is_found_in_what_models_write_round_it(answer: str) -> None:
    parts = read(answer)
    assert (parts["short"], parts["long"], parts["style"]) == (GOOD["short"], GOOD["long"], "")
    assert tuple(parts) == FIELDS


@pytest.mark.parametrize("answer", [None, "", "{" * 5000, "null", "[]", '{"a":' * 3000, "<html>"])
def test_what_holds_no_object_is_nonsense(answer: str | None) -> None:
    with pytest.raises(Nonsense, match="no JSON object"):
        read(answer)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"short": ""}, "short has 0 characters"),
        ({"long": None}, "long has 0 characters"),
        ({"style": 3}, "style is 3, expected text"),
        ({"subject": {"a": 1}}, "subject is"),
        ({"long": "x" * (LONGEST["long"] + 1)}, "long has 4001 characters"),
        ({"long": "I’m sorry, I can’t assist with that."}, "long refuses"),
        ({"short": "The frames are dark. I cannot describe them."}, "short refuses"),
        ({"short": "As an AI language model I see nothing."}, "short refuses"),
        ({"short": ASKED["short"]}, "short repeats the question"),
        ({"subject": ASKED["subject"]}, "subject repeats the question"),
        ({"long": "Measured facts length: 3.0 s, one shot"}, "long repeats the question"),
        ({"long": "```json a dog ```"}, "long holds markup"),
    ],
)
def test_what_breaks_the_schema_is_junk_and_says_how(change: dict[str, object], wrong: str) -> None:
    with pytest.raises(Junk, match=wrong) as found:
        read(json.dumps(GOOD | change))
    assert not isinstance(found.value, Nonsense) and found.value.answer


def test_a_sign_that_somebody_reads_in_the_picture_is_no_refusal() -> None:
    assert read(json.dumps(GOOD | {"long": "A man holds a sign that reads 'no, I can't' and walks on."}))


def test_a_refusal_in_plain_words_is_junk_and_worth_one_answer() -> None:
    with pytest.raises(Junk, match="refuses") as found:
        read("I'm sorry, but I can't help with that.")
    assert not isinstance(found.value, Nonsense)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.dictionaries(st.sampled_from(FIELDS), st.text() | st.integers() | st.none()).map(json.dumps))
def test_any_answer_is_a_whole_caption_or_junk(answer: str) -> None:
    try:
        parts = read(answer)
    except Junk:
        return
    assert tuple(parts) == FIELDS and all(len(parts[name]) >= 3 for name in ("short", "long"))
