import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rushes.filters import caption
from rushes.filters.policy import Rule
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.stages.shots.shots import TOLD_SPEED, shots_of, stretches, strip, strip_times
from rushes.pipelines.store import ledger
from rushes.pipelines.store.clip import is_key
from rushes.pipelines.store.tables import TABLES

SCAN, SHOTS = ScanConfig(), ShotsConfig()
FPS = 24.0
SOURCE: dict[str, Any] = {
    "source_id": "0123456789abcdef", "uri": "film.mp4", "wave": 0, "unit": "u0", "width": 640, "height": 360,
    "fps": FPS, "bit_rate": 1, "duration_s": 30.0, "audio_codec": "aac", "caption": "a street", "licence": None,
    "rights": None, "extra": None, "hdr": False, "color_range": "tv", "digest": "0123456789abcdef" * 4,
}  # fmt: skip
TICK = ("pan", "tilt", "zoom", "roll", "object_speed", "object_area", "residual", "bar_left", "bar_top", "bar_right",
        "bar_bottom", "dark", "bright")  # fmt: skip
FRAME = ("doubt", "key", "content", "hue", "saturation", "luma", "histogram", "change", "luma_mean", "luma_std",
         "sharpness", "parity", "blockiness")  # fmt: skip


def signals(seconds: float = 30.0, cuts: tuple[float, ...] = ()) -> dict[str, Any]:
    """Signals of a calm film with cuts."""
    count = round(seconds * FPS)
    times = np.arange(count) / FPS
    row: dict[str, Any] = {name: np.full(count, 2.0) for name in FRAME}
    row |= {"luma_mean": np.full(count, 120.0), "luma_std": np.full(count, 50.0), "time_s": times}
    row["duration_s"] = np.full(count, 1 / FPS, np.float32)
    row["sharpness"][np.arange(count) % round(FPS / SCAN.candidate_hz) > 0] = np.nan  # of candidates alone
    for cut in cuts:
        at = round(cut * FPS)
        row["content"][at], row["histogram"][at] = 60.0, 0.8
    row["cell_light"], row["corners"] = bytes(count * 144), np.full(count, np.nan)
    row["tick_s"] = times[::4]
    row |= {name: np.zeros(len(row["tick_s"])) for name in TICK}
    row["phash"] = np.random.default_rng(0).integers(0, 2**63, len(row["tick_s"]), np.uint64)
    return {**row, "source_id": SOURCE["source_id"], "span": 0, "start_s": 0.0, "end_s": np.inf, "frames": count,
            "covered_s": seconds}  # fmt: skip


def total(rows: list[dict[str, Any]]) -> float:
    return sum(row["end_s"] - row["start_s"] for row in rows)


def ranges(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(row["start_s"], round(row["end_s"], 6)) for row in rows]


def test_clips_and_trims_add_up_to_what_was_decoded() -> None:
    clips, trims = shots_of(SOURCE, [signals(cuts=(5, 5.5, 12))], SHOTS, SCAN)
    assert total(clips) + total(trims) == pytest.approx(30.0, abs=1e-6)
    assert ranges(clips) == [(0, 5), (5.5, 12), (12, 30)]
    assert [(t["start_s"], t["reason"]) for t in trims] == [(5, "too_short")]


def test_a_new_threshold_needs_no_video() -> None:
    calm = ShotsConfig(cut_likely=1.0)
    assert len(shots_of(SOURCE, [signals(cuts=(5,))], calm, SCAN)[0]) == 2  # 30 s, divided since over 20 s
    assert shots_of(SOURCE, [signals(cuts=(5,))], calm, SCAN)[0][0]["closes_with"] == "split"


def test_a_hole_in_a_damaged_file_ends_a_clip_and_is_not_counted() -> None:
    row = signals(10)
    late = row["time_s"] >= 4
    row["time_s"] = row["time_s"] + 3.0 * late
    row["tick_s"] = row["tick_s"] + 3.0 * (row["tick_s"] >= 4)
    clips, trims = shots_of(SOURCE, [row], SHOTS, SCAN)
    assert ranges(clips) == [(0, 4), (7, 13)]
    parts = stretches(row["time_s"], row["duration_s"])
    assert total(clips) + total(trims) == pytest.approx(sum(p.end_s - p.start_s for p in parts), abs=1e-9)


def test_clip_rows_are_complete() -> None:
    clips, _ = shots_of(SOURCE, [signals(cuts=(5,))], SHOTS, SCAN)
    columns = set(TABLES["clips"].names)
    assert set(clips[0]) == columns
    nullable = {"licence", "rights", "extra"}
    assert {name for clip in clips for name in columns if clip[name] is None} == nullable
    assert all(is_key(clip["key"]) for clip in clips) and clips[1]["key"].endswith("-000005000")
    assert (clips[0]["opens_with"], clips[0]["closes_with"], clips[1]["closes_with"]) == ("start", "cut", "split")


def test_representatives_are_the_sharpest_candidates_within_the_clip() -> None:
    row = signals(12)
    row["sharpness"][round(3.5 * FPS)] = 9.0
    (clip,), _ = shots_of(SOURCE, [row], SHOTS, SCAN)
    assert len(clip["frame_s"]) == 3 and clip["frame_s"][0] == 3.5
    assert all(t * SCAN.candidate_hz == pytest.approx(round(t * SCAN.candidate_hz)) for t in clip["frame_s"])


