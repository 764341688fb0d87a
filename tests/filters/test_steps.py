from typing import Any

import numpy as np
import pytest

from rushes.filters.cuts import candidates
from rushes.filters.steps import evidence
from rushes.pipelines.config import ShotsConfig

FPS = 24
RNG = np.random.default_rng(0)
PLACE, OTHER = (RNG.integers(60, 180, (9, 16)).astype(np.float64) for _ in range(2))
WANDER = RNG.normal(0, 1.5, (200, 9, 16))


def measured(cells: np.ndarray, **at: dict[int, float]) -> dict[str, Any]:
    """Signals of a film of cells; what is not said of a frame follows from its cells."""
    light = np.clip(cells, 0, 255).astype(np.uint8)
    change = np.abs(np.diff(light.astype(float), axis=0, prepend=light[:1])).mean(axis=(1, 2))
    signals: dict[str, Any] = {"time_s": np.arange(len(light)) / FPS, "cell_light": light, "change": change}
    signals |= {name: change.copy() for name in ("content", "luma")}
    signals |= {name: np.zeros(len(light)) for name in ("hue", "saturation", "histogram", "key")}
    signals["corners"] = np.full(len(light), np.nan)
    for name, values in at.items():
        for frame, value in values.items():
            signals[name][frame] = value
    return signals | {"luma_mean": light.mean(axis=(1, 2)), "luma_std": light.std(axis=(1, 2)) + 20}


def told(cells: np.ndarray, at: int, **signals: dict[int, float]) -> dict[str, float]:
    film = measured(cells, **signals)
    return evidence(film, at, candidates(film, ShotsConfig()))


def held(frames: int = 100) -> np.ndarray:
    return np.repeat(PLACE[None], frames, axis=0)


def test_what_cannot_be_told_is_no_number_and_everything_else_is_one() -> None:
    found = told(PLACE + WANDER[:100], 40)
    assert {name for name, value in found.items() if np.isnan(value)} <= {"corners", "rest_alive", "goes_on"}
    first = told(np.stack([PLACE, OTHER]), 1)
    assert first.keys() == found.keys() and first["still"] == 0.0
    dark = told(np.zeros((20, 9, 16)), 10)
    assert np.isnan(dark["lit"]) and np.isnan(dark["texture"]) and dark["lamp"] == 0.0


@pytest.mark.parametrize("gain", [0.3, 0.6, 1.3])
def test_a_lamp_is_told_from_another_place(gain: float) -> None:
    lamp = 1 + (gain - 1) * np.linspace(1, 0.2, 16) ** 2
    same, other = PLACE + WANDER[:100], PLACE + WANDER[:100]
    same[40:] *= lamp
    other[40:] = (OTHER + WANDER[40:100]) * lamp
    lit, moved = told(same, 40), told(other, 40)
    assert lit["lit"] > 0.9 and lit["lamp"] > 0.7
    assert moved["lit"] < 0.5 and moved["lamp"] < lit["lamp"]


def test_what_stays_of_a_place_behind_what_pops_is_told() -> None:
    cells = held()
    cells[40:, :, 5:11] = OTHER[:, 5:11]
    found = told(cells, 40)
    assert 0.6 <= found["kept"] < 0.7 and found["kept_spread"] > 20
    assert found["alive"] == 0.0 and found["still"] == 0.0 and found["frozen"] == 1.0


def test_what_moves_is_alive_and_what_goes_on_around_a_pop_is_told_from_a_jump() -> None:
    moving = PLACE + np.cumsum(WANDER, axis=0).clip(-15, 15)
    titled = moving.copy()
    titled[60:, 6:8, 2:12] += 60
    jump = titled.copy()
    jump[60:] += np.random.default_rng(5).normal(0, 8, (9, 16))
    pop, cut = told(titled, 60), told(jump, 60)
    assert min(pop["alive"], cut["alive"]) > 0.3
    assert pop["goes_on"] < 1.5 < 2 < cut["goes_on"]


def test_a_step_that_is_undone_or_done_again_is_told() -> None:
    cells = PLACE + WANDER[:200]
    cells[60:100, 5:7] += 50
    assert told(cells, 60)["undone"] > 0.9 and told(cells, 60)["again"] < 0.5
    cells[100:] += 100 * (np.arange(9) // 2 == 2)[:, None] * np.ones(16)[None]
    once = PLACE + WANDER[:200]
    once[60:, 5:7] += 50
    assert told(once, 60)["undone"] < 0.5
    late = PLACE + WANDER[:200].copy()
    late[60:100, 5:7] += 50
    slow = measured(late)
    slow["time_s"] = slow["time_s"] * 20
    assert evidence(slow, 60, candidates(slow, ShotsConfig()))["undone"] < 0.5, "after half a minute it is no pop"


def test_a_picture_that_comes_back_is_told() -> None:
    cells = held()
    cells[40:44] = OTHER
    found = told(cells, 40)
    assert found["back_flash"] == 0.0 and found["back_while"] == 0.0 and found["was_while"] == 1.0
    assert told(cells, 44)["was_flash"] == 0.0
    cells[40:70] = OTHER
    found = told(cells, 40)
    assert found["back_flash"] == 1.0 and found["back_while"] == 0.0


def test_a_step_of_many_is_told_from_one_alone_and_one_out_of_a_freeze_from_one_in_a_film_that_goes_on() -> None:
    cells = PLACE + WANDER[:120]
    cells[60:, 2:7, 3:9] += 40
    alone = told(cells, 60)
    for at in (40, 48, 72, 80):
        cells[at:, 3:8, 8:14] += 30 if at % 16 else -30
    assert told(cells, 60)["alone"] == 4 and alone["alone"] == 0
    frozen = PLACE + 3 * WANDER[:120]
    frozen[52:60] = frozen[51]
    frozen[60:, 2:7, 3:9] += 40
    found = told(frozen, 60)
    assert found["still_before"] == 1.0 and found["still_after"] == 0.0 and found["frozen"] == 0.5


def test_steps_in_company_are_counted() -> None:
    cells = held()
    for at in (20, 28, 60):
        cells[at:] = RNG.integers(60, 180, (9, 16))
    assert [(told(cells, at)["burst"], told(cells, at)["scene"]) for at in (20, 28, 60)] == [(1, 2), (1, 2), (0, 2)]
