"""Captions in numbers: their sources, the contradictions by kind, the words that several clips share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rushes.filters.caption import FIELDS
from rushes.pipelines.report import captions
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.sql import tables

SAID = {
    0: {"camera_motion": "static", "light": "night; dark", "short": "A dog."},
    1: {"camera_motion": "static", "short": "A dog."},
    2: {"camera_motion": "pan left", "short": "A cat sits on a warm roof and looks at the birds above it."},
    3: {"camera_motion": "pan left", "short": "A cat sits on a warm roof and looks at the birds above them."},
}


def _clip(number: int, **changes: Any) -> dict[str, Any]:
    return {"key": f"k{number}", "camera": "pan", "pan": -0.2, "luma_mean": 200.0, "caption": None} | changes


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(str(tmp_path / "run"))
    found.create()
    rows = [
        caption.answered(_clip(n), "endpoint", "m", dict.fromkeys(FIELDS, "") | said | {"long": said["short"]})
        for n, said in SAID.items()
    ]
    rows += sources.TagCaptioner().caption([_clip(9), _clip(10, caption="Given.")]).rows
    found.write("captions", "u0", rows, "f")
    return found


def test_contradictions_are_counted_by_what_they_are_about(ledger: Ledger) -> None:
    found = captions.of(tables(ledger, "captions"))
    assert found == {
        "captions": 6, "sources": {"endpoint": 4, "given": 1, "tags": 1}, "contradicted": 2,
        "contradictions": {"camera": 2, "light": 1}, "repeated": 2,
    }  # fmt: skip
    told = " ".join(captions.lines(found))
    assert "2 contradict a measurement" in told and "camera 2, light 1" in told


def test_near_identical_captions_are_found_among_those_looked_at(ledger: Ledger) -> None:
    looked, pairs = captions.alike(tables(ledger, "captions"))
    assert looked == 6 and [pair[:2] for pair in pairs] == [("k0", "k1"), ("k2", "k3")]
    assert captions.alike(tables(ledger, "captions"), sample=3)[0] == 3


def test_a_run_without_captions_has_no_account(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    assert captions.of(tables(ledger, "captions")) is None
