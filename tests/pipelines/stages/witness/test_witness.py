import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters import transnet
from rushes.pipelines.config import ScanConfig
from rushes.pipelines.media import footage
from rushes.pipelines.models import weights
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import joined, witnessed
from rushes.pipelines.stages.witness.witness import MARGIN, Witness, doubts, windows
from rushes.pipelines.store import ledger


@given(st.lists(st.integers(0, 2000), max_size=40).map(sorted))
def test_every_doubtful_frame_stands_in_the_middle_of_a_window_and_no_frame_is_asked_about_twice(at: list[int]) -> None:
    starts = windows(at, 2001)
    assert all(any(start <= frame < start + 50 for start in starts) for frame in at)
    assert all(b - a >= 50 for a, b in pairwise(starts))
    assert all(start >= 0 for start in starts) and MARGIN < 25


def test_what_the_witness_was_not_asked_is_not_a_number() -> None:
    said = witnessed(np.arange(10) / 10, [{"time_s": 0.3, "cut": 0.9, "part": 0.2}])
    assert said["witness_cut"][3] == np.float32(0.9) and np.isnan(np.delete(said["witness_cut"], 3)).all()


def test_the_witness_says_the_same_of_spans_joined_as_of_one_pass(bikes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rushes.pipelines.stages.witness.witness.doubts", lambda whole: np.flatnonzero(whole["doubt"]).tolist()[::30]
    )
    source: dict[str, Any] = {**footage.probe(str(bikes), ScanConfig()), "wave": 0, "unit": "u"}
    witness = Witness()
    said = []
    for edges in ([0.0], [0.0, 3.1, 4.0, 8.0]):
        parts = [
            scan_span(source, k, a, b, ScanConfig())
            for k, (a, b) in enumerate(zip(edges, [*edges[1:], math.inf], strict=True))
        ]
        pictures = {row["time_s"]: row["jpeg"] for part in parts for row in part[3]}
        said.append(witness([part[0] for part in parts], pictures))
        assert ledger.to_table("windows", [row for part in parts for row in part[3]]).num_rows == len(pictures)
    assert said[0] == said[1] and len(said[0]) >= 50
    assert ledger.to_table("witness", said[0]).num_rows == len(said[0])


def test_doubt_is_rare_where_cuts_are_clear(bikes: Path) -> None:
    source = {**footage.probe(str(bikes), ScanConfig()), "wave": 0, "unit": "u"}
    whole = joined([scan_span(source, 0, 0.0, math.inf, ScanConfig())[0]])
    assert 50 * len(windows(doubts(whole), len(whole["time_s"]))) <= 0.5 * len(whole["time_s"])


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(weights.MissingModel, match=r"transnetv2.*shots.witness none"):
        weights.transnet()
    assert transnet.WINDOW == 100
