"""vLLM's own server in a process, and a relay before it that counts and can lose requests."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def vllm_server(model: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of a server on loopback, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--dtype", "float32", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port), *options]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "VLLM_SERVER_DEV_MODE": "1"},
        )
        try:
            deadline = time.monotonic() + 300
            while not _healthy(port):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


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
