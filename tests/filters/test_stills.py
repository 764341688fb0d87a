from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.filters.hashes import hamming, phash
from rushes.filters.stills import SIDE, grid, unlike

NO_BARS = (0.0, 0.0, 0.0, 0.0)
LIMIT = 1.0


def card(words: str, paper: int = 190, ink: int = 20) -> np.ndarray:
    """A title card, 320×180."""
    picture = np.full((180, 320), paper, np.uint8)
    (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 2)
    cv2.putText(picture, words, ((320 - width) // 2, 96), cv2.FONT_HERSHEY_SIMPLEX, 0.8, ink, 2, cv2.LINE_AA)
    return picture


def far(a: np.ndarray, b: np.ndarray) -> float:
    return float(unlike(grid(a, NO_BARS)[None], grid(b, NO_BARS)[None])[0])


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(("one", "two"), [("Part 1", "Part 2"), ("Episode 11", "Episode 12"), ("Act I", "Act V")])
def test_title_cards_that_a_hash_takes_for_one_are_told_apart(one: str, two: str) -> None:
    assert hamming(phash(card(one)), phash(card(two))) <= 2
    assert far(card(one), card(two)) > LIMIT


@pytest.mark.parametrize("words", ["Part 1", "Episode 12", "MEANWHILE"])
def test_a_card_stays_itself_when_compressed_shrunk_brightened_or_shifted_by_one_pixel_of_the_grid(words: str) -> None:
    picture = card(words)
    small = cv2.resize(picture, (160, 90), interpolation=cv2.INTER_AREA)
    for copy in (compressed(picture, 20), small, (picture * 1.15).astype(np.uint8), np.roll(picture, 5, axis=1)):
        assert far(picture, copy) < LIMIT
    assert far(picture, picture) == 0


def test_bars_are_cut_before_pictures_are_compared() -> None:
    picture = card("Part 1")
    boxed = cv2.copyMakeBorder(picture, 30, 30, 0, 0, cv2.BORDER_CONSTANT)
    cut = grid(boxed, (0.0, 30 / 240, 0.0, 30 / 240))
    assert unlike(grid(picture, NO_BARS)[None], cut[None])[0] < 0.1 and cut.shape == (SIDE, SIDE)


def test_flat_pictures_are_like_nothing() -> None:
    assert np.isinf(far(np.full((90, 160), 7, np.uint8), np.full((90, 160), 7, np.uint8)))
