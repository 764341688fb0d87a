import numpy as np
import pytest

from rushes.filters.camera import camera


@pytest.mark.parametrize(
    ("name", "ticks"),
    [
        ("static", {}),
        ("pan", {"pan": np.full(20, 0.2)}),
        ("tilt", {"tilt": np.full(20, -0.2)}),
        ("zoom", {"zoom": np.full(20, 0.3)}),
        ("roll", {"roll": np.full(20, 0.3)}),
        ("shake", {"pan": 0.2 * (-1.0) ** np.arange(20)}),
        ("moving", {"pan": np.full(20, 0.2), "tilt": np.full(20, 0.2)}),
    ],
)
def test_camera_has_the_name_of_its_motion(name: str, ticks: dict[str, np.ndarray]) -> None:
    still = dict.fromkeys(("pan", "tilt", "zoom", "roll"), np.zeros(20))
    assert camera({**still, **ticks}, np.full(20, 1 / 6)).label == name


def test_a_clip_without_ticks_stands_still() -> None:
    empty = dict.fromkeys(("pan", "tilt", "zoom", "roll"), np.zeros(0))
    assert camera(empty, np.zeros(0)) == ("static", 0, 0, 0, 0, 0, 0, 0)
