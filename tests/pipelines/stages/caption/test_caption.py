"""Captions without a model: composed and given ones, what is missing, what makes them anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.store import binding
from rushes.pipelines.store.ledger import to_table

ENDPOINT = CaptionConfig(source="endpoint", endpoint="http://127.0.0.1:9/v1", model="m")


def _clip(key: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key, "uri": f"{key}.mp4", "source_id": "s", "start_s": 1.0, "end_s": 4.0, "duration_s": 3.0,
        "camera": "static", "luma_mean": 120.0, "luma_std": 60.0, "object_speed": 0.2, "object_area": 0.1,
        "caption": None, "phash": [1, 2], "frame_s": [2.0],
        "scores": {"tags": {"label": "dog 0.80, ball 0.10", "value": 0.8, "model": "lite0"}},
    } | more  # fmt: skip


def test_a_composed_caption_is_marked_as_tags_bound_and_fits_the_ledger() -> None:
    clips = [_clip("a"), _clip("b", scores={})]
    rows = sources.TagCaptioner().caption(clips).rows
    assert [(row["source"], row["model"], row["subject"]) for row in rows] == [
        ("tags", "lite0", "dog"),
        ("tags", "", ""),
    ]
    assert rows[0]["short"].startswith("A dog, static camera") and rows[0]["camera_motion"] == "static"
    assert to_table("captions", rows).num_rows == 2
    assert all(binding.holds(clip, row) for clip, row in zip(clips, rows, strict=True))


@pytest.mark.parametrize("config", [CaptionConfig(), ENDPOINT])
def test_a_given_caption_is_kept_to_the_letter_and_costs_no_request(config: CaptionConfig) -> None:
    done = sources.captioner(config).caption([_clip("a", caption="  Ein Hund läuft.  ")])  # nobody answers at port 9
    [row] = done.rows
    assert (row["source"], row["short"], row["long"]) == ("given", "Ein Hund läuft.", "Ein Hund läuft.")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (CaptionConfig(source="endpoint"), r"--caption\.endpoint"),
        (CaptionConfig(source="transformers"), r"--caption\.model"),
        (CaptionConfig(source="transformers", model="/no/such/model"), r"/no/such/model.*--caption\.model"),
    ],
)
def test_what_a_source_lacks_is_named_before_anything_runs(config: CaptionConfig, named: str) -> None:
    with pytest.raises(caption.CaptionError, match=named):
        sources.check(config)


def test_captions_are_made_again_for_another_model_or_tags_but_not_for_another_address() -> None:
    same = sources.made_by(ENDPOINT, ["tags"])
    moved = replace(ENDPOINT, endpoint="http://other/v1", concurrency=9, retries=1, requests_per_minute=60)
    assert sources.made_by(moved, ["tags", "quality"]) == same
    assert sources.made_by(replace(ENDPOINT, model="n"), ["tags"]) != same
    assert sources.made_by(ENDPOINT, []) != same
    unnamed = replace(ENDPOINT, model="")
    assert sources.made_by(unnamed, []) != sources.made_by(replace(unnamed, endpoint="http://other/v1"), [])


def test_another_question_makes_captions_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [sources.made_by(config, []) for config in (ENDPOINT, CaptionConfig())]
    monkeypatch.setattr(sources, "PROMPT_DIGEST", "another")
    after = [sources.made_by(config, []) for config in (ENDPOINT, CaptionConfig())]
    assert before[0] != after[0] and before[1] == after[1], "composed captions are asked of nobody"
