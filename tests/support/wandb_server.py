"""As much of a W&B server as a run with artifacts needs; it records every request.

Tests cannot reach W&B itself. Names of operations and fields are those of its client.
"""

import json
import re
import threading
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PROJECT = {"id": "p", "internalId": "1", "name": "reasoning-lab", "entity": {"name": "me"}}


class WandbServer:
    """Serves on loopback while it is entered.

    Args:
        lacks: An operation that gets an empty reply.

    Attributes:
        operations: Every GraphQL operation with its variables, in order.
        uploads: Path of every file that was put, with its content.
    """

    def __init__(self, lacks: str = "") -> None:
        self._lacks = lacks
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.uploads: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        serve = partial(self._server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """Those of every call of `operation`."""
        return [variables for name, variables in self.operations if name == operation]

    def answer(self, operation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of a reply; empty for what a run can do without."""
        if operation == self._lacks:
            return {}
        match operation:
            case "Viewer":
                viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}"}
                return {"viewer": {**viewer, "teams": {"edges": []}}}
            case "UpsertBucket":
                bucket = {"id": "r", "name": variables["name"], "project": PROJECT, "config": "{}"}
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": n, "uploadUrl": f"{self.url}/{n}"} for n in variables["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "ArtifactMembershipByName":
                return {"project": {"artifactCollectionMembership": _membership(variables)}}
            case "UseArtifact":
                return {"useArtifact": {"artifact": {"id": "a"}}}
            case "CreateArtifact":
                artifact = {"id": "b", "state": "PENDING", "artifactSequence": {"id": "s"}}
                return {"createArtifact": {"artifact": artifact}}
            case "CreateArtifactManifest":
                file: dict[str, Any] = {
                    "id": "f",
                    "name": "wandb_manifest.json",
                    "uploadHeaders": [],
                }
                file["uploadUrl"] = f"{self.url}/wandb_manifest.json"
                return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
            case "CommitArtifact":
                return {"commitArtifact": {"artifact": {"id": "b", "digest": "d"}}}
            case "ProjectInternalId":
                return {"project": PROJECT}
            case "GetProjects":
                node: dict[str, Any] = {"__typename": "Project", "id": "p", "name": "reasoning-lab"}
                node |= {"entityName": "me", "createdAt": "", "isBenchmark": False, "user": None}
                page = {"__typename": "PageInfo", "endCursor": "", "hasNextPage": False}
                return {"models": {"edges": [{"node": node}], "pageInfo": page}}
            case "upsertView":
                view: dict[str, Any] = {
                    "id": "v",
                    "type": "runs",
                    "updatedAt": "2026-01-01T00:00:00Z",
                }
                view |= {key: variables[key] for key in ("name", "displayName", "description")}
                view |= {"spec": variables["spec"], "project": {**PROJECT, "entityName": "me"}}
                return {"upsertView": {"view": view, "inserted": True}}
            case "UpsertView2":
                return {"upsertView": {"view": {"id": "v", "name": variables["name"]}}}
        return {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path != "/graphql":
                    return self.reply({})
                request = json.loads(body)
                operation = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
                assert operation is not None
                variables = request.get("variables") or {}
                server.operations.append((operation[1], variables))
                return self.reply({"data": server.answer(operation[1], variables)})

            def do_PUT(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                server.uploads[self.path.lstrip("/")] = self.rfile.read(length)
                self.reply({})

            def reply(self, content: Mapping[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _membership(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The latest version of an artifact, whatever its name."""
    name = variables["name"].partition(":")[0]
    collection = {"__typename": "ArtifactSequence", "name": name, "project": PROJECT}
    born = "2026-01-01T00:00:00Z"
    artifact = {
        "__typename": "Artifact",
        "id": "QXJ0OjE=",
        "artifactSequence": collection,
        "versionIndex": 0,
        "artifactType": {"name": "policy"},
        "description": None,
        "metadata": "{}",
        "ttlDurationSeconds": -1,
        "ttlIsInherited": False,
        "tags": [],
        "historyStep": None,
        "state": "COMMITTED",
        "size": 1,
        "digest": "d",
        "commitHash": "c",
        "fileCount": 1,
        "createdAt": born,
        "updatedAt": None,
        "aliases": [],
    }
    return {
        "__typename": "ArtifactCollectionMembership",
        "id": "m",
        "versionIndex": 0,
        "createdAt": born,
        "aliases": [],
        "artifactCollection": collection,
        "artifact": artifact,
    }
