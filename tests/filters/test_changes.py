import cv2
import numpy as np
import pytest

from rushes.filters.changes import CELLS, KEEP_FRAMES, Cells, ContentScorer, Windows, cells


def test_cells_hold_mean_light() -> None:
    luma = np.full((72, 128), 40, np.uint8)
    luma[:8, :8] = 50
    luma[8:16, :4] = 60
    found = cells(luma)
    assert found.shape == CELLS and found.dtype == np.uint8
    assert (found[0, 0], found[1, 0], found[1, 1]) == (50, 50, 40)


def doubt(lights: np.ndarray, batch: int, first: int = 0) -> np.ndarray:
    watch = Cells()
    parts = [lights[at : at + batch] for at in range(first, len(lights), batch)]
    times = np.arange(first, len(lights)) / 25
    return np.concatenate([watch.push(times[k * batch : k * batch + len(p)], p) for k, p in enumerate(parts)])


def test_a_cut_is_doubtful_and_steady_motion_is_not() -> None:
    texture = np.random.default_rng(0).integers(0, 255, CELLS, dtype=np.uint8)
    film = np.full((40, *CELLS), 100, np.uint8)
    film[20:] = texture
    assert np.flatnonzero(doubt(film, 16)).tolist() == list(range(20, 34)), "for as long as the picture before is near"
    moving = np.full((40, *CELLS), 100, np.uint8)
    moving[::2, ::2] += 6
    assert not doubt(moving, 16)[6:].any()


def test_pictures_are_kept_around_doubt_and_at_either_end_only() -> None:
    windows, bgr = Windows(), np.zeros((36, 64, 3), np.uint8)
    for at in range(1000):
        windows.push(at / 25, bgr, at == 500)
    windows.keep()
    kept = [round(time_s * 25) for time_s, _ in windows.kept]
    ends = [*range(KEEP_FRAMES), *range(1000 - KEEP_FRAMES, 1000)]
    assert kept == sorted({*ends, *range(500 - KEEP_FRAMES + 1, 500 + KEEP_FRAMES + 1)})
    assert cv2.imdecode(np.frombuffer(windows.kept[0][1], np.uint8), cv2.IMREAD_COLOR).shape == (27, 48, 3)


def test_doubt_depends_on_the_last_moments_alone() -> None:
    lights = np.random.default_rng(0).integers(100, 120, (60, *CELLS), dtype=np.uint8)
    lights[::7] = lights[0]
    lights[40:] += 30
    told = doubt(lights, 16)
    assert 0 < told.sum() < 60
    for batch, first in ((1, 0), (7, 0), (60, 0), (16, 20), (5, 21)):
        again = doubt(lights, batch, first)
        assert (told[first + 16 :] == again[16:]).all()


def test_hue_and_saturation_count_by_the_colour_that_there_is() -> None:
    """Noise of chroma around grey turns hue about, and says nothing of the picture."""
    rng = np.random.default_rng(0)
    luma = rng.integers(40, 200, (2, 36, 64), dtype=np.uint8)
    grey = np.repeat(luma[..., None], 3, axis=3)
    noisy = np.clip(grey.astype(np.int16) + rng.integers(0, 2, grey.shape), 0, 255).astype(np.uint8)
    for bgr in (grey, noisy):
        scorer = ContentScorer()
        found = [scorer.push(picture, picture_bgr) for picture, picture_bgr in zip(luma, bgr, strict=True)][1]
        assert found["content"] == pytest.approx(found["luma"], abs=0.5)
    colour = rng.integers(0, 255, (2, 36, 64, 3), dtype=np.uint8)
    scorer = ContentScorer()
    found = [scorer.push(picture, bgr) for picture, bgr in zip(luma, colour, strict=True)][1]
    assert found["content"] == pytest.approx((found["hue"] + found["saturation"] + found["luma"]) / 3)
