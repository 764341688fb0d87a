from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import frames, motion

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
    assert found.zoom == pytest.approx(0.04 / DT_S, rel=0.03)
    found = measure(view(scene()), view(scene(), degrees=-2))  # OpenCV turns counter-clockwise for positive angles
    assert found.roll == pytest.approx(np.deg2rad(2) / DT_S, rel=0.03)


def test_an_object_in_front_of_a_pan_does_not_disturb_the_camera() -> None:
    before, after, ball = view(scene()), view(scene(), x=3), view(scene(9))
    before[20:50, 30:60], after[20:50, 34:64] = ball[20:50, 30:60], ball[20:50, 30:60]
    found = measure(before, after)
    assert found.pan == pytest.approx(3 / WIDTH / DT_S, rel=0.15)
    assert 0.04 < found.object_area < 0.3
    assert 0.25 * 7 / WIDTH / DT_S < found.object_speed < 1.2 * 7 / WIDTH / DT_S  # its blurred edge counts as well


def test_coding_noise_before_a_pan_is_hardly_an_object() -> None:
    """Soft pictures coded badly lead the flow astray over a tenth of the picture; what proves nothing counts little."""
    areas = []
    for seed in range(4):
        soft = cv2.GaussianBlur(scene(seed), (0, 0), 3)
        areas.append(measure(*(coded(view(soft, x=x), quality=4) for x in (0, 4))).object_area)
    assert np.mean(areas) < 0.07


def coded(picture: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def test_a_still_picture_and_a_black_one_do_not_move() -> None:
    assert measure(view(scene()), view(scene())) == pytest.approx(motion.STILL, abs=1e-3)
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert measure(black, black) == pytest.approx(motion.STILL, abs=1e-6)


def test_half_the_rate_gives_the_same_speed() -> None:
    slow = motion.between(view(scene()), view(scene(), x=6), 2 * DT_S).pan
    fast = motion.between(view(scene()), view(scene(), x=3), DT_S).pan
    assert slow == pytest.approx(fast, rel=0.1)


def test_what_fills_the_middle_and_moves_is_an_object_and_the_camera_stands() -> None:
    before, after, big = view(scene()), view(scene()), view(scene(9))
    before[16:, 24:104] = big[16:, 24:104]
    after[16:, 24:104] = big[16:, 20:100]
    found = measure(before, after)
    assert np.abs(found[:4]).max() < 0.03
    assert found.object_area > 0.3
    assert found.object_speed == pytest.approx(4 / WIDTH / DT_S, rel=0.25)


def test_a_pan_of_one_and_a_half_widths_per_second_is_followed() -> None:
    assert measure(view(scene(), x=-16), view(scene(), x=16)).pan == pytest.approx(32 / WIDTH / DT_S, rel=0.05)


def test_bars_neither_stand_still_nor_move() -> None:
    pictures = [view(scene()), view(scene(), x=3, y=2)]
    free = measure(*pictures)
    for picture in pictures:
        picture[:12] = picture[60:] = 0
    found = motion.between(pictures[0], pictures[1], DT_S, frames.bars(pictures[1]))
    assert found.pan == pytest.approx(free.pan, rel=0.1) and found.tilt == pytest.approx(free.tilt, rel=0.1)
    assert found.object_area < 0.05


def test_a_flash_is_no_motion() -> None:
    before = view(scene())
    after = np.clip(before * 1.3 + 20, 0, 255).astype(np.uint8)
    found = measure(before, after)
    assert np.abs(found[:4]).max() < 0.03 and found.object_area < 0.05


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 140), st.integers(1, 140), st.floats(0, 0.44), st.floats(0, 0.44))
def test_pictures_of_every_size_and_with_any_bars_can_be_measured(h: int, w: int, across: float, down: float) -> None:
    before = np.random.default_rng(h * w).integers(0, 255, (h, w), np.uint8)
    found = motion.between(before, before, DT_S, frames.Bars(across, down, across, down))
    assert found == pytest.approx(motion.STILL, abs=1e-3)


def test_what_was_measured_before_does_not_matter() -> None:
    pictures = [view(scene(k % 3), x=20 * (k % 2)) for k in range(6)]
    alone = measure(pictures[0], pictures[3])
    for before, after in pairwise(pictures):
        measure(before, after)
    assert measure(pictures[0].copy(), pictures[3].copy()) == alone


MOVES = [  # window's middle x and y, width and clockwise turn from tick to tick; what the camera then does
    ("pan", (8.0, 0, 1, 0), 8.0 / 300 / DT_S),
    ("pan", (-30.0, 0, 1, 0), -30.0 / 300 / DT_S),
    ("tilt", (0, -8.0, 1, 0), 8.0 / 300 / DT_S),
    ("zoom", (0, 0, 1 / 1.04, 0), 0.04 / DT_S),
    ("roll", (0, 0, 1, 2.0), np.deg2rad(2) / DT_S),
]


@pytest.mark.parametrize(("name", "step", "speed"), MOVES)
def test_a_window_that_moves_over_live_footage_gives_its_own_motion(
    bunny: Path, name: str, step: tuple[float, float, float, float], speed: float
) -> None:
    found = [motion.between(a, b, DT_S) for a, b in pairwise(live(bunny, step))]
    medians = {of: float(np.median([getattr(tick, of) for tick in found])) for of in ("pan", "tilt", "zoom", "roll")}
    assert medians.pop(name) == pytest.approx(speed, rel=0.15)
    assert max(map(abs, medians.values())) < 0.05


def live(path: Path, step: tuple[float, float, float, float]) -> list[np.ndarray]:
    """Nine pictures, 1/6 s apart, of an animal that gets up, through a window that moves by `step` each time."""
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][::4][:9]
    shrunk = [cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA) for frame in decoded]
    right, down, narrower, turned = step
    pictures = []
    for k, picture in enumerate(shrunk):
        scale, angle = 4 * WIDTH / (300 * narrower**k), np.deg2rad(turned * k)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([320 + right * (k - 4), 180 + down * (k - 4)])
        shift = np.array([2 * WIDTH, 2 * HEIGHT]) - turn @ middle
        seen = cv2.warpAffine(picture, np.column_stack([turn, shift]), (4 * WIDTH, 4 * HEIGHT))
        pictures.append(cv2.resize(seen, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return pictures
