"""The endpoint captioner against a real HTTP server that errs in every way servers err, and through a whole run."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rushes.filters.caption import FIELDS
from rushes.pipelines.config import CaptionConfig, CurateConfig, PackConfig, ScoreConfig, SelectConfig, ShotsConfig
from rushes.pipelines.engine import curate
from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.caption import caption, endpoint, prompt, stage
from rushes.pipelines.stages.caption.endpoint import EndpointCaptioner
from rushes.pipelines.stages.pack import pack, verify
from rushes.pipelines.store import binding
from rushes.pipelines.store.ledger import Ledger, to_table
from rushes.pipelines.store.tables import TABLES
from tests.pipelines import at_work
from tests.pipelines.at_work import SCAN, UNIT

REPO = Path(__file__).parents[4]
Answer = tuple[int, dict[str, str], str]  # status, headers, body


def _clip(key: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key, "uri": f"{key}.mp4", "source_id": "s", "unit": "u0", "start_s": 1.0, "duration_s": 3.0,
        "camera": "static", "luma_mean": 120.0, "luma_std": 60.0, "object_speed": 0.2, "object_area": 0.1,
        "caption": None, "jpegs": [f"jpeg of {key}".encode()], "frame_s": [2.5], "end_s": 4.0, "phash": [7, 8],
        "scores": {"tags": {"label": "dog 0.80, ball 0.10", "value": 0.8, "model": "lite0"}},
    } | more  # fmt: skip


def _good(short: str) -> str:
    parts = {name: f"{name} of {short}" for name in FIELDS}
    return json.dumps(parts | {"shot_size": "close-up", "camera_motion": "static"})


def _completion(content: str) -> Answer:
    body = {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
    }  # fmt: skip
    return 200, {"content-type": "application/json"}, json.dumps(body)


def _images(body: dict[str, Any]) -> list[bytes]:
    content = body["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.split(",")[1]) for url in urls]


def _shown(body: dict[str, Any]) -> str:
    """Return what the pictures of a question tell: a name in the small tests, a digest of real pictures."""
    images = _images(body)
    name = images[0].removeprefix(b"jpeg of ")
    return name.decode() if name != images[0] else picture_digest(images)


def picture_digest(jpegs: list[bytes]) -> str:
    return hashlib.sha256(b"".join(jpegs)).hexdigest()[:16]


class Server(ThreadingHTTPServer):
    """Answers as `behave` says; remembers every question and how many were open at once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave: Callable[[str, int], Answer] = lambda key, time_: _completion(_good(key))
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.models = ["only-one"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.server.models]
        self._send((200, {"content-type": "application/json"}, json.dumps({"object": "list", "data": models})))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = _shown(body)
        with self.server.lock:
            self.server.asked.append(body)
            self.server.keys.append(self.headers["authorization"])
            self.server.times.append(time.monotonic())
            nth = sum(one["messages"][1] == body["messages"][1] for one in self.server.asked)
            self.server.open += 1
            self.server.most_open = max(self.server.most_open, self.server.open)
        answer = self.server.behave(key, nth)
        with self.server.lock:
            self.server.open -= 1
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        status, headers, body = answer
        if status == 0:  # nothing at all: the line is cut
            self.close_connection = True
            self.connection.close()
            return
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())
        except OSError:
            pass  # the client gave up waiting, as one test wants it to


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointCaptioner]:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.01)

    def build(**changes: Any) -> EndpointCaptioner:
        settings = {"source": "endpoint", "endpoint": server.url, "model": "m", "retries": 2, "timeout_s": 5.0}
        return EndpointCaptioner(CaptionConfig(**{**settings, **changes}))

    return build


def test_every_answer_goes_to_the_clip_whose_frames_were_sent(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.01 * (7 - int(key))), _completion(_good(key)))[1]  # last first
    rows = ask().caption([_clip(str(k)) for k in range(8)]).rows
    assert [(row["key"], row["short"]) for row in rows] == [(str(k), f"short of {k}") for k in range(8)]
    assert to_table("captions", rows).num_rows == 8


def test_the_question_holds_frames_facts_and_a_schema(server: Server, ask: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("RUSHES_API_KEY", "the-key")
    ask().caption([_clip("a", jpegs=[b"jpeg of a", b"second"], frame_s=[1.25, 3.5])])
    [body] = server.asked
    text, *pictures = body["messages"][1]["content"]
    assert [part.get("text", part["type"]) for part in pictures] == [
        "Frame 1 of 2, at 0.25 s", "image_url", "Frame 2 of 2, at 2.50 s", "image_url"
    ]  # fmt: skip
    for fact in ("length: 3.0 s, one shot", "camera_motion: static", "medium light (mean luma 120 of 255)", "dog"):
        assert fact in text["text"]
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(FIELDS) and "pan left" in schema["properties"]["camera_motion"]["enum"]
    assert server.keys == ["Bearer the-key"]


def test_no_more_requests_are_open_than_allowed(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.05), _completion(_good(key)))[1]
    ask(concurrency=3).caption([_clip(str(k)) for k in range(9)])
    assert server.most_open == 3


