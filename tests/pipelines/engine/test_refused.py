"""An object store that refuses one object: that object is an error with its name, and nothing else stops. No Ray."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import s3fs

from rushes.pipelines.config import CurateConfig, InputConfig, PackConfig
from rushes.pipelines.engine.plan import add_inputs
from rushes.pipelines.media import footage
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines import at_work

CONFIG = CurateConfig(pack=PackConfig(max_side_px=48))
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


class Guarded(ThreadingHTTPServer):
    """Stands before an S3 server and answers 403 to requests whose method and path hold certain words."""

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind).netloc
        self.refused: list[tuple[str, str]] = []

    def refuse(self, methods: str, word: str) -> None:
        self.refused.append((methods, word))


class _Handler(BaseHTTPRequestHandler):
    server: Guarded
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]  # a listing names what it lists in its query
        if any(self.command in methods and word in path for methods, word in self.server.refused):
            self._send(403, [("content-type", "application/xml")], DENIED)
            return
        there = http.client.HTTPConnection(self.server.behind)
        there.request(self.command, self.path, body, dict(self.headers))
        said = there.getresponse()
        length = said.getheader("content-length") if self.command == "HEAD" else None
        self._send(said.status, said.getheaders(), said.read(), length)
        there.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("content-length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


@pytest.fixture
def store(s3: str, s3_server: str, bikes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Guarded]]:
    """A bucket with three films behind a guard that refuses nothing yet."""
    for name in ("a", "b", "c"):
        s3fs.S3FileSystem().put(str(bikes.with_name("carphone_pristine.mp4")), f"{s3}/in/{name}.mp4")
    guard = Guarded(s3_server)
    thread = threading.Thread(target=guard.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{guard.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3, guard
    guard.shutdown()
    guard.server_close()
    thread.join()


def planned(run: str, folder: str) -> Ledger:
    ledger = Ledger(run)
    ledger.create()
    add_inputs(ledger, footage.expand([folder], InputConfig()), InputConfig(units_per_wave=1), lambda uri: True)
    return ledger


def test_an_object_that_is_refused_is_an_error_row_and_the_others_are_probed(
    store: tuple[str, Guarded], tmp_path: Path
) -> None:
    bucket, guard = store
    ledger = planned(str(tmp_path / "run"), f"{bucket}/in/")
    guard.refuse("GET HEAD", "/in/b.mp4")
    done = at_work.do(ledger.run, CONFIG, "sources")
    assert (done["items"], done["errors"], done["fatal"]) == (2, 1, "")
    [error] = ledger.read("errors").to_pylist()
    assert (error["uri"], error["code"]) == (f"{bucket}/in/b.mp4", "unreadable")
    assert "Access Denied" in error["reason"]
    assert "check the rights" in error["remedy"] and "--retry-failed" in error["remedy"]


def test_an_object_that_is_refused_later_is_lost_with_its_seconds_and_no_other(
    store: tuple[str, Guarded], tmp_path: Path
) -> None:
    bucket, guard = store
    ledger = planned(str(tmp_path / "run"), f"{bucket}/in/")
    at_work.do(ledger.run, CONFIG, "sources")
    guard.refuse("GET HEAD", "/in/b.mp4")
    done = at_work.do(ledger.run, CONFIG, "scan")
    assert (done["items"], done["errors"], done["fatal"]) == (2, 1, "")
    [error] = ledger.read("errors").to_pylist()
    assert (error["uri"], error["code"]) == (f"{bucket}/in/b.mp4", "unreadable")
    assert error["seconds"] == pytest.approx(4.0, abs=0.01) and "Access Denied" in error["reason"]


def test_a_part_that_may_not_be_written_stops_the_run_with_one_sentence(store: tuple[str, Guarded]) -> None:
    bucket, guard = store
    ledger = planned(f"{bucket}/run", f"{bucket}/in/")
    guard.refuse("PUT POST", "/ledger/sources/")
    done = at_work.do(ledger.run, CONFIG, "sources")
    assert f"no access to {bucket}/run/ledger/sources/part-" in done["fatal"] and "credentials" in done["fatal"]
    assert ledger.parts("sources") == [] and len(done["fatal"].splitlines()) == 1
