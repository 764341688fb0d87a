import cv2
import numpy as np
import pytest

from rushes.filters.corners import found_again

FOUND = 0.35


def place(seed: int) -> np.ndarray:
    """A picture with texture, wider than the frame."""
    noise = np.random.default_rng(seed).integers(20, 235, (20, 45), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (400, 180), interpolation=cv2.INTER_CUBIC))


A, B = place(1), place(2)


def frame(picture: np.ndarray, left: int = 0) -> np.ndarray:
    return np.ascontiguousarray(picture[:, left : left + 320])


def test_another_place_has_few_of_the_corners() -> None:
    assert found_again(frame(A), frame(B)) < FOUND


@pytest.mark.parametrize("shift", [2, 12, 24])
def test_a_view_that_moved_on_has_most(shift: int) -> None:
    assert found_again(frame(A), frame(A, shift)) > 0.5


@pytest.mark.parametrize("gain", [0.4, 0.7, 1.1])
def test_a_lamp_leaves_corners_where_they_are(gain: float) -> None:
    lit = np.clip(frame(A) * gain, 0, 255).astype(np.uint8)
    assert found_again(frame(A), lit) > 0.8


def test_what_stands_before_the_place_hides_its_part_alone() -> None:
    covered = frame(A).copy()
    covered[:, 100:220] = frame(B)[:, 100:220]
    assert 0.35 < found_again(frame(A), covered) < 0.9


def test_what_is_plain_hides_corners_but_has_none_that_would_be_new() -> None:
    covered = frame(A).copy()
    covered[:, 40:280] = 200
    assert found_again(frame(A), covered) == found_again(covered, frame(A)) > 0.7


def test_patches_that_are_alike_by_chance_agree_on_no_motion() -> None:
    rng = np.random.default_rng(3)
    soft = [np.asarray(cv2.resize(rng.integers(20, 235, (9, 16), np.uint8), (320, 180), interpolation=2)) for _ in "ab"]
    assert found_again(soft[0], soft[1]) < FOUND
    assert found_again(soft[0], np.roll(soft[0], 9, axis=1)) > 0.7


def test_bars_tell_nothing() -> None:
    first, second = frame(A).copy(), frame(B).copy()
    for picture in (first, second):
        picture[:30] = picture[-30:] = 16
    assert found_again(first, second) == found_again(first[30:-30], second[30:-30]) < FOUND


def test_of_a_plain_picture_it_cannot_be_told() -> None:
    assert np.isnan(found_again(np.full((180, 320), 90, np.uint8), np.full((180, 320), 60, np.uint8)))
    assert found_again(np.full((180, 320), 90, np.uint8), frame(A)) == 0, "but in the other one"
    assert np.isnan(found_again(np.zeros((180, 320), np.uint8), np.zeros((180, 320), np.uint8)))
