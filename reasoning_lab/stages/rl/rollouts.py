"""The way of a rollout, top to bottom: sampled, verified, rewarded, selected, advantage, batch.

`RolloutCollector.collect` does one step of it (paper, step 4):

1. every prompt gets a group of rollouts, which the sampler verifies; hard prompts get more. The
   tokens stay on the rank that drew them (`reasoning_lab.sampling.remote`), and all decide alike;
2. every rollout gets its reward, a weighted sum of terms (`reasoning_lab.rewards`);
3. groups without a signal, filtered prompts and truncated rollouts are marked with the reason why
   they do not train; further prompts may replace dropped ones (DAPO's dynamic sampling);
4. rewards become advantages (`reasoning_lab.losses.advantages`).

`training_rows` then turns what trains into the rows of the update's micro-batches. Records are
immutable (`records.py`): each step returns new ones, and all that is logged is read from them.

All random numbers derive from (seed, step, round, prompt, occurrence of the prompt). A resumed run
therefore samples what it would have sampled, and no two rollouts of a run are the same draw.
"""

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from reasoning_lab.losses.advantages import ADVANTAGES
from reasoning_lab.losses.policy_gradient import token_weights
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.sampling.engine import Sampling
from reasoning_lab.sampling.remote import drawing_rank, is_here, merged
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.records import (
    DropReason,
    PromptBatch,
    RewardedGroup,
    RewardedRollout,
    StepRollouts,
    TrainingRow,
)
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.system.ranks import Peers
from reasoning_lab.training.validation import validation_groups
from reasoning_lab.types import Example, Problem, Rollout, RolloutGroup, UserError


