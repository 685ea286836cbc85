"""A stand-in for the Hugging Face hub on loopback that takes uploads of models."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback import Handler, listening

_OF_MODEL = re.compile(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main")


@dataclass
class UploadHub:
    """Keeps what a client commits; every file comes whole in its commit.

    Attributes:
        url: Where it listens.
        visibility: Of each repository that was made.
        files: Content of each repository's files, by name.
        commits: Repository and message of each commit, in order.
        tokens: With which it was asked.
        refuses: True = it answers every request with an error.
    """

    url: str = ""
    visibility: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuses: bool = False

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and content of the reply to a request."""
        if self.refuses:
            return 403, {"error": "You have no write access here."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        match = _OF_MODEL.fullmatch(path)
        if match is None:
            return 404, {"error": f"there is no {path}"}
        if match[2] == "commit":
            return 200, self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        return 200, {"files": [{"path": name, **modes} for name in names]}

    def _create(self, wanted: Any) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        exists = name in self.visibility
        self.visibility.setdefault(name, wanted["visibility"])
        return 409 if exists else 200, {"url": f"{self.url}/{name}"}

    def _commit(self, repository: str, items: Sequence[Any]) -> Any:
        for item in items:
            value = item["value"]
            if item["key"] == "header":
                self.commits.append((repository, value["summary"]))
            else:
                content = base64.b64decode(value["content"])
                self.files.setdefault(repository, {})[value["path"]] = content
        oid = f"{len(self.commits):040x}"
        return {"commitUrl": f"{self.url}/{repository}/commit/{oid}", "commitOid": oid}


@contextmanager
def upload_hub() -> Iterator[UploadHub]:
    hub = UploadHub()

    class Answering(Handler):
        def answer(self, body: bytes) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            status, content = hub.answer(self.path.split("?")[0], body)
            self.reply(status, json.dumps(content).encode())

    with listening(Answering) as hub.url:
        yield hub
