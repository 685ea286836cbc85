"""The records of reinforcement learning, in the order in which `rollouts.py` makes them.

They are immutable and each fact is computed once, so that counts, tables and metrics read the
fields that the update trains on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.types import Example, Problem, Rollout, RolloutGroup


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """The prompts of one step.

    Attributes:
        step: Its number, from 0.
        problems: Its prompts.
        replacements: Further prompts of the pool, in the order in which they replace dropped ones.
    """

    step: int
    problems: Sequence[Problem]
    replacements: Sequence[Problem] = ()

    def to(self, device: torch.device) -> "PromptBatch":
        return self


class DropReason(StrEnum):
    """Why a rollout, or its whole group, does not train."""

    UNJUDGED = "unjudged"
    """A reward term returned None."""
    NO_SIGNAL = "no_signal"
    """Nothing differs among the rollouts that are compared; see `signal`."""
    EASY = "easy"
    """More rollouts are correct than `filter.max_pass_rate` allows."""
    UNEVEN = "uneven"
    """Lengths vary more than `filter.max_length_variation` allows."""
    BALANCED_AWAY = "balanced_away"
    """An incorrect rollout that `filter.balance=equal` left out."""
    CUT_OFF = "cut_off"
    """The token limit truncated the rollout, under `overlong=mask`."""
    STALE = "stale"
    """Its first token is more than `staleness` steps older than the step that would train it."""


# DropReasons that the user configured; the others may deserve a warning.
CONFIGURED_REASONS = frozenset({DropReason.EASY, DropReason.UNEVEN, DropReason.CUT_OFF})
# Groups of these reasons have no gradient, but the update's baseline counts their rewards.
_COMPARED_REASONS = (None, DropReason.NO_SIGNAL, DropReason.CUT_OFF)


@dataclass(frozen=True, slots=True)
class RewardedRollout:
    """A verified rollout with all that training makes of it.

    Attributes:
        rollout: Problem, completion and verdict.
        reward_terms: Weighted value of each reward term, by name; empty = one cannot judge it.
        reward: Sum of the terms; None = a term cannot judge it.
        advantage: From the rewards that it is compared with; 0 = all of these are equal, or the
            rollout is not compared.
        dropped: Why it does not train; None = it trains.
    """

    rollout: Rollout
    reward_terms: Mapping[str, float]
    reward: float | None
    advantage: float = 0.0
    dropped: DropReason | None = None

    @property
    def is_compared(self) -> bool:
        """Whether its reward is in its group's baseline, even if it is masked itself."""
        return self.dropped not in (DropReason.UNJUDGED, DropReason.BALANCED_AWAY)


@dataclass(frozen=True, slots=True)
class RewardedGroup:
    """All rollouts of one prompt in a step.

    Attributes:
        problem: The prompt.
        rollouts: In the order in which they were sampled.
        oversampled: True = the prompt was hard and got `filter.hard_rollouts` more.
        dropped: Why the group does not train; None = it trains.
    """

    problem: Problem
    rollouts: Sequence[RewardedRollout]
    oversampled: bool = False
    dropped: DropReason | None = None

    @property
    def compared(self) -> list[RewardedRollout]:
        """The rollouts whose rewards are each other's baseline."""
        return [rollout for rollout in self.rollouts if rollout.is_compared]

    @property
    def trained(self) -> list[RewardedRollout]:
        """The rollouts that train."""
        return [rollout for rollout in self.rollouts if rollout.dropped is None]

    @property
    def in_update_baseline(self) -> bool:
        """Whether estimators over the whole update count the group."""
        return self.dropped in _COMPARED_REASONS and bool(self.compared)

    def with_compared(self, rollouts: Iterable[RewardedRollout]) -> "RewardedGroup":
        """The group with `rollouts`, in order, in place of those that are compared."""
        changed = iter(rollouts)
        return replace(
            self, rollouts=[next(changed) if old.is_compared else old for old in self.rollouts]
        )

    def drop(self, reason: DropReason) -> "RewardedGroup":
        """The group and its compared rollouts dropped for one reason."""
        group = self.with_compared(replace(old, dropped=reason) for old in self.compared)
        return replace(group, dropped=reason)


@dataclass(frozen=True, slots=True)
class StepRollouts:
    """Everything that a step sampled.

    Attributes:
        groups: One a prompt, in the order in which they were sampled.
        validation: Groups of the validation problems, by the same weights; empty at most steps.
    """

    groups: Sequence[RewardedGroup]
    validation: Sequence[RolloutGroup] = ()

    @property
    def rollouts(self) -> list[RewardedRollout]:
        """Of all groups; those of validation are not included."""
        return [rollout for group in self.groups for rollout in group.rollouts]

    @property
    def fresh_rollouts(self) -> list[RewardedRollout]:
        """Of all groups but those that are too old to train."""
        fresh = [group for group in self.groups if group.dropped is not DropReason.STALE]
        return [rollout for group in fresh for rollout in group.rollouts]

    @property
    def trained_groups(self) -> list[RewardedGroup]:
        """The groups that train."""
        return [group for group in self.groups if group.dropped is None]

    @property
    def dropped_groups(self) -> Counter[DropReason]:
        """How many groups do not train, by reason."""
        return Counter(group.dropped for group in self.groups if group.dropped is not None)

    @property
    def dropped_rollouts(self) -> Counter[DropReason]:
        """How many rollouts do not train, by reason."""
        reasons = (rollout.dropped for rollout in self.rollouts)
        return Counter(reason for reason in reasons if reason is not None)

    def record(self, ledger: Ledger) -> None:
        """Add the step's groups and rollouts to the stage's ledger.

        Rollouts warn only where they are unjudged: their group's reason is warned of once.
        """
        ledger.take("groups", len(self.groups))
        for reason, count in sorted(self.dropped_groups.items()):
            ledger.drop("groups", reason.value, count, selected=reason in CONFIGURED_REASONS)
        ledger.take("rollouts", len(self.rollouts))
        for reason, count in sorted(self.dropped_rollouts.items()):
            is_expected = reason is not DropReason.UNJUDGED
            ledger.drop("rollouts", reason.value, count, selected=is_expected)


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One rollout of an update.

    Attributes:
        rollout: The rollout, with the engine's logprobs.
        example: Its tokens, prompt included.
        advantage: Of each of its tokens.
        token_weight: Of each of its tokens in the update's loss.
    """

    rollout: Rollout
    example: Example
    advantage: float
    token_weight: float
