"""Technical quality: the statistics are BRISQUE's, and damage lowers the score."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from rushes.filters import quality
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def model() -> quality.Brisque:
    return quality.load(weights.brisque())


@pytest.fixture(scope="module")
def photo(bikes: Path) -> Image.Image:
    with av.open(str(bikes)) as container:
        frame = next(container.decode(video=0)).to_image()
    frame.thumbnail((320, 320))
    return frame


def _package_features(image: np.ndarray) -> np.ndarray:
    import skimage.color
    from brisque import BRISQUE

    model = BRISQUE()
    luma = skimage.color.rgb2gray(image)
    half = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    both = [model.calculate_brisque_features(values, 7, 7 / 6) for values in (luma, half)]
    return np.array([float(np.ravel(value)[0]) for value in np.concatenate(both)])


def test_features_match_the_package_that_trained_the_svm(photo: Image.Image) -> None:
    image = np.asarray(photo)
    assert quality.features(image) == pytest.approx(_package_features(image), abs=2e-3)


def test_blur_noise_and_blocks_each_lower_the_quality(model: quality.Brisque, photo: Image.Image) -> None:
    image = np.asarray(photo)
    clean = quality.quality(model, image)
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    blocks = io.BytesIO()
    photo.save(blocks, "JPEG", quality=8)
    damaged = {
        "blur": np.asarray(photo.filter(ImageFilter.GaussianBlur(2))),
        "noise": np.clip(image + noise, 0, 255).astype(np.uint8),
        "blocks": np.asarray(Image.open(blocks)),
    }
    for kind, picture in damaged.items():
        assert quality.quality(model, picture) < clean - 10, kind


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_without_texture_has_no_quality_rather_than_a_number(model: quality.Brisque, value: int) -> None:
    with pytest.raises(quality.FlatPicture, match="no texture"):
        quality.quality(model, np.full((90, 160, 3), value, np.uint8))


def test_a_picture_smaller_than_two_windows_is_refused(model: quality.Brisque) -> None:
    with pytest.raises(quality.FlatPicture, match="too small"):
        quality.quality(model, np.zeros((1, 1, 3), np.uint8))


def test_ranges_that_would_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "svm.txt").write_bytes((weights.brisque() / "svm.txt").read_bytes())
    (tmp_path / "normalize.pickle").write_bytes(pickle.dumps(Path("/")))
    with pytest.raises(pickle.UnpicklingError, match="numbers only"):
        quality.load(tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (1, 320), (13, 13), (3, 900)])
def test_a_picture_too_small_for_statistics_is_told_as_such(model: quality.Brisque, shape: tuple[int, int]) -> None:
    with pytest.raises(quality.FlatPicture, match="too small"):
        quality.quality(model, np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))


def test_a_model_that_gives_no_number_is_an_error(model: quality.Brisque, photo: Image.Image) -> None:
    broken = quality.Brisque(model.svm, np.full(36, np.nan), model.highest)
    with pytest.raises(ValueError, match="BRISQUE gave nan"):
        quality.quality(broken, np.asarray(photo))
