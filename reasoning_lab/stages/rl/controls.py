"""The paper's three stabilizers of reinforcement learning, as pure functions (step 4).

Prompt optimization by uniform length, reward rebalancing by filtering, temperature annealing.
"""

import random
import statistics
from collections.abc import Sequence

from reasoning_lab.types import Rollout, RolloutGroup


def temperature_at(step: int, steps: int, start: float, end: float, anneal_frac: float) -> float:
    """Linear from `start` at step 0 to `end` at `anneal_frac * steps`, then constant."""
    anneal_steps = anneal_frac * steps
    if step >= anneal_steps:
        return end
    return start + (end - start) * step / anneal_steps


def length_variation(group: RolloutGroup) -> float:
    """Coefficient of variation of the completions' lengths: standard deviation over mean.

    0 where every completion is empty.
    """
    lengths = [len(rollout.completion.token_ids) for rollout in group.rollouts]
    return statistics.pstdev(lengths) / (statistics.fmean(lengths) or 1.0)


def informative(group: RolloutGroup) -> bool:
    """False for a group of only correct or only incorrect rollouts: its advantages are 0."""
    return 0 < group.pass_rate < 1


def balanced(group: RolloutGroup, seed: str) -> RolloutGroup:
    """Every correct rollout and equally many random incorrect ones.

    Where fewer are incorrect than correct, all incorrect ones stay.
    """
    correct = [rollout for rollout in group.rollouts if rollout.correct]
    incorrect = [rollout for rollout in group.rollouts if not rollout.correct]
    kept: Sequence[Rollout] = random.Random(f"{seed}/{group.problem.id}").sample(
        incorrect, min(len(correct), len(incorrect))
    )
    return RolloutGroup(group.problem, [*correct, *kept])
