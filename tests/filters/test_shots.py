from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenedetect import ContentDetector, FrameTimecode, HistogramDetector, StatsManager

from rushes.filters.changes import BINS, ContentScorer, Places, cells, histogram
from rushes.filters.frames import change, light
from rushes.filters.shots import Boundary, boundaries, clips
from rushes.pipelines.config import ShotsConfig

RULES = ShotsConfig()
FPS = 24


def picture(seed: int, low: int = 20, high: int = 235) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(low, high, (9, 16, 3), dtype=np.uint8)
    return cv2.resize(noise, (128, 72), interpolation=cv2.INTER_CUBIC)


def measured(film: list[np.ndarray]) -> dict[str, Any]:
    scorer, places, rows, before = ContentScorer(), Places(), [], None
    seen = []
    for at, bgr in enumerate(film):
        luma = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        mean, std = light(luma)
        moved = 0.0 if before is None else change(before, luma)
        before = luma
        seen.append(cells(luma))
        changed = scorer.push(luma, bgr)
        rows.append({**changed, "corners": places.push(luma, changed["content"]), "change": moved})
        rows[-1] |= {"luma_mean": mean, "luma_std": std, "key": at % 12 == 0}
    signals: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    signals["cell_light"] = np.stack(seen)
    signals["time_s"] = np.arange(len(film)) / FPS
    return signals


def found(film: list[np.ndarray]) -> list[tuple[str, int, int]]:
    return [(b.kind, round(b.start_s * FPS), round(b.end_s * FPS)) for b in boundaries(measured(film), RULES)]


def test_content_is_what_scenedetect_measures() -> None:
    detector, stats, scorer = ContentDetector(), StatsManager(), ContentScorer()
    detector.stats_manager = stats
    for at in range(5):
        code = FrameTimecode(at, fps=25.0)
        detector.process_frame(code, picture(at))
        ours = scorer.push(cv2.cvtColor(picture(at), cv2.COLOR_BGR2GRAY), picture(at))
        if at:
            names = ["content_val", "delta_hue", "delta_sat", "delta_lum"]
            theirs = stats.get_metrics(code, names)
            assert [ours[k] for k in ("content", "hue", "saturation", "luma")] == theirs
        else:
            assert set(ours.values()) == {0.0}


def test_the_histogram_is_that_of_scenedetect() -> None:
    luma = cv2.cvtColor(picture(0), cv2.COLOR_BGR2YUV)[..., 0]
    assert np.array_equal(histogram(luma), HistogramDetector.calculate_histogram(picture(0), bins=BINS))


def test_a_hard_cut_is_the_first_frame_of_the_new_shot() -> None:
    assert found([picture(0)] * 30 + [picture(1)] * 30) == [("cut", 30, 30)]


def test_fast_motion_has_no_cut() -> None:
    big = cv2.resize(picture(3), (1280, 72))
    assert found([np.ascontiguousarray(big[:, 8 * k : 8 * k + 128]) for k in range(100)]) == []


def test_a_cut_amid_fast_motion_is_found() -> None:
    first, second = cv2.resize(picture(3), (640, 72)), cv2.resize(picture(4, 100, 255), (640, 72))
    film = [np.ascontiguousarray(big[:, 8 * k : 8 * k + 128]) for big in (first, second) for k in range(40)]
    assert found(film) == [("cut", 40, 40)]


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_flash_is_no_cut(frames: int) -> None:
    flash = cv2.add(picture(0), np.full((72, 128, 3), 150, np.uint8))
    assert found([picture(0)] * 30 + [flash] * frames + [picture(0)] * 30) == []


def test_a_fade_through_black_is_one_range() -> None:
    levels = [*np.linspace(1, 0, 25), *[0.0] * 6, *np.linspace(0, 1, 25)]
    film = [picture(0)] * 30 + [(picture(0 if k < 28 else 1) * f).astype(np.uint8) for k, f in enumerate(levels)]
    ((kind, start, end),) = found([*film, *[picture(1)] * 30])
    assert kind == "fade" and abs(start - 30) <= 3 and abs(end - 85) <= 3


