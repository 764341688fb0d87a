from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.blends import Blend, apart, detail, dissolves
from rushes.filters.changes import cells

FPS = 25
Picture = np.ndarray


def picture(seed: int, width: int = 128, grain: int = 6) -> Picture:
    """A picture of blobs and finer things."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(20, 235, (6, width // 12)).astype(np.float32), (width, 72))
    return np.clip(coarse + cv2.resize(rng.normal(0, 30, (72 * 2 // grain, width * 2 // grain)), (width, 72)), 0, 255)


def mixed(old: Sequence[Picture], new: Sequence[Picture], weights: Sequence[float]) -> list[Picture]:
    return [(1 - w) * a + w * b for a, b, w in zip(old, new, weights, strict=True)]


def measured(film: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lumas = [np.round(luma).astype(np.uint8) for luma in film]
    light = np.stack([cells(luma) for luma in lumas])
    return light, np.array([luma.std() for luma in lumas]), np.arange(len(film)) / FPS


def found(film: Sequence[Picture], most: float = 0.4) -> list[tuple[int, int]]:
    return [(b.first, b.last) for b in dissolves(*measured(film)) if b.left <= most]


def panned(seed: int, frames: int, step: float) -> list[Picture]:
    """A camera that turns by so many pixels of 128 a frame."""
    wide = picture(seed, width=128 + int(step * frames) // 2 * 2 + 2)
    return [wide[:, int(k * step) : int(k * step) + 128] for k in range(frames)]


A, B = picture(0), picture(1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(100, 199), st.integers(8, 45))
def test_a_dissolve_between_any_two_pictures_is_one_range(old: int, new: int, frames: int) -> None:
    a, b = picture(old), picture(new)
    film = [*[a] * 30, *mixed([a] * frames, [b] * frames, np.linspace(0, 1, frames + 2)[1:-1]), *[b] * 30]
    ((first, last),) = found(film, most=0.25)
    common = min(last, 30 + frames) - max(first, 29)
    assert common >= 0.75 * (max(last, 30 + frames) - min(first, 29))


def test_a_dissolve_between_moving_pictures_is_found() -> None:
    old, new = panned(2, 90, step=0.25), panned(3, 90, step=0.25)
    film = mixed(old, new, np.clip((np.arange(90) - 30) / 30, 0, 1))
    ((first, last),) = found(film)
    assert abs(first - 30) <= 5 and abs(last - 60) <= 5


def test_a_hard_cut_and_a_change_of_light_are_no_dissolves() -> None:
    assert found([A] * 30 + [B] * 30, most=1.0) == []
    assert found([A * gain for gain in np.repeat([1.0, 0.9, 0.8, 0.7, 0.6], [30, 4, 4, 4, 30])], most=1.0) == []


@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_pan_is_no_dissolve(step: int) -> None:
    assert found([*panned(2, 60, step), *[panned(2, 60, step)[-1]] * 20], most=1.0) == []


def test_a_wipe_is_no_dissolve() -> None:
    across = np.arange(128)[None, :]
    film = [np.where(across < at, B, A) for at in np.clip(np.arange(-120, 260, 4), 0, 128)]
    assert found(film, most=1.0) == []


def test_text_that_comes_over_a_picture_is_no_dissolve() -> None:
    card = A.copy()
    card[30:50, 40:90] = 235
    assert found(mixed([A] * 80, [card] * 80, np.clip((np.arange(80) - 30) / 20, 0, 1)), most=1.0) == []


def test_what_goes_through_a_plain_picture_is_one_range() -> None:
    grey = np.full_like(A, 110.0)
    weights = np.clip((np.arange(100) - 30) / 15, 0, 1)
    film = [*mixed([A] * 50, [grey] * 50, weights[:50]), *mixed([grey] * 50, [B] * 50, weights[25:75])]
    ((first, last),) = found(film)
    assert abs(first - 30) <= 4 and abs(last - 70) <= 4


def test_detail_of_a_blend_of_two_pictures_is_that_of_either_by_the_square_of_its_weight() -> None:
    light, std, _ = measured([A, B, (A + B) / 2])
    old, new, middle = detail(light, std)
    assert middle == pytest.approx((old + new) / 4, rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.floats(0, 1))))
def test_of_ranges_that_overlap_the_surer_one_stays(spans: list[tuple[int, int, float]]) -> None:
    blends = [Blend(first, first + length, "dissolve", left) for first, length, left in spans]
    kept = apart(blends)
    assert all(a.last <= b.first for a, b in pairwise(kept))
    for blend in blends:
        rivals = [k for k in kept if k.first < blend.last and blend.first < k.last]
        assert any(k.left <= blend.left for k in rivals)
