"""Metrics that a config names: means over problems, and what is refused."""

import pytest

from reasoning_lab.evaluate.completion_metrics import completion_metrics, metric_means
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, UserError, Verdict
from tests.support.rollouts import group

KEY = "benchmarks.sums.metrics"
OPTIONS = {"verdict": {"_target_": "reasoning_lab.rewards.correctness"}}


def test_the_metric_is_the_mean_over_problems() -> None:
    metrics = completion_metrics(OPTIONS, 16, KEY)
    groups = [group("cc"), group("ww")]
    mean, low, high = metric_means(metrics, groups)["metric/verdict"] or []
    # The problems have +1 and -1: a standard error of 1, times Student's t of one degree.
    assert mean == 0
    assert (low, high) == pytest.approx((-12.706, 12.706), abs=1e-3)
    assert metric_means(metrics, groups[:1])["metric/verdict"] is None


def test_a_completion_that_cannot_be_judged_is_left_out() -> None:
    options = {"verdict": {**OPTIONS["verdict"], "timeout": None}}
    metrics = completion_metrics(options, 16, KEY)
    means = metric_means(metrics, [group("ct"), group("cc"), group("tt")])
    assert means["metric/verdict"] == [1, 1, 1]


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(UserError, match=r"benchmarks\.sums\.metrics\.verdict\._target_"):
        completion_metrics({"verdict": {"_target_": "reasoning_lab.rewards.missing"}}, 16, KEY)


def test_a_metric_knows_the_thought_that_the_template_opened() -> None:
    options = {"title": {"_target_": "reasoning_lab.rewards.all_instructions"}}
    gold = '[{"id": "detectable_format:title"}]'
    problem = Problem("Write.", gold, "instructions", "f")
    texts = ["Is it <<this>>?", "I think.</think><<Title>>"]
    rollouts = [Rollout(problem, Completion([1], t), t, Verdict.WRONG, "p") for t in texts]
    groups = [RolloutGroup(problem, [rollout]) for rollout in rollouts]
    means = metric_means(completion_metrics(options, 16, KEY, "<think>\n"), groups)
    assert (means["metric/title"] or [])[0] == 0.5