@pytest.mark.parametrize(
    "first",
    [
        (500, {}, "oops"),
        (503, {"content-type": "application/json"}, '{"error": {"message": "loading"}}'),
        _completion("I cannot help with that."),
        _completion('{"short": "only half"'),
        _completion('{"short": "", "long": null}'),
        (200, {"content-type": "application/json"}, "{not json"),
        (200, {"content-type": "text/html"}, "<html>gateway</html>"),
        (200, {"content-type": "application/json"}, '{"id": "1", "choices": []}'),
        (200, {"content-type": "application/json"}, '{"choices": [{}]}'),
        (200, {"content-type": "application/json"}, "[1]"),
    ],
)
def test_a_fault_is_followed_by_another_try(server: Server, ask: Any, first: Answer) -> None:
    server.behave = lambda key, nth: first if nth == 1 else _completion(_good(key))
    assert ask().caption([_clip("a")]).rows[0]["short"] == "short of a"
    assert len(server.asked) == 2


def test_a_rate_limit_holds_back_every_request_for_as_long_as_it_says(server: Server, ask: Any) -> None:
    limit = (429, {"retry-after": "0.4"}, "slow down")
    server.behave = lambda key, nth: limit if key == "0" and nth == 1 else _completion(_good(key))
    asked = ask(concurrency=1)
    assert len(asked.caption([_clip("0"), _clip("1")]).rows) == 2
    assert server.times[1] - server.times[0] >= 0.4


def test_a_slow_server_is_left_and_tried_again(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.5 if nth == 1 else 0), _completion(_good(key)))[1]
    began = time.monotonic()
    assert ask(timeout_s=0.2).caption([_clip("a")]).rows[0]["short"] == "short of a"
    assert time.monotonic() - began < 2


