"""The report's page in a real browser: offline, on a phone, in the dark, with hostile rollouts."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.evidence import Completions, Evidence, GraphNode
from reasoning_lab.report.page import html_page
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.tracking.history import History
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = (
    "<script>document.title = 'owned'</script></script>"
    "<img src=http://127.0.0.1:9/x onerror=alert(1)>"
)
LINK = "$\\href{http://127.0.0.1:9}{x}$"
LEDGER = {"documents": {"in": 9, "out": 7, "dropped": {HOSTILE: 2}}}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def evidence_of(folder: Path, count: int) -> Evidence:
    """Two evaluations, a training and a graph; every third rollout wrong, some with mathematics."""
    evidence = Evidence()
    for stage in ("sft", "rl"):
        rollouts = [
            Rollout(
                Problem(f"What is $\\frac{{{n}}}{{2}}$ of {HOSTILE}?", "1", "math", "halves"),
                Completion([1] * 7, f"Well, \\[x^2 = {n}\\] so {HOSTILE} {LINK} \\boxed{{{n}}}"),
                str(n),
                Verdict.WRONG if n % 3 == 0 else Verdict.CORRECT,
                "author",
            )
            for n in range(count // 2)
        ]
        evaluation = folder / f"evaluate-{stage}"
        evaluation.mkdir(parents=True)
        write_rollouts(evaluation / COMPLETIONS, rollouts)
        labels = {"variant": "none", "seed": 0, "stage": stage, "benchmark": "halves"}
        evidence.completions.append(Completions(evaluation, labels))
        history = History()
        for step in range(50):
            history.log_metrics({"train/loss": 1 / (1 + step), "rollout/entropy": 0.1}, step)
        policy = folder / f"policy-{stage}"
        policy.mkdir()
        history.write(policy)
        evidence.policies[stage] = policy
    evidence.nodes = {
        "a": GraphNode("sft (seed 0)", "a", [], 81.0, LEDGER),
        "b": GraphNode("rl (seed 0)", "b", ["a"], None),
    }
    evidence.configs["the full recipe, seed 0"] = f"seed: 0\nnote: '{HOSTILE}'\n"
    return evidence


def page_of(folder: Path, rollouts: int = 100) -> Path:
    rows, results = [], []
    for variant, stage, right in (("none", "sft", 20), ("none", "rl", 30), ("rl", "sft", 20)):
        about: dict[str, Any] = {
            "variant": variant,
            "stage": stage,
            "seed": 0,
            "benchmark": "halves",
        }
        correct = np.arange(40)[:, None] < right
        ids = [f"p{number}" for number in range(40)]
        results.append(
            StageResult(
                **about,
                fingerprint=stage,
                problem_ids=ids,
                correct=correct,
                completion_tokens=correct,
            )
        )
        rows.append(
            Row(
                **about,
                n=40,
                samples=1,
                pass_at_1=right / 40,
                ci95=(right / 40 - 0.1, right / 40 + 0.1),
                completion_tokens=7.0,
                train_tokens=100,
                wall_s=1.0,
                fingerprint=stage,
            )
        )
    text = html_page(rows, Claims.of(results), evidence_of(folder, rollouts), "The method.")
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def test_tables_need_no_script(tmp_path: Path) -> None:
    text = page_of(tmp_path).read_text()
    assert "<td>75.0%</td>" in text
    assert '<td class="name">paper: + RL</td><td></td><td>57.5%</td>' in text
    assert "<b>rl</b> gains 25.0 points over <b>sft</b>" in text
    assert "<img src=http" not in text
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in text
    assert text == page_of(tmp_path / "again").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Opened:
    """The page in a tab without a network, with what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self._context = browser.new_context(offline=True, **options)
        self.page = self._context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for event in ("console", "pageerror", "dialog"):
            self.page.on(
                event, lambda event: self.complaints.append(str(getattr(event, "text", event)))
            )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def close(self) -> None:
        self._context.close()


def test_it_opens_filters_and_typesets_without_a_network(browser: Any, tmp_path: Path) -> None:
    path = page_of(tmp_path)
    opened = Opened(browser, path)
    page = opened.page
    assert page.locator("#count").inner_text() == "100 of 100 rollouts, 20 shown"
    page.select_option("#filter-verdict", "wrong")
    assert page.locator("#count").inner_text() == "34 of 100 rollouts, 20 shown"
    page.select_option("#filter-stage", "rl")
    assert page.locator("#count").inner_text() == "17 of 100 rollouts, 17 shown"
    assert page.locator("article").count() == 17
    assert page.locator("article:not([data-verdict=wrong])").count() == 0
    page.fill("#filter-text", "\\boxed{48}")
    assert page.locator("#count").inner_text() == "1 of 100 rollouts, 1 shown"
    # A fraction in the prompt, a power and a box in the completion.
    assert page.locator("article math").count() == 3
    assert page.locator("article mfrac").count() == 1
    assert "<img src" in page.locator("article").inner_text()
    assert LINK in page.locator("article").inner_text()
    assert page.locator("article [href]").count() == 0
    page.fill("#filter-text", "")
    page.select_option("#filter-verdict", "")
    page.click("#more")
    assert page.locator("article").count() == 40
    page.select_option("#metric", "rollout/entropy")
    assert page.locator("#curves path").count() == 2
    assert page.locator("#ladder circle").count() == 3
    change = page.locator("#variants text", has_text="without rl")
    # Ten of 40 problems lost and none won: 2 / 2^10 = 0.00195, up to the resampling's error.
    assert str(change.text_content()).startswith("without rl: −25.0 (p 0.00")
    zero = page.locator("#variants line[stroke=currentColor]").get_attribute("x1")
    assert float(page.locator("#variants circle").get_attribute("cx")) < float(zero)
    assert page.locator("#provenance path").count() == 1
    assert page.title() == "pass@1 on halves"
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(browser: Any, tmp_path: Path, scheme: str) -> None:
    opened = Opened(
        browser,
        page_of(tmp_path),
        viewport={"width": 390, "height": 800},
        color_scheme=scheme,
    )
    page = opened.page
    # Nothing is wider than the phone; wide tables scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#ladder svg").get_attribute("viewBox").split()[2] < "390"
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    ink, paper = (sum(map(int, c.strip("rgba()").split(",")[:3])) / 3 for c in colours)
    assert (paper > 200 > 60 > ink) if scheme == "light" else (ink > 200 > 60 > paper)
    assert opened.complaints == []
    opened.close()
