"""A stand-in for the Hugging Face hub on loopback: one dataset, served from a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

DATASET, REVISION = "somebody/numbers", "a" * 40


class StandInHub(ThreadingHTTPServer):
    """Answers what `datasets.load_dataset` asks.

    Attributes:
        requested: The names of the files that parts were asked of, in order.
        cut_off: The connection that reads one of these files ends half-way, once.
        waits: A request for one of these files is answered when the event is set.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requested: list[str] = []
        self.cut_off: set[str] = set()
        self.waits: dict[str, Event] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def stand_in_hub(folder: Path) -> Iterator[StandInHub]:
    hub = StandInHub(folder)
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        files = sorted(self.server.folder.iterdir())
        if path.startswith(f"/api/datasets/{DATASET}/tree/"):
            self._answer(
                [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                    for file in files
                ]
            )
        elif path.startswith(f"/api/datasets/{DATASET}"):
            siblings = [{"rfilename": file.name} for file in files]
            self._answer({"id": DATASET, "sha": REVISION, "siblings": siblings})
        elif path.startswith(f"/datasets/{DATASET}/resolve/{REVISION}/"):
            self._send_file(self.server.folder / path.rsplit("/", 1)[1])
        else:
            self.send_error(404)

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, file: Path) -> None:
        if not file.exists():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        content = file.read_bytes()
        start, end = 0, len(content)
        if (wanted := self.headers.get("Range")) is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last or end) + 1)
        self.send_response(200 if wanted is None else 206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self._send_part(file.name, content[start:end])

    def _send_part(self, name: str, part: bytes) -> None:
        hub = self.server
        hub.requested.append(name)
        if name in hub.waits:
            hub.waits[name].wait()
        if name in hub.cut_off:
            hub.cut_off.remove(name)
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)
