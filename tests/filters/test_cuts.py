from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from rushes.filters.cuts import candidates, cuts, doubts, outstanding
from rushes.filters.judge import Judge
from rushes.pipelines.config import ShotsConfig

RNG = np.random.default_rng(0)
PLACE = RNG.integers(60, 180, (9, 16)).astype(np.float64)


def film(frames: int, wander: float = 1.0) -> np.ndarray:
    """A place whose cells flicker a little, with a thing that moves steadily through it."""
    cells = np.repeat(PLACE[None], frames, axis=0) + RNG.normal(0, wander, (frames, 9, 16))
    for at in range(frames):
        cells[at, 2:5, (at // 3) % 14 : (at // 3) % 14 + 2] += 40
    return np.clip(cells, 0, 255).astype(np.uint8)


def shares(cells: np.ndarray, key: tuple[int, ...] = ()) -> np.ndarray:
    change = np.abs(np.diff(cells.astype(float), axis=0, prepend=cells[:1])).mean(axis=(1, 2))
    return outstanding(cells, np.isin(np.arange(len(cells)), key), change)


def test_a_piece_taken_out_of_a_take_stands_out_where_it_is_joined() -> None:
    cells = film(80)
    cells[40:, 4:8, 3:12] = np.roll(cells[40:, 4:8, 3:12], 3, axis=2)
    share = shares(cells)
    assert share.argmax() == 40 and share[40] > 0.1
    assert np.delete(share, 40).max() < 0.05


def test_a_step_after_repeated_frames_does_not_stand_out() -> None:
    ramp = np.clip(PLACE[None] + 3.0 * np.arange(40)[:, None, None], 0, 240).astype(np.uint8)
    held = ramp.copy()
    held[20:23] = ramp[19]
    assert shares(held)[23] == 0.0


def test_light_that_comes_on_does_not_stand_out() -> None:
    cells = film(60)
    cells[30:] = np.clip(cells[30:] * 1.2 + 10, 0, 255).astype(np.uint8)
    assert shares(cells)[30] < 0.05


def test_key_frames_that_come_by_the_clock_are_compared_with_each_other() -> None:
    cells = film(100).astype(np.float64)
    for at in range(24, 100, 24):
        cells[at:] += RNG.normal(0, 5, (9, 16))
    cells = np.clip(cells, 0, 255).astype(np.uint8)
    assert shares(cells)[[24, 48, 72, 96]].max() > 0.05
    assert shares(cells, key=(0, 24, 48, 72, 96))[[24, 48, 72, 96]].max() < 0.05


def test_a_long_film_is_measured_in_parts_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = film(120)
    cells[64:, 4:8, 3:12] = np.roll(cells[64:, 4:8, 3:12], 3, axis=2)
    whole = shares(cells)
    monkeypatch.setattr("rushes.filters.cuts.CHUNK_FRAMES", 32)
    assert np.array_equal(shares(cells), whole)


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("cut_likely", [0.0, 0.01, 1.0])
def test_films_of_few_frames_and_limits_at_either_end_are_decided(frames: int, cut_likely: float) -> None:
    signals, rules = joined(), ShotsConfig(cut_likely=cut_likely)
    few = {name: values[30 - frames // 2 : 30 - frames // 2 + frames] for name, values in signals.items()}
    expected = [30] if cut_likely < 1 else []
    assert [round(cut.start_s * 25) for cut in cuts(few, rules)] == expected
    assert len(doubts(few, rules)) == 0


class Swayed(Judge):
    """A judge who is in doubt, and to whom the witness counts."""

    def __init__(self, odds: float, weight: float):
        self.said = odds, weight

    def odds(self, evidence: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of all steps."""
        odds, weight = (np.full(len(evidence), value) for value in self.said)
        return odds, weight


def joined() -> dict[str, np.ndarray]:
    """Signals of two places, one after the other."""
    cells = film(60)
    cells[30:] = np.clip(RNG.integers(60, 180, (9, 16)) + RNG.normal(0, 1, (30, 9, 16)), 0, 255)
    signals = {name: np.full(60, 1.0) for name in ("content", "hue", "saturation", "luma", "change")}
    signals |= {"time_s": np.arange(60) / 25, "histogram": np.full(60, 0.01), "key": np.zeros(60), "cell_light": cells}
    signals |= {"luma_mean": np.full(60, 90.0), "luma_std": np.full(60, 40.0), "corners": np.full(60, np.nan)}
    for name, value in {"content": 60, "hue": 60, "saturation": 60, "luma": 60, "change": 40}.items():
        signals[name][30] = value
    signals["histogram"][30], signals["corners"][30] = 0.9, 0.02
    return signals


def found(signals: dict[str, np.ndarray], rules: ShotsConfig) -> list[int]:
    return [round(cut.start_s * 25) for cut in cuts(signals, rules)]


def test_a_cut_between_two_places_is_one_beyond_doubt() -> None:
    signals = joined()
    assert found(signals, ShotsConfig()) == [30] and not len(doubts(signals, ShotsConfig()))
    assert found({**signals, "witness_cut": np.zeros(60)}, ShotsConfig()) == [30]
    assert cuts(signals, ShotsConfig())[0].score > 0.9
    assert found(signals, ShotsConfig(cut_likely=1.0)) == []


@pytest.mark.parametrize(("odds", "weight", "asks"), [(1, 1, True), (-1, 1, True), (3, 0.5, False), (-3, 0.5, False)])
def test_the_witness_is_asked_where_its_word_decides(
    odds: float, weight: float, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rushes.filters.cuts.judge", lambda: Swayed(odds, weight))
    signals, rules = joined(), ShotsConfig()
    assert doubts(signals, rules).tolist() == ([30] if asks else [])
    near = abs(np.arange(60) - 29) < 2
    seen, denied = (found({**signals, "witness_cut": np.where(near, said, np.nan)}, rules) for said in (1.0, 0.0))
    assert (seen, denied) == (([30], []) if asks else ([30], [30]) if odds > 0 else ([], []))
    assert found(signals, rules) == ([30] if odds > 0 else []), "unasked the numbers decide"


def test_of_steps_beside_each_other_the_likelier_one_is_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Swayed):
        def odds(self, evidence: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
            return np.arange(1.0, 1 + len(evidence)), np.zeros(len(evidence))

    signals = joined()
    known = candidates(signals, ShotsConfig())
    two = known._replace(steps=np.array([29, 30, 50]))
    monkeypatch.setattr("rushes.filters.cuts.judge", lambda: Later(0, 0))
    monkeypatch.setattr("rushes.filters.cuts.candidates", lambda signals, rules: two)
    assert found(signals, ShotsConfig()) == [30, 50]


def test_colours_that_pop_at_a_key_frame_are_no_cut_but_those_of_footage_all_in_key_frames_may_be() -> None:
    count = 60
    signals = {name: np.full(count, 1.0) for name in ("content", "hue", "saturation", "luma", "change")}
    signals |= {"time_s": np.arange(count) / 25, "histogram": np.zeros(count), "key": np.zeros(count)}
    signals |= {"luma_mean": np.full(count, 90.0), "luma_std": np.full(count, 40.0), "corners": np.full(count, np.nan)}
    signals["cell_light"] = np.full((count, 9, 16), 90, np.uint8)
    signals["content"][24], signals["hue"][24], signals["key"][[0, 24]] = 40.0, 110.0, 1
    assert not len(candidates(signals, ShotsConfig()).steps)
    assert candidates({**signals, "key": np.ones(count)}, ShotsConfig()).steps.tolist() == [24]


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_picture_that_comes_back_after_a_black_frame_is_no_cut_and_another_one_is(is_cut: bool) -> None:
    count = 60
    signals = {name: np.full(count, 1.0) for name in ("content", "hue", "saturation", "luma", "change")}
    signals |= {"time_s": np.arange(count) / 25, "histogram": np.zeros(count), "key": np.zeros(count)}
    signals |= {"luma_mean": np.full(count, 120.0), "luma_std": np.full(count, 40.0), "corners": np.full(count, np.nan)}
    cells = np.repeat(PLACE[None], count, axis=0)
    cells[31:] = RNG.permutation(PLACE.ravel()).reshape(PLACE.shape) if is_cut else PLACE
    cells[30] = 0
    signals["cell_light"] = cells.astype(np.uint8)
    for at, change in ((30, 95.0), (31, 90.0)):
        signals["content"][at], signals["luma"][at], signals["histogram"][at] = change, 120.0, 1.0
    assert found(signals, ShotsConfig()) == ([30] if is_cut else [])
