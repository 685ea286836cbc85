"""The prompts of every step: screened once, then planned for all steps ahead."""

import logging
import random
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, overload

import numpy as np

from reasoning_lab.data.problem_file import Selected
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.curriculum import Curriculum
from reasoning_lab.stages.rl.records import (
    CONFIGURED_REASONS,
    DropReason,
    PromptBatch,
    RewardedGroup,
)
from reasoning_lab.stages.rl.rollouts import filter_reason, step_sampling
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.step_plan import step_plan
from reasoning_lab.types import Problem, RolloutGroup, UserError

log = logging.getLogger(__name__)


class PromptOrder(Protocol):
    """Decides which prompts each step draws."""

    def places(self, step: int) -> tuple[Sequence[int], Sequence[int]]:
        """As `Curriculum.places`."""
        ...


class EpochOrder:
    """Every prompt once before any comes again; arguments as in `Curriculum`."""

    def __init__(self, config: RLStage, prompts: int, seed: int) -> None:
        self._steps = step_plan(np.ones(prompts, np.int32), config.optimization, seed)
        self._replaces = config.dynamic_sampling_rounds > 0
        self._prompts, self._seed = prompts, seed

    def places(self, step: int) -> tuple[Sequence[int], Sequence[int]]:
        """As `Curriculum.places`; behind the last step the plan begins again."""
        step %= len(self._steps)
        chosen = self._steps[step].tolist()
        replacements = array("q")
        if self._replaces:
            taken = set(chosen)
            replacements.extend(index for index in range(self._prompts) if index not in taken)
        random.Random(f"{self._seed}/{step}/spare").shuffle(replacements)
        return chosen, replacements


class PromptPlan(Sequence[PromptBatch]):
    """The prompts of every step, made when they are asked for.

    Args:
        config: The stage's; its length is in steps.
        pool: All prompts that may train.
        seed: The run's.

    Attributes:
        batch_size: Prompts of each step.
        curriculum: Draws them, by what is observed; None = nothing needs to be.
    """

    def __init__(self, config: RLStage, pool: Sequence[Problem], seed: int) -> None:
        self.curriculum = None
        if config.curriculum.draw != "epochs":
            self.curriculum = Curriculum(config, len(pool), seed)
        self._order: PromptOrder = self.curriculum or EpochOrder(config, len(pool), seed)
        self.batch_size = config.optimization.batch_size
        self._steps, self._pool = config.optimization.steps, pool

    def __len__(self) -> int:
        return self._steps

    @overload
    def __getitem__(self, step: int) -> PromptBatch: ...
    @overload
    def __getitem__(self, step: slice) -> list[PromptBatch]: ...
    def __getitem__(self, step: int | slice) -> PromptBatch | list[PromptBatch]:
        numbers = range(self._steps)[step]
        return self.batch(numbers) if isinstance(numbers, int) else list(map(self.batch, numbers))

    def batch(self, step: int) -> PromptBatch:
        """The prompts of a step, which may lie behind the last one."""
        chosen, replacements = self._order.places(step)
        problems = [self._pool[place] for place in chosen]
        return PromptBatch(step, problems, Selected(self._pool, replacements))

    def problem(self, number: int) -> Problem:
        """A prompt by its number among those of all steps."""
        return self._pool[self._place(number)]

    def observe_step(self, step: int, groups: Sequence[RewardedGroup]) -> None:
        """Take in what `step` sampled: groups of its prompts in order, then of replacements."""
        if self.curriculum is not None:
            chosen, replacements = self.curriculum.places(step)
            self.curriculum.observe(step, [*chosen, *replacements][: len(groups)], groups)

    def observe_groups(
        self, step: int, numbers: Sequence[int], groups: Sequence[RewardedGroup]
    ) -> None:
        """Take in groups that `step` trains on, or drops, of prompts with these numbers."""
        if self.curriculum is not None:
            self.curriculum.observe(step, list(map(self._place, numbers)), groups)

    def _place(self, number: int) -> int:
        step, of_step = divmod(number, self.batch_size)
        return self._order.places(step)[0][of_step]


def prompt_batches(plan: PromptPlan) -> PlannedBatches:
    """The prompts of every step; a resumed run gets the same ones."""
    return PlannedBatches(range(len(plan)), plan.__getitem__)


def warn_of_absent_domains(domains: Collection[str], problems: Iterable[Problem], key: str) -> None:
    """Say which of `domains`, which the stage at `key` has, no problem is of.

    Of few problems, as in a rehearsal, none may be of a rare domain, so it is no error.
    """
    if not domains:
        return
    prompt_domains = {problem.domain for problem in problems}
    for name in sorted(set(domains) - prompt_domains):
        log.warning(
            "%s.domains.%s: no prompt of the stage is of this domain, there are %s; correct the "
            "name, or leave it out.",
            key,
            name,
            ", ".join(sorted(prompt_domains)),
        )


def screened_pool(
    problems: Sequence[Problem], config: RLStage, sampler: RolloutSampler, context: StageContext
) -> Sequence[Problem]:
    """The prompts worth training on, judged once by rollouts of the incoming policy.

    Raises:
        UserError: No prompt passes.
    """
    if config.screen_group_size == 0:
        return problems
    if not config.has_group_baseline:
        log.info(
            "stages.%s: no screening, as %s learns from prompts that are always solved or failed.",
            context.name,
            config.advantage,
        )
        return problems
    groups = sampler.resumable_shared_groups(
        problems,
        config.screen_group_size,
        # The first step samples alike however many steps follow; the pool decides how many.
        step_sampling(config.at_most({}), 0),
        f"{context.seed}/screen",
        context.work_dir / "screening",
        part="screening",
    )
    passing = array("q")
    dropped = Counter[DropReason]()
    for place, group in enumerate(groups):
        reason = screening_reason(config, group)
        if reason is None:
            passing.append(place)
        else:
            dropped[reason] += 1
    for reason, count in dropped.items():
        context.ledger.drop("problems", reason.value, count, selected=reason in CONFIGURED_REASONS)
    counts = {f"rollout/screened_{reason}": count for reason, count in dropped.items()}
    context.tracker.log({"rollout/screened": len(problems), "rollout/pool": len(passing)} | counts)
    if not passing:
        listed = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UserError(
            f"stages.{context.name}: no prompt of {len(problems)} passes the filters ({listed}); "
            "choose other levels, a larger screen_group_size or wider filters"
        )
    return Selected(problems, passing)


def screening_reason(config: RLStage, group: RolloutGroup) -> DropReason | None:
    """Why the group's prompt is not trained on; None = it is.

    A prompt must pass the filters. Where correctness is the signal, it must also be neither always
    solved nor always failed.
    """
    if config.signal == "correctness" and not 0 < group.pass_rate < 1:
        return DropReason.NO_SIGNAL
    return filter_reason(config, group)
