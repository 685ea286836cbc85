"""The rollouts of one step: drawn, rewarded, kept or dropped, and filled up (paper, step 4).

Everything random is drawn from (seed, step, round, prompt, how often the prompt came before), so a
resumed run samples what it would have sampled, and no two rollouts of a run are one draw.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from reasoning_lab.graph.ledger import Ledger
from reasoning_lab.losses.advantages import ADVANTAGES
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.controls import balanced, informative, length_variation, temperature_at
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.types import Problem, Rollout, RolloutGroup, UserError

# Why a group is dropped by what the user configured: `filter`, or `overlong=mask`.
FILTERED = ("easy", "uneven", "cut_off")


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
    """Rollouts of one prompt that are compared, with the reward of each.

    Attributes:
        rollouts: Those that could be judged and were not balanced away.
        rewards: One a rollout.
        advantages: One a rollout; empty where the group does not train.
    """

    rollouts: Sequence[Rollout]
    rewards: Sequence[float]
    advantages: Sequence[float] = ()


@dataclass(slots=True)
class StepRollouts:
    """What a step drew, and what became of it.

    Attributes:
        drawn: Every group. Those that train and those dropped add up to them.
        trained: The groups that train, each with those of its rollouts that are compared.
        compared: The groups that do not train and are in the update's baseline all the same: those
            without a signal, and those whose every rollout is masked.
        dropped: How many groups do not train, by reason: `unjudged` (no rollout can be judged),
            `no_signal`, `easy`, `uneven`, `cut_off` (no rollout that may train).
        dropped_rollouts: How many rollouts do not train, by reason: `unjudged`, `balanced_away`,
            `cut_off`, and the group's reason for the rest of a group that was dropped.
        hard: Prompts that got more rollouts for being hard.
        shares: Sum of each reward term over the rollouts that could be judged.
        validation: Groups of the validation problems, by the same weights; empty at most steps.
    """

    drawn: list[RolloutGroup] = field(default_factory=list)
    trained: list[ScoredGroup] = field(default_factory=list)
    compared: list[ScoredGroup] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_rollouts: Counter[str] = field(default_factory=Counter)
    hard: int = 0
    shares: Counter[str] = field(default_factory=Counter)
    validation: list[RolloutGroup] = field(default_factory=list)

    @property
    def drawn_rollouts(self) -> int:
        """How many rollouts the step drew; those of validation are not counted."""
        return sum(len(group.rollouts) for group in self.drawn)

    def drop(self, reason: str, rollouts: int) -> None:
        """Count a group that does not train, and so many of its rollouts."""
        self.dropped[reason] += 1
        self.dropped_rollouts[reason] += rollouts


def count_step(collected: StepRollouts, ledger: Ledger) -> None:
    """Add a step's groups and rollouts to the ledger.

    A rollout that its group's reason drops is no cause for a second warning.
    """
    ledger.take("groups", len(collected.drawn))
    for reason, count in sorted(collected.dropped.items()):
        ledger.drop("groups", reason, count, selected=reason in FILTERED)
    ledger.take("rollouts", collected.drawn_rollouts)
    for reason, count in sorted(collected.dropped_rollouts.items()):
        ledger.drop("rollouts", reason, count, selected=reason != "unjudged")


class Collector:
    """Draws a step's rollouts and decides which of them train.

    Args:
        config: The stage's.
        seed: The run's.
        sampler: Draws verified rollouts.
        validation: Problems that the policy is held against meanwhile.
        key: The stage's config key, for errors.
        opened: What the chat template writes of a thought; see `template_thought`.
    """

    def __init__(
        self,
        config: RLStage,
        seed: int,
        sampler: RolloutSampler,
        validation: Sequence[Problem],
        key: str,
        opened: str = "",
    ) -> None:
        self._config = config
        self._seed = seed
        self._sampler = sampler
        self._validation = validation
        self._rewards = WeightedRewards(
            config.rewards, config.max_new_tokens, f"{key}.rewards", opened
        )

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
        """The step's rollouts; further prompts stand in for dropped ones, round by round.

        Raises:
            UserError: A reward gave what is no number, or judged no rollout of the first step.
        """
        collected = StepRollouts(validation=self._validated(batch.step, policy_version))
        prompts, spare = list(batch.problems), list(batch.spare)
        for number in range(1 + self._config.backfill_rounds):
            seed = f"{self._seed}/{batch.step}" + (f"/{number}" if number else "")
            for group in self._drawn(prompts, batch.step, seed, policy_version, collected):
                self._judge(group, seed, collected)
            missing = len(batch.problems) - len(collected.trained)
            prompts, spare = spare[:missing], spare[missing:]
            if not prompts:
                break
        if batch.step == 0:
            self._require_judged(collected)
        self._compare(collected)
        return collected

    def dropped_for(self, group: RolloutGroup) -> str | None:
        """Why a filter drops the group's prompt; None = they keep it.

        There is no such reason where a rollout is not compared with its group.
        """
        filtering = self._config.filter
        if not self._config.has_group_baseline:
            return None
        if group.pass_rate > filtering.max_pass_rate:
            return "easy"
        bound = filtering.max_length_variation
        if bound is not None and length_variation(group) > bound:
            return "uneven"
        return None

    def screened(self, groups: Sequence[RolloutGroup]) -> tuple[list[Problem], Counter[str]]:
        """The prompts that are worth drawing, and how many are not, by reason.

        Those pass the filters and, where correctness is the signal, are neither solved nor failed
        every time.
        """
        pool: list[Problem] = []
        dropped: Counter[str] = Counter()
        for group in groups:
            silent = self._config.signal == "correctness" and not informative(group)
            reason = "no_signal" if silent else self.dropped_for(group)
            if reason is None:
                pool.append(group.problem)
            else:
                dropped[reason] += 1
        return pool, dropped

    def _validated(self, step: int, policy_version: int) -> list[RolloutGroup]:
        held = self._config.validation
        if not self._validation or step % held.every_steps:
            return []
        sampling = Sampling(held.temperature, held.top_p, self._config.max_new_tokens)
        seed = f"{self._seed}/{step}/validation"
        return self._sampler.groups(self._validation, held.samples, sampling, seed, policy_version)

    def _drawn(
        self,
        prompts: Sequence[Problem],
        step: int,
        seed: str,
        policy_version: int,
        collected: StepRollouts,
    ) -> list[RolloutGroup]:
        filtering, sampling = self._config.filter, self.sampling(step)
        groups = self._sampler.groups(
            prompts, self._config.group_size, sampling, seed, policy_version
        )
        hard = [
            number
            for number, group in enumerate(groups)
            if group.pass_rate <= filtering.hard_pass_rate
        ]
        if filtering.hard_rollouts and hard:
            collected.hard += len(hard)
            more = self._sampler.groups(
                [groups[number].problem for number in hard],
                filtering.hard_rollouts,
                sampling,
                f"{seed}/hard",
                policy_version,
            )
            for number, added in zip(hard, more, strict=True):
                rollouts = [*groups[number].rollouts, *added.rollouts]
                groups[number] = RolloutGroup(added.problem, rollouts)
        collected.drawn += groups
        return groups

    def _require_judged(self, collected: StepRollouts) -> None:
        drawn = collected.drawn_rollouts
        if collected.dropped_rollouts["unjudged"] == drawn:
            term = self._rewards.declining_key(collected.drawn[0].rollouts[0])
            raise UserError(
                f"{term}: it returned None for all {drawn} rollouts of the first step, so nothing "
                "trains; return a number wherever it can judge"
            )

    def _judge(self, drawn: RolloutGroup, seed: str, collected: StepRollouts) -> None:
        """Add the group to those that train, or count the reason why it does not."""
        rewards: dict[int, float] = {}
        for rollout in drawn.rollouts:
            shares = self._rewards.terms(rollout)
            if shares is not None:
                collected.shares.update(shares)
                rewards[id(rollout)] = sum(shares.values())
        judged = [rollout for rollout in drawn.rollouts if id(rollout) in rewards]
        collected.dropped_rollouts["unjudged"] += len(drawn.rollouts) - len(judged)
        if not judged:
            collected.drop("unjudged", 0)
            return
        group = RolloutGroup(drawn.problem, judged)
        scored = _scored(group, rewards)
        reason = "no_signal" if self._is_silent(scored) else self.dropped_for(group)
        if reason is None and self._config.filter.balance == "equal":
            group = balanced(group, seed)
            scored = _scored(group, rewards)
            reason = "no_signal" if self._is_silent(scored) else None
            collected.dropped_rollouts["balanced_away"] += len(judged) - len(group.rollouts)
        masked = self._masked(scored)
        if reason is None and masked == len(scored.rollouts):
            reason = "cut_off"
        if reason is None:
            collected.trained.append(scored)
            collected.dropped_rollouts["cut_off"] += masked
            return
        collected.drop(reason, len(scored.rollouts))
        if reason in ("no_signal", "cut_off") and scored.rollouts:
            collected.compared.append(scored)

    def _compare(self, collected: StepRollouts) -> None:
        """Give the groups that train their advantages, or drop all of an update without a signal.

        What an estimator takes over the whole update is over the groups without a signal too, as
        in its paper, and not over those that a filter dropped.
        """
        groups = [*collected.trained, *collected.compared]
        if not self._config.has_group_baseline and not self._has_signal(groups):
            for group in collected.trained:
                masked = self._masked(group)
                collected.dropped_rollouts["cut_off"] -= masked
                collected.drop("no_signal", len(group.rollouts))
            collected.trained, collected.compared = [], groups
        if not collected.trained:
            return
        rewards = [torch.tensor(group.rewards) for group in groups]
        advantages = ADVANTAGES[self._config.advantage](rewards)
        collected.trained = [
            replace(group, advantages=values.tolist())
            for group, values in zip(collected.trained, advantages, strict=False)
        ]

    def _is_silent(self, group: ScoredGroup) -> bool:
        """Whether its own baseline leaves the group nothing to learn from."""
        return self._config.has_group_baseline and not self._has_signal([group])

    def _has_signal(self, groups: Sequence[ScoredGroup]) -> bool:
        """Whether rewards differ among all of these rollouts, and correctness where it must."""
        rewards = {reward for group in groups for reward in group.rewards}
        correct = {rollout.correct for group in groups for rollout in group.rollouts}
        return len(rewards) > 1 and (self._config.signal == "reward" or len(correct) > 1)

    def _masked(self, group: ScoredGroup) -> int:
        """How many of its rollouts are in the baseline and do not train."""
        if self._config.overlong == "keep":
            return 0
        return sum(rollout.completion.truncated for rollout in group.rollouts)


def _scored(group: RolloutGroup, rewards: Mapping[int, float]) -> ScoredGroup:
    """The group with its rewards, which are by the identity of each rollout."""
    return ScoredGroup(group.rollouts, [rewards[id(rollout)] for rollout in group.rollouts])
