"""The prompts of every step: screened once, then planned for all steps ahead."""

import logging
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reasoning_lab.data.problem_file import Selected
from reasoning_lab.sampling.rollouts import RolloutSampler
from reasoning_lab.stages.rl.records import CONFIGURED_REASONS, DropReason, PromptBatch
from reasoning_lab.stages.rl.rollouts import filter_reason, step_sampling
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.training.context import StageContext
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.step_plan import step_plan
from reasoning_lab.types import Problem, RolloutGroup, UserError

log = logging.getLogger(__name__)


def prompt_batches(config: RLStage, pool: Sequence[Problem], seed: int) -> PlannedBatches:
    """The prompts of every step; a resumed run gets the same ones."""
    equal_lengths = np.ones(len(pool), np.int32)
    steps = step_plan(equal_lengths, config.optimization, seed)

    def batch(step: int) -> PromptBatch:
        chosen = steps[step].tolist()
        replacements = array("q")
        if config.dynamic_sampling_rounds:
            taken = set(chosen)
            replacements.extend(index for index in range(len(pool)) if index not in taken)
        random.Random(f"{seed}/{step}/spare").shuffle(replacements)
        return PromptBatch(step, [pool[index] for index in chosen], Selected(pool, replacements))

    def batch_with_next(step: int) -> PromptBatch:
        prefetches = config.staleness and step + 1 < len(steps)
        return replace(batch(step), next_batch=batch(step + 1) if prefetches else None)

    return PlannedBatches(range(len(steps)), batch_with_next)


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
    groups = sampler.resumable_groups(
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
