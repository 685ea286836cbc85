"""Sampled rollouts as a training state holds them: numbers in tensors, the rest in plain values.

Problems are not saved. They are those of the plan, to which a group's place leads. What one rank
saves is what it has: tokens of what it drew, and lengths of the rest.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from reasoning_lab.sampling.remote import RemoteCompletion, RemoteTokens
from reasoning_lab.sampling.rollouts import PartialRollout
from reasoning_lab.stages.rl.records import (
    DropReason,
    PromptBatch,
    RewardedGroup,
    RewardedRollout,
    StepRollouts,
)
from reasoning_lab.types import Completion, Problem, Rollout, RolloutGroup, Verdict

_ROLLOUT_FIELDS = ("answer", "author", "policy_version", "judge", "passed_frac")
_REWARD_FIELDS = ("reward", "advantage")


def saved_completions(
    completions: Sequence[Completion], token_versions: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Completions, with the policy versions of their tokens, in tensors and lists.

    `remote` has the rank and the length of a completion that another rank drew.
    """
    remote = [
        (one.rank, len(one.token_ids)) if isinstance(one, RemoteCompletion) else None
        for one in completions
    ]
    known_ids = [() if isinstance(one, RemoteCompletion) else one.token_ids for one in completions]
    return {
        "text": [completion.text for completion in completions],
        "truncated": [completion.truncated for completion in completions],
        "remote": remote,
        "token_ids": _packed(known_ids, torch.int64),
        "logprobs": _packed([one.logprobs for one in completions], torch.float64),
        "token_versions": _packed(token_versions, torch.int64),
    }


def read_completions(state: Mapping[str, Any]) -> list[tuple[Completion, list[int]]]:
    """What `saved_completions` was given."""
    parts = (_unpacked(state[name]) for name in ("token_ids", "logprobs", "token_versions"))
    return [
        (
            Completion(ids, text, logprobs, truncated)
            if remote is None
            else RemoteCompletion(RemoteTokens(remote[1]), text, (), truncated, rank=remote[0]),
            versions,
        )
        for ids, logprobs, versions, text, truncated, remote in zip(
            *parts, state["text"], state["truncated"], state["remote"], strict=True
        )
    ]


def saved_rollouts(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Verified rollouts without their problems."""
    return {
        "completions": saved_completions(
            [rollout.completion for rollout in rollouts],
            [rollout.token_versions for rollout in rollouts],
        ),
        "verdict": [str(rollout.verdict) for rollout in rollouts],
        **{name: [getattr(one, name) for one in rollouts] for name in _ROLLOUT_FIELDS},
    }


def read_rollouts(state: Mapping[str, Any], problems: Sequence[Problem]) -> list[Rollout]:
    """What `saved_rollouts` was given; `problems` has the problem of each."""
    values = zip(*(state[name] for name in _ROLLOUT_FIELDS), strict=True)
    return [
        Rollout(
            problem,
            completion,
            verdict=Verdict(verdict),
            token_versions=versions,
            **dict(zip(_ROLLOUT_FIELDS, row, strict=True)),
        )
        for problem, (completion, versions), verdict, row in zip(
            problems, read_completions(state["completions"]), state["verdict"], values, strict=True
        )
    ]


def saved_partials(rollouts: Sequence[PartialRollout]) -> dict[str, Any]:
    """Rollouts that an update may interrupt, without their problems."""
    return {
        "completions": saved_completions(
            [rollout.completion for rollout in rollouts],
            [rollout.token_versions for rollout in rollouts],
        ),
        "seed": [rollout.seed for rollout in rollouts],
        "ended": [rollout.ended for rollout in rollouts],
        "rank": [rollout.rank for rollout in rollouts],
    }


def read_partials(state: Mapping[str, Any], problems: Sequence[Problem]) -> list[PartialRollout]:
    """What `saved_partials` was given; `problems` has the problem of each."""
    return [
        PartialRollout(problem, seed, completion, versions, ended, rank)
        for problem, seed, ended, rank, (completion, versions) in zip(
            problems,
            state["seed"],
            state["ended"],
            state["rank"],
            read_completions(state["completions"]),
            strict=True,
        )
    ]


def saved_groups(groups: Sequence[RolloutGroup]) -> dict[str, Any]:
    """Groups of verified rollouts without their problems."""
    return {
        "sizes": [len(group.rollouts) for group in groups],
        "rollouts": saved_rollouts([one for group in groups for one in group.rollouts]),
    }


def read_groups(state: Mapping[str, Any], problems: Sequence[Problem]) -> list[RolloutGroup]:
    """What `saved_groups` was given; `problems` has the problem of each group."""
    sizes = state["sizes"]
    repeated = [problem for problem, size in zip(problems, sizes, strict=True) for _ in range(size)]
    rollouts = iter(read_rollouts(state["rollouts"], repeated))
    return [
        RolloutGroup(problem, [next(rollouts) for _ in range(size)])
        for problem, size in zip(problems, sizes, strict=True)
    ]


def saved_step(step_rollouts: StepRollouts) -> dict[str, Any]:
    """All that a step sampled, with rewards, advantages and reasons, without its problems."""
    records = step_rollouts.rollouts
    judged = [
        RolloutGroup(group.problem, [record.rollout for record in group.rollouts])
        for group in step_rollouts.groups
    ]
    return {
        "groups": saved_groups(judged),
        "oversampled": [group.oversampled for group in step_rollouts.groups],
        "group_dropped": [_text(group.dropped) for group in step_rollouts.groups],
        "dropped": [_text(record.dropped) for record in records],
        "reward_terms": [
            {name: float(value) for name, value in record.reward_terms.items()}
            for record in records
        ],
        **{name: [_float(getattr(one, name)) for one in records] for name in _REWARD_FIELDS},
        "validation": saved_groups(step_rollouts.validation),
    }


def read_step(
    state: Mapping[str, Any], batch: PromptBatch, validation: Sequence[Problem]
) -> StepRollouts:
    """What `saved_step` was given.

    Args:
        state: The saved values.
        batch: The step's prompts; its groups are of these in order, then of the replacements.
        validation: The problems on which the policy is validated.
    """
    count = len(state["groups"]["sizes"])
    replacing = batch.replacements[: count - len(batch.problems)]
    groups = read_groups(state["groups"], [*batch.problems, *replacing])
    fields = ("reward_terms", *_REWARD_FIELDS, "dropped")
    values = iter(list(zip(*(state[name] for name in fields), strict=True)))
    rewarded = []
    for group, oversampled, group_dropped in zip(
        groups, state["oversampled"], state["group_dropped"], strict=True
    ):
        records = []
        for rollout in group.rollouts:
            terms, reward, advantage, dropped = next(values)
            records.append(RewardedRollout(rollout, terms, reward, advantage, _reason(dropped)))
        rewarded.append(RewardedGroup(group.problem, records, oversampled, _reason(group_dropped)))
    validated = state["validation"]
    return StepRollouts(rewarded, read_groups(validated, validation[: len(validated["sizes"])]))


def _packed(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        "values": torch.tensor(list(chain.from_iterable(rows)), dtype=dtype),
        "lengths": torch.tensor([len(row) for row in rows], dtype=torch.int64),
    }


def _unpacked(state: Mapping[str, torch.Tensor]) -> list[list[Any]]:
    lengths = state["lengths"].tolist()
    return [part.tolist() for part in state["values"].split(lengths)]


def _text(reason: DropReason | None) -> str | None:
    return None if reason is None else str(reason)


def _reason(text: str | None) -> DropReason | None:
    return None if text is None else DropReason(text)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
