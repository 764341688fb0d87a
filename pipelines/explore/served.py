"""What `rushes explore` answers: a page, and JSON, pictures and videos of one run. A Starlette application.

Answers go to this machine alone unless another host is asked for. A request under a foreign Host is refused, so that no
page of the web reaches the server by a name of its own (DNS rebinding); what the page may load and run is told by a
Content-Security-Policy; writing takes the token that the page's address brought. Captions and names travel as JSON and
are put on the page as text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mimetypes
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from importlib import resources
from typing import Any

import duckdb
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rushes.filters import policy as policies
from rushes.pipelines.explore import clip, compare, labels, shell
from rushes.pipelines.explore.map import Tile
from rushes.pipelines.explore.queries import QUERIES
from rushes.pipelines.explore.workbench import PAGE, Filter, Hue, Mask, Workbench
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TOKEN = "x-rushes-token"
SCRIPTS = (
    "page.js", "histogram.js", "tried.js", "verdict.js", "news.js", "clip.js", "map.js", "chart.js", "explore.js",
)  # fmt: skip
ASSETS = {"": "explore.html", "explore.css": "explore.css", **{name: name for name in SCRIPTS}}
MOST_BYTES = 1_000_000
"""Of a request; a policy is far less."""
MOST_LETTERS = 500
"""Of a text that clips are searched for."""
SQL_ROWS, SQL_S = 1000, 30
"""Rows that a query of the page may give, and seconds that it may take."""
PIECE_BYTES = 256 * 1024
MOST_SPREADS, MOST_RANGES, MOST_CORNERS = 24, 24, 1000
"""Histograms at once; ranges of a filter; corners of a line around clips on the map."""
MOST_PX = 8192
"""Side of a screen."""
ENDS = (0.02, 0.98)
"""Shares of clips below the ends of a scale of colours, beyond which the colour stays."""
WAIT_S = 0.5
"""For the map, before the page is told how far it is."""


def application(
    bench: Workbench,
    token: str,
    hosts: tuple[str, ...] = LOOPBACK,
    other: Workbench | None = None,
    who: str = "",
) -> ASGIApp:
    """Return the application over one run.

    Args:
        bench: the run.
        token: what writing takes, in the header `x-rushes-token`.
        hosts: names that requests may have in `Host`, with or without a port.
        other: the run to compare with; the same one if not given.
        who: in whose name labels are noted.
    """
    app = Starlette(
        routes=[
            Route("/", _asset),
            Route("/{name:str}", _asset),
            Route("/api/run", _run),
            Route("/api/news", _news),
            Route("/api/reload", _reload, methods=["POST"]),
            Route("/api/policy", _policy, methods=["POST"]),
            Route("/api/try", _try, methods=["POST"]),
            Route("/api/clips", _clips, methods=["POST"]),
            Route("/api/spread", _spread, methods=["POST"]),
            Route("/api/map", _map, methods=["POST"]),
            Route("/api/compare", _compare, methods=["POST"]),
            Route("/api/save", _save, methods=["POST"]),
            Route("/api/label", _label, methods=["POST"]),
            Route("/api/sql", _sql, methods=["POST"]),
            Route("/api/verdict/{key}", _verdict, methods=["POST"]),
            Route("/api/clip/{key}", _clip),
            Route("/api/plays/{key}", _plays),
            Route("/api/strip/{key}", _strip),
            Route("/api/video/{key}", _video),
            Route("/api/borders/{key}", _borders),
            Route("/api/borders/{key}/{number:int}", _border),
        ]
    )
    app.state.token, app.state.other, app.state.who = token, other, who
    app.state.labelling, app.state.loading = threading.Lock(), threading.Lock()
    app.state.bench, app.state.looks = bench, clip.Looks(bench)
    return _Guarded(app, hosts)


class _Guarded:
    """Refuses foreign hosts, and puts the headers that keep a page to itself on every answer."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]):
        self.app, self.hosts = app, set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] += [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in own]
            await send(message)

        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if host.rpartition(":")[0] in self.hosts or host in self.hosts:
            await self.app(scope, receive, sent)
        else:
            said = {"error": f"this server answers to {', '.join(sorted(self.hosts))} alone, not to {host[:80]!r}"}
            await JSONResponse(said, 421)(scope, receive, sent)


class Forbidden(Exception):
    """A request may not write; the message says what it lacks."""


Answer = Callable[[Request], Awaitable[Response]]


