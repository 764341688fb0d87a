from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.filters import coding
from rushes.filters.frames import change


def lumas(path: Path, count: int = 60) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame, _ in zip(container.decode(video=0), range(count))]  # noqa: B905


def woven(film: list[np.ndarray], top_first: bool = True) -> list[np.ndarray]:
    """Make interlaced frames of a film: the lines of each come from two moments."""
    found = []
    for first, second in zip(film[0::2], film[1::2], strict=False):
        frame = first.copy()
        frame[1::2] = second[1::2]
        if not top_first:
            frame = second.copy()
            frame[1::2] = first[1::2]
        found.append(frame)
    return found


def parities(film: list[np.ndarray]) -> np.ndarray:
    return np.array([coding.parity(a, b) for a, b in pairwise(film)])


@pytest.mark.parametrize("top_first", [True, False])
def test_interlaced_footage_is_told_from_progressive(bikes: Path, top_first: bool) -> None:
    film = lumas(bikes, 24)
    assert coding.interlaced(parities(film)) == pytest.approx(0, abs=0.1)
    telling = parities(woven(film, top_first))
    assert coding.interlaced(telling) > 0.8
    assert (np.nanmedian(telling) > 0) == top_first


def test_fine_stripes_are_not_interlaced_still_or_moving() -> None:
    stripes = np.zeros((240, 320), np.uint8)
    stripes[0::2] = 200
    assert coding.interlaced(parities([stripes] * 6)) is None
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (240, 480), np.uint8), (5, 5), 0)
    film = [np.ascontiguousarray(noise[:, 6 * k : 6 * k + 320] // 2 + stripes // 2) for k in range(10)]
    assert (coding.interlaced(parities(film)) or 0.0) < 0.2


def coded(film: list[np.ndarray], path: Path, codec: str, bits: int) -> list[np.ndarray]:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = film[0].shape
        stream.pix_fmt, stream.bit_rate = "yuv420p", bits
        for pixels in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return lumas(path)


def test_blockiness_grows_as_the_bit_rate_falls(bunny: Path, tmp_path: Path) -> None:
    film = [cv2.resize(y, (640, 368), interpolation=cv2.INTER_AREA) for y in lumas(bunny, 12)]
    found = [
        np.median([coding.blockiness(y) for y in coded(film, tmp_path / f"{bits}.mp4", "mpeg4", bits)])
        for bits in (8_000_000, 600_000, 100_000)
    ]
    assert abs(np.median([coding.blockiness(y) for y in film])) < 0.1
    assert found == sorted(found) and found[-1] > found[0] + 0.1


def test_a_flat_picture_has_no_blockiness() -> None:
    assert np.isnan(coding.blockiness(np.full((90, 160), 7, np.uint8)))


def repeated(film: list[np.ndarray], pattern: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    small = [cv2.resize(y, (128, 72), interpolation=cv2.INTER_AREA) for y in film]
    shown = [y for k, y in enumerate(small) for _ in range(pattern[k % len(pattern)])]
    changes = [0.0, *(change(a, b) for a, b in pairwise(shown))]
    return np.array(changes), np.full(len(shown), 1 / 30)


@pytest.mark.parametrize(
    ("pattern", "label", "fps"),
    [
        ((1,), "none", 30), ((2,), "doubled", 15), ((1, 1, 1, 2), "telecine", 24), ((3, 2), "telecine", 12),
        ((1, 2, 1, 1, 3, 1, 1, 1, 1, 2, 2), "irregular", None),
    ],
)  # fmt: skip
def test_cadence_tells_how_frames_are_repeated(
    bikes: Path, pattern: tuple[int, ...], label: str, fps: float | None
) -> None:
    found = coding.cadence(*repeated(lumas(bikes, 60), pattern))
    assert found is not None and found.label == label
    assert fps is None or found.fps == pytest.approx(fps, rel=0.05)


def test_a_still_clip_has_no_cadence() -> None:
    assert coding.cadence(np.zeros(60), np.full(60, 1 / 30)) is None
    assert coding.cadence(np.array([0.0, 4.0]), np.full(2, 1 / 30)) is None


def test_a_pause_amid_doubled_frames_leaves_them_doubled(bikes: Path) -> None:
    found = coding.cadence(*repeated(lumas(bikes, 60), (2, 2, 2, 2, 2, 2, 2, 9)))
    assert found is not None and found.label == "doubled"


def test_fast_and_slow_motion_in_one_clip_are_no_repeats() -> None:
    """As ordinary footage goes: a slow stretch changes by a hundredth of what a fast one does."""
    phase = np.linspace(0, 6 * np.pi, 240)
    changes = 10 ** (1 + np.sin(phase)) * np.random.default_rng(0).uniform(0.8, 1.2, 240)
    assert coding.cadence(changes / 10, np.full(240, 1 / 30)) == coding.Cadence("none", pytest.approx(30))


def test_24_frames_a_second_made_25_have_few_repeats_and_none_is_no_cadence(bunny: Path) -> None:
    found = coding.cadence(*repeated(lumas(bunny, 125), (1,)))  # the clip itself was made so
    assert found is not None and found.label == "none"
    assert found.fps == pytest.approx(30 * 24 / 25, rel=0.01)


@given(
    st.lists(st.floats(0, 50), min_size=0, max_size=80),
    st.floats(0.01, 0.2),
)
def test_any_series_has_a_cadence_that_its_frames_can_have(changes: list[float], step_s: float) -> None:
    found = coding.cadence(np.array(changes), np.full(len(changes), step_s))
    assert found is None or (0 < found.fps <= 1.0001 / step_s and found.label != "")
