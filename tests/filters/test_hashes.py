import cv2
import numpy as np

from rushes.filters.hashes import hamming, phash


def picture(seed: int, height: int = 72, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (9, 16), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def test_hash_survives_size_brightness_and_noise() -> None:
    luma = picture(0)
    smaller = cv2.resize(luma, (96, 54), interpolation=cv2.INTER_AREA)
    worse = np.clip(luma * 0.8 + 20 + np.random.default_rng(1).normal(0, 3, luma.shape), 0, 255).astype(np.uint8)
    assert hamming(phash(luma), phash(smaller)) <= 4
    assert hamming(phash(luma), phash(worse)) <= 6


def test_different_pictures_differ_in_many_bits() -> None:
    assert min(hamming(phash(picture(0)), phash(picture(seed))) for seed in range(1, 20)) > 14


def test_bars_do_not_change_the_hash() -> None:
    luma = picture(0)
    letterboxed = np.full((96, 128), 16, np.uint8)
    letterboxed[12:84] = luma
    assert hamming(phash(letterboxed, (0, 0.125, 0, 0.125)), phash(luma)) == 0
    assert hamming(phash(letterboxed), phash(luma)) > 10


def test_hamming_broadcasts_over_arrays_and_keeps_all_64_bits() -> None:
    hashes = np.array([0, 1, 2**64 - 1], np.uint64)
    assert hamming(hashes[:, None], hashes).tolist() == [[0, 1, 64], [1, 0, 63], [64, 63, 0]]
    assert 0 <= phash(picture(3)) < 2**64


def test_bars_over_the_whole_picture_are_ignored() -> None:
    assert phash(picture(0), (0.5, 0.5, 0.5, 0.5)) == phash(picture(0))
