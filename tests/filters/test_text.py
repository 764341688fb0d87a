"""Overlay text: found where it is, not where it is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rapidocr")

from rushes.filters import text
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def detector() -> Any:
    return text.load(weights.text_detector())


def _titled() -> np.ndarray:
    image = np.random.default_rng(0).integers(90, 110, (180, 320, 3), np.uint8)
    cv2.putText(image, "SOME WORDS", (60, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
    return image


def test_a_title_is_found_where_it_stands(detector: Any) -> None:
    corners = text.boxes(detector, _titled())
    assert len(corners) >= 1
    centre = corners.reshape(-1, 2).mean(axis=0)
    assert centre == pytest.approx([145, 142], abs=25)
    assert 0.03 < text.area_share(corners, 180, 320) < 0.2


def test_a_plain_picture_has_no_text(detector: Any) -> None:
    assert len(text.boxes(detector, np.full((180, 320, 3), 80, np.uint8))) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 320), (320, 1), (8, 320), (14, 3)])
def test_tiny_and_narrow_pictures_cost_no_more_than_others(detector: Any, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    began = time.process_time()
    assert text.area_share(text.boxes(detector, picture), *shape) <= 1
    assert time.process_time() - began < 3  # 36 s at 1×320 before


def test_a_picture_of_common_shape_is_looked_at_as_it_is() -> None:
    picture = np.zeros((180, 320, 3), np.uint8)
    assert text._padded(picture).shape == picture.shape
    assert text._padded(picture[:20]).shape == (80, 320, 3)


def test_boxes_that_overlap_count_once() -> None:
    box = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32)
    assert text.area_share(np.stack([box, box]), 20, 20) == pytest.approx(0.25)
    assert text.area_share(np.zeros((0, 4, 2), np.float32), 20, 20) == 0.0


def test_the_height_of_a_slanted_line_is_its_short_side() -> None:
    slanted = np.array([[[0, 0], [30, 40], [26, 43], [-4, 3]]], np.float32)
    assert text.line_heights(slanted) == pytest.approx([5.0])


def test_a_file_that_is_no_onnx_is_named(tmp_path: Path) -> None:
    (tmp_path / "det.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"det\.onnx cannot be read as ONNX"):
        text.load(tmp_path / "det.onnx")


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rushes\[models\]"):
        text.load(tmp_path / "none.onnx")