@dataclass
class RolloutCollector:
    """Samples a step's rollouts, rewards them and decides which of them train.

    Attributes:
        config, seed: The stage's and the run's.
        sampler: Samples and verifies.
        validation: Problems on which the policy is validated during training.
        key: The stage's config key, for errors.
        thought_prefix: What the chat template writes of a thought; see `template_thought`.
    """

    config: RLStage
    seed: int
    sampler: RolloutSampler
    validation: Sequence[Problem]
    key: str
    thought_prefix: str = ""

    def __post_init__(self) -> None:
        # Of its own, as groups may be judged while the sampler's thread exchanges others.
        self._peers = Peers()
        self._rewards = self._weighted_rewards(self.config.rewards, f"{self.key}.rewards")
        self._domain_rewards = {
            name: self._weighted_rewards(domain.rewards, f"{self.key}.domains.{name}.rewards")
            for name, domain in self.config.domains.items()
            if domain.rewards
        }

    def _weighted_rewards(self, terms: Mapping[str, Any], key: str) -> WeightedRewards:
        return WeightedRewards(terms, self.config.completion_tokens, key, self.thought_prefix)

    def _rewards_of(self, problem: Problem) -> WeightedRewards:
        return self._domain_rewards.get(problem.domain, self._rewards)

    def collect(self, batch: PromptBatch, policy_version: int) -> StepRollouts:
        """The step's rollouts with rewards, advantages and the reasons why some do not train.

        Raises:
            UserError: A reward returned something other than a number, or judged no rollout of the
                first step.
        """
        is_due = batch.step % self.config.validation.every_steps == 0
        validation = self.validate(batch.step, policy_version) if is_due else []
        groups: list[RewardedGroup] = []
        prompts, replacements = batch.problems, batch.replacements
        for round_number in range(1 + self.config.dynamic_sampling_rounds):
            seed = self.step_seed(batch.step) + (f"/{round_number}" if round_number else "")
            sampled = self._sample(prompts, batch.step, seed, policy_version)
            groups += [self._select(group, seed) for group in self._rewarded(sampled)]
            missing = len(batch.problems) - sum(group.dropped is None for group in groups)
            prompts, replacements = replacements[:missing], replacements[missing:]
            if not prompts:
                break
        return self._with_advantages(groups, validation, batch.step)

    def judge(
        self,
        step: int,
        sampled: Sequence[tuple[RolloutGroup, int]],
        stale: Sequence[tuple[RolloutGroup, int]],
        validation: Sequence[RolloutGroup],
    ) -> StepRollouts:
        """As `collect`, of groups that have been sampled already.

        Args:
            step: The step that trains on them.
            sampled: Verified groups, each with the step of the plan that it stands in.
            stale: The same of groups that have become too old for it.
            validation: Groups of the validation problems.

        Raises:
            UserError: As in `collect`.
        """
        rewarded = self._rewarded([group for group, _ in (*sampled, *stale)])
        groups = [
            self._select(group, self.step_seed(planned))
            for group, (_, planned) in zip(rewarded, sampled, strict=False)
        ]
        too_old = [group.drop(DropReason.STALE) for group in rewarded[len(sampled) :]]
        return self._with_advantages([*groups, *too_old], validation, step)

    def step_seed(self, step: int) -> str:
        """What the random numbers of a step of the plan derive from."""
        return f"{self.seed}/{step}"

    def _with_advantages(
        self, groups: Sequence[RewardedGroup], validation: Sequence[RolloutGroup], step: int
    ) -> StepRollouts:
        if step == 0:
            self._require_judged(groups)
        return StepRollouts(self._estimate_advantages(groups), validation)

    def validate(self, step: int, policy_version: int) -> list[RolloutGroup]:
        """Completions of the validation problems before step `step`; empty without problems."""
        if not self.validation:
            return []
        return validation_groups(
            self.config, self.validation, self.sampler, self.seed, step, policy_version
        )

    def _sample(
        self, prompts: Sequence[Problem], step: int, seed: str, policy_version: int
    ) -> list[RolloutGroup]:
        """Verified rollouts of each prompt; hard prompts get more."""
        sampling, selection = step_sampling(self.config, step), self.config.filter
        sizes = [self.config.group_size_of(problem) for problem in prompts]
        groups = self.sampler.groups(prompts, sizes, sampling, seed, policy_version)
        hard = [
            index
            for index, group in enumerate(groups)
            if group.pass_rate <= selection.hard_pass_rate
        ]
        if not selection.hard_rollouts or not hard:
            return groups
        added = self.sampler.groups(
            [groups[index].problem for index in hard],
            selection.hard_rollouts,
            sampling,
            f"{seed}/hard",
            policy_version,
        )
        for index, more in zip(hard, added, strict=True):
            rollouts = [*groups[index].rollouts, *more.rollouts]
            groups[index] = RolloutGroup(more.problem, rollouts)
        return groups

    def _rewarded(self, groups: Sequence[RolloutGroup]) -> list[RewardedGroup]:
        """The groups with each rollout's reward; those that cannot be judged are dropped.

        A reward reads the text, so that the rank that drew a rollout computes it.
        """
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        of_rank = [
            self._rewards_of(rollout.problem).terms(rollout)
            for rollout in rollouts
            if is_here(rollout)
        ]
        terms = iter(merged(map(drawing_rank, rollouts), self._peers.all_gather(of_rank)))
        return [
            RewardedGroup(
                group.problem,
                [_rewarded_rollout(rollout, next(terms)) for rollout in group.rollouts],
                len(group.rollouts) > self.config.group_size_of(group.problem),
            )
            for group in groups
        ]

    def _select(self, group: RewardedGroup, seed: str) -> RewardedGroup:
        """The group with the reason why it, or some of its rollouts, do not train."""
        if not group.compared:
            return group.drop(DropReason.UNJUDGED)
        reason = self._lacks_signal(group)
        if reason is None:
            judged = RolloutGroup(group.problem, [record.rollout for record in group.compared])
            reason = filter_reason(self.config, judged)
        if reason is None and self.config.filter.balance == "equal":
            group = _balance(group, seed)
            reason = self._lacks_signal(group)
        if reason is None and self.config.overlong == "mask":
            group = _mask_truncated(group)
            reason = None if group.trained else DropReason.CUT_OFF
        return group if reason is None else group.drop(reason)

    def _lacks_signal(self, group: RewardedGroup) -> DropReason | None:
        """Whether its own baseline leaves the group nothing to learn from."""
        if not self.config.has_group_baseline or self._has_signal([group]):
            return None
        return DropReason.NO_SIGNAL

    def _has_signal(self, groups: Sequence[RewardedGroup]) -> bool:
        """Whether rewards differ among all of these rollouts, and correctness where it must."""
        if self.config.signal == "none":
            return True
        compared = [record for group in groups for record in group.compared]
        rewards = {record.reward for record in compared}
        correct = {record.rollout.correct for record in compared}
        return len(rewards) > 1 and (self.config.signal == "reward" or len(correct) > 1)

    def _require_judged(self, groups: Sequence[RewardedGroup]) -> None:
        rollouts = [record for group in groups for record in group.rollouts]
        if all(record.dropped is DropReason.UNJUDGED for record in rollouts):
            first = next((one.rollout for one in rollouts if is_here(one.rollout)), None)
            if first is None:  # The ranks that drew them end this one too.
                return
            term = self._rewards_of(first.problem).declining_key(first)
            raise UserError(
                f"{term}: it returned None for all {len(rollouts)} rollouts of the first step, so "
                "nothing trains; return a number wherever it can judge"
            )

    def _estimate_advantages(self, groups: Sequence[RewardedGroup]) -> Sequence[RewardedGroup]:
        """The groups with advantages; with `standardize_over=domain`, each domain's by themselves.

        Else an easy domain raises the mean that a hard one is compared with, and a domain with
        larger rewards shrinks the advantages of the others.
        """
        if self.config.standardize_over == "update":
            return self._estimate_together(groups)
        domains = [group.problem.domain for group in groups]
        estimated: dict[int, RewardedGroup] = {}
        for domain in dict.fromkeys(domains):
            places = [place for place, name in enumerate(domains) if name == domain]
            together = self._estimate_together([groups[place] for place in places])
            estimated |= dict(zip(places, together, strict=True))
        return [estimated[place] for place in range(len(groups))]

    def _estimate_together(self, groups: Sequence[RewardedGroup]) -> Sequence[RewardedGroup]:
        """The groups with advantages, or all dropped where a whole update has no signal.

        Estimators over the whole update count the groups without a signal too, as in their papers,
        but not those that a filter dropped.
        """
        compared = [group for group in groups if group.in_update_baseline]
        if not self.config.has_group_baseline and not self._has_signal(compared):
            return [
                group if group.dropped else group.drop(DropReason.NO_SIGNAL) for group in groups
            ]
        if all(group.dropped for group in groups):
            return groups
        rewards = [torch.tensor([record.reward for record in group.compared]) for group in compared]
        advantages = iter(ADVANTAGES[self.config.advantage](rewards))
        return [
            group.with_compared(
                replace(record, advantage=advantage)
                for record, advantage in zip(group.compared, next(advantages).tolist(), strict=True)
            )
            if group.in_update_baseline
            else group
            for group in groups
        ]


