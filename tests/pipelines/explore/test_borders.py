"""Around a cut the frames of its two sides differ; a source that is gone or another is said to be so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from rushes.pipelines.explore import borders
from rushes.pipelines.store.ledger import Ledger


def clip_of(ledger: Ledger, film: str = "/bikes.mp4", **facts: str) -> dict[str, Any]:
    rows = [row for row in ledger.read("clips").to_pylist() if row["uri"].endswith(film)]
    return next(row for row in rows if all(row[name] == value for name, value in facts.items()))


def seen(frame: borders.Frame) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert max(picture.shape[:2]) <= borders.SIDE_PX
    return cv2.resize(picture, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float64)


def test_the_frames_beside_a_cut_are_those_next_to_it_and_show_it(undisturbed: str) -> None:
    ledger = Ledger(undisturbed).snapshot()
    clip = clip_of(ledger, opens_with="cut", closes_with="cut")
    found = borders.around(ledger, clip)
    assert found.told == "Frames from the source"
    for border, at_s in (("begins", clip["start_s"]), ("ends", clip["end_s"])):
        frames = [frame for frame in found.frames if frame.border == border]
        times = [frame.time_s for frame in frames]
        assert len(times) == 2 * borders.EACH and times == sorted(times)
        assert times[1] < at_s <= times[2] and times[-1] - times[0] < 5 / clip["fps"]
        assert [frame.is_inside for frame in frames] == [
            time >= at_s if border == "begins" else time < at_s for time in times
        ]
        before, last, first, after = map(seen, frames)
        assert np.abs(last - first).mean() > 2 * max(np.abs(last - before).mean(), np.abs(after - first).mean())


def test_before_a_film_begins_and_after_it_ends_there_is_nothing(undisturbed: str) -> None:
    ledger = Ledger(undisturbed).snapshot()
    frames = borders.around(ledger, clip_of(ledger, "/car.mp4", opens_with="start", closes_with="end")).frames
    assert [frame.is_inside for frame in frames] == [True] * (2 * borders.EACH)


@pytest.mark.parametrize("gone", [True, False])
def test_where_the_source_is_out_of_reach_the_run_s_own_frames_are_shown(
    undisturbed: str, tmp_path: Path, gone: bool
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    ledger, uri = Ledger(str(tmp_path / "run")), str(tmp_path / "bikes.mp4")
    for table in ("clips", "sources"):
        for part in ledger.parts(table):
            rows = ledger.read_whole(table, part)
            moved = pa.array(
                [uri if old.endswith("bikes.mp4") else old for old in rows["uri"].to_pylist()], pa.string()
            )
            at = rows.schema.get_field_index("uri")
            ledger.write(table, part.unit, rows.set_column(at, rows.field(at), moved), part.fingerprint)
    if not gone:
        Path(uri).write_bytes(b"another film" * 1000)
    clip = clip_of(ledger, opens_with="cut", closes_with="cut")
    found = borders.around(ledger, clip)
    assert "nearest frames that the run keeps" in found.told and "out of reach" in found.told
    assert ("no such file" if gone else "another than when it was probed") in found.told.lower()
    for frame in found.frames:
        at_s = clip["start_s"] if frame.border == "begins" else clip["end_s"]
        assert abs(frame.time_s - at_s) <= borders.KEPT_S and seen(frame).any()
    assert {(frame.border, frame.is_inside) for frame in found.frames} >= {("begins", True), ("ends", True)}
