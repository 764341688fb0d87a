from typing import Any

import numpy as np
import pytest

from rushes.filters.cuts import cuts
from rushes.filters.pops import is_pop, is_same_place, without_bursts
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
    assert not is_pop(measured(cells), 60)


def test_cells_that_are_still_before_and_after_pop() -> None:
    cells = held()
    pose(cells, 40, seed=3)
    assert is_pop(measured(cells), 40)
    assert not is_pop(measured(cells + WANDER[:100]), 40)


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


def test_jumps_that_follow_at_once_belong_to_what_moves_unless_they_show_another_place() -> None:
    jumps = np.isin(np.arange(100), [20, 28, 60, 90])
    assert np.flatnonzero(without_bursts(measured(held()), jumps)).tolist() == [60, 90]
    cells = np.concatenate([held(28), np.repeat(OTHER[None], 72, axis=0)])
    signals = measured(cells, {28: 0.05}, histogram={28: 0.9})
    assert np.flatnonzero(without_bursts(signals, jumps)).tolist() == [28, 60, 90]
    assert not without_bursts(signals, np.zeros(100, np.bool_)).any()
