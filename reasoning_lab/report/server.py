"""The page of `reasoning-lab watch` and its data, on the loopback interface alone.

A page of another site cannot read it: a request must name this machine as its host, and the browser
must not say that it comes from elsewhere. What is asked for are names that were listed before; no
path leads to another file. Any user of this machine can open the page.
"""

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reasoning_lab.graph.ledger import TABLE_COLUMNS
from reasoning_lab.report.live import LiveRuns
from reasoning_lab.report.template import asset, content_security_policy, fill

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
_SCRIPTS = ("temml.min", "components", "watch")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ALLOWED = ("connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'")
Query = Mapping[str, str]


def serve(runs: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page over `runs`, not yet answering; port 0 = a free one.

    Raises:
        OSError: The port is taken.
    """
    live, lock = LiveRuns(runs), Lock()
    answers: dict[str, Callable[[Query], Any]] = {
        "/api/overview": lambda query: live.overview(),
        "/api/run": lambda query: live.run(query.get("run", "")),
        "/api/curve": lambda query: live.curve(
            query.get("run", ""), query.get("node", ""), query.get("metric", "")
        ),
        "/api/rollouts": lambda query: live.rollouts(query.get("run", ""), query.get("node", "")),
    }

    class Handler(_Handler):
        page, policy = _page()

        def answer(self, path: str, query: Query) -> Any:
            with lock:
                return answers[path](query) if path in answers else None

    return ThreadingHTTPServer((ADDRESS, port), Handler)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET; `answer` gives what becomes JSON, None = there is nothing of that name."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet: in two, the second waits 40 ms for the client's acknowledgement.
    wbufsize = -1
    page: bytes
    policy: str

    def answer(self, path: str, query: Query) -> Any:
        raise NotImplementedError

    def do_GET(self) -> None:
        if not self._is_from_here():
            self._reply(
                HTTPStatus.FORBIDDEN, b"Open the address that the command printed.\n", "text/plain"
            )
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._reply(HTTPStatus.OK, self.page, "text/html; charset=utf-8")
            return
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        status = HTTPStatus.OK
        try:
            content = self.answer(url.path, query)
        except Exception as error:  # One damaged file leaves the rest of the page.
            log.exception("%s could not be answered", self.path)
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}"
        if content is None:
            status = HTTPStatus.NOT_FOUND
        self._reply(status, json.dumps(content, allow_nan=False).encode(), "application/json")

    def _is_from_here(self) -> bool:
        """Whether the request names this server, and no other site's page has made it."""
        assert isinstance(self.server, ThreadingHTTPServer)
        hosts = {f"{host}:{self.server.server_port}" for host in (ADDRESS, "localhost")}
        site = self.headers.get("Sec-Fetch-Site", "none")
        return self.headers.get("Host") in hosts and site in ("none", "same-origin")

    def _reply(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}
        headers["Content-Security-Policy"] = f"{self.policy}; frame-ancestors 'none'"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Requests are not printed."""


def _page() -> tuple[bytes, str]:
    """The page, and the policy under which only its own scripts run."""
    scripts = [asset(f"{name}.js") for name in _SCRIPTS]
    parts = {
        "style": asset("page.css"),
        "columns": "|".join(TABLE_COLUMNS),
        **dict(zip(("temml", "components", "script"), scripts, strict=True)),
    }
    return fill("watch.html", parts).encode(), content_security_policy(scripts, *_ALLOWED)
