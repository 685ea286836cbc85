"""The report's page in a real browser: offline, on a phone, in the dark, with hostile rollouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_lab.data.corpus import write_rollouts
from reasoning_lab.evaluate.completions import COMPLETIONS
from reasoning_lab.report.comparisons import Claims
from reasoning_lab.report.evidence import Completions, Evidence, GraphNode, Training
from reasoning_lab.report.page import html_page
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.tracking.history import History
from reasoning_lab.types import Completion, Problem, Rollout, Verdict
from tests.support.browser import HOSTILE, Opened, phone

LINK = "$\\href{http://127.0.0.1:9}{x}$"
LEDGER = {"documents": {"in": 9, "out": 7, "dropped": {HOSTILE: 2}}}


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
        about = {"variant": "the full recipe", "seed": 0, "stage": stage}
        evidence.trainings.append(Training(policy, about))
    evidence.nodes = {
        "a": GraphNode("sft (seed 0)", "a", [], 81.0, LEDGER, commit=HOSTILE),
        "b": GraphNode("rl (seed 0)", "b", ["a"], None),
    }
    evidence.configs["the full recipe, seed 0"] = f"seed: 0\nnote: '{HOSTILE}'\n"
    return evidence


def page_of(folder: Path, rollouts: int = 100, other: str = "rl") -> Path:
    rows, results = [], []
    for variant, stage, right in (("none", "sft", 20), ("none", "rl", 30), (other, "sft", 20)):
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
    # What the variants say comes first.
    assert text.index('id="ablation"') < text.index('id="results"') < text.index('id="claims"')
    assert "<dt>took</dt><dd>0:01:21 for 1 step" in text
    assert "<img src=http" not in text
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" in text
    assert text == page_of(tmp_path / "again").read_text()


def test_it_opens_filters_and_typesets_without_a_network(browser: Any, tmp_path: Path) -> None:
    path = page_of(tmp_path)
    opened = Opened(browser, path.as_uri(), offline=True)
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
    page.select_option("#filter-stage", "")
    page.click("#more")
    assert page.locator("article").count() == 40
    page.locator("article button").first.click()
    assert page.locator("#count").inner_text() == "2 rollouts of one problem"
    headers = page.locator(".beside article header").all_inner_texts()
    assert [header.split(" · ")[1] for header in headers] == ["sft", "rl"]
    page.click("#all-problems")
    assert page.locator("#count").inner_text() == "100 of 100 rollouts, 20 shown"
    # Each stage has an axis of its own.
    captions = page.locator("#curves figcaption").all_inner_texts()
    assert captions == [f"train/loss by step of {stage}. ■ {stage}" for stage in ("sft", "rl")]
    page.select_option("[data-stage=rl] select", "rollout/entropy")
    rl, sft = (page.locator(f"[data-stage={stage}] figure") for stage in ("rl", "sft"))
    assert rl.inner_text().strip().endswith("rollout/entropy by step of rl. ■ rl")
    assert "train/loss" in sft.inner_text()
    assert rl.locator("path").count() == sft.locator("path").count() == 1
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
    swept = "stages.rl.optimization.learning_rate=0.00025"
    path = page_of(tmp_path, other=swept)
    opened = Opened(browser, path.as_uri(), offline=True, **phone(scheme))
    page = opened.page
    name, figure = (
        page.locator(f"#variants {of}").bounding_box() for of in ("text.variant", "svg")
    )
    assert name["x"] + name["width"] <= figure["x"] + figure["width"]
    # Nothing is wider than the phone; wide tables scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#ladder svg").get_attribute("viewBox").split()[2] < "390"
    assert opened.scheme() == scheme
    assert opened.complaints == []
    opened.close()
