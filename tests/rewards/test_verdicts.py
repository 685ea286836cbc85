"""A number for each verdict, and for the tests that a program passed."""

from dataclasses import replace

from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import Verdict
from tests.support.rewards import rollout, term


def test_every_verdict_has_its_number_and_none_takes_the_rollout_out() -> None:
    options = {"correct": 1.0, "wrong": 0.0, "unparseable": -0.5, "timeout": None}
    composed = WeightedRewards({"c": term("correctness", **options)}, 40, "rewards")
    terms = {verdict: composed.terms(rollout(verdict)) for verdict in Verdict}
    assert terms == {
        Verdict.CORRECT: {"c": 1.0},
        Verdict.WRONG: {"c": 0.0},
        Verdict.UNPARSEABLE: {"c": -0.5},
        Verdict.TIMEOUT: None,
    }
    papers = WeightedRewards({"c": term("correctness")}, 40, "rewards")
    assert [papers.terms(rollout(verdict)) for verdict in Verdict] == [
        {"c": 1.0 if verdict is Verdict.CORRECT else -1.0} for verdict in Verdict
    ]


def test_partial_credit_is_the_fraction_of_passed_tests() -> None:
    options = {"c": term("correctness"), "t": term("tests_passed", weight=0.5)}
    composed = WeightedRewards(options, 40, "rewards")
    half = replace(rollout(Verdict.WRONG), passed_frac=0.5)
    assert composed.terms(half) == {"c": -1.0, "t": 0.25}
    # A problem without tests is worth what it was.
    assert composed.terms(rollout(Verdict.CORRECT)) == {"c": 1.0, "t": 0.0}
