"""A stand-in for the Hugging Face hub on loopback: one dataset, served from a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote

import datasets
import huggingface_hub.constants
import pytest

DATASET, REVISION = "somebody/numbers", "a" * 40


class StandInHub(ThreadingHTTPServer):
    """Answers what `datasets.load_dataset` asks.

    Args:
        folder: The repository's files.
        dataset: Its id.
        revision: Its only commit.

    Attributes:
        requested: The names of the files that parts were asked of, in order.
        cut_off: The connection that reads one of these files ends half-way, once.
        waits: A request for one of these files is answered when the event is set.
    """

    daemon_threads = True

    def __init__(self, folder: Path, dataset: str, revision: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.dataset, self.revision = folder, dataset, revision
        self.requested: list[str] = []
        self.cut_off: set[str] = set()
        self.waits: dict[str, Event] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def stand_in_hub(
    folder: Path, dataset: str = DATASET, revision: str = REVISION
) -> Iterator[StandInHub]:
    hub = StandInHub(folder, dataset, revision)
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


@contextmanager
def online(endpoint: str, cache: Path) -> Iterator[None]:
    """Let this process ask the hub at `endpoint`, and keep what it downloads in `cache`.

    The libraries read their settings from the environment when they are imported, and `conftest.py`
    forbids the network there.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
        yield


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        hub = self.server
        tree = f"/api/datasets/{hub.dataset}/tree/{hub.revision}"
        resolve = f"/datasets/{hub.dataset}/resolve/{hub.revision}/"
        if path.startswith(tree):
            self._answer_tree(path.removeprefix(tree).strip("/"))
        elif path.startswith(f"/api/datasets/{hub.dataset}"):
            files = (file for file in hub.folder.rglob("*") if file.is_file())
            siblings = [{"rfilename": str(file.relative_to(hub.folder))} for file in files]
            self._answer({"id": hub.dataset, "sha": hub.revision, "siblings": siblings})
        elif path.startswith(resolve):
            self._send_file(hub.folder / path.removeprefix(resolve))
        else:
            self.send_error(404)

    def _answer_tree(self, below: str) -> None:
        """The files and folders directly below a folder, or all where the request says so."""
        top = self.server.folder
        if not (top / below).is_dir():
            self._refuse("EntryNotFound")
            return
        found = (
            (top / below).rglob("*")
            if "recursive=true" in self.path.lower()
            else (top / below).iterdir()
        )
        self._answer(
            [
                {
                    "type": "file" if path.is_file() else "directory",
                    "path": str(path.relative_to(top)),
                    "size": path.stat().st_size,
                    "oid": "0",
                }
                for path in sorted(found)
            ]
        )

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, file: Path) -> None:
        if not file.exists():
            self._refuse("EntryNotFound")
            return
        content = file.read_bytes()
        start, end = 0, len(content)
        if (wanted := self.headers.get("Range")) is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last or end) + 1)
        self.send_response(200 if wanted is None else 206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.revision)
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