def test_one_clip_that_fails_costs_no_other_its_caption(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: _completion("no" if key == "bad" else _good(key))
    done = ask().caption([_clip("a"), _clip("bad"), _clip("c"), _clip("empty", jpegs=[])])
    assert [row["key"] for row in done.rows] == ["a", "c"]
    assert [(row["key"], row["code"], row["seconds"]) for row in done.errors] == [
        ("bad", "junk", 0.0), ("empty", "no_frames", 0.0)
    ]  # fmt: skip
    assert to_table("errors", done.errors).num_rows == 2 and done.fatal is None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_stops_at_once_and_names_the_settings(server: Server, ask: Any, status: int) -> None:
    server.behave = lambda key, nth: (status, {"content-type": "application/json"}, '{"error": {"message": "no"}}')
    done = ask(concurrency=1).caption([_clip(str(k)) for k in range(9)])
    assert "refuses" in str(done.fatal) and "--caption.endpoint" in str(done.fatal)
    assert len(server.asked) == 1


def test_a_server_that_is_down_stops_the_run_rather_than_failing_every_clip(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (500, {}, "down")
    done = ask(retries=1).caption([_clip("a"), _clip("b")])
    assert "no clip of 2" in str(done.fatal) and len(server.asked) == 4


def test_a_server_that_dies_amid_a_batch_loses_nothing_that_it_answered(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: _completion(_good(key)) if key < "2" else (401, {}, "gone")
    done = ask(concurrency=1).caption([_clip(str(k)) for k in range(6)])
    assert [row["key"] for row in done.rows] == ["0", "1"] and done.fatal is not None


def test_a_model_that_answers_junk_for_every_clip_is_stopped_before_it_costs_more(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: _completion('{"short": "", "long": ""}')
    done = ask().caption([_clip(str(k)) for k in range(caption.ENOUGH)])
    assert done.fatal is not None and done.fatal.code == "junk" and "take another" in str(done.fatal)


def test_junk_is_answered_once_with_what_was_wrong_and_then_is_an_error(server: Server, ask: Any) -> None:
    bad = json.dumps({"short": "I'm sorry, I can't help with that.", "long": "No."})
    server.behave = lambda key, nth: _completion(bad if key == "never" or nth == 1 else _good(key))
    done = ask(concurrency=1).caption([_clip("a"), _clip("never")])
    assert [row["short"] for row in done.rows] == ["short of a"]
    assert [(row["key"], row["code"]) for row in done.errors] == [("never", "junk")]
    assert len(server.asked) == 4 and "short refuses" in done.errors[0]["reason"]
    said, wrong = server.asked[1]["messages"][2:]
    assert (said["role"], said["content"]) == ("assistant", bad) and "short refuses" in wrong["content"]


def test_a_contradiction_is_recorded_and_the_measured_camera_stands(server: Server, ask: Any) -> None:
    [row] = ask().caption([_clip("a", camera="pan", pan=-0.2, camera_speed=0.2)]).rows
    assert (row["camera_motion"], row["shot_size"]) == ("pan left", "close-up")
    assert row["checks"] == "camera: said 'static', measured 'pan left'"


def test_a_caption_is_bound_to_its_clip_and_says_what_was_asked(ask: Any) -> None:
    clips = [_clip("a"), _clip("b")]
    one, other = ask().caption(clips).rows
    assert binding.holds(clips[0], one) and binding.holds(clips[1], other)
    assert not binding.holds(clips[1], one | {"key": "b"})
    assert one["prompt"] == prompt.PROMPT_DIGEST


def test_a_rate_is_kept_over_all_threads_and_shared_among_actors(server: Server) -> None:
    config = CaptionConfig(source="endpoint", endpoint=server.url, model="m", concurrency=8, requests_per_minute=2400)
    captioner, begun = EndpointCaptioner(config, actors=2), time.monotonic()
    captioner.caption([_clip(str(k)) for k in range(8)])
    assert max(server.times) - begun >= 7 * 0.05  # 1200 a minute each; the first may be long on its way


def test_the_key_comes_from_the_environment_and_is_in_no_error(
    server: Server, ask: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setenv("RUSHES_API_KEY", "sk-very-secret")
    told = '{"error": {"message": "Incorrect API key provided: sk-very-secret"}}'
    for status in (400, 401):
        server.behave = lambda key, nth, status=status: (status, {"content-type": "application/json"}, told)
        done = ask().caption([_clip("a")])
        assert "Incorrect API key" in done.errors[0]["reason"]
        assert "sk-very-secret" not in f"{done} {done.fatal} {caplog.text}"


def test_a_password_in_the_address_is_in_no_error() -> None:
    config = CaptionConfig(source="endpoint", endpoint="http://me:pass@127.0.0.1:9/v1", model="m", retries=0)
    done = EndpointCaptioner(config).caption([_clip("a")])
    assert done.fatal is not None and "pass" not in f"{done} {done.fatal}"


def test_a_request_that_the_server_rejects_is_not_repeated(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (400, {"content-type": "application/json"}, '{"error": {"message": "too large"}}')
    [error] = ask().caption([_clip("a")]).errors
    assert (error["code"], len(server.asked)) == ("rejected", 1)
    assert "too large" in error["reason"]


def test_the_only_model_of_a_server_needs_no_name(server: Server, ask: Any) -> None:
    assert ask(model="").caption([_clip("a")]).rows[0]["model"] == "only-one"
    server.models = ["one", "two"]
    with pytest.raises(caption.CaptionError, match=r"offers one, two; name one of them"):
        ask(model="")


# --- killed -------------------------------------------------------------------------------------------------------

WORKER = """
import sys
from rushes.pipelines.config import CaptionConfig, CurateConfig
from tests.pipelines import at_work
config = CaptionConfig(source="endpoint", endpoint=sys.argv[2], model="m", concurrency=2)
sys.exit(at_work.do(sys.argv[1], CurateConfig(caption=config), "caption")["fatal"] or None)
"""


def test_a_worker_killed_by_the_system_asks_again_only_for_what_was_under_way(server: Server, tmp_path: Path) -> None:
    ledger, at_once = Ledger(str(tmp_path / "run")), stage.CLIPS_AT_ONCE
    ledger.create()
    clips = [_clip(f"{n:03d}", unit=UNIT, frame_s=[n + 2.5]) for n in range(2 * at_once + 10)]
    columns = set(TABLES["clips"].names)
    ledger.write("clips", UNIT, [{k: v for k, v in clip.items() if k in columns} for clip in clips], "c")
    pictures = [{"source_id": "s", "time_s": clip["frame_s"][0], "jpeg": clip["jpegs"][0]} for clip in clips]
    ledger.write("frames", SCAN, pictures, "f")
    ledger.write("scores", UNIT, [], "o")
    at_work.keep(ledger.run, [clip["key"] for clip in clips])
    server.behave = lambda key, nth: (time.sleep(0.01), _completion(_good(key)))[1]
    command = [sys.executable, "-c", WORKER, ledger.run, server.url]
    worker = subprocess.Popen(command, cwd=REPO)
    while len(server.asked) < 2 * at_once - 5 and worker.poll() is None:
        time.sleep(0.005)
    worker.kill()
    worker.wait()
    killed_at = len(server.asked)
    assert ledger.parts("captions") == [] and killed_at < len(clips)
    assert subprocess.run(command, cwd=REPO, check=False).returncode == 0
    rows = ledger.read("captions").to_pylist()
    assert [(row["key"], row["short"]) for row in rows] == [(clip["key"], f"short of {clip['key']}") for clip in clips]
    assert len(server.asked) - len(clips) <= killed_at - at_once, "the first group was not asked for again"


# --- a whole run --------------------------------------------------------------------------------------------------


def _third(picture: str, nth: int) -> Answer | None:
    """Return the fault of about every third call, or None: by the picture and the try, so that a test repeats itself.

    No picture meets more than two faults in a row, or junk twice, which would rightly be an error.
    """
    drawn = hashlib.sha256(f"{picture} {nth}".encode()).digest()
    if nth > 2 or drawn[0] % 3:
        return None
    nonsense = _completion("lorem ipsum dolor")
    faults = [(500, {}, "oops"), nonsense, (0, {}, ""), (429, {"retry-after": "0.05"}, "slow down")]
    return faults[drawn[1] % len(faults)]


def test_a_server_that_fails_a_third_of_the_calls_captions_every_clip_once_and_its_own(
    server: Server, bikes: Path, tmp_path: Path, monkeypatch: Any, one_process: None
) -> None:
    monkeypatch.setenv("RUSHES_API_KEY", "sk-very-secret")
    faults = 0

    def behave(picture: str, nth: int) -> Answer:
        nonlocal faults
        fault = _third(picture, nth)
        with server.lock:
            faults += fault is not None
        return fault or _completion(_good(picture))

    server.behave = behave
    folder, run = tmp_path / "in", str(tmp_path / "run")
    folder.mkdir()
    shutil.copy(bikes, folder / "bikes.mp4")
    config = CurateConfig(
        shots=ShotsConfig(min_clip_s=0.3, max_clip_s=0.7), pack=PackConfig(max_side_px=96),
        score=ScoreConfig(scorers=["quality"]), select=SelectConfig(policy=_all(tmp_path)),
        caption=CaptionConfig(source="endpoint", endpoint=server.url, model="m"),
    )  # fmt: skip
    curate.curate([str(folder)], run, config, reporter=Reporter(live=False))
    ledger = Ledger(run)
    clips = ledger.read("clips").to_pylist()
    kept = {row["key"] for row in ledger.read("selection").to_pylist() if row["kept"]}
    frames = {(row["source_id"], row["time_s"]): row["jpeg"] for row in ledger.read("frames").to_pylist()}
    true = {
        clip["key"]: f"short of {picture_digest([frames[clip['source_id'], at] for at in clip['frame_s']])}"
        for clip in clips
        if clip["key"] in kept
    }
    rows = ledger.read("captions").to_pylist()
    assert len(true) >= 12 and len(set(true.values())) == len(true), "every clip has a caption of its own to get"
    assert faults >= len(server.asked) / 5, f"{faults} of {len(server.asked)} calls failed"
    assert sorted(row["key"] for row in rows) == sorted(true), "all captioned, none doubled"
    assert {row["key"]: row["short"] for row in rows} == true, "none swapped"
    assert verify.verify(run) == []

    _exchange_two_captions(ledger)
    named = {problem.where for problem in verify.verify(run) if "caption" in problem.reason}
    assert named == {rows[0]["key"], rows[1]["key"]}
    with pytest.raises(pack.PackError, match=rows[1]["key"]):
        pack.join(ledger, [rows[0]["key"]])
    written = b"".join(file.read_bytes() for file in Path(run).rglob("*") if file.is_file())
    assert b"sk-very-secret" not in written and set(server.keys) == {"Bearer sk-very-secret"}


def _all(folder: Path) -> str:
    """Return a policy that keeps every clip."""
    policy = folder / "all.yaml"
    policy.write_text("name: all\nrules:\n  - {name: long_enough, measure: duration_s, min: 0.0}\n")
    return str(policy)


def _exchange_two_captions(ledger: Ledger) -> None:
    part = ledger.parts("captions")[0]
    rows = ledger.read_unit("captions", part.unit).to_pylist()
    rows[0]["key"], rows[1]["key"] = rows[1]["key"], rows[0]["key"]
    ledger.write("captions", part.unit, to_table("captions", rows), part.fingerprint)
