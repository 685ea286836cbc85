"""The paper's three stabilizers of reinforcement learning, as pure functions (step 4).

Prompt optimization keeps prompts whose rollouts have a fairly uniform length. Reward rebalancing
keeps as many incorrect rollouts as correct ones. Temperature annealing lowers the temperature.
"""

import random
import statistics
from collections.abc import Sequence

from reasoning_lab.types import Rollout, RolloutGroup


def annealed_temperature(
    step: int, steps: int, start: float, end: float, anneal_frac: float
) -> float:
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


def has_mixed_correctness(group: RolloutGroup) -> bool:
    """False for a group of only correct or only incorrect rollouts: its advantages are 0."""
    return 0 < group.pass_rate < 1


def balanced_indices(rollouts: Sequence[Rollout], seed: str) -> set[int]:
    """Indices of every correct rollout and of equally many random incorrect ones.

    Where fewer are incorrect than correct, all incorrect ones are kept.
    """
    correct = [index for index, rollout in enumerate(rollouts) if rollout.correct]
    incorrect = [index for index, rollout in enumerate(rollouts) if not rollout.correct]
    count = min(len(correct), len(incorrect))
    return {*correct, *random.Random(seed).sample(incorrect, count)}
