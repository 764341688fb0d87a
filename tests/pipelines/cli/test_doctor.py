"""The doctor: quick, complete, and every missing thing comes with its remedy."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from rushes.pipelines.cli import checks
from rushes.pipelines.config import CaptionConfig, ScoreConfig
from rushes.pipelines.models import weights
from rushes.pipelines.models.score import SCORERS


def _named(found: list[checks.Check]) -> dict[str, checks.Check]:
    return {check.name: check for check in found}


def test_whatever_is_missing_comes_with_a_remedy() -> None:
    found = checks.checks()
    assert len(found) == len(_named(found))
    assert [check.name for check in found if not check.ok and not check.remedy] == []


def test_the_test_environment_is_healthy() -> None:
    assert [check for check in checks.checks() if check.ok is False] == []


def test_a_scorer_that_is_switched_on_without_weights_is_a_failure_else_only_a_note() -> None:
    assert _named(checks.checks())["model clip"].ok is None
    wanted = _named(checks.checks(ScoreConfig(scorers=["clip"])))["model clip"]
    assert wanted.ok is False
    assert "--score.clip_weights" in wanted.remedy


def test_every_scorer_is_looked_for_and_embedded_ones_tell_their_licence() -> None:
    found = _named(checks.checks())
    told = {name for line in found if line.startswith("model ") for name in line.removeprefix("model ").split(", ")}
    assert set(SCORERS) <= told
    for scorers in ("embedding, tags", "quality", "text", "nsfw, faces"):
        check = found[f"model {scorers}"]
        assert not check.ok or "Apache-2.0" in check.found or "AGPL-3.0" in check.found


def test_a_gpu_that_the_builds_cannot_use_is_noted_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnxruntime")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(checks.Path, "glob", lambda path, pattern: [tmp_path / "nvidia0"] if "dev" in str(path) else [])
    monkeypatch.setattr(checks, "_torch_cuda", lambda: "")
    monkeypatch.setattr(onnx, "get_available_providers", lambda: ["CPUExecutionProvider"])
    found = {check.name: check for check in checks._gpu()}
    assert found["gpu"].found == "1 NVIDIA"
    assert (found["torch for GPU"].ok, found["onnxruntime runs on"].ok) == (None, None)
    assert "onnxruntime-gpu" in found["onnxruntime runs on"].remedy
    monkeypatch.setattr(checks, "_torch_cuda", lambda: "12.8")
    monkeypatch.setattr(onnx, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    found = {check.name: check for check in checks._gpu()}
    assert found["torch for GPU"].found == "built for CUDA 12.8"
    assert found["onnxruntime runs on"].found == "CUDA, CPU"


def test_a_tag_is_reported_without_being_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_tag", lambda *_: pytest.fail("the doctor fetched weights"))
    check = _named(checks.checks(ScoreConfig(scorers=["clip"], clip_weights="openai")))["model clip"]
    assert (check.ok, check.found) == (True, "openai, fetched when scoring starts")


def test_two_providers_of_opencv_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"opencv-python": "4.9", "opencv-python-headless": "4.9"}

    def version(name: str) -> str:
        if name not in both:
            raise importlib.metadata.PackageNotFoundError(name)
        return both[name]

    monkeypatch.setattr(checks.metadata, "version", version)
    check = _named(checks.checks())["opencv"]
    assert check.ok is False
    assert check.remedy.startswith("pip uninstall -y opencv-python-headless opencv-python && pip install")


def test_an_endpoint_that_is_not_given_is_a_failure() -> None:
    assert _named(checks.checks(caption=CaptionConfig(source="endpoint")))["captions"].ok is False


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-not-to-be-seen")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-not-to-be-seen")
    monkeypatch.setenv("RUSHES_API_KEY", "key-not-to-be-seen")
    found = checks.checks(caption=CaptionConfig(source="endpoint", endpoint="http://localhost/v1"))
    assert "not-to-be-seen" not in str(found)
    assert _named(found)["s3"].ok


def test_neither_torch_nor_ray_is_imported() -> None:
    code = (
        "import sys; from rushes.pipelines.cli import checks; checks.checks(); "
        "print({'torch', 'ray', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
