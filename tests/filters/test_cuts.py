import numpy as np
import pytest

from rushes.filters.cuts import cuts, doubts, outstanding
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


def moving(frames: int = 60) -> dict[str, np.ndarray]:
    """Signals of fast motion in which nothing stands out."""
    cells = RNG.integers(60, 180, (frames, 9, 16)).astype(np.uint8)
    signals = {name: np.full(frames, 20.0) for name in ("content", "hue", "saturation", "luma", "change")}
    signals |= {"time_s": np.arange(frames) / 25, "histogram": np.full(frames, 0.2), "key": np.zeros(frames)}
    signals |= {"luma_mean": np.full(frames, 90.0), "luma_std": np.full(frames, 40.0), "cell_light": cells}
    return signals | {"corners": np.full(frames, np.nan)}


def test_the_witness_is_asked_of_a_frame_that_stands_out_a_little_amid_motion_and_decides_it() -> None:
    signals = moving()
    signals["content"][30] = 36.0
    assert doubts(signals, ShotsConfig()).tolist() == [30]
    for said, found in ((0.0, []), (1.0, [30])):
        word = np.where(abs(np.arange(60) - 30) < 2, said, np.nan)
        assert [round(cut.start_s * 25) for cut in cuts({**signals, "witness_cut": word}, ShotsConfig())] == found


def test_the_witness_is_not_asked_of_what_is_a_cut_or_none_whatever_it_says() -> None:
    for content in (20.0, 26.0, 80.0):
        signals = moving()
        signals["content"][30] = content
        assert not len(doubts(signals, ShotsConfig()))
        words = [np.full(60, said) for said in (0.0, 1.0)]
        denied, seen = ([cut.start_s for cut in cuts({**signals, "witness_cut": w}, ShotsConfig())] for w in words)
        assert denied == seen and bool(seen) == (content == 80.0)


def test_colours_that_pop_at_a_key_frame_are_no_cut_but_those_of_footage_all_in_key_frames_are() -> None:
    count = 60
    signals = {name: np.full(count, 1.0) for name in ("content", "hue", "saturation", "luma", "change")}
    signals |= {"time_s": np.arange(count) / 25, "histogram": np.zeros(count), "key": np.zeros(count)}
    signals |= {"luma_mean": np.full(count, 90.0), "luma_std": np.full(count, 40.0), "corners": np.full(count, np.nan)}
    signals["cell_light"] = np.full((count, 9, 16), 90, np.uint8)
    signals["content"][24], signals["hue"][24], signals["key"][[0, 24]] = 40.0, 110.0, 1
    assert not cuts(signals, ShotsConfig())
    assert [round(cut.start_s * 25) for cut in cuts({**signals, "key": np.ones(count)}, ShotsConfig())] == [24]


def test_the_witness_is_asked_of_a_clear_cut_that_keeps_tones_or_corners_and_of_no_other() -> None:
    for histogram, corners, asks in ((0.8, 0.05, False), (0.06, 0.05, True), (0.2, 0.15, True), (0.8, 0.25, True)):
        signals = moving()
        for name in ("content", "hue", "saturation", "luma", "change"):
            signals[name][:] = 1.0
        signals["content"][30], signals["histogram"][30], signals["corners"][30] = 40.0, histogram, corners
        cells = np.repeat(PLACE[None], 60, axis=0)
        cells[30:] = RNG.integers(60, 180, (9, 16)) + 0.6 * (PLACE - PLACE.mean())  # not so unlike that it is sure
        signals["cell_light"] = np.clip(cells, 0, 255).astype(np.uint8)
        assert doubts(signals, ShotsConfig()).tolist() == ([30] if asks else [])


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
    found = [round(cut.start_s * 25) for cut in cuts(signals, ShotsConfig())]
    assert found == ([30] if is_cut else [])
