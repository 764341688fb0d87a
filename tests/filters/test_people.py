"""Bare bodies and faces: the package's own answers, in batches, on pictures of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("nudenet")

from rushes.filters import people
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def detector() -> people.Detector:
    return people.load(weights.nudenet())


@pytest.fixture(scope="module")
def man(bikes: Path) -> list[np.ndarray]:
    """A man who talks in a car: three pictures of 176×144."""
    with av.open(str(bikes.with_name("carphone_pristine.mp4"))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:90:30]


def test_a_talking_man_has_one_face_and_is_dressed(detector: people.Detector, man: list[np.ndarray]) -> None:
    seen = people.look(detector, man)
    assert seen.faces.tolist() == [1, 1, 1]
    assert (np.abs(seen.face_share - 0.1) < 0.04).all()
    assert seen.bare.shape == (3, len(people.BARE)) and seen.bare.max() < 0.2


def test_boxes_are_those_of_the_package(detector: people.Detector, man: list[np.ndarray]) -> None:
    import nudenet

    [face] = [found for found in nudenet.NudeDetector().detect(man[0][:, :, ::-1].copy()) if "FACE" in found["class"]]
    _, _, width, height = face["box"]
    seen = people.look(detector, man[:1])
    assert seen.face_share[0] == pytest.approx(width * height / (176 * 144), rel=0.1)


def test_a_batch_gives_what_its_pictures_give_alone(detector: people.Detector, man: list[np.ndarray]) -> None:
    pictures = [*man, np.zeros((30, 300, 3), np.uint8)]
    together = people.look(detector, pictures)
    alone = [people.look(detector, [picture]) for picture in pictures]
    assert together.bare == pytest.approx(np.concatenate([one.bare for one in alone]), abs=1e-5)
    assert together.face_share == pytest.approx(np.concatenate([one.face_share for one in alone]), abs=1e-3)
    assert together.faces.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (7, 5), (320, 320), (900, 1600)])
def test_pictures_of_any_shape_are_looked_at(detector: people.Detector, shape: tuple[int, int]) -> None:
    seen = people.look(detector, [np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)])
    assert seen.faces.tolist() == [0] and seen.face_share.tolist() == [0.0]


def test_the_share_of_a_face_does_not_depend_on_the_size_of_the_picture(
    detector: people.Detector, man: list[np.ndarray]
) -> None:
    large = man[0].repeat(4, axis=0).repeat(4, axis=1)
    assert people.look(detector, [large]).face_share == pytest.approx(
        people.look(detector, man[:1]).face_share, rel=0.15
    )


class _Session:
    """Answers with boxes that are given."""

    def __init__(self, boxes: list[tuple[float, ...]], certainty: float = 0.9) -> None:
        self.found = np.zeros((1, 4 + 18, len(boxes)), np.float32)
        self.found[0, :4] = np.array(boxes).T
        self.found[0, 4 + 1] = certainty

    def run(self, *_: Any) -> list[np.ndarray]:
        return [self.found]


def _given(session: _Session) -> people.Detector:
    return people.Detector(session, "images", (4, 14, 3, 2, 6), (1, 12))


def test_two_boxes_on_one_face_count_once_and_neighbours_twice() -> None:
    picture = np.zeros((160, 320, 3), np.uint8)
    seen = people.look(_given(_Session([(50, 50, 40, 40), (52, 51, 40, 40), (200, 50, 40, 40)])), [picture])
    assert seen.faces.tolist() == [2]
    assert seen.face_share[0] == pytest.approx(2 * 40 * 40 / (160 * 320))


def test_what_lies_outside_of_the_picture_is_no_share_of_it() -> None:
    seen = people.look(_given(_Session([(0, 0, 40, 40), (160, 200, 40, 40)])), [np.zeros((160, 320, 3), np.uint8)])
    assert seen.face_share[0] == pytest.approx(20 * 20 / (160 * 320))


def test_numbers_that_are_none_are_an_error() -> None:
    with pytest.raises(ValueError, match="NudeNet gave numbers that are not finite"):
        people.look(_given(_Session([(np.nan, 0, 1, 1)])), [np.zeros((9, 9, 3), np.uint8)])


def test_a_file_that_is_no_onnx_or_another_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "320n.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"320n\.onnx cannot be read as ONNX"):
        people.load(tmp_path / "320n.onnx")
    pytest.importorskip("rapidocr")
    with pytest.raises(ValueError, match="is no NudeNet: it knows no FEMALE_GENITALIA_EXPOSED"):
        people.load(weights.text_detector())
