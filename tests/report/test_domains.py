"""A benchmark of three domains: a row, means, differences and files for each, by hand."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reasoning_lab.evaluate.statistics import holm, pass_at_1
from reasoning_lab.report.comparisons import Claims, stage_differences
from reasoning_lab.report.evidence import Evidence
from reasoning_lab.report.rows import Row, StageResult
from reasoning_lab.report.table import console_table, heading, row_cells, sentences
from reasoning_lab.report.write import write_report

DOMAINS = ["strings", "graphs", "logic"]


def result(stage: str, right: dict[str, int], seed: int = 0) -> StageResult:
    """12 problems of each domain in turn; of the first ones one sample of two is right."""
    domains = DOMAINS * 12
    correct = [[i // 3 < right[domain], False] for i, domain in enumerate(domains)]
    return StageResult(
        variant="none",
        stage=stage,
        seed=seed,
        benchmark="heldout",
        fingerprint=f"{stage}/{seed}",
        problem_ids=[f"p{i:02d}" for i in range(36)],
        correct=correct,
        completion_tokens=[[10 * (1 + i % 3)] * 2 for i in range(36)],
        domains=domains,
    )


def row(of: StageResult) -> Row:
    estimate = pass_at_1(of.correct)
    return Row(
        variant=of.variant,
        stage=of.stage,
        seed=of.seed,
        benchmark=of.benchmark,
        n=36,
        samples=2,
        pass_at_1=estimate.mean,
        ci95=(estimate.low, estimate.high),
        completion_tokens=20.0,
        train_tokens=5,
        wall_s=1.0,
        fingerprint=of.fingerprint,
        measured={"truncated_frac": 0.25},
    )


SFT = result("sft", {"strings": 3, "graphs": 0, "logic": 12})
RL = result("rl", {"strings": 12, "graphs": 1, "logic": 12})


def test_a_result_is_split_by_domain() -> None:
    graphs, logic, strings = SFT.by_domain()
    assert [part.benchmark for part in (graphs, logic, strings)] == [
        f"heldout/{name}" for name in sorted(DOMAINS)
    ]
    assert strings.problem_ids == [f"p{i:02d}" for i in range(0, 36, 3)]
    assert [pass_at_1(part.correct).mean for part in (graphs, logic, strings)] == [0, 0.5, 0.125]
    assert {int(n) for n in np.ravel(graphs.completion_tokens)} == {20}
    one = dataclasses.replace(SFT, domains=["logic"] * 36)
    assert one.by_domain() == []


def test_a_domain_has_a_row_below_its_benchmarks() -> None:
    whole = row(SFT)
    parts = [whole.of_domain(part) for part in SFT.by_domain()]
    assert heading([whole, *parts]) == "pass@1 on heldout"
    columns, cells = row_cells([whole, *parts])
    shown = [dict(zip(columns, line, strict=True)) for line in cells]
    assert [line["benchmark"] for line in shown] == [
        "heldout",
        *(f"heldout/{name}" for name in sorted(DOMAINS)),
    ]
    assert [line["pass@1"] for line in shown] == ["20.8%", "0.0%", "50.0%", "12.5%"]
    assert [line["n"] for line in shown] == ["36", "12", "12", "12"]
    assert [line["completion tokens"] for line in shown] == ["20.0", "20.0", "30.0", "10.0"]
    assert [line["cut off"] for line in shown] == ["25.0%", "", "", ""]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(console_table("rows", columns, cells))
    shown_rows = [line.split() for line in captured.get().splitlines() if line.startswith("sft")]
    assert [words[1] for words in shown_rows] == ["heldout", "/graphs", "/logic", "/strings"]
    assert parts[2].as_json()["domain"] == "strings"
    assert "domain" not in whole.as_json()


def test_differences_of_domains_are_corrected_apart() -> None:
    results = [SFT, *SFT.by_domain(), RL, *RL.by_domain()]
    comparisons = stage_differences(results)
    assert [one.domain for one in comparisons] == [None, *sorted(DOMAINS)]
    differences = {one.domain: one.difference.mean for one in comparisons}
    # 10 more of 36 are right by one of two samples; 1 and 9 more of 12.
    expected = {None: 10 / 72, "graphs": 1 / 24, "logic": 0.0, "strings": 9 / 24}
    assert differences == pytest.approx(expected)
    whole, *of_domains = comparisons
    assert whole.p_corrected == whole.difference.p_value
    corrected = holm([one.difference.p_value for one in of_domains])
    assert [one.p_corrected for one in of_domains] == list(corrected)
    assert sentences(of_domains)[2].startswith("heldout/strings: **rl** gains 37.5 points over")


def test_every_file_of_the_report_has_the_domains(tmp_path: Path) -> None:
    results, rows = [], []
    for one in (SFT, RL, result("rl", {"strings": 10, "graphs": 2, "logic": 11}, seed=1)):
        parts = one.by_domain()
        results += [one, *parts]
        rows += [row(one), *(row(one).of_domain(part) for part in parts)]
    paths = write_report(rows, Claims.of(results), results, Evidence(), tmp_path)
    content = json.loads(paths["json"].read_text())
    assert [one.get("domain") for one in content["rows"]] == [None, *sorted(DOMAINS)] * 3
    assert {one["benchmark"]: one["by_seed"] for one in content["means"]} == {
        "heldout": {"0": 25 / 72, "1": 23 / 72},
        "heldout/graphs": {"0": 1 / 24, "1": 2 / 24},
        "heldout/logic": {"0": 12 / 24, "1": 11 / 24},
        "heldout/strings": {"0": 12 / 24, "1": 10 / 24},
    }
    for name in ("markdown", "latex", "html"):
        assert "heldout/strings" in paths[name].read_text(), name
    assert "heldout/strings,rl" in paths["comparisons"].read_text().replace("none,", "")