def _told(answer: Answer) -> Answer:
    """Let what is the user's to mend come back as one sentence."""

    @wraps(answer)
    async def safe(request: Request) -> Response:
        try:
            return await answer(request)
        except Forbidden as error:
            return JSONResponse({"error": str(error)}, 403)
        except KeyError as error:
            return JSONResponse({"error": f"there is no clip {error.args[0]} in this run"}, 404)
        except FileExistsError as error:
            return JSONResponse({"error": str(error)}, 409)
        except (ValueError, storage.StorageError, OSError) as error:
            return JSONResponse({"error": storage.redact(" ".join(str(error).split()))}, 400)

    return safe


async def _given(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises ValueError for anything else; no form of a foreign page is one."""
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise ValueError("the request is no JSON")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise ValueError(f"the request is larger than {MOST_BYTES} bytes")
    found = json.loads(body or b"{}")
    if not isinstance(found, dict):
        raise ValueError("the request is no JSON object")
    return found


def _number(given: dict[str, Any], name: str, default: float) -> float:
    """Return a number of a request. Raises ValueError for what is none."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is a number, not {str(value)[:40]!r}")
    return value


async def _asset(request: Request) -> Response:
    asked = request.path_params.get("name", "")
    name = ASSETS.get(asked)
    if asked == "favicon.ico":
        return Response(status_code=204)
    if name is None:
        return JSONResponse({"error": "there is no such page"}, 404)
    kind = mimetypes.guess_type(name)[0]
    return Response((resources.files("rushes.pipelines.explore") / name).read_bytes(), media_type=kind)


@_told
async def _run(request: Request) -> Response:
    bench: Workbench = request.app.state.bench
    other: Workbench = request.app.state.other or bench
    return JSONResponse(
        {
            "run": storage.redact(bench.run),
            "selection": bench.selection,
            "selections": bench.selections,
            "stale": bench.selection in selections.stale(bench.ledger),
            "policy": bench.given,
            "presets": policies.presets(),
            "drafts": bench.drafts(),
            "labels": labels.LABELS,
            "who": request.app.state.who,
            "other": {
                "run": storage.redact(other.run),
                "is_same": other is bench,
                "selections": other.selections,
            },
            "measures": bench.measured(),
            "has_map": bench.map.scorer is not None,
            "queries": [{"name": name, "question": one.question, "sql": one.sql} for name, one in QUERIES.items()],
        }
    )


@_told
async def _news(request: Request) -> Response:
    return JSONResponse({"selections": await run_in_threadpool(compare.news, request.app.state.bench)})


@_told
async def _reload(request: Request) -> Response:
    _check_token(request)  # it may read the whole run
    state = request.app.state

    def taken_up() -> None:
        with state.loading:
            bench = compare.taken_up(state.bench)
            state.bench, state.looks = bench, clip.Looks(bench)

    await run_in_threadpool(taken_up)
    return JSONResponse({"selections": state.bench.selections})


@_told
async def _policy(request: Request) -> Response:
    name = str((await _given(request)).get("name", ""))
    bench: Workbench = request.app.state.bench
    return JSONResponse({"policy": await run_in_threadpool(bench.text_of, name)})


