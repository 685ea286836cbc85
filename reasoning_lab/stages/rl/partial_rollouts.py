"""Rollouts that go on over updates, so that no update waits for the longest of them.

"Partial rollouts" of Kimi k1.5 (arXiv:2501.12599) and the interruptible generation of AReaL
(arXiv:2505.24298). While step t trains, the groups of a queue (`rollout_queue.py`) go on under the
weights before it, all of them by the same number of tokens a round, until step t + 1 has its batch.
The update then interrupts them, and they go on under the new weights, which read their tokens anew.
Each token keeps the policy version and the logprob that it was sampled with.

Rounds are counted in tokens and the queue in groups, so nothing depends on a clock. A round samples
at the temperature of the step that it is for. Where the step that trains has another, the recorded
logprobs account for that as they do for other weights.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import Any

from transformers import PreTrainedModel

from reasoning_lab.sampling.engine import rollout_seeds
from reasoning_lab.sampling.rollouts import PartialRollout
from reasoning_lab.stages.rl.prefetcher import RolloutSchedule
from reasoning_lab.stages.rl.prompts import PromptPlan
from reasoning_lab.stages.rl.records import StepRollouts
from reasoning_lab.stages.rl.rollout_queue import FinishedGroup, RolloutQueue, UnfinishedGroup
from reasoning_lab.stages.rl.rollouts import RolloutCollector, step_sampling
from reasoning_lab.stages.rl.saved_rollouts import (
    read_groups,
    read_partials,
    saved_groups,
    saved_partials,
)
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.weight_noise import WeightNoise
from reasoning_lab.system.ranks import world_size
from reasoning_lab.types import RolloutGroup


class PartialRollouts(RolloutSchedule):
    """Samples groups ahead of the steps; those that an update interrupts go on after it.

    Args:
        policy, sampling_policy, noise: As in `RolloutSchedule`.
        config: The stage's; it samples no further prompts and no further rollouts of a prompt.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        sampling_policy: PreTrainedModel,
        noise: WeightNoise | None,
        config: RLStage,
    ) -> None:
        super().__init__(policy, sampling_policy, noise)
        self._config = config
        self._queue = RolloutQueue(config.optimization.batch_size, config.staleness)
        self._validation: list[RolloutGroup] | None = None
        self._sampling: Future[None] | None = None
        self._saved: Mapping[str, Any] = {}

    def rollouts(
        self, collector: RolloutCollector, plan: PromptPlan, step: int, policy_version: int
    ) -> StepRollouts:
        self._resume(collector, plan)
        if self._sampling is None:
            self.update(policy_version)
            self._sampling = self._worker.submit(
                self._sample, collector, plan, step, step, policy_version
            )
        self._sampling.result()
        taken, stale = self._queue.take(step)
        validation, self._validation = self._validation or [], None
        self.update(policy_version)

        def sample_next() -> None:
            if step + 1 < len(plan):
                self._sampling = self._worker.submit(
                    self._sample, collector, plan, step + 1, step, policy_version
                )

        if plan.curriculum is None:
            sample_next()
        step_rollouts = collector.judge(
            step,
            [_verified_group(group, plan) for group in taken],
            [_verified_group(group, plan) for group in stale],
            validation,
        )
        if plan.curriculum is not None:  # By these groups it draws those that begin.
            numbers = [group.place for group in (*taken, *stale)]
            plan.observe_groups(step, numbers, step_rollouts.groups)
            sample_next()
        return step_rollouts

    def _sample(
        self,
        collector: RolloutCollector,
        plan: PromptPlan,
        step: int,
        trained_steps: int,
        policy_version: int,
    ) -> None:
        """Let the groups go on until `step` has its batch, by the weights after `trained_steps`."""
        config, sampler, queue = collector.config, collector.sampler, self._queue
        if self._validation is None and step % config.validation.every_steps == 0:
            self._validation = collector.validate(step, policy_version)
        sampling = step_sampling(config, step)
        round_tokens = queue.round_tokens(config.completion_tokens)
        while queue.lacks(step):
            places = range(queue.begun, queue.begun + queue.room(step, len(plan)))
            queue.begin(_new_groups(collector, plan, places), trained_steps)
            going_on = [
                rollout
                for group in queue.unfinished
                for rollout in group.rollouts
                if not rollout.ended
            ]
            extended = iter(sampler.extend(going_on, sampling, round_tokens, policy_version))
            groups = [
                UnfinishedGroup(
                    group.place,
                    group.first_step,
                    [one if one.ended else next(extended) for one in group.rollouts],
                )
                for group in queue.unfinished
            ]
            ended = [group for group in groups if group.has_ended]
            verified = iter(
                sampler.verified([one for group in ended for one in group.rollouts], policy_version)
            )
            queue.update(
                [group for group in groups if not group.has_ended],
                [
                    FinishedGroup(
                        group.place, group.first_step, [next(verified) for _ in group.rollouts]
                    )
                    for group in ended
                ],
            )

    def _rank_state(self) -> dict[str, Any]:
        if self._sampling is not None:
            self._sampling.result()
        queue, validation = self._queue, self._validation
        unfinished, finished = queue.unfinished, queue.finished
        return {
            "begun": queue.begun,
            "unfinished": [(group.place, group.first_step) for group in unfinished],
            "partials": saved_partials([one for group in unfinished for one in group.rollouts]),
            "finished": [(group.place, group.first_step) for group in finished],
            "groups": saved_groups(
                [RolloutGroup(group.rollouts[0].problem, group.rollouts) for group in finished]
            ),
            "validation": None if validation is None else saved_groups(validation),
        }

    def _load_rank_state(self, state: Mapping[str, Any]) -> None:
        self._saved = dict(state)

    def _resume(self, collector: RolloutCollector, plan: PromptPlan) -> None:
        """Take what a state had."""
        if not self._saved:
            return
        state = self._saved
        self._queue.begun = state["begun"]
        begun = [plan.problem(place) for place, _ in state["unfinished"]]
        sizes = list(map(self._config.group_size_of, begun))
        problems = [
            problem for problem, size in zip(begun, sizes, strict=True) for _ in range(size)
        ]
        partials = iter(read_partials(state["partials"], problems))
        groups = read_groups(
            state["groups"], [plan.problem(place) for place, _ in state["finished"]]
        )
        self._queue.update(
            [
                UnfinishedGroup(place, first_step, [next(partials) for _ in range(size)])
                for (place, first_step), size in zip(state["unfinished"], sizes, strict=True)
            ],
            [
                FinishedGroup(place, first_step, group.rollouts)
                for (place, first_step), group in zip(state["finished"], groups, strict=True)
            ],
        )
        if (validation := state["validation"]) is not None:
            problems = list(collector.validation[: len(validation["sizes"])])
            self._validation = read_groups(validation, problems)
        self._saved = {}


def _new_groups(
    collector: RolloutCollector, plan: PromptPlan, places: Sequence[int]
) -> list[list[PartialRollout]]:
    """The rollouts of some places before their first token, with seeds as whole steps have them.

    A group's place says which rank draws it.
    """
    groups = []
    for step, of_step in groupby(places, lambda place: place // plan.batch_size):
        problems = plan.batch(step).problems
        sizes = list(map(collector.config.group_size_of, problems))
        seeds = rollout_seeds(problems, sizes, collector.step_seed(step))
        for place in of_step:
            problem, rank = problems[place % plan.batch_size], place % world_size()
            of_prompt = seeds[place % plan.batch_size]
            groups.append([PartialRollout(problem, seed, rank=rank) for seed in of_prompt])
    return groups


def _verified_group(group: FinishedGroup, plan: PromptPlan) -> tuple[RolloutGroup, int]:
    """The group, and the step of the plan that it stands in."""
    rollouts = RolloutGroup(group.rollouts[0].problem, group.rollouts)
    return rollouts, group.place // plan.batch_size
