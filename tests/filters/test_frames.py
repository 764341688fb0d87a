import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters import frames


def picture(seed: int = 0, height: int = 72, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(40, 255, (9, 16), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)


def test_light_sharpness_and_change_match_numpy() -> None:
    a, b = picture(0), picture(1)
    assert frames.light(a) == pytest.approx((a.mean(), a.std()), rel=1e-6)
    assert frames.change(a, b) == pytest.approx(np.abs(a.astype(int) - b).mean(), rel=1e-6)
    assert frames.sharpness(cv2.GaussianBlur(a, (9, 9), 0)) < 0.2 * frames.sharpness(a)


def test_letterbox_and_pillarbox_are_measured() -> None:
    letterboxed = picture()
    letterboxed[:9], letterboxed[-9:] = 3, 3
    assert frames.bars(letterboxed) == pytest.approx((0, 0.125, 0, 0.125))
    assert frames.bars(np.ascontiguousarray(letterboxed.T)) == pytest.approx((0.125, 0, 0.125, 0))


def test_a_dark_sky_alone_and_a_black_picture_are_no_bars() -> None:
    night = picture()
    night[:30] = 2
    assert frames.bars(night) == (0, 0, 0, 0)
    assert frames.bars(np.zeros((72, 128), np.uint8)) == (0, 0, 0, 0)


def test_crop_takes_the_narrowest_bars_and_never_invents_any() -> None:
    found = np.array([[0, 0.125, 0, 0.125], [0, 0.25, 0, 0.25]])
    assert frames.crop(found, 72, 128) == pytest.approx((0, 0.125 + 1 / 72, 0, 0.125 + 1 / 72))
    assert frames.crop(np.array([[0, 0.1, 0, 0.1], [0, 0, 0, 0]]), 72, 128) == (0, 0, 0, 0)
    assert frames.crop(np.zeros((0, 4)), 72, 128) == (0, 0, 0, 0)


def test_shares_of_black_and_white() -> None:
    mean, std = np.array([2, 3, 250, 120, 4]), np.array([1, 2, 1, 40, 30])
    assert frames.black_share(mean, std) == pytest.approx(2 / 5)
    assert frames.white_share(mean, std) == pytest.approx(1 / 5)


def test_repeated_frames_are_duplicates_but_no_freeze() -> None:
    on_twos = np.tile([5.0, 0.0], 30)
    each = np.full(60, 1 / 24)
    assert frames.duplicate_share(on_twos) == 0.5
    assert frames.frozen_share(on_twos, each) == 0.0


def test_a_freeze_counts_whether_coded_as_many_frames_or_one_long_one() -> None:
    changes = np.concatenate([np.full(24, 5.0), np.zeros(24)])
    assert frames.frozen_share(changes, np.full(48, 1 / 24)) == pytest.approx(25 / 48)
    assert frames.frozen_share(np.array([5.0, 5.0]), np.array([0.04, 0.96])) == pytest.approx(0.96)
    assert frames.frozen_share(np.array([0.0]), np.array([2.0])) == 1.0


def test_flicker_is_a_period_not_a_fade() -> None:
    times = np.arange(50) / 25
    assert frames.flicker(np.linspace(0, 200, 50), times) == pytest.approx(0.0, abs=1e-6)
    assert frames.flicker(100 + 10.0 * (np.arange(50) % 2), times) == pytest.approx(10.0, rel=0.1)
    assert frames.flicker(np.full(3, 9.0), times[:3]) is None


@pytest.mark.parametrize("fps", [12, 24, 30, 60])
def test_the_same_flicker_is_the_same_at_any_frame_rate(fps: int) -> None:
    times = np.arange(4 * fps) / fps
    assert frames.flicker(120 + 15 * np.sin(2 * np.pi * 3.3 * times), times) == pytest.approx(30, rel=0.08)


def test_exposure_counts_stops_and_clipped_pixels() -> None:
    grey = 255 * 0.18 ** (1 / 2.2)
    assert frames.exposure(np.full(9, grey)) == pytest.approx(0, abs=1e-6)
    assert frames.exposure(np.full(9, grey * 2 ** (1 / 2.2))) == pytest.approx(1, abs=1e-6)
    assert frames.exposure(np.zeros(9)) is None
    half = np.zeros((72, 128), np.uint8)
    half[:, :64], half[:, 64:96] = 128, 254
    assert frames.clipped(half) == (0.25, 0.25)


def test_bars_with_noise_are_found_and_a_dark_clip_has_none() -> None:
    rng = np.random.default_rng(1)
    boxed = picture()
    boxed[:9], boxed[-9:] = rng.integers(0, 12, (9, 128)), rng.integers(0, 12, (9, 128))
    assert frames.bars(boxed) == pytest.approx((0, 0.125, 0, 0.125))
    night = rng.integers(0, 40, (72, 128)).astype(np.uint8)
    assert frames.bars(night) == (0, 0, 0, 0)


@given(st.lists(st.floats(0, 255, width=32), max_size=50), st.floats(0.01, 2))
def test_shares_stay_between_0_and_1(changes: list[float], each_s: float) -> None:
    series = np.array(changes, np.float32)
    for share in (frames.duplicate_share(series), frames.frozen_share(series, np.full(len(series), each_s))):
        assert 0 <= share <= 1
