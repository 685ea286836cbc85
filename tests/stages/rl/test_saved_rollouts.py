"""What a training state holds of sampled rollouts is read as it was, without running anything."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reasoning_lab.sampling.rollouts import PartialRollout
from reasoning_lab.stages.rl.records import (
    DropReason,
    PromptBatch,
    RewardedGroup,
    RewardedRollout,
    StepRollouts,
)
from reasoning_lab.stages.rl.saved_rollouts import (
    read_partials,
    read_step,
    saved_partials,
    saved_step,
)
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, Verdict

# A fraction of float32 and one of float64, of which neither is short in decimals.
LOGPROBS = [float(torch.tensor(-1 / 3)), -math.pi]
PROBLEMS = [Problem(f"p{number}", "1", "math", "f") for number in range(4)]


def rollout(problem: Problem, **changes: Any) -> Rollout:
    completion = Completion([5, 2], "ä\n", LOGPROBS, truncated=True)
    return replace(Rollout(problem, completion, "1", Verdict.CORRECT, "policy", 3), **changes)


def through_a_file(state: Any, folder: Path) -> Any:
    torch.save(state, folder / "state")
    return torch.load(folder / "state", weights_only=True)


def test_a_step_is_read_as_it_was(tmp_path: Path) -> None:
    first, second, replacing, _ = PROBLEMS
    empty = rollout(first, completion=Completion([], "", [], True), answer=None, passed_frac=0.1)
    groups = [
        RewardedGroup(
            first,
            [
                RewardedRollout(rollout(first), {"a": 0.1, "b": -2.0}, 0.1 - 2.0, 1 / 7),
                RewardedRollout(empty, {}, None, dropped=DropReason.UNJUDGED),
            ],
            oversampled=True,
        ),
        RewardedGroup(second, [RewardedRollout(rollout(second), {"a": 1.0}, 1.0)]).drop(
            DropReason.NO_SIGNAL
        ),
        # The first prompt in place of a dropped one.
        RewardedGroup(
            replacing,
            [RewardedRollout(rollout(replacing, token_versions=[3, 4]), {"a": 1.0}, 1.0)],
        ),
    ]
    validation = [RolloutGroup(PROBLEMS[3], [rollout(PROBLEMS[3], judge="j")])]
    step = StepRollouts(groups, validation)
    state = through_a_file(saved_step(step), tmp_path)
    batch = PromptBatch(0, PROBLEMS[:2], PROBLEMS[2:])
    read = read_step(state, batch, [PROBLEMS[3]])
    assert _plain(read) == _plain(step)


def test_partial_rollouts_are_read_as_they_were(tmp_path: Path) -> None:
    partials = [
        PartialRollout(PROBLEMS[0], 2**63 - 1),
        PartialRollout(PROBLEMS[1], 7, Completion([5, 2], "ä", LOGPROBS, True), [0, 1]),
        PartialRollout(PROBLEMS[1], 8, Completion([1], "", [-0.5]), [1], ended=True),
    ]
    state = through_a_file(saved_partials(partials), tmp_path)
    read = read_partials(state, [one.problem for one in partials])
    assert [_values(one) for one in read] == [_values(one) for one in partials]
    assert read_partials(through_a_file(saved_partials([]), tmp_path), []) == []


def _values(one: PartialRollout) -> Any:
    about = (one.problem, one.seed, one.ended, list(one.token_versions))
    return (*about, *_completion(one.completion))


def _completion(one: Completion) -> Any:
    return (list(one.token_ids), one.text, list(one.logprobs), one.truncated)


def _rollout(one: Rollout) -> Any:
    about = (one.problem, one.answer, one.verdict, one.author, one.judge, one.passed_frac)
    versions = (one.policy_version, list(one.token_versions))
    return (*about, *versions, *_completion(one.completion))


def _record(one: RewardedRollout) -> Any:
    rewards = (dict(one.reward_terms), one.reward, one.advantage, one.dropped)
    return (*rewards, _rollout(one.rollout))


def _plain(step: StepRollouts) -> Any:
    groups = [
        (group.problem, group.oversampled, group.dropped, [_record(one) for one in group.rollouts])
        for group in step.groups
    ]
    validation = [
        (group.problem, [_rollout(one) for one in group.rollouts]) for group in step.validation
    ]
    return groups, validation
