"""Direct preference optimization: learn from a correct and a wrong rollout of one problem.

Rafailov et al. 2023 (arXiv:2305.18290), equation 7. A pair's logprobs are sums over its
completion's tokens, so a longer completion weighs more; nothing here normalizes lengths.
The supervised term that keeps the chosen likely is composed by the stage.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class DPOLoss(NamedTuple):
    """What a batch of pairs costs.

    Attributes:
        losses: `[B]` float, -log sigmoid(margin) of each pair.
        margins: `[B]` float, beta times how much more than the reference the policy prefers
            the chosen; above 0 = ranked right. Detached.
    """

    losses: Float[Tensor, " B"]
    margins: Float[Tensor, " B"]


def dpo_loss(
    policy_chosen_logprobs: Float[Tensor, " B"],
    policy_rejected_logprobs: Float[Tensor, " B"],
    reference_chosen_logprobs: Float[Tensor, " B"],
    reference_rejected_logprobs: Float[Tensor, " B"],
    beta: float,
) -> DPOLoss:
    """Sigmoid DPO loss of each pair.

    Args:
        policy_chosen_logprobs: `[B]`, summed over the completion's tokens; likewise the others.
        policy_rejected_logprobs: `[B]`.
        reference_chosen_logprobs: `[B]`, without gradient.
        reference_rejected_logprobs: `[B]`, without gradient.
        beta: How dearly the policy pays for leaving the reference; > 0.
    """
    policy_preference = policy_chosen_logprobs - policy_rejected_logprobs
    reference_preference = reference_chosen_logprobs - reference_rejected_logprobs
    margins = beta * (policy_preference - reference_preference)
    return DPOLoss(-torch.nn.functional.logsigmoid(margins), margins.detach())
