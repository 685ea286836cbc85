"""Clipped policy-gradient loss over rollouts: GRPO's objective with DAPO's denominator.

Shao et al. 2024 (arXiv:2402.03300), equation 3, without the KL term; the two clip bounds
and the mean over all tokens of the batch are DAPO's (Yu et al. 2025, arXiv:2503.14476,
equations 8 to 10), so long rollouts are not discounted.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class GRPOLoss(NamedTuple):
    """What a batch of rollouts costs.

    Attributes:
        loss: `[]` float.
        clip_frac: `[]` float in [0, 1], trained tokens whose gradient the clipping removed.
    """

    loss: Float[Tensor, ""]
    clip_frac: Float[Tensor, ""]


def grpo_loss(
    policy_logprobs: Float[Tensor, "B T"],
    rollout_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    completion_mask: Bool[Tensor, "B T"],
    clip_low: float,
    clip_high: float,
) -> GRPOLoss:
    """Loss whose descent raises the probability of rollouts with a positive advantage.

    The sum over trained tokens is divided by their number in the whole batch.

    Args:
        policy_logprobs: `[B, T]`, with gradient, at the temperature that sampled.
        rollout_logprobs: `[B, T]`, of the policy that sampled, at the same temperature.
        advantages: `[B]`, one a rollout, shared by its tokens.
        completion_mask: `[B, T]` bool, True = trained token; the rest may hold anything finite.
        clip_low: The ratio is not pushed below 1 - clip_low; in [0, 1].
        clip_high: The ratio is not pushed above 1 + clip_high; >= 0.
    """
    # Masked before exp: one infinite ratio at an unused position would make the gradient NaN.
    log_ratios = (policy_logprobs - rollout_logprobs).masked_fill(~completion_mask, 0.0)
    ratios = log_ratios.exp()
    weights = advantages[:, None]
    unclipped = ratios * weights
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high) * weights
    trained_tokens = completion_mask.sum().clamp(min=1)
    gain = (torch.minimum(unclipped, clipped) * completion_mask).sum()
    lost = ((clipped < unclipped) & completion_mask).sum()
    return GRPOLoss(-gain / trained_tokens, lost / trained_tokens)