def test_a_hard_cut_to_black_is_a_cut() -> None:
    assert ("cut", 30, 30) in found([picture(0)] * 30 + [np.zeros((72, 128, 3), np.uint8)] * 60)


def test_a_black_film_and_a_single_frame_have_no_boundary() -> None:
    assert found([np.zeros((72, 128, 3), np.uint8)] * 60) == []
    assert found([picture(0)]) == []


def test_a_cut_between_the_same_pictures_in_other_colours_is_found() -> None:
    """A change of hue alone is no flash, though the hashes of the luma agree."""
    red, blue = np.zeros((72, 128, 3), np.uint8), np.zeros((72, 128, 3), np.uint8)
    red[:], blue[:] = (40, 60, 200), (210, 80, 60)
    assert found([red] * 20 + [blue] * 20) == [("cut", 20, 20)]


cut_lists = st.lists(st.tuples(st.floats(0, 100), st.sampled_from([0.0, 0.0, 0.7, 2.5])), max_size=12).map(
    lambda raw: [
        Boundary(start_s=a, end_s=min(a + length, 100), kind="fade" if length else "cut", score=1.0)
        for a, length in sorted(raw)
    ]
)


@given(cut_lists, st.floats(1, 30), st.floats(0.1, 1))
def test_clips_and_trims_tile_the_footage_and_keep_to_the_limits(
    marks: list[Boundary], longest_s: float, shortest: float
) -> None:
    rules = ShotsConfig(max_clip_s=longest_s, min_clip_s=shortest * longest_s / 2)
    times = np.arange(0, 100, 1 / FPS)
    shots, trims = clips(marks, 0.0, 100.0, rules, time_s=times, change=np.random.default_rng(0).random(len(times)))
    parts = sorted([(s.start_s, s.end_s) for s in shots] + [(t.start_s, t.end_s) for t in trims])
    assert parts[0][0] == 0 and parts[-1][1] == 100
    assert all(a[1] == b[0] for a, b in pairwise(parts))
    assert all(s.end_s - s.start_s <= longest_s + 1e-9 for s in shots)
    assert all(s.end_s - s.start_s >= rules.min_clip_s * 0.8 for s in shots)


def test_a_long_shot_is_divided_at_its_calmest_frames() -> None:
    times, moved = np.arange(0, 30, 0.1), np.ones(300)
    moved[160] = 0.1
    shots, _ = clips([], 0, 30, ShotsConfig(max_clip_s=20), time_s=times, change=moved)
    assert [(s.start_s, s.end_s, s.opens_with, s.closes_with) for s in shots] == [
        (0, 16.0, "start", "split"),
        (16.0, 30, "split", "end"),
    ]


def test_what_is_too_short_and_what_is_in_transition_is_trimmed_with_its_reason() -> None:
    marks = [
        Boundary(start_s=0.5, end_s=0.5, kind="cut", score=5),
        Boundary(start_s=5, end_s=6, kind="fade", score=90),
    ]
    shots, trims = clips(marks, 0, 10, RULES, time_s=np.arange(0, 10, 0.04), change=np.ones(250))
    assert [(t.start_s, t.end_s, t.reason) for t in trims] == [(0, 0.5, "too_short"), (4.92, 6.08, "transition")]
    assert [(s.opens_with, s.closes_with, s.score) for s in shots] == [("cut", "fade", 5), ("fade", "end", 90)]


def test_a_cut_to_the_black_that_a_fade_begins_with_is_not_what_the_next_shot_opens_with() -> None:
    marks = [
        Boundary(start_s=5, end_s=6, kind="fade", score=90),
        Boundary(start_s=5, end_s=5, kind="cut", score=20),
    ]
    shots, trims = clips(marks, 0, 10, RULES, time_s=np.arange(0, 10, 0.04), change=np.ones(250))
    assert [(s.opens_with, s.closes_with, s.score) for s in shots] == [("start", "fade", 90), ("fade", "end", 90)]
    assert [(t.start_s, t.end_s) for t in trims] == [(4.92, 6.08)]
