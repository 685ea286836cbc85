"""Metrics of a step's rollouts by hand, from their records."""

from dataclasses import replace

import pytest

from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.rl.metrics import rollout_metrics, second_readings
from reasoning_lab.stages.rl.records import (
    DropReason,
    RewardedGroup,
    RewardedRollout,
    StepRollouts,
)
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.validation import validation_metrics
from reasoning_lab.types import Completion, Problem, Rollout, Verdict
from reasoning_lab.verify import Verifier
from tests.support.rl import rewarded_group
from tests.support.rollouts import group

SAMPLING = Sampling(0.8, 1.0, 10)


def test_reward_means_leave_out_what_no_term_judged() -> None:
    rollouts = group("cw", [2, 6]).rollouts
    judged = RewardedRollout(rollouts[0], {"a": 1.0, "b": 0.5}, 1.5)
    unjudged = RewardedRollout(rollouts[1], {}, None, dropped=DropReason.UNJUDGED)
    step = StepRollouts([RewardedGroup(rollouts[0].problem, [judged, unjudged])])
    metrics = rollout_metrics(step, 0.3, SAMPLING, policy_version=4)
    assert metrics["reward_mean"] == 1.5
    assert (metrics["reward/a_mean"], metrics["reward/b_mean"]) == (1.0, 0.5)
    assert (metrics["correct_frac"], metrics["wrong_frac"]) == (0.5, 0.5)
    assert (metrics["completion_tokens_mean"], metrics["completion_tokens_max"]) == (4.0, 6)
    assert (metrics["rollouts"], metrics["unjudged"], metrics["staleness"]) == (2, 1, 4)


def test_groups_and_rollouts_are_counted_by_their_reason() -> None:
    step = StepRollouts(
        [
            rewarded_group(1.0, 0.0, -1.0, masked=1),
            rewarded_group(1.0, 1.0).drop(DropReason.NO_SIGNAL),
            rewarded_group(0.0, 1.0, masked=1).drop(DropReason.EASY),
        ]
    )
    metrics = rollout_metrics(step, 0.3, SAMPLING, policy_version=0)
    assert (metrics["groups_trained"], metrics["groups_without_signal"]) == (1, 1)
    assert (metrics["groups_too_easy"], metrics["groups_uneven"]) == (1, 0)
    # The reason of a dropped group is that of its masked rollouts too.
    assert metrics["cut_off"] == 1
    assert step.dropped_rollouts == {
        DropReason.CUT_OFF: 1,
        DropReason.NO_SIGNAL: 2,
        DropReason.EASY: 2,
    }
    assert metrics["truncated_frac"] == pytest.approx(2 / 7)


def test_each_of_several_domains_has_its_means() -> None:
    logic, rollouts = rewarded_group(1.0, 0.0, 0.0, 0.0, domain="logic"), group("cw", [2, 6])
    judged = [
        RewardedRollout(rollouts.rollouts[0], {"r": 3.0}, 3.0),
        RewardedRollout(rollouts.rollouts[1], {}, None, dropped=DropReason.UNJUDGED),
    ]
    other = RewardedGroup(rollouts.problem, judged)
    metrics = rollout_metrics(StepRollouts([logic, other]), 0.3, SAMPLING, policy_version=0)
    assert (metrics["logic/reward_mean"], metrics["mathematics/reward_mean"]) == (0.25, 3.0)
    assert (metrics["logic/correct_frac"], metrics["mathematics/correct_frac"]) == (0.0, 0.5)
    alone = rollout_metrics(StepRollouts([other]), 0.3, SAMPLING, policy_version=0)
    assert not [key for key in alone if key.startswith("mathematics/")]


def test_validation_is_a_mean_over_problems() -> None:
    metrics = validation_metrics([group("cw"), group("ww")])
    assert metrics == {"val/pass@1": 0.25, "val/truncated_frac": 0.0}
    assert validation_metrics([]) == {}
    metrics = validation_metrics([group("cw"), group("cc"), group("wwwc", domain="logic")])
    assert metrics["val/pass@1"] == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert (metrics["val/mathematics/pass@1"], metrics["val/logic/pass@1"]) == (0.75, 0.25)


def test_a_second_verifier_reads_a_sample_of_the_correct_rollouts() -> None:
    def rollout(number: int, verdict: Verdict) -> Rollout:
        problem = Problem(f"{number}?", str(number), "number", "f")
        return Rollout(problem, Completion([1], "\\boxed{0.5}"), None, verdict, "p")

    wrong = [rollout(number, Verdict.WRONG) for number in range(1, 9)]
    deceived = [rollout(number, Verdict.CORRECT) for number in range(1, 9)]
    with Verifier(workers=1, timeout_s=20, memory_mb=1024) as verifier:
        metrics = second_readings([*wrong, *deceived], 3, verifier, "", "0/5", Peers())
        nothing = second_readings(wrong, 3, verifier, "", "0/5", Peers())
    assert metrics == {
        "rollout/second_verifier_read": 3.0,
        "rollout/second_verifier_disagreement": 1.0,
    }
    assert nothing == {"rollout/second_verifier_read": 0.0}


def test_a_reward_of_one_domain_has_the_mean_of_its_rollouts() -> None:
    logic = rewarded_group(1.0, 0.0, domain="logic")
    other = rewarded_group(0.5, 0.5, 2.0, 4.0)
    renamed = [replace(one, reward_terms={"other": one.reward or 0.0}) for one in other.rollouts]
    step = StepRollouts([logic, replace(other, rollouts=renamed)])
    metrics = rollout_metrics(step, 0.1, SAMPLING, 0)
    assert metrics["reward_mean"] == 8 / 6
    assert metrics["reward/r_mean"] == 0.5
    assert metrics["reward/other_mean"] == 7 / 4
    assert metrics["logic/reward_mean"] == 0.5
