"""A relay before a server, which counts requests and can lose some."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Relay:
    """Hands requests on to a server.

    Attributes:
        server: Its address.
        loses: Whether a request is answered as done and not handed on, by its path.
        bodies: Of all requests that had one, by path, in order of arrival.
        url: Its own address.
    """

    server: str
    loses: Callable[[str], bool] = lambda path: False
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def relaying(relay: Relay) -> Iterator[Relay]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._hand_on(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with relay.lock:
                relay.bodies.setdefault(self.path.partition("?")[0], []).append(json.loads(body))
            self._hand_on(body)

        def _hand_on(self, body: bytes | None) -> None:
            payload, status = b"{}", 200
            if not relay.loses(self.path):
                asked = urllib.request.Request(f"{relay.server}{self.path}", body)
                asked.add_header("Content-Type", "application/json")
                try:
                    with urllib.request.urlopen(asked) as answer:
                        payload, status = answer.read(), answer.status
                except urllib.error.HTTPError as error:
                    payload, status = error.read(), error.code
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    relay.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield relay
    finally:
        http.shutdown()
        http.server_close()
