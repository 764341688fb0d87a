"""`rushes explore RUN`: opens a run and serves its page until it is interrupted."""

from __future__ import annotations

import getpass
import secrets
import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from rushes.pipelines.explore.served import LOOPBACK, application
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.progress import Reporter


def run(
    run: str, say: Callable[[str], None], other: str = "", selection: str = "", host: str = "127.0.0.1", port: int = 0,
    browser: bool = True,
) -> None:  # fmt: skip
    """Serve the page of a run, and say where, until it is interrupted.

    Args:
        run: the run.
        say: is given the address of the page, which bears the token, and what else is to be known.
        other: another run to compare with; none if empty.
        selection: which one to look at; see `accounting.account`.
        host: address to answer on.
        port: port to answer on; 0 for a free one.
        browser: whether to open the page.

    Raises OSError where the port is taken, and what `Workbench` raises.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise OSError(f"cannot answer on {host}:{port} ({error.strerror}); give another --port") from error
    with Reporter().work("explore"):
        bench = Workbench(run, selection)
        beside = Workbench(other) if other else None
    token, shown = secrets.token_urlsafe(24), f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/#token={token}"
    app = application(bench, token, (*LOOPBACK, shown), beside, _who())
    say(address)
    if browser and not webbrowser.open(address):
        say("no browser could be opened; open the address above")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False)).run(sockets=[listening])


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have
        return "unknown"
