"""What an S3 server was asked: each request by its kind and by the place in the bucket that it concerns.

moto answers in threads of this process, so requests of all processes that were told its address are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

KINDS = ("LIST", "HEAD", "GET", "PUT", "CREATE", "PART", "COMPLETE", "ABORT", "DELETE", "BUCKET")
"""CREATE, PART, COMPLETE and ABORT belong to uploads in parts; BUCKET is whatever asks about a bucket as such."""
_MARKED = {
    ("GET", "list-type"): "LIST", ("GET", "prefix"): "LIST", ("GET", "uploads"): "BUCKET", ("POST", "delete"): "DELETE",
    ("POST", "uploads"): "CREATE", ("PUT", "partNumber"): "PART", ("POST", "uploadId"): "COMPLETE",
    ("DELETE", "uploadId"): "ABORT",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request."""

    kind: str
    """One of `KINDS`."""
    key: str
    """The object's key; of a LIST the prefix, of a DELETE of many nothing."""


@dataclass
class Log:
    """The requests that a server was sent, in order."""

    address: str = ""
    requests: list[Request] = field(default_factory=list)

    @contextmanager
    def during(self) -> Iterator[list[Request]]:
        """Give a list that holds, after the block, what was asked during it."""
        begun, asked = len(self.requests), list[Request]()
        try:
            yield asked
        finally:
            asked.extend(self.requests[begun:])

    def watch(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application with every request to it noted."""

        def noting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            self.requests.append(request_of(environ))
            return app(environ, start_response)

        return noting


def request_of(environ: dict[str, Any]) -> Request:
    """Return what a WSGI environment asks of S3; buckets stand in front of the key in the path."""
    asked = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    method, key = environ["REQUEST_METHOD"], environ["PATH_INFO"].lstrip("/").partition("/")[2]
    kinds = [kind for (of, mark), kind in _MARKED.items() if of == method and mark in asked]
    if kinds:
        return Request(kinds[0], key or asked.get("prefix", [""])[0])
    return Request(method if key and method in KINDS else "BUCKET", key)


@contextmanager
def served() -> Iterator[Log]:
    """Serve S3 on the loopback until the block ends; the log knows the address."""
    log = Log()
    app = log.watch(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    log.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield log
    finally:
        server.shutdown()
        thread.join()


def place(key: str) -> str:
    """Return the place in a bucket that a key belongs to: a table of the ledger, or a folder of the run or beside."""
    inside = key.removeprefix("run/")
    table = re.match(r"ledger/[a-z]+", inside)
    return table[0] if table else inside.split("/")[0] if "/" in inside else "the run's own files"


def counted(requests: Iterable[Request]) -> Counter[str]:
    """Return the number of requests of each kind."""
    return Counter(request.kind for request in requests)


def by_place(requests: Iterable[Request]) -> dict[str, Counter[str]]:
    """Return the number of requests of each kind for each place, the busiest first."""
    found: dict[str, Counter[str]] = {}
    for request in requests:
        found.setdefault(place(request.key), Counter())[request.kind] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1].total(), item[0])))
