from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rushes.filters.transitions import fades, gradual
from rushes.pipelines.config import ShotsConfig
from tests.filters.test_blends import FPS, A, B, Picture, measured, mixed

RULES = ShotsConfig()


def signals(film: list[Picture], **more: Any) -> dict[str, Any]:
    light, std, time_s = measured(film)
    return {
        "cell_light": light,
        "luma_std": std,
        "luma_mean": np.array([x.mean() for x in film]),
        "time_s": time_s,
        **more,
    }


def found(film: list[Picture], **more: Any) -> list[tuple[str, int, int]]:
    return [(b.kind, round(b.start_s * FPS), round(b.end_s * FPS)) for b in gradual(signals(film, **more), RULES)]


def shaken(film: list[Picture], share: float) -> list[Picture]:
    """The pictures with a band of them that has nothing to do with the rest."""
    rng, rows = np.random.default_rng(0), round(72 * share)
    band = rng.uniform(0, 255, (8, 9, 16)).repeat(8, axis=1).repeat(8, axis=2)
    return [np.concatenate([x[rows:], band[k // 4 % 8][:rows]]) for k, x in enumerate(film)]


DISSOLVE = mixed([A] * 90, [B] * 90, np.clip((np.arange(90) - 30) / 25, 0, 1))


def test_a_dissolve_that_is_plain_needs_no_witness_and_one_in_doubt_needs_a_sure_one() -> None:
    nobody = np.full(90, np.nan, np.float32)
    assert [kind for kind, *_ in found(DISSOLVE, witness_part=0 * nobody)] == ["dissolve"]
    doubtful = shaken(DISSOLVE, 0.08)
    assert found(doubtful, witness_part=np.zeros(90)) == []
    assert [kind for kind, *_ in found(doubtful, witness_part=np.where(abs(np.arange(90) - 42) < 12, 0.99, 0))] == [
        "dissolve"
    ]


def test_the_witness_moves_the_ends_of_a_dissolve_outwards() -> None:
    sure = np.where(abs(np.arange(90) - 42) < 17, 0.99, 0)
    assert found(DISSOLVE, witness_part=sure) == [("dissolve", 26, 58)]


@pytest.mark.parametrize("shade", [0.0, 255.0])
@pytest.mark.parametrize("back", [False, True])
def test_a_fade_that_the_footage_cuts_short_is_found(shade: float, back: bool) -> None:
    film = [A * gain + shade * (1 - gain) for gain in np.clip(1.3 - np.arange(60) / 90, None, 1.0)]
    (fade,) = fades(signals(film[::-1] if back else film), RULES)
    first, last = sorted(59 * back + (1 - 2 * back) * round(at_s * FPS) for at_s in (fade.start_s, fade.end_s))
    assert last == 59 and abs(first - 27) <= 4


def test_a_picture_that_only_grows_darker_in_parts_is_not_fading() -> None:
    film = []
    for k in range(60):
        dimmed = A.copy()
        dimmed[:24] *= 1 - max(0, k - 30) / 40
        film.append(dimmed)
    assert fades(signals(film), RULES) == []


def test_ranges_do_not_overlap_where_a_fade_and_a_dissolve_meet() -> None:
    white = np.full_like(A, 250.0)
    weights = np.clip((np.arange(60) - 20) / 15, 0, 1)
    ranges = gradual(signals([*mixed([A] * 60, [white] * 60, weights), *mixed([white] * 60, [B] * 60, weights)]), RULES)
    assert ranges and all(a.end_s <= b.start_s for a, b in pairwise(ranges))
