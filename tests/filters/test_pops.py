from typing import Any

import numpy as np
import pytest

from rushes.filters.cuts import cuts
from rushes.filters.pops import is_habit, is_pop, is_same_place, without_bursts
from rushes.pipelines.config import ShotsConfig

FPS = 24
RNG = np.random.default_rng(0)
PLACE, OTHER = (RNG.integers(60, 180, (9, 16)).astype(np.float64) for _ in range(2))
WANDER = RNG.normal(0, 1.5, (200, 9, 16))


def measured(cells: np.ndarray, corners: dict[int, float] | None = None, **at: dict[int, float]) -> dict[str, Any]:
    """Signals of a film of cells; what is not said of a frame follows from its cells."""
    light = np.clip(cells, 0, 255).astype(np.uint8)
    change = np.abs(np.diff(light.astype(float), axis=0, prepend=light[:1])).mean(axis=(1, 2))
    signals: dict[str, Any] = {"time_s": np.arange(len(light)) / FPS, "cell_light": light, "change": change}
    signals |= {name: change.copy() for name in ("content", "luma")}
    signals |= {name: np.zeros(len(light)) for name in ("hue", "saturation", "histogram", "key")}
    signals["corners"] = np.full(len(light), np.nan)
    for name, values in {"corners": corners or {}, **at}.items():
        for frame, value in values.items():
            signals[name][frame] = value
    signals |= {"luma_mean": light.mean(axis=(1, 2)), "luma_std": light.std(axis=(1, 2)) + 20}
    return signals


def found(signals: dict[str, Any]) -> list[int]:
    return [round(cut.start_s * FPS) for cut in cuts(signals, ShotsConfig())]


def held(frames: int = 100) -> np.ndarray:
    return np.repeat(PLACE[None], frames, axis=0)


def pose(cells: np.ndarray, at: int, seed: int) -> None:
    """Another pose of a character in a third of the picture from a frame on."""
    cells[at:, :, 5:11] = np.random.default_rng(seed).integers(20, 235, (9, 6))


def test_a_pose_that_pops_in_is_no_cut_and_another_background_is_one() -> None:
    cells = held()
    pose(cells, 40, seed=2)
    assert found(measured(cells, content={40: 30.0}, histogram={40: 0.01})) == []
    cells[70:] = OTHER
    assert found(measured(cells, content={40: 30.0, 70: 60.0}, histogram={40: 0.01, 70: 0.8})) == [70]


def test_a_capture_that_froze_goes_on_with_the_same_view() -> None:
    cells = PLACE + WANDER[:120]
    cells[50:62] = cells[49]
    cells[62:, 2:8, 3:13] = np.roll(cells[62:, 2:8, 3:13], 3, axis=2)
    assert found(measured(cells, corners={62: 0.7}, content={62: 30.0})) == []
    running = PLACE + WANDER[:120]
    running[62:, 2:8, 3:13] = np.roll(running[62:, 2:8, 3:13], 3, axis=2)
    assert found(measured(running)) == [62], "with no freeze before, it is a jump cut"


def test_a_title_that_goes_again_is_no_jump_and_what_stays_is_one() -> None:
    cells = PLACE + WANDER[:200]
    cells[60:100, 5:7] += 50
    assert is_pop(measured(cells), 60) and is_pop(measured(cells), 100)
    cells[100:, 5:7] += 50
    cells[60:] += np.random.default_rng(5).normal(0, 8, (9, 16))
    assert not is_pop(measured(cells), 60)


def test_what_stays_over_a_film_that_goes_on_is_a_pop_and_where_all_jumps_it_is_none() -> None:
    moving = PLACE + np.cumsum(WANDER, axis=0).clip(-15, 15)
    titled = moving.copy()
    titled[60:, 6:8, 2:12] += 60
    assert is_pop(measured(titled), 60)
    titled[60:] += np.random.default_rng(5).normal(0, 8, (9, 16))
    assert not is_pop(measured(titled), 60)


def test_cells_that_are_still_before_and_after_pop() -> None:
    cells = held()
    pose(cells, 40, seed=3)
    assert is_pop(measured(cells), 40)
    alive = WANDER[:100] * (np.abs(np.arange(16) - 7.5) < 4)  # a character, before a place without noise
    assert not is_pop(measured(cells + alive), 40)


