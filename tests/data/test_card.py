"""The data card: read back by Hugging Face's own parser, numbers by hand."""

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from reasoning_lab.data.card import CorpusSummary, data_card
from reasoning_lab.data.curation.step import StepCount
from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Completion, Problem, Rollout, Verdict

ABOUT = {"name": "sums: a, b", "revision": "r7", "licence": "Apache-2.0"}


def rollout(prompt: str, text: str, verdict: Verdict, family: str = "f", level: int = 1) -> Rollout:
    problem = Problem(prompt, "1|2", "math", family, level)
    return Rollout(problem, Completion([], text), "1", verdict, "R1")


@pytest.fixture
def summary() -> CorpusSummary:
    counted = CorpusSummary()
    counted.add([rollout("a", "x" * n, Verdict.CORRECT) for n in (1, 2, 3, 4, 5)])
    counted.add([rollout("b", "```\n---\n````", Verdict.CORRECT, "g", 2)])
    counted.add([rollout("b", "x" * 9, Verdict.WRONG, "g", 2), rollout("c", "", Verdict.TIMEOUT)])
    return counted


def header_of(card: str) -> dict[str, Any]:
    """The card's header, as the hub's own parser reads it."""
    return vars(DatasetCard(card).data)


def test_header_is_a_dataset_cards(summary: CorpusSummary) -> None:
    header = header_of(data_card("distill", ABOUT, summary, Ledger()))
    assert header["license"] == "apache-2.0"
    assert header["size_categories"] == ["n<1K"]
    assert header["pretty_name"] == "distill (sums: a, b)"
    assert [file["path"] for file in header["configs"][0]["data_files"]] == [
        "accepted.parquet",
        "rejected.parquet",
        "validation.parquet",
    ]


def test_a_licence_that_the_hub_does_not_know_keeps_its_name(summary: CorpusSummary) -> None:
    header = header_of(data_card("d", {**ABOUT, "licence": "Not stated: ask"}, summary, Ledger()))
    assert (header["license"], header["license_name"]) == ("other", "not-stated-ask")


@pytest.mark.parametrize(
    ("rollouts", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K")]
)
def test_size_counts_accepted_rollouts(rollouts: int, size: str) -> None:
    counted = CorpusSummary()
    counted.add([rollout("a", "", Verdict.CORRECT)] * rollouts)
    counted.add([rollout("a", "", Verdict.WRONG)] * 5)
    header = header_of(data_card("d", ABOUT, counted, Ledger()))
    assert header["size_categories"] == [size]


@pytest.mark.parametrize(
    "line",
    [
        "- Revision: r7",
        "- Completions (rollouts) by: R1 (8)",
        "| correct | 6 | 0 |",
        "| wrong | 1 | 0 |",
        "| timeout | 1 | 0 |",
        "| mathematics | f | 1 | 2 | 5 |",
        "| mathematics | g | 2 | 1 | 1 |",
        "| all |  |  | 3 | 6 |",
        # Lengths 1 to 5 and 12 (with 0-based rank 2.5, the median is between 3 and 4).
        "| accepted | 1 | 1 | 2 | 4 | 5 | 10 | 12 |",
        # Lengths 0 and 9.
        "| rejected | 0 | 0 | 2 | 4 | 7 | 9 | 9 |",
    ],
)
def test_counts_and_lengths_by_hand(line: str, summary: CorpusSummary) -> None:
    assert line in data_card("distill", ABOUT, summary, Ledger()).splitlines()


def test_only_a_curated_corpus_has_the_table_of_curation(summary: CorpusSummary) -> None:
    assert "## Curation" not in data_card("distill", ABOUT, summary, Ledger())
    card = data_card("curate", ABOUT, summary, Ledger(), [StepCount("length", 1200, 8, 7, 6)])
    assert "| length | 1,200 | 8 | 7 | 6 |" in card.splitlines()


def test_examples_are_distinct_problems_that_cannot_leave_their_block() -> None:
    counted = CorpusSummary()
    counted.add([rollout("a", "one", Verdict.CORRECT)] * 2)
    counted.add([rollout("b", "```\n# head\n````", Verdict.CORRECT)])
    counted.add([rollout(name, "y" * 5000, Verdict.CORRECT) for name in "cd"])
    counted.add([rollout("e", "wrong", Verdict.WRONG)])
    assert [example.problem.prompt for example in counted.examples] == ["a", "b", "c"]
    card = data_card("d", ABOUT, counted, Ledger())
    assert "`````text\n```\n# head\n````\n`````" in card
    assert f"{'y' * 1500} […]" in card
    assert "y" * 1501 not in card


def test_verdicts_of_a_judge_are_counted_beside_the_verifiers() -> None:
    counted = CorpusSummary()
    judged = replace(rollout("a", "x", Verdict.CORRECT), judge="referee")
    counted.add([judged, rollout("a", "y", Verdict.CORRECT)])
    assert "| correct | 2 | 1 |" in data_card("d", ABOUT, counted, Ledger())
