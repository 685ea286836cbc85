"""Metrics of a step's rollouts by hand, from their records."""

import pytest

from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.stages.rl.metrics import rollout_metrics
from reasoning_lab.stages.rl.records import (
    DropReason,
    RewardedGroup,
    RewardedRollout,
    StepRollouts,
)
from reasoning_lab.training.validation import validation_metrics
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


def test_validation_is_a_mean_over_problems() -> None:
    metrics = validation_metrics([group("cw"), group("ww")])
    assert metrics == {"val/pass@1": 0.25, "val/truncated_frac": 0.0}
    assert validation_metrics([]) == {}
