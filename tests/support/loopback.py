"""What the tests' servers on loopback share: a handler of JSON bodies, and its time of serving."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Has one answer for GET and POST, and says nothing of its requests."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet: in two, the second waits 40 ms for the client's acknowledgement.
    wbufsize = -1

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        """Reply to a request with that body."""
        raise NotImplementedError

    def reply(self, status: int, payload: bytes, **headers: str) -> None:
        """Answer with JSON; an underscore in a header's name stands for a hyphen."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def listening(handler: type[Handler]) -> Iterator[str]:
    """The address at which `handler` answers, until the end."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # The default interval makes the shutdown wait for half a second.
    serve = partial(http.serve_forever, poll_interval=0.01)
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
