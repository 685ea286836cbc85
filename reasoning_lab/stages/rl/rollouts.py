"""The rollouts of one step: drawn, rewarded, kept or dropped, and filled up (paper, step 4).

Everything random is drawn from (seed, step, prompt), so a resumed run samples what it would have
sampled.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from reasoning_lab.engine import Sampling
from reasoning_lab.engine.rollouts import RolloutSampler
from reasoning_lab.ledger import Ledger
from reasoning_lab.rewards import Rewards
from reasoning_lab.stages.rl.config import RLConfig
from reasoning_lab.stages.rl.controls import balanced, informative, length_variation, temperature_at
from reasoning_lab.types import Problem, Rollout, RolloutGroup

# Why a filter that the user configured drops a group.
FILTERED = ("easy", "uneven")


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """The prompts of one step.

    Attributes:
        step: Its number, from 0.
        problems: Its prompts.
        spare: Further prompts of the pool, in the order in which they would take part.
        following: The next step's, where they are drawn beside this one; None behind the last.
    """

    step: int
    problems: Sequence[Problem]
    spare: Sequence[Problem] = ()
    following: "PromptBatch | None" = None

    def to(self, device: torch.device) -> "PromptBatch":
        return self


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group that trains, with the reward of each of its rollouts."""

    rollouts: Sequence[Rollout]
    rewards: Sequence[float]


@dataclass(slots=True)
class StepRollouts:
    """What a step drew.

    Attributes:
        drawn: Every group.
        trained: The groups that train, each with those of its rollouts that are compared.
        dropped: How many prompts did not train, by reason.
        hard: Prompts that got more rollouts for being hard.
        unjudged: Rollouts that a reward could not judge.
        shares: Sum of each reward term over the rollouts that could be judged.
        validation: Groups of the validation problems, by the same weights; empty at most steps.
    """

    drawn: list[RolloutGroup] = field(default_factory=list)
    trained: list[ScoredGroup] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    hard: int = 0
    unjudged: int = 0
    shares: Counter[str] = field(default_factory=Counter)
    validation: list[RolloutGroup] = field(default_factory=list)


def count_step(collected: StepRollouts, ledger: Ledger) -> None:
    """Add a step's groups and rollouts to the ledger.

    A rollout that its group's reason drops is no cause for a second warning.
    """
    drawn = sum(len(group.rollouts) for group in collected.drawn)
    trained = sum(len(group.rollouts) for group in collected.trained)
    ledger.take("groups", len(collected.drawn))
    for reason, count in collected.dropped.items():
        ledger.drop("groups", reason, count, selected=reason in FILTERED)
    ledger.take("rollouts", drawn)
    ledger.drop("rollouts", "unjudged", collected.unjudged)
    others = drawn - trained - collected.unjudged
    ledger.drop("rollouts", "group_dropped_or_balanced", others, selected=True)


class Collector:
    """Draws a step's rollouts and decides which of them train.

    Args:
        config: The stage's.
        seed: The run's.
        sampler: Draws verified rollouts.
        validation: Problems that the policy is held against meanwhile.
        key: The stage's config key, for errors.
    """

    def __init__(
        self,
        config: RLConfig,
        seed: int,
        sampler: RolloutSampler,
        validation: Sequence[Problem],
        key: str,
    ) -> None:
        self._config = config
        self._seed = seed
        self._sampler = sampler
        self._validation = validation
        self._rewards = Rewards(config.rewards, config.max_new_tokens, f"{key}.rewards")

    def sampling(self, step: int) -> Sampling:
        """Untruncated, so that the engine's and the trainer's distributions are one."""
        annealed = self._config.temperature
        temperature = temperature_at(
            step,
            self._config.optimization.steps,
            annealed.start,
            annealed.end,
            annealed.anneal_frac,
        )
        return Sampling(temperature, 1.0, self._config.max_new_tokens)

    def collect(self, batch: PromptBatch, policy_version: int) -> StepRollouts:
        """The step's rollouts; further prompts stand in for dropped ones, round by round."""
        found = StepRollouts(validation=self._validated(batch.step, policy_version))
        prompts, spare = list(batch.problems), list(batch.spare)
        for _ in range(1 + self._config.backfill_rounds):
            for group in self._drawn(prompts, batch.step, policy_version, found):
                self._judge(group, batch.step, found)
            missing = len(batch.problems) - len(found.trained)
            prompts, spare = spare[:missing], spare[missing:]
            if not prompts:
                break
        return found

    def dropped_for(self, group: RolloutGroup) -> str | None:
        """Why the paper's filters drop the group's prompt; None = they keep it."""
        bound = self._config.filter.max_length_variation
        if group.pass_rate > self._config.filter.max_pass_rate:
            return "easy"
        if bound is not None and length_variation(group) > bound:
            return "uneven"
        return None

    def screened(self, groups: Sequence[RolloutGroup]) -> list[Problem]:
        """The prompts that pass the filters and are neither solved nor failed every time."""
        return [g.problem for g in groups if informative(g) and self.dropped_for(g) is None]

    def _validated(self, step: int, policy_version: int) -> list[RolloutGroup]:
        held = self._config.validation
        if not self._validation or step % held.every_steps:
            return []
        sampling = Sampling(held.temperature, held.top_p, self._config.max_new_tokens)
        seed = f"{self._seed}/{step}/validation"
        return self._sampler.groups(self._validation, held.samples, sampling, seed, policy_version)

    def _drawn(
        self, prompts: Sequence[Problem], step: int, policy_version: int, found: StepRollouts
    ) -> list[RolloutGroup]:
        filtering = self._config.filter
        sampling, seed = self.sampling(step), f"{self._seed}/{step}"
        groups = self._sampler.groups(
            prompts, self._config.group_size, sampling, seed, policy_version
        )
        hard = [group.problem for group in groups if group.pass_rate <= filtering.hard_pass_rate]
        if filtering.hard_rollouts and hard:
            found.hard += len(hard)
            more = self._sampler.groups(
                hard, filtering.hard_rollouts, sampling, f"{seed}/hard", policy_version
            )
            added = {group.problem.id: group.rollouts for group in more}
            groups = [
                RolloutGroup(g.problem, [*g.rollouts, *added.get(g.problem.id, ())]) for g in groups
            ]
        found.drawn += groups
        return groups

    def _judge(self, group: RolloutGroup, step: int, found: StepRollouts) -> None:
        """Add the group to `found`, or the reason why it does not train."""
        reason = self.dropped_for(group)
        rewards: dict[int, float] = {}
        for rollout in group.rollouts:
            shares = self._rewards.of(rollout)
            if shares is None:
                found.unjudged += 1
            else:
                found.shares.update(shares)
                rewards[id(rollout)] = sum(shares.values())
        if self._config.filter.balance == "equal":
            group = balanced(group, f"{self._seed}/{step}")
        judged = [rollout for rollout in group.rollouts if id(rollout) in rewards]
        scored = ScoredGroup(judged, [rewards[id(rollout)] for rollout in judged])
        if len(set(scored.rewards)) < 2:
            reason = "no_signal"
        if reason is None:
            found.trained.append(scored)
        else:
            found.dropped[reason] += 1