def test_flat_pictures_give_no_hash_and_no_bars() -> None:
    row = signals(12)
    dark = row["time_s"] < 6
    row["luma_std"][dark] = 2.0
    row["luma_mean"][dark] = 60.0
    row["bar_top"] = row["bar_bottom"] = np.where(row["tick_s"] < 6, 0.3, 0.1)
    clips, _ = shots_of(SOURCE, [row], SHOTS, SCAN)
    (clip,) = clips
    assert len(clip["phash"]) == len(clip["phash_s"]) == 36 and clip["phash_s"][0] == pytest.approx(6.0)
    assert clip["crop_top"] == pytest.approx(0.1 + 1 / 72)


def test_motion_of_a_clip_leaves_out_the_tick_that_looks_across_the_cut() -> None:
    row = signals(10, cuts=(5,))
    row["pan"][np.flatnonzero(row["tick_s"] == 5.0)] = 9.0
    clips, _ = shots_of(SOURCE, [row], SHOTS, SCAN)
    assert [(c["camera"], c["motion"]) for c in clips] == [("static", 0.0), ("static", 0.0)]


def test_a_crop_that_moves_over_a_still_picture_is_told_from_footage() -> None:
    row = signals(10)
    row["pan"] = np.full(len(row["tick_s"]), 0.1)
    assert shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]["still_picture"]
    row["residual"] = np.full(len(row["tick_s"]), 0.02)
    row["object_area"] = np.full(len(row["tick_s"]), 0.2)
    row["object_speed"] = np.full(len(row["tick_s"]), 0.3)
    clip = shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]
    assert not clip["still_picture"] and clip["camera"] == "pan"
    assert clip["motion"] == pytest.approx(0.1 + 0.06) and clip["object_speed"] == pytest.approx(0.3)


def test_what_moves_before_a_camera_too_fast_to_tell_is_null_and_no_number() -> None:
    row = signals(10)
    row["object_area"], row["object_speed"] = np.full(60, 0.2), np.full(60, 0.3)
    row["pan"] = np.full(60, TOLD_SPEED - 0.01)
    told = shots_of(SOURCE, [row], SHOTS, SCAN)[0]
    row["pan"] = np.full(60, TOLD_SPEED + 0.01)
    untold = shots_of(SOURCE, [row], SHOTS, SCAN)[0]
    assert [clip["object_speed"] for clip in told] == pytest.approx([0.3] * len(told))
    assert {(clip["object_speed"], clip["object_area"]) for clip in untold} == {(None, None)}
    assert all(clip["motion"] == pytest.approx(TOLD_SPEED + 0.01 + 0.06) for clip in untold)
    stored = ledger.to_table("clips", untold).to_pylist()
    assert stored[0]["object_speed"] is None
    assert Rule(name="r", measure="object_speed", min=0.0).passes(None) is False
    assert caption.action(stored[0]) == ""


def test_a_slow_zoom_over_a_photograph_is_told_from_a_wobbling_tripod_and_a_hand() -> None:
    row, wobble = signals(10), np.random.default_rng(1).normal(0, 1, 60)
    row["zoom"] = np.full(60, 0.06)
    clip = shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]
    assert clip["still_picture"] and clip["camera"] == "zoom"
    row["zoom"], row["pan"] = np.zeros(60), 0.01 * wobble
    assert not shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]["still_picture"]
    row["pan"] = 0.1 + 0.05 * wobble
    assert not shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]["still_picture"]


def test_a_move_too_slow_to_be_told_from_a_standing_camera_is_kept_as_footage() -> None:
    row = signals(10)
    row["zoom"] = np.full(60, 0.03)
    clip = shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]
    assert clip["camera"] == "static" and not clip["still_picture"]


@pytest.mark.parametrize(("residual", "still"), [(0.0018, True), (0.0037, False)])
def test_a_move_that_leaves_more_than_coding_noise_is_footage(residual: float, still: bool) -> None:
    row = signals(10)
    row["tilt"] = np.full(60, 0.05)
    row["residual"] = np.full(60, residual)
    assert shots_of(SOURCE, [row], SHOTS, SCAN)[0][0]["still_picture"] is still


def test_a_source_without_a_frame_has_neither_clips_nor_trims() -> None:
    assert shots_of(SOURCE, [signals(0)], SHOTS, SCAN) == ([], [])


def test_strips_are_even_and_reproducible() -> None:
    times = [0.5 * k for k in range(40)]
    assert strip_times(times, 5, 10, 4) == [5.5, 6.5, 8.0, 9.0]
    assert strip_times(times, 5, 6, 4) == [5.0, 5.5]
    buffer = io.BytesIO()
    Image.new("RGB", (320, 180), "red").save(buffer, "JPEG")
    sheet = strip([buffer.getvalue()] * 3)
    assert sheet == strip([buffer.getvalue()] * 3)
    assert Image.open(io.BytesIO(sheet)).size == (3 * 171, 96)
    with pytest.raises(ValueError, match="at least one"):
        strip([])