@_told
async def _try(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    policy = policies.load(given.get("policy") or {})
    return JSONResponse(await run_in_threadpool(bench.outcome, policy, bool(given.get("settled", True))))


def _filter(given: dict[str, Any]) -> Filter:
    """Return the filter of a request. Raises ValueError for what is none."""
    ranges, line = given.get("ranges") or [], given.get("lasso") or []
    if not isinstance(ranges, list) or len(ranges) > MOST_RANGES or not all(isinstance(one, dict) for one in ranges):
        raise ValueError(f"ranges are a list of measure, low and high, {MOST_RANGES} at most")
    if not isinstance(line, list) or len(line) > MOST_CORNERS or 0 < len(line) < 3:
        raise ValueError(f"a lasso is a list of 3 to {MOST_CORNERS} corners")
    return Filter(
        fate=str(given.get("fate", "")),
        rule=str(given.get("rule", "")),
        text=str(given.get("text", ""))[:MOST_LETTERS],
        ranges=tuple((str(one.get("measure", "")), _bound(one, "low", -math.inf), _bound(one, "high", math.inf))
                     for one in ranges),
        lasso=tuple(_numbers(corner, 2, "a corner of the lasso") for corner in line),  # type: ignore[misc]
    )  # fmt: skip


def _bound(given: dict[str, Any], name: str, none: float) -> float:
    return none if given.get(name) is None else _number(given, name, none)


def _numbers(given: Any, count: int, what: str) -> tuple[float, ...]:
    """Return so many numbers of a request. Raises ValueError for anything else."""
    if not isinstance(given, list) or len(given) != count:
        raise ValueError(f"{what} is a list of {count} numbers")
    return tuple(_number({what: value}, what, 0) for value in given)


@_told
async def _clips(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    policy = policies.load(given.get("policy") or {})
    found = await run_in_threadpool(
        bench.listed, policy, _filter(given), measure=str(given.get("measure", "")),
        order=str(given.get("order", "highest")), limit=_number(given, "limit", 0),
        first=max(0, int(_number(given, "first", 0))), count=min(max(1, int(_number(given, "count", PAGE))), 4 * PAGE),
    )  # fmt: skip
    return JSONResponse(found)


@_told
async def _spread(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    names = given.get("measures")
    if not isinstance(names, list) or len(names) > MOST_SPREADS:
        raise ValueError(f"measures are a list of names, {MOST_SPREADS} at most")
    policy = policies.load(given.get("policy") or {})
    return JSONResponse(await run_in_threadpool(bench.spread, policy, _filter(given), [str(name) for name in names]))


@_told
async def _map(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    if not bench.map.is_made:
        _check_token(request)  # it is written into the run, and takes long
    policy, chosen = policies.load(given.get("policy") or {}), dataclasses.replace(_filter(given), lasso=())
    view: Any = None if given.get("view") is None else _numbers(given["view"], 4, "a view")
    if view and not (view[0] < view[2] and view[1] < view[3]):
        raise ValueError("a view is left, bottom, right and top")
    width_px, height_px = (min(max(_number(given, name, 0), 16), MOST_PX) for name in ("width_px", "height_px"))
    colour = str(given.get("colour") or "fate")

    def found() -> dict[str, Any]:
        bench.map.start()
        if not bench.map.wait(WAIT_S):
            return {"making": bench.map.share}
        meant = bench.meant(policy, chosen)
        return _drawn(bench, bench.hue(policy, colour), meant, bench.map.tile(view, width_px, height_px, meant))

    return JSONResponse(await run_in_threadpool(found))


def _drawn(bench: Workbench, hue: Hue, meant: Mask, tile: Tile) -> dict[str, Any]:
    """Return a tile as the page draws it: columns of its dots, and what their colours stand for."""
    rows = tile.rows
    found: dict[str, Any] = {
        "view": tile.view, "cell_px": tile.cell_px, "clips": tile.clips, "scorer": bench.map.scorer,
        "explained": bench.map.explained, "without": int(np.isnan(bench.map.at[:, 0]).sum()),
        "x": bench.map.at[rows, 0].round(6).tolist(), "y": bench.map.at[rows, 1].round(6).tolist(),
        "stands_for": tile.stands_for.tolist(), "meant": meant[rows].tolist(),
        "keys": [key.decode() for key in bench.keys[rows].tolist()],
    }  # fmt: skip
    if hue.codes is not None:
        names = [None if name is None else storage.redact(name) for name in hue.names]
        return found | {"codes": hue.codes[rows].tolist(), "names": names}
    assert hue.values is not None
    there = hue.values[np.isfinite(hue.values)]
    ends = np.quantile(there, ENDS).tolist() if len(there) else [0.0, 1.0]
    return found | {"values": [value if math.isfinite(value) else None for value in hue.values[rows].tolist()],
                    "ends": ends}  # fmt: skip


@_told
async def _compare(request: Request) -> Response:
    given = await _given(request)
    bench = request.app.state.bench
    other = request.app.state.other or bench
    first, second = given.get("first"), given.get("second")

    def found() -> dict[str, Any]:
        one = policies.load(first) if isinstance(first, dict) else bench.named(str(first))
        two = policies.load(second) if isinstance(second, dict) else other.named(str(second))
        return compare.compared(bench, one, other, two)

    return JSONResponse(await run_in_threadpool(found))


def _check_token(request: Request) -> None:
    """Raise Forbidden where a request may not write."""
    if not secrets.compare_digest(request.headers.get(TOKEN, "").encode(), request.app.state.token.encode()):
        raise Forbidden("writing takes the token of this session; open the address that `rushes explore` printed")


@_told
async def _label(request: Request) -> Response:
    _check_token(request)
    given = await _given(request)
    state = request.app.state
    key, label, on = str(given.get("key", "")), str(given.get("label", "")), bool(given.get("on", True))
    state.bench.place(key)
    now = datetime.now(UTC).isoformat(timespec="seconds")

    def noted() -> list[dict[str, Any]]:
        with state.labelling:
            return labels.put(Ledger(state.bench.run), key, label, state.who, now, on)

    return JSONResponse({"labels": await run_in_threadpool(noted)})


@_told
async def _save(request: Request) -> Response:
    _check_token(request)
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    saved = await run_in_threadpool(bench.save, given.get("policy") or {}, bool(given.get("replace")))
    return JSONResponse(saved)


@_told
async def _sql(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    return JSONResponse(await run_in_threadpool(_queried, bench, str(given.get("query", ""))))


def _queried(bench: Workbench, query: str) -> dict[str, Any]:
    """Return the first rows of one query that only reads. Raises QueryError."""
    with bench.asking:
        db = bench.books.connection
        timer = threading.Timer(SQL_S, db.interrupt)
        timer.start()
        try:
            if [one.type for one in db.extract_statements(query)] != [duckdb.StatementType.SELECT]:
                raise shell.QueryError("give one query that only reads: select, from, with, describe, summarize")
            found = db.execute(query)
            columns = [column[0] for column in found.description or ()]
            rows = [[_shown(value) for value in row] for row in found.fetchmany(SQL_ROWS + 1)]
        except duckdb.InterruptException as error:
            raise shell.QueryError(
                f"the query took longer than {SQL_S} s; `rushes sql` takes as long as needed"
            ) from error
        except duckdb.Error as error:
            raise shell.QueryError(" ".join(str(error).split())) from error
        finally:
            timer.cancel()
    return {"columns": columns, "rows": rows[:SQL_ROWS], "more": len(rows) > SQL_ROWS}


def _shown(value: Any) -> Any:
    plain = shell.plain(value)
    return storage.redact(plain) if isinstance(plain, str) else plain


@_told
async def _clip(request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(request.app.state.looks.of, request.path_params["key"]))


@_told
async def _verdict(request: Request) -> Response:
    given = await _given(request)
    bench: Workbench = request.app.state.bench
    policy, key = policies.load(given.get("policy") or {}), request.path_params["key"]

    def found() -> dict[str, Any]:
        was = clip.verdict(bench, bench.policy, key) if bench.selection else None
        return {"selection": was, "tried": clip.verdict(bench, policy, key)}

    return JSONResponse(await run_in_threadpool(found))


@_told
async def _plays(request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(request.app.state.looks.plays, request.path_params["key"]))


@_told
async def _strip(request: Request) -> Response:
    data = await run_in_threadpool(request.app.state.looks.strip, request.path_params["key"])
    return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})


@_told
async def _borders(request: Request) -> Response:
    found = await run_in_threadpool(request.app.state.looks.borders, request.path_params["key"])
    names = ("border", "is_inside", "time_s")
    return JSONResponse(
        {"told": found.told, "frames": [{name: getattr(frame, name) for name in names} for frame in found.frames]}
    )


@_told
async def _border(request: Request) -> Response:
    found = await run_in_threadpool(request.app.state.looks.borders, request.path_params["key"])
    number = request.path_params["number"]
    if number >= len(found.frames):
        return JSONResponse({"error": "there is no such frame"}, 404)
    return Response(found.frames[number].jpeg, media_type="image/jpeg")


@_told
async def _video(request: Request) -> Response:
    found = await run_in_threadpool(request.app.state.looks.video, request.path_params["key"])
    first, end = _range(request.headers.get("range", ""), found.size_bytes)
    if first >= end:
        return Response(status_code=416, headers={"content-range": f"bytes */{found.size_bytes}"})
    headers = {"accept-ranges": "bytes", "content-length": str(end - first)}
    part = end - first < found.size_bytes
    if part:
        headers["content-range"] = f"bytes {first}-{end - 1}/{found.size_bytes}"
    pieces = _pieces(found.uri, found.offset + first, end - first)
    return StreamingResponse(pieces, 206 if part else 200, headers, media_type=found.kind)


def _range(asked: str, size_bytes: int) -> tuple[int, int]:
    """Return the half-open range of bytes that a header asks for; all where it asks for none, or for several."""
    unit, _, span = asked.strip().partition("=")
    first, dash, last = span.strip().partition("-")
    if unit != "bytes" or not dash or "," in span or not (first or last).isdigit() or not (last or "0").isdigit():
        return 0, size_bytes
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(int(last) + 1 if last else size_bytes, size_bytes)


def _pieces(uri: str, offset: int, size_bytes: int) -> Iterator[bytes]:
    with storage.open_read(uri) as file:
        file.seek(offset)
        while size_bytes > 0 and (piece := file.read(min(PIECE_BYTES, size_bytes))):
            size_bytes -= len(piece)
            yield piece
