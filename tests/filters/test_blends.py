import numpy as np
import pytest

from filters.blends import blends

FPS = 25
A, B = (np.random.default_rng(seed).integers(20, 235, (9, 16)).astype(np.float64) for seed in (0, 1))


def film(weights: np.ndarray) -> list[tuple[str, int, int]]:
    """Kind, first and last frame of what is found where A becomes B by weights of frames or cells."""
    weights = weights if weights.ndim == 3 else weights[:, None, None]
    cells = np.concatenate([[A] * 30, A + weights * (B - A), [B] * 30])
    return [(b.kind, b.first, b.last) for b in blends(np.round(cells).astype(np.uint8), np.arange(len(cells)) / FPS)]


@pytest.mark.parametrize("frames", [10, 20, 40])
def test_a_dissolve_is_one_range(frames: int) -> None:
    ((kind, first, last),) = film(np.linspace(0, 1, frames + 2)[1:-1])
    assert kind == "dissolve" and abs(first - 29) <= 4 and abs(last - (30 + frames)) <= 4


def test_a_wipe_is_one_range() -> None:
    front = np.linspace(0, 18, 30)[:, None, None]
    ((kind, first, last),) = film(np.clip(front - np.arange(16)[None, None, :], 0, 1) * np.ones((1, 9, 1)))
    assert kind == "wipe" and first < 40 and last > 45


def test_a_hard_cut_and_a_change_of_light_are_no_transitions() -> None:
    assert film(np.empty(0)) == []
    lit = np.concatenate([[A] * 30, A * np.linspace(1, 0.6, 20)[:, None, None], [A * 0.6] * 30]).astype(np.uint8)
    assert blends(lit, np.arange(80) / FPS) == []


def test_a_steady_pan_is_no_transition() -> None:
    wide = np.random.default_rng(2).integers(20, 235, (9, 40)).astype(np.float64)
    at = np.linspace(0, 23, 120)
    cells = [wide[:, int(x) : int(x) + 16] * (1 - x % 1) + wide[:, int(x) + 1 : int(x) + 17] * (x % 1) for x in at]
    assert blends(np.array(cells).astype(np.uint8), np.arange(120) / FPS) == []


def test_text_that_comes_over_a_picture_is_no_transition() -> None:
    cells = np.repeat(A[None], 80, axis=0)
    cells[30:50, 4:6, 5:11] += np.linspace(0, 80, 20)[:, None, None]
    cells[50:, 4:6, 5:11] += 80
    assert blends(np.clip(cells, 0, 255).astype(np.uint8), np.arange(80) / FPS) == []
