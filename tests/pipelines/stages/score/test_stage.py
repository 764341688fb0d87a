"""Scoring a unit: one bad clip costs itself alone, a bad model costs nothing but a sentence. No Ray."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rushes.pipelines.config import CurateConfig, ScoreConfig
from rushes.pipelines.models import eyes, score, weights
from rushes.pipelines.stages.score.stage import Scoring
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines import at_work
from tests.pipelines.at_work import PRINT, SCAN, UNIT

REPO = Path(__file__).parents[4]
BAD = 77  # red of the clip that networks stumble over


def _jpeg(red: int) -> bytes:
    pixels = np.random.default_rng(red).integers(0, 40, (90, 160, 3), np.uint8)
    pixels[..., 0] = red
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Three clips of a source, two frames each; the second is the bad one."""
    ledger = Ledger(str(tmp_path / "run"))
    reds = (10, 10, BAD, BAD, 200, 200)
    frames = [{"source_id": "s", "time_s": float(at), "jpeg": _jpeg(red)} for at, red in enumerate(reds)]
    clips = [
        {"key": f"s-{at}", "source_id": "s", "uri": "film.mp4", "start_s": 2.0 * at, "duration_s": 2.0,
         "frame_s": [2.0 * at, 2.0 * at + 1]}
        for at in range(3)
    ]  # fmt: skip
    ledger.write("frames", SCAN, frames, PRINT)
    ledger.write("clips", UNIT, clips, PRINT)
    return ledger.run


def _is_bad(image: np.ndarray) -> bool:
    return abs(float(image[..., 0].mean()) - BAD) < 5


def _spoilt(eye: eyes.Eye, spoil: Any) -> eyes.Eye:
    def look(images: Sequence[np.ndarray]) -> eyes.Look:
        found = eye(images)
        for at, image in enumerate(images):
            if _is_bad(image):
                spoil(found, at)
        return found

    return look


def _nan(found: eyes.Look, at: int) -> None:
    for values in found.values():
        if values.dtype.kind == "f":
            values[at] = np.nan


def _raise(found: eyes.Look, at: int) -> None:
    raise RuntimeError("the network fell over")


def _config(*scorers: str, **more: Any) -> CurateConfig:
    return CurateConfig(score=ScoreConfig(scorers=list(scorers), **more))


def _scored(run: str, *scorers: str, eye: str = "", spoil: Any = None) -> tuple[dict[str, Any], list[str], list[Any]]:
    """Score the unit with one eye spoilt; return what was done, the keys that have scores, and the error rows."""
    worker = Scoring(_config(*scorers))
    if eye:
        worker.scorer.eyes[eye] = _spoilt(worker.scorer.eyes[eye], spoil)
    done = at_work.do(run, _config(*scorers), "score", worker=worker)
    keys = Ledger(run).read("scores", ["key"])["key"].unique().to_pylist()
    return done, keys, Ledger(run).read("errors").to_pylist()


CASES = [("lite0", "embedding"), ("brisque", "quality"), ("text", "text"), ("people", "nsfw"), ("people", "faces")]


@pytest.mark.parametrize(("eye", "scorer"), CASES)
def test_a_network_that_fails_on_one_clip_costs_that_clip_alone(run: str, eye: str, scorer: str) -> None:
    if eye in ("text", "people"):
        pytest.importorskip("rapidocr" if eye == "text" else "nudenet")
    done, keys, errors = _scored(run, scorer, eye=eye, spoil=_raise)
    assert (done["items"], done["errors"], done["fatal"]) == (2, 1, "")
    assert keys == ["s-0", "s-2"]
    assert [(row["key"], row["seconds"], row["stage"]) for row in errors] == [("s-1", 2.0, "score")]
    assert "fell over" in errors[0]["reason"]


@pytest.mark.parametrize(("eye", "scorer"), [case for case in CASES if case[0] != "brisque"])
def test_numbers_that_are_none_never_reach_the_table(run: str, eye: str, scorer: str) -> None:
    if eye in ("text", "people"):
        pytest.importorskip("rapidocr" if eye == "text" else "nudenet")
    _, keys, errors = _scored(run, scorer, eye=eye, spoil=_nan)
    assert keys == ["s-0", "s-2"]
    assert [(row["key"], row["code"]) for row in errors] == [("s-1", "model_failed")]
    assert f"the network {eye} gave" in errors[0]["reason"] and "--score.scorers" in errors[0]["remedy"]


def test_an_unreadable_frame_costs_its_clip_alone(run: str) -> None:
    ledger = Ledger(run)
    frames = ledger.read("frames").to_pylist()
    frames[2]["jpeg"] = b"junk"
    ledger.write("frames", SCAN, frames, PRINT)
    _, keys, errors = _scored(run, "quality")
    assert keys == ["s-0", "s-2"]
    assert [(row["key"], row["code"]) for row in errors] == [("s-1", "no_frame")]


@pytest.mark.parametrize(
    ("scorer", "locate", "name"), [("text", "text_detector", "rapidocr"), ("nsfw", "nudenet", "nudenet")]
)
def test_weights_that_cannot_be_read_end_the_run_with_one_sentence(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorer: str, locate: str, name: str
) -> None:
    pytest.importorskip(name)
    (tmp_path / "damaged.onnx").write_bytes(b"junk")
    monkeypatch.setattr(weights, locate, lambda: tmp_path / "damaged.onnx")
    done = at_work.do(run, _config(scorer), "score")
    assert done["fatal"].startswith("score: ")
    assert "damaged.onnx cannot be read as ONNX" in done["fatal"] and "\n" not in done["fatal"]
    assert Ledger(run).parts("scores") == []


def _narrow(eye: eyes.Eye, most: int, seen: list[int]) -> eyes.Eye:
    def look(images: Sequence[np.ndarray]) -> eyes.Look:
        seen.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return eye(images)

    return look


def test_a_batch_that_does_not_fit_is_halved_once_and_said_so(run: str) -> None:
    plain, _, _ = _scored(run, "quality")
    expected = Ledger(run).read("scores").to_pylist()
    config, seen = _config("quality", batch_frames=4), list[int]()
    worker = Scoring(config)
    worker.scorer.eyes["brisque"] = _narrow(worker.scorer.eyes["brisque"], 2, seen)
    done = at_work.do(run, config, "score", worker=worker)
    assert seen == [4, 2, 2, 2]  # six frames; the smaller size is kept for what follows
    assert "brisque: 4 frames at once do not fit in memory; going on with 2" in done["note"]
    assert plain["note"] == "" and done["errors"] == 0
    assert Ledger(run).read("scores").to_pylist() == expected
    assert at_work.do(run, config, "score", worker=worker)["note"] == ""


def test_a_single_frame_that_does_not_fit_is_an_error_of_its_clip(run: str) -> None:
    worker = Scoring(_config("quality"))
    worker.scorer.eyes["brisque"] = _narrow(worker.scorer.eyes["brisque"], 0, [])
    done = at_work.do(run, _config("quality"), "score", worker=worker)
    assert (done["items"], done["errors"], done["fatal"]) == (0, 3, "")


def test_a_worker_has_one_thread_so_that_as_many_as_cores_do_not_fight(run: str) -> None:
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    at_work.do(run, _config("quality"), "score")
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)


def test_neither_the_driver_nor_a_worker_that_captions_loads_torch() -> None:
    code = "import sys; from rushes.pipelines.engine import curate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_all_errors_of_scoring_name_a_remedy() -> None:
    assert score.FrameError.remedy and score.ModelError.remedy
