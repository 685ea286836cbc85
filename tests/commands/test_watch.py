"""The command `watch`: it serves until Ctrl-C; with a run beside it, in a real browser."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reasoning_lab.commands.watch import main
from reasoning_lab.report.server import ADDRESS, serve
from reasoning_lab.types import UserError
from tests.conftest import SMOKE, start_lab
from tests.support.browser import Opened, chromium


@contextmanager
def watching(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command over `folder/runs`, and the address that it prints."""
    process = start_lab("watch", cwd=folder)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address = re.match(
            rf"(http://{ADDRESS}:\d+/) shows what is in runs; Ctrl-C ends it\.", line
        )
        assert address, line
        yield process, address[1]
    finally:
        process.kill()
        process.wait()


def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    with watching(tmp_path) as (process, url):
        with urllib.request.urlopen(f"{url}api/overview", timeout=60) as response:
            assert json.load(response)["folder"] == str(tmp_path / "runs")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["port=http"], "port=http: give a number up to 65535, or leave it out"),
        (["port=70000"], "port=70000: give a number up to 65535, or leave it out"),
        (["seed=1"], "watch seed=1: it takes paths.runs=FOLDER and port=N; take the rest out"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as mistake:
        main(words)
    assert str(mistake.value) == sentence


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with serve(tmp_path, 0) as server:
        port = server.server_port
        with pytest.raises(UserError, match=rf"port={port}: it cannot be used \(Address already"):
            main([f"port={port}"])


def long_trainings(store: Path) -> set[str]:
    """The stages that took more than five seconds, in which the page is made anew twice."""
    records = [json.loads(path.read_text()) for path in store.glob("*/*/artifact.json")]
    return {
        record["identity"]["stage"]
        for record in records
        if record["kind"] == "policy" and record["metrics"]["wall_s"] > 5
    }


def states_of_stages(opened: Opened) -> set[tuple[str, str]]:
    """The stages that the page shows, and the state of each."""
    rows = opened.page.locator("#graphs tr[data-state]").evaluate_all(
        "rows => rows.map(row => [row.querySelector('.name').textContent, row.dataset.state])"
    )
    return {(name, state) for name, state in rows}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_real_run_is_watched(tmp_path: Path) -> None:
    """Every stage goes from waiting to done before the eyes of the page."""
    with watching(tmp_path) as (_, url), chromium() as browser:
        opened = Opened(browser, url)
        run = subprocess.Popen(
            [sys.executable, "-m", "reasoning_lab", *SMOKE],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen: set[tuple[str, str]] = set()
        try:
            while run.poll() is None:
                opened.page.wait_for_timeout(500)
                seen |= states_of_stages(opened)
        finally:
            run.kill()
        assert run.returncode == 0
        # Each part of the page is asked for by itself, so one follows the other.
        expect = opened.expect
        expect("#choice [data-state=done]").to_have_count(1)
        expect("#graphs [data-state=done]").to_have_count(12)
        expect("#curves [data-stage=rl] path").to_have_count(1)
        expect("article").to_have_count(14)
        expect("#ledger").to_contain_text("no signal")
        seen |= states_of_stages(opened)
        names = ["distill", "midtrain", "sft", "prefer", "dpo", "rl", "rl/heldout"]
        assert {(name, state) for name in names for state in ("waiting", "done")} <= seen
        running = {name for name, state in seen if state == "running"}
        assert running
        assert long_trainings(tmp_path / "runs" / "store") <= running
        assert opened.complaints == []
        assert all(request.startswith(url) for request in opened.requests)
        opened.close()
