"""The live page in a real browser: while runs go on, on a phone, in the dark, with hostile text."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.report.server import ADDRESS, serve
from reasoning_lab.tracking.live import LiveTracker
from reasoning_lab.tracking.tracker import GLOBAL_STEP
from tests.support.browser import HOSTILE, Opened, phone
from tests.support.live_runs import (
    RL,
    SFT,
    evaluated_sft,
    live_run,
    rollouts,
    trained_sft,
    training,
)


@contextmanager
def served(runs: Path) -> Iterator[str]:
    with serve(runs, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://{ADDRESS}:{server.server_port}/"
        server.shutdown()


def row(page: Any, stage: str) -> str:
    text: str = page.locator("#graphs tr", has=page.get_by_text(stage, exact=True)).inner_text()
    return " ".join(text.split())


def test_a_run_is_watched_while_it_goes_on(browser: Any, tmp_path: Path) -> None:
    trained_sft(tmp_path)
    with served(tmp_path) as url, live_run(tmp_path, title=HOSTILE) as run:
        run.finished(SFT, reused=True)
        run.started(RL)
        tracker = LiveTracker(run.stage_dir(RL))
        for step in range(3):
            tracker.log({"rollout/reward_mean": step / 10, "train/loss": 1.0, GLOBAL_STEP: step})
        tracker.log_rollouts("rollout/samples", rollouts(3, HOSTILE), {"reward": [0.0, 1.0, 1.0]})
        with training(run, 10) as task:
            time.sleep(1.1)  # It is written down once a second.
            task.advance(1, tokens=100)
            opened = Opened(browser, url)
            page = opened.page
            assert "running step 1 of 10" in row(page, "rl")
            assert "tokens/s" in row(page, "rl")
            assert "reused took 0:01:01 1,234 tokens trained" in row(page, "sft")
            assert page.locator("#graphs .arcs path").count() == 2
            # Each stage has an axis of its own.
            assert page.locator("#curves [data-stage=rl] path").count() == 1
            assert page.locator("#curves [data-stage=sft] path").count() == 1
            caption = page.locator("#curves [data-stage=rl] figcaption")
            assert caption.inner_text().startswith("rollout/reward_mean by step of rl")
            assert page.locator("#count").inner_text() == "3 of 3 rollouts, 3 shown"
            assert "reward 1" in page.locator("article header").nth(1).inner_text()
            assert page.locator("#ledger").inner_text().split() == [
                *("stage", "unit", "in", "out", "dropped"),
                *("sft", "documents", "9", "7", "2", "too", "long"),
            ]
            page.select_option("#filter-verdict", "correct")
            before = page.locator("#curves [data-stage=rl] path").get_attribute("d")
            choice = page.locator("#curves [data-stage=rl] select").element_handle()
            tracker.log({"rollout/reward_mean": 0.9, "train/loss": 0.5, GLOBAL_STEP: 3})
            tracker.log_rollouts("rollout/samples", rollouts(6), {"reward": [1.0] * 6})
        page.get_by_text("4 of 6 rollouts").wait_for()
        assert page.locator("#curves [data-stage=rl] path").get_attribute("d") != before
        # A list that is open stays open.
        assert choice.evaluate("node => node.isConnected")
        page.select_option("#curves [data-stage=rl] select", "train/loss")
        page.get_by_text("train/loss by step of rl").wait_for()
        run.finished(SFT, reused=True)
        assert page.title() == "reasoning-lab watch"
        assert page.locator("#choice").inner_text().startswith(f" {HOSTILE}")
        assert opened.complaints == []
        assert all(request.startswith(url) for request in opened.requests)
        opened.close()


def test_nothing_to_show_is_said_until_a_run_starts(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as url:
        opened = Opened(browser, url)
        assert "No run has written anything into" in opened.page.locator("main").inner_text()
        with live_run(tmp_path) as run:
            run.started(SFT)
            opened.page.wait_for_selector("#graphs [data-state=running]")
        assert not opened.page.locator("#empty").is_visible()
        opened.page.wait_for_selector("#choice [data-state=done]")
        assert opened.complaints == []
        opened.close()


def test_runs_of_a_sweep_share_the_axis_of_a_stage(browser: Any, tmp_path: Path) -> None:
    for job in range(2):
        name = f"sweeps/2026-11-30_11-00-00-000000/{job}"
        with live_run(tmp_path, name, title=f"seed={job}") as run:
            LiveTracker(run.stage_dir(RL)).log({"train/loss": 1.0, GLOBAL_STEP: 0})
    with served(tmp_path) as url:
        opened = Opened(browser, url)
        page = opened.page
        # The stage is one of both, so both lines have the same points.
        assert page.locator("#curves [data-stage=rl] path").count() == 2
        assert page.locator("#graphs table").count() == 2
        page.locator("#choice input").first.uncheck()
        opened.expect("#graphs table").to_have_count(1)
        opened.expect("#curves [data-stage=rl] path").to_have_count(1)
        # The next one is shown when it starts; the one that was taken out stays out.
        with live_run(tmp_path, "sweeps/2026-11-30_11-00-00-000000/2", title="seed=2"):
            page.get_by_role("heading", name="seed=2: running").wait_for()
            opened.expect("#graphs table").to_have_count(2)
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(browser: Any, tmp_path: Path, scheme: str) -> None:
    trained_sft(tmp_path)
    evaluated_sft(tmp_path, text=HOSTILE)
    with served(tmp_path) as url, live_run(tmp_path, title="experiment=mine " * 9):
        opened = Opened(browser, url, **phone(scheme))
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
        opened.page.locator("#choice input").last.check()
        opened.page.wait_for_selector("article")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert opened.scheme() == scheme
        assert opened.complaints == []
        opened.close()


@pytest.mark.long
def test_ten_thousand_rollouts_open_in_two_seconds(browser: Any, tmp_path: Path) -> None:
    """In seconds of the processor, which other work on the machine does not change."""
    evaluated_sft(tmp_path, 10_000, "and so it goes " * 30)
    with served(tmp_path) as url:
        opened = Opened(browser, url)
        session = opened.page.context.new_cdp_session(opened.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        started = time.process_time()
        opened.page.reload()
        opened.page.wait_for_selector("body[data-ready=yes]")
        # Of the server, and of what drives the browser.
        process_s = time.process_time() - started
        metrics = session.send("Performance.getMetrics")["metrics"]
        (page_s,) = [metric["value"] for metric in metrics if metric["name"] == "TaskDuration"]
        count = opened.page.locator("#count").inner_text()
        assert count == "10000 of 10000 rollouts, 20 shown"
        assert 0 < process_s + page_s < 2, (process_s, page_s)
        print(f"server {process_s:.2f} s, page {page_s:.2f} s")
        opened.close()
