import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters.changes import KEEP_FRAMES
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.media import footage
from rushes.pipelines.models import weights
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.shots.shots import joined, witnessed
from rushes.pipelines.stages.witness.witness import AROUND, LONGEST, Witness, asked, sequences
from rushes.pipelines.store import ledger

ROOM = "rushes.pipelines.stages.witness.witness"


RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 260)), max_size=20)


@given(RANGES)
def test_every_frame_that_is_asked_about_is_looked_at_once_and_never_too_many_together(steps: list[tuple[int, int]]):
    ranges, at = list[tuple[int, int]](), 0
    for gap, length in steps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    found = sequences(ranges)
    wanted = {frame for first, end in ranges for frame in range(first, end)}
    assert wanted <= {frame for first, end in found for frame in range(first, end)}
    assert all(first < end <= first + LONGEST for first, end in found)
    assert all(before <= first for (_, before), (first, _) in pairwise(found))


def test_questions_near_each_other_are_one_sequence_and_others_are_not():
    assert sequences([(10, 14), (40, 44), (200, 204)]) == [(10, 44), (200, 204)]


def test_the_witness_is_asked_only_where_all_that_it_looks_at_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = 1000
    monkeypatch.setattr(f"{ROOM}.questions", lambda whole, rules: [(0, 40), (380, 700), (990, 1000)])
    doubt = np.zeros(frames)
    doubt[[420, 500, 995]] = 1
    ranges = asked({"doubt": doubt, "time_s": np.arange(frames) / 25}, ShotsConfig())
    kept = {at for spot in np.flatnonzero(doubt) for at in range(spot - KEEP_FRAMES + 1, spot + KEEP_FRAMES + 1)}
    assert ranges == [(380, 550), (990, 1000)]
    assert {at for first, end in ranges for at in range(first - AROUND, min(end + AROUND, frames))} <= kept


def test_what_the_witness_was_not_asked_is_not_a_number() -> None:
    said = witnessed(np.arange(10) / 10, [{"time_s": 0.3, "cut": 0.9, "part": 0.2}])
    assert said["witness_cut"][3] == np.float32(0.9) and np.isnan(np.delete(said["witness_cut"], 3)).all()


def test_the_witness_says_the_same_of_spans_joined_as_of_one_pass(bikes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spots = lambda whole, rules: [(at, at + 4) for at in np.flatnonzero(whole["doubt"]).tolist()[::30]]  # noqa: E731
    monkeypatch.setattr(f"{ROOM}.questions", spots)
    source: dict[str, Any] = {**footage.probe(str(bikes), ScanConfig()), "wave": 0, "unit": "u"}
    witness = Witness(ShotsConfig())
    said = []
    for edges in ([0.0], [0.0, 3.1, 4.0, 8.0]):
        parts = [
            scan_span(source, k, a, b, ScanConfig())
            for k, (a, b) in enumerate(zip(edges, [*edges[1:], math.inf], strict=True))
        ]
        pictures = {row["time_s"]: row["jpeg"] for part in parts for row in part[3]}
        said.append(witness([part[0] for part in parts], pictures))
        assert ledger.to_table("windows", [row for part in parts for row in part[3]]).num_rows == len(pictures)
    assert said[0] == said[1] and len(said[0]) >= 20
    assert ledger.to_table("witness", said[0]).num_rows == len(said[0])


def test_questions_are_rare_where_cuts_are_clear(bikes: Path) -> None:
    source = {**footage.probe(str(bikes), ScanConfig()), "wave": 0, "unit": "u"}
    whole = joined([scan_span(source, 0, 0.0, math.inf, ScanConfig())[0]])
    assert sum(end - first for first, end in asked(whole, ShotsConfig())) <= 0.1 * len(whole["time_s"])


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(weights.MissingModel, match=r"transnetv2.*shots.witness none"):
        weights.transnet()