@pytest.mark.parametrize(("corners", "histogram", "hue", "same"), [
    (0.5, 0.3, 90.0, True), (0.5, 0.9, 90.0, False), (0.5, 0.9, 0.0, True), (0.95, 0.9, 90.0, True),
    (0.1, 0.3, 0.0, False),
])  # fmt: skip
def test_corners_tell_a_place_unless_it_is_in_other_colours(
    corners: float, histogram: float, hue: float, same: bool
) -> None:
    cells = np.concatenate([held(40), np.repeat(OTHER[None], 40, axis=0)])
    signals = measured(cells, {40: corners}, histogram={40: histogram}, hue={40: hue})
    assert is_same_place(signals, 40) is same


def lamp(cells: np.ndarray, at: int, gain: float) -> np.ndarray:
    """The same place in the light of a lamp at its left, from a frame on."""
    lit = cells.copy()
    lit[at:] *= 1 + (gain - 1) * np.linspace(1, 0.2, 16) ** 2
    return lit


@pytest.mark.parametrize("gain", [0.3, 0.6, 1.3])
def test_a_place_in_the_light_of_a_lamp_is_the_same_however_few_corners_are_left(gain: float) -> None:
    cells = lamp(PLACE + WANDER[:100], 40, gain)
    signals = measured(cells, {40: 0.15}, histogram={40: 0.9})
    assert is_same_place(signals, 40) and is_pop(signals, 40)
    cells[40:] = lamp(OTHER + WANDER[:100], 40, gain)[40:]
    signals = measured(cells, {40: 0.15}, histogram={40: 0.9})
    assert not is_same_place(signals, 40) and not is_pop(signals, 40)


def test_without_a_corner_in_common_the_same_layout_is_no_lamp() -> None:
    cells = lamp(PLACE + WANDER[:100], 40, 0.6)
    assert not is_same_place(measured(cells, {40: 0.05}, histogram={40: 0.9}), 40)


def test_a_step_of_many_is_a_habit_and_one_alone_is_a_jump() -> None:
    cells = PLACE + WANDER[:120]
    cells[60:, 2:7, 3:9] += 40
    assert not is_habit(measured(cells), 60, True)
    for at in (40, 48, 72, 80):
        cells[at:, 3:8, 8:14] += 30 if at % 16 else -30
    assert is_habit(measured(cells), 60, True)


def test_a_step_out_of_a_freeze_is_a_habit_and_one_in_a_still_film_is_not() -> None:
    cells = PLACE + 3 * WANDER[:120]
    cells[52:60] = cells[51]
    cells[60:, 2:7, 3:9] += 40
    assert is_habit(measured(cells), 60, True)
    quiet = PLACE + 0.2 * WANDER[:120]
    quiet[60:, 2:7, 3:9] += 40
    assert not is_habit(measured(quiet), 60, True)


def test_what_comes_over_a_moving_place_by_a_few_steps_is_a_habit_unless_the_view_changed() -> None:
    cells = PLACE + 0.4 * WANDER[:160]
    for at, up in ((60, 60), (80, 45)):
        cells[at:, 3:6, 2:7] += up
    for frame in range(160):
        cells[frame, :, 9:] += 25 * np.sin(frame / 3 + np.arange(7))
    signals = measured(cells, {60: 0.9})
    assert is_habit(signals, 60, True) and not is_habit(measured(cells, {60: 0.5}), 60, True)
    assert is_habit(measured(cells, {60: 0.5}), 60, False)


def test_of_a_film_of_two_frames_no_habit_is_known() -> None:
    assert not is_habit(measured(np.stack([PLACE, OTHER])), 1, True)


def test_where_nothing_moves_a_part_of_the_background_tells_the_place() -> None:
    cells = held()
    cells[40:, :, 5:] = OTHER[:, 5:]
    assert is_same_place(measured(cells, histogram={40: 0.6}), 40)
    moving = PLACE + WANDER[:100]
    moving[40:, :, 5:] = OTHER[:, 5:] + WANDER[40:100, :, 5:]
    assert not is_same_place(measured(moving, histogram={40: 0.6}), 40)


def test_jumps_that_follow_at_once_belong_to_what_moves_unless_they_show_another_place() -> None:
    jumps = np.isin(np.arange(100), [20, 28, 60, 90])
    assert np.flatnonzero(without_bursts(measured(held()), jumps)).tolist() == [60, 90]
    cells = np.concatenate([held(28), np.repeat(OTHER[None], 72, axis=0)])
    signals = measured(cells, {28: 0.05}, histogram={28: 0.9})
    assert np.flatnonzero(without_bursts(signals, jumps)).tolist() == [28, 60, 90]
    assert not without_bursts(signals, np.zeros(100, np.bool_)).any()