def _rewarded_rollout(rollout: Rollout, terms: Mapping[str, float] | None) -> RewardedRollout:
    if terms is None:
        return RewardedRollout(rollout, {}, None, dropped=DropReason.UNJUDGED)
    return RewardedRollout(rollout, terms, sum(terms.values()))


def step_sampling(config: RLStage, step: int) -> Sampling:
    """How a step samples: untruncated, so that engine and trainer have one distribution."""
    temperature = config.temperature.at(step, config.optimization.steps)
    return Sampling(temperature, 1.0, config.completion_tokens)


def filter_reason(config: RLStage, group: RolloutGroup) -> DropReason | None:
    """Why a filter drops the group's prompt; None = it passes.

    There is no such reason where a rollout is not compared with its group.
    """
    if not config.has_group_baseline:
        return None
    if group.pass_rate > config.filter.max_pass_rate:
        return DropReason.EASY
    bound = config.filter.max_length_variation
    if bound is not None and length_variation(group) > bound:
        return DropReason.UNEVEN
    return None


def length_variation(group: RolloutGroup) -> float:
    """Coefficient of variation of the completions' lengths: standard deviation over mean.

    0 where every completion is empty.
    """
    lengths = [len(rollout.completion.token_ids) for rollout in group.rollouts]
    return statistics.pstdev(lengths) / (statistics.fmean(lengths) or 1.0)


def balanced_indices(rollouts: Sequence[Rollout], seed: str) -> set[int]:
    """Indices of every correct rollout and of equally many random incorrect ones.

    Where fewer are incorrect than correct, all incorrect ones are kept.
    """
    correct = [index for index, rollout in enumerate(rollouts) if rollout.correct]
    incorrect = [index for index, rollout in enumerate(rollouts) if not rollout.correct]
    count = min(len(correct), len(incorrect))
    return {*correct, *random.Random(seed).sample(incorrect, count)}


def _balance(group: RewardedGroup, seed: str) -> RewardedGroup:
    """Keep every correct rollout and as many random incorrect ones, of those that are judged."""
    rollouts = [record.rollout for record in group.compared]
    balanced_subset = balanced_indices(rollouts, f"{seed}/{group.problem.id}")
    return group.with_compared(
        record if index in balanced_subset else replace(record, dropped=DropReason.BALANCED_AWAY)
        for index, record in enumerate(group.compared)
    )


def _mask_truncated(group: RewardedGroup) -> RewardedGroup:
    """Truncated rollouts stay in the baseline and do not train."""
    return group.with_compared(
        replace(record, dropped=DropReason.CUT_OFF)
        if record.rollout.completion.truncated
        else record
        for record in group.compared
    )


def training_rows(
    groups: Sequence[RewardedGroup], tokenizer: PreTrainedTokenizerBase, config: RLStage
) -> list[TrainingRow]:
    """The rollouts that train in an update's groups, tokenized and weighted."""
    trained = [(record, len(group.compared)) for group in groups for record in group.trained]
    rollouts = [record.rollout for record, _ in trained]
    prompts = prompt_tokens(tokenizer, [rollout.problem.model_prompt for rollout in rollouts])
    weights = token_weights(
        config.aggregation,
        [len(rollout.completion.token_ids) for rollout in rollouts],
        [compared for _, compared in trained],
        config.optimization.batch_size,
        [config.group_size_of(rollout.problem) for rollout in rollouts],
        config.completion_tokens,
    )
    return [
        TrainingRow(
            record.rollout,
            Example(prompt, record.rollout.completion.token_ids),
            record.advantage,
            weight,
        )
        for (record, _), prompt, weight in zip(trained, prompts, weights, strict=True)
    ]
