import cv2
import numpy as np
import pytest

from filters import motion

HEIGHT, WIDTH, DT_S = 72, 128, 1 / 6


def scene(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT * 2 // 6, WIDTH * 2 // 6), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_CUBIC)


def view(big: np.ndarray, x: float = 0, y: float = 0, zoom: float = 1, degrees: float = 0) -> np.ndarray:
    """The camera's picture when it looks x right and y down of the middle."""
    turn = cv2.getRotationMatrix2D((WIDTH + x, HEIGHT + y), degrees, zoom)
    turn[:, 2] += np.array([WIDTH / 2, HEIGHT / 2]) - np.array([WIDTH + x, HEIGHT + y])
    return cv2.warpAffine(big, turn, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)


def measure(before: np.ndarray, after: np.ndarray) -> motion.Motion:
    return motion.between(before, after, DT_S)


def test_pan_and_tilt_are_recovered_in_widths_per_second_with_their_sign() -> None:
    found = measure(view(scene()), view(scene(), x=4, y=-2))
    assert found.pan == pytest.approx(4 / WIDTH / DT_S, rel=0.1)
    assert found.tilt == pytest.approx(2 / WIDTH / DT_S, rel=0.2)
    assert abs(found.zoom) < 0.03 and abs(found.roll) < 0.03 and found.object_area < 0.1


def test_a_pan_of_half_a_width_per_second_is_followed() -> None:
    assert measure(view(scene()), view(scene(), x=12)).pan == pytest.approx(12 / WIDTH / DT_S, rel=0.05)


def test_zoom_and_roll_are_recovered() -> None:
    found = measure(view(scene()), view(scene(), zoom=1.04))
    assert found.zoom == pytest.approx(0.04 / DT_S, rel=0.15)
    found = measure(view(scene()), view(scene(), degrees=-2))  # OpenCV turns counter-clockwise for positive angles
    assert found.roll == pytest.approx(np.deg2rad(2) / DT_S, rel=0.15)


def test_an_object_in_front_of_a_pan_does_not_disturb_the_camera() -> None:
    before, after, ball = view(scene()), view(scene(), x=3), view(scene(9))
    before[20:50, 30:60], after[20:50, 34:64] = ball[20:50, 30:60], ball[20:50, 30:60]
    found = measure(before, after)
    assert found.pan == pytest.approx(3 / WIDTH / DT_S, rel=0.15)
    assert 0.04 < found.object_area < 0.3
    assert 0.25 * 7 / WIDTH / DT_S < found.object_speed < 1.2 * 7 / WIDTH / DT_S  # its blurred edge counts as well


def test_a_still_picture_and_a_black_one_do_not_move() -> None:
    assert measure(view(scene()), view(scene())) == pytest.approx(motion.STILL, abs=1e-3)
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert measure(black, black) == pytest.approx(motion.STILL, abs=1e-6)


def test_half_the_rate_gives_the_same_speed() -> None:
    slow = motion.between(view(scene()), view(scene(), x=6), 2 * DT_S).pan
    fast = motion.between(view(scene()), view(scene(), x=3), DT_S).pan
    assert slow == pytest.approx(fast, rel=0.1)
