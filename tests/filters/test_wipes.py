import numpy as np
import pytest

from rushes.filters.wipes import wipes
from tests.filters.test_blends import FPS, A, B, Picture, measured, mixed, panned

DOWN, RIGHT = (plane / side for plane, side in zip(np.mgrid[:72, :128], (71, 127), strict=True))
FRONTS = {
    "right": RIGHT, "left": 1 - RIGHT, "down": DOWN, "up": 1 - DOWN, "from a corner": (RIGHT + DOWN) / 2,
    "iris": 1 - np.hypot((DOWN - 0.5) * 9, (RIGHT - 0.5) * 16) / np.hypot(4.5, 8), "doors": 2 * np.abs(RIGHT - 0.5),
}  # fmt: skip


def found(film: list[Picture]) -> list[tuple[int, int]]:
    light, _, time_s = measured(film)
    return [(b.first, b.last) for b in wipes(light, time_s)]


def wiped(front: np.ndarray, frames: int, old: list[Picture], new: list[Picture]) -> list[Picture]:
    """A film in which a front with a soft edge passes over the picture, with 30 frames of each picture beside it."""
    done = np.clip((np.arange(60 + frames) - 29) / (frames + 1), 0, 1)
    masks = [np.clip((1.05 * weight - front) / 0.05, 0, 1) for weight in done]
    return [(1 - mask) * a + mask * b for mask, a, b in zip(masks, old, new, strict=True)]


@pytest.mark.parametrize("kind", FRONTS)
@pytest.mark.parametrize("frames", [12, 40])
def test_a_wipe_is_one_range(kind: str, frames: int) -> None:
    n = 60 + frames
    ((first, last),) = found(wiped(FRONTS[kind], frames, [A] * n, [B] * n))
    assert abs(first - 29) <= 1 + 0.15 * frames and abs(last - (30 + frames)) <= 1 + 0.15 * frames


def test_a_wipe_between_moving_pictures_is_found() -> None:
    ((first, last),) = found(wiped(FRONTS["left"], 25, panned(2, 85, step=0.25), panned(3, 85, step=0.25)))
    assert abs(first - 29) <= 5 and abs(last - 55) <= 5


@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_pan_is_no_wipe(step: int) -> None:
    pan = panned(2, 60, step)
    assert found([*[pan[0]] * 20, *pan, *[pan[-1]] * 20]) == []


def test_a_cut_and_a_dissolve_are_no_wipes() -> None:
    assert found([A] * 30 + [B] * 30) == []
    assert found(mixed([A] * 90, [B] * 90, np.clip((np.arange(90) - 30) / 25, 0, 1))) == []


def test_a_thing_that_crosses_the_picture_is_no_wipe() -> None:
    across = np.arange(128)[None, :]
    film = [np.where((across < 4 * k - 40) & (across > 4 * k - 100), 30.0, A) for k in range(80)]
    assert found(film) == []


def test_a_thing_that_covers_the_picture_and_goes_again_is_no_wipe_and_what_stays_is() -> None:
    comes = wiped(FRONTS["down"], 12, [A] * 72, [B] * 72)
    assert found([*comes, *comes[::-1]]) == []
    assert len(found([*comes, *[B] * 60, *comes[::-1]])) == 2, "a scene of its own between two wipes"


def test_too_few_frames_have_no_wipe() -> None:
    assert FPS and found([A] * 3) == []
