"""Vectors are read in the order of the clips, and never of two models at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.pipelines.stages.select import measures
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES


def _row(key: str, vector: list[float], scorer: str = "clip", model: str = "ViT-B-32 a.pt") -> dict[str, Any]:
    return {"key": key, "scorer": scorer, "model": model, "value": 1.0, "label": "", "vector": vector}


def _scores(*rows: dict[str, Any]) -> pa.Table:
    return to_table("scores", rows)


def test_rows_follow_the_keys_and_a_clip_without_a_vector_is_nan() -> None:
    table = _scores(
        _row("a", [1.0, 0.0]), _row("b", [0.0, 1.0]), _row("c", []), _row("a", [9.0, 9.0, 9.0], "embedding", "lite0")
    )
    found = measures.embeddings(table, "clip", pa.array(["b", "none", "c", "a", "b"]))
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0, 1], [np.nan] * 2, [np.nan] * 2, [1, 0], [0, 1]]), nan_ok=True)


def test_no_vector_at_all_is_no_width() -> None:
    assert measures.embeddings(_scores(), "clip", pa.array(["a", "b"])).shape == (2, 0)
    assert measures.embeddings(_scores(_row("a", [])), "clip", pa.array([], pa.string())).shape == (0, 0)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            _row("b", [1.0, 2.0, 3.0], model="ViT-L-14 b.pt"),
            "2 numbers of ViT-B-32 a.pt and 3 numbers of ViT-L-14 b.pt",
        ),
        (_row("b", [1.0, 2.0], model="ViT-L-14 b.pt"), "2 numbers of ViT-B-32 a.pt and 2 numbers of ViT-L-14 b.pt"),
        (_row("b", [1.0, 2.0, 3.0]), "2 numbers of ViT-B-32 a.pt and 3 numbers of ViT-B-32 a.pt"),
    ],
)
def test_vectors_of_two_models_are_refused_with_both_and_the_remedy(other: dict[str, Any], words: str) -> None:
    for table in (
        _scores(_row("a", [1.0, 2.0]), other),
        pa.concat_tables([_scores(_row("a", [1, 2])), _scores(other)]),
    ):
        with pytest.raises(ValueError, match=f"scorer clip .*{words}.*rushes score --out RUN"):
            measures.embeddings(table, "clip", pa.array(["a"]))


def test_another_scorer_may_have_another_model() -> None:
    table = _scores(_row("a", [1.0, 2.0]), _row("a", [1.0, 2.0, 3.0], "embedding", "lite0"))
    assert measures.embeddings(table, "embedding", pa.array(["a"])).tolist() == [[1.0, 2.0, 3.0]]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20, unique=True), st.integers(1, 7))
def test_how_the_table_is_cut_into_batches_changes_nothing(numbers: list[int], size: int) -> None:
    whole = _scores(*(_row(str(number), [float(number), 1.0]) for number in numbers))
    pieces = pa.Table.from_batches(whole.to_batches(max_chunksize=size), schema=TABLES["scores"])
    keys = pa.array([str(number) for number in range(31)])
    one, other = (measures.embeddings(table, "clip", keys) for table in (whole, pieces))
    assert one == pytest.approx(other, nan_ok=True)
    assert sorted(one[~np.isnan(one[:, 0]), 0].tolist()) == sorted(map(float, numbers))
