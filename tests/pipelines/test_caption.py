"""Captioners against a real HTTP server that errs in every way servers err."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from filters.caption import FIELDS
from pipelines import caption, prompt
from pipelines.config import CaptionConfig
from pipelines.ledger import to_table

Answer = tuple[int, dict[str, str], str]  # status, headers, body


def _clip(key: str, **more: Any) -> dict[str, Any]:
    return {
        "key": key, "uri": f"{key}.mp4", "source_id": "s", "unit": "u0", "start_s": 1.0, "duration_s": 3.0,
        "camera": "static", "luma_mean": 120.0, "luma_std": 60.0, "object_speed": 0.2, "object_area": 0.1,
        "caption": None, "jpegs": [f"jpeg of {key}".encode()],
        "scores": {"tags": {"label": "dog 0.80, ball 0.10", "value": 0.8, "model": "lite0"}},
    } | more  # fmt: skip


def _good(short: str) -> str:
    return json.dumps({name: f"{name} of {short}" for name in FIELDS})


def _completion(content: str) -> Answer:
    body = {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
    }  # fmt: skip
    return 200, {"content-type": "application/json"}, json.dumps(body)


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
        image = body["messages"][1]["content"][1]["image_url"]["url"]
        key = prompt.base64.b64decode(image.split(",")[1]).decode().removeprefix("jpeg of ")
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
def ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., caption.EndpointCaptioner]:
    monkeypatch.setattr(caption, "FIRST_WAIT_S", 0.01)

    def build(**changes: Any) -> caption.EndpointCaptioner:
        settings = {"source": "endpoint", "endpoint": server.url, "model": "m", "retries": 2, "timeout_s": 5.0}
        return caption.EndpointCaptioner(CaptionConfig(**{**settings, **changes}))

    return build


# --- tags ---------------------------------------------------------------------------------------------------------


def test_a_composed_caption_is_marked_as_tags_and_fits_the_ledger() -> None:
    rows = caption.TagCaptioner()([_clip("a"), _clip("b", scores={})])
    assert [(row["source"], row["model"], row["subject"]) for row in rows] == [
        ("tags", "lite0", "dog"),
        ("tags", "", ""),
    ]
    assert rows[0]["short"].startswith("A dog, static camera")
    assert to_table("captions", rows).num_rows == 2


@pytest.mark.parametrize("source", ["tags", "endpoint"])
def test_a_given_caption_is_kept_to_the_letter_and_costs_no_request(server: Server, source: Any) -> None:
    config = CaptionConfig(source=source, endpoint=server.url, model="m")
    rows = caption.captioner(config)([_clip("a", caption="  Ein Hund läuft.  ")])
    assert (rows[0]["source"], rows[0]["short"], rows[0]["long"]) == ("given", "Ein Hund läuft.", "Ein Hund läuft.")
    assert server.asked == []


# --- the endpoint -------------------------------------------------------------------------------------------------


def test_every_answer_goes_to_the_clip_whose_frames_were_sent(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.01 * (7 - int(key))), _completion(_good(key)))[1]  # last first
    rows = ask()([_clip(str(k)) for k in range(8)])
    assert [(row["key"], row["short"]) for row in rows] == [(str(k), f"short of {k}") for k in range(8)]
    assert to_table("captions", rows).num_rows == 8


def test_the_question_holds_frames_facts_and_a_schema(server: Server, ask: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("RUSHES_API_KEY", "the-key")
    ask()([_clip("a", jpegs=[b"jpeg of a", b"second"])])
    [body] = server.asked
    text, *images = body["messages"][1]["content"]
    assert len(images) == 2
    assert "length: 3.0 s" in text["text"]
    assert "camera: static camera" in text["text"]
    assert "dog" in text["text"]
    assert body["response_format"]["json_schema"]["schema"]["required"] == list(FIELDS)
    assert server.keys == ["Bearer the-key"]


def test_no_more_requests_are_open_than_allowed(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.05), _completion(_good(key)))[1]
    ask(concurrency=3)([_clip(str(k)) for k in range(9)])
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
    assert ask()([_clip("a")])[0]["short"] == "short of a"
    assert len(server.asked) == 2


def test_a_rate_limit_holds_back_every_request_for_as_long_as_it_says(server: Server, ask: Any) -> None:
    limit = (429, {"retry-after": "0.4"}, "slow down")
    server.behave = lambda key, nth: limit if key == "0" and nth == 1 else _completion(_good(key))
    asked = ask(concurrency=1)
    assert len(asked([_clip("0"), _clip("1")])) == 2
    assert server.times[1] - server.times[0] >= 0.4


def test_a_slow_server_is_left_and_tried_again(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (time.sleep(0.5 if nth == 1 else 0), _completion(_good(key)))[1]
    began = time.monotonic()
    assert ask(timeout_s=0.2)([_clip("a")])[0]["short"] == "short of a"
    assert time.monotonic() - began < 2


def test_one_clip_that_fails_costs_no_other_its_caption(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: _completion("no" if key == "bad" else _good(key))
    done = ask().caption([_clip("a"), _clip("bad"), _clip("c"), _clip("empty", jpegs=[])])
    assert [row["key"] for row in done.rows] == ["a", "c"]
    assert [(row["key"], row["code"], row["seconds"]) for row in done.errors] == [
        ("bad", "junk", 0.0), ("empty", "no_frames", 0.0)
    ]  # fmt: skip
    assert to_table("errors", done.errors).num_rows == 2
    with pytest.raises(caption.CaptionError, match="clip bad"):
        ask()([_clip("a"), _clip("bad")])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_stops_at_once_and_names_the_settings(server: Server, ask: Any, status: int) -> None:
    server.behave = lambda key, nth: (status, {"content-type": "application/json"}, '{"error": {"message": "no"}}')
    with pytest.raises(caption.CaptionError, match=r"refuses.*--caption\.endpoint"):
        ask(concurrency=1).caption([_clip("a"), _clip("b")])
    assert len(server.asked) <= 2


def test_a_server_that_is_down_stops_the_batch_rather_than_failing_every_clip(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (500, {}, "down")
    with pytest.raises(caption.CaptionError, match="answered for no clip of 2"):
        ask(retries=1).caption([_clip("a"), _clip("b")])
    assert len(server.asked) == 4


def test_a_request_that_the_server_rejects_is_not_repeated(server: Server, ask: Any) -> None:
    server.behave = lambda key, nth: (400, {"content-type": "application/json"}, '{"error": {"message": "too large"}}')
    [error] = ask().caption([_clip("a")]).errors
    assert (error["code"], len(server.asked)) == ("rejected", 1)
    assert "too large" in error["reason"]


def test_the_only_model_of_a_server_needs_no_name(server: Server, ask: Any) -> None:
    assert ask(model="")([_clip("a")])[0]["model"] == "only-one"
    server.models = ["one", "two"]
    with pytest.raises(caption.CaptionError, match=r"offers one, two; name one of them"):
        ask(model="")


def test_an_endpoint_that_is_not_named_is_an_error() -> None:
    with pytest.raises(caption.CaptionError, match=r"--caption\.endpoint"):
        caption.captioner(CaptionConfig(source="endpoint"))


# --- reading answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '{"short": "a", "long": "b"}',
        '```json\n{"short": "a", "long": "b"}\n```',
        '<think>{"maybe": 1} {hm</think> Here: {"short": "a", "long": "b", "extra": [1]} Bye.',
        '{"short": ["a"], "long": "b", "subject": null, "style": 3}',
        '{"short": "a\\ud800", "long": "b"}',
    ],
)
def test_a_caption_is_found_in_what_models_write_round_it(answer: str) -> None:
    parts = prompt.parse(answer)
    assert (parts["short"], parts["long"], parts["style"]) == ("a", "b", "")
    assert tuple(parts) == FIELDS


@pytest.mark.parametrize("answer", [None, "", "{" * 5000, "null", "[]", '{"short": "a"}', '{"a":' * 3000])
def test_what_holds_no_caption_is_junk(answer: str | None) -> None:
    with pytest.raises(prompt.Junk, match="holds no caption"):
        prompt.parse(answer)


def test_a_server_may_ask_for_no_more_than_a_minute() -> None:
    assert caption.asked_wait_s({"retry-after": "9999"}, 1.0) == caption.LONGEST_WAIT_S
    assert caption.asked_wait_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1.0) == 1.0
    assert caption.asked_wait_s({}, 1.0) == 1.0
