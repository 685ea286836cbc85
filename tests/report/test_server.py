"""Who is answered by the server of the live page, and with what headers."""

import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from reasoning_lab.report.server import ADDRESS, serve
from tests.support.live_runs import RUN, SFT, live_run, trained_sft


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    trained_sft(tmp_path)
    (tmp_path / "secret.txt").write_text("a secret")
    with live_run(tmp_path), serve(tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def answer(port: int, path: str, host: str = "", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(ADDRESS, port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"{ADDRESS}:{port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    return response, response.read()


@pytest.mark.parametrize("path", ["/", "/api/overview"])
def test_only_this_machines_own_page_is_answered(path: str, port: int) -> None:
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"):
        response, body = answer(port, path, host)
        assert response.status == 403
        assert b"experiment=mine" not in body
    response, _ = answer(port, path, f"localhost:{port}")
    assert response.status == 200
    response, _ = answer(port, path, Sec_Fetch_Site="cross-site")
    assert response.status == 403
    response, _ = answer(port, path, Sec_Fetch_Site="same-origin")
    assert response.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/api/../secret.txt",
        "/api/run?run=../secret.txt",
        "/api/run?run=recipes/../..",
        f"/api/curve?run=store&node=..%2F{SFT}",
        "/api/rollouts",
        "/page.css",
    ],
)
def test_no_file_is_served(path: str, port: int) -> None:
    response, body = answer(port, path)
    assert (response.status, body) == (404, b"null")


def test_every_answer_forbids_what_the_page_does_not_need(port: int) -> None:
    for path in ("/", "/api/overview", "/none"):
        response, _ = answer(port, path)
        policy = response.getheader("Content-Security-Policy", "")
        assert policy.startswith(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
        )
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cross-Origin-Resource-Policy") == "same-origin"
        assert response.getheader("Access-Control-Allow-Origin") is None


def test_a_damaged_file_is_named_and_the_server_goes_on(port: int, tmp_path: Path) -> None:
    folder = tmp_path / RUN / "live" / SFT
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("not JSON\n")
    response, body = answer(port, f"/api/curve?run=store&node={SFT}")
    assert (response.status, b"JSONDecodeError" in body) == (500, True)
    assert answer(port, "/api/overview")[0].status == 200
