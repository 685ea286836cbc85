"""Advantages of rollouts relative to their group, for reinforcement learning.

`group_advantages` is GRPO's (Shao et al. 2024, arXiv:2402.03300, section 4.1.2);
`centered_advantages` is Dr. GRPO's (Liu et al. 2025, arXiv:2503.20783), which leaves out
the division that makes nearly solved and nearly hopeless prompts count more.
"""

from jaxtyping import Float
from torch import Tensor

# Rewards are about 1 in size, so this only keeps groups without any spread from dividing by 0.
_EPSILON = 1e-4


def group_advantages(rewards: Float[Tensor, "G N"]) -> Float[Tensor, "G N"]:
    """(reward - mean) / (standard deviation + 1e-4) within each row.

    Args:
        rewards: `[G, N]`, one row a group of N rollouts of one problem.

    Returns:
        `[G, N]`; a group whose rewards are all equal, or that has one rollout, gets exactly 0.
        The deviation is the population's (divided by N).
    """
    centered = centered_advantages(rewards)
    return centered / (rewards.std(dim=1, correction=0, keepdim=True) + _EPSILON)


def centered_advantages(rewards: Float[Tensor, "G N"]) -> Float[Tensor, "G N"]:
    """Reward - mean within each row, `[G, N]`; exactly 0 where all are equal."""
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    # A mean of equal floats can round, and dividing by the tiny deviation would blow that up.
    return centered.masked_fill((rewards == rewards[:, :1]).all(dim=1, keepdim=True), 0.0)
