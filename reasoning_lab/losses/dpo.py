"""Preference losses: learn from a correct and a wrong rollout of one problem.

A side's log ratio is log policy - log reference, summed over the completion's tokens; `beta` times
it is the side's implicit reward. The losses differ in what they make of the two:

- `sigmoid`: DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7);
- `sigmoid_norm`: the same of log ratios a token, so that length doesn't count (Lambert et al. 2024,
  arXiv:2411.15124);
- `ipo`: a squared distance of the margin a token from 1 / (2 beta) (Azar et al. 2023,
  arXiv:2310.12036, equation 17, with the mean over tokens that its authors use);
- `hinge`: SLiC's margin on the same rewards (Zhao et al. 2023, arXiv:2305.10425);
- `apo_zero`, `apo_down`: for chosen completions that are better, or worse, than what the policy
  writes (D'Oosterlinck et al. 2024, arXiv:2408.06266, equations 7 and 8).

The supervised term that keeps the chosen likely is composed by the stage.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


class DPOLoss(NamedTuple):
    """What a batch of pairs costs.

    Attributes:
        losses: `[B]` float, of each pair.
        chosen_rewards: `[B]` float, beta times the chosen's log ratio. Detached.
        rejected_rewards: `[B]` float, likewise; a pair is ranked right where it is the smaller.
    """

    losses: Float[Tensor, " B"]
    chosen_rewards: Float[Tensor, " B"]
    rejected_rewards: Float[Tensor, " B"]


class PairLogprobs(NamedTuple):
    """What policy and reference think of each pair's completions, summed over their tokens.

    Attributes:
        policy_chosen: `[B]` float, with gradient.
        policy_rejected: `[B]` float, with gradient.
        reference_chosen: `[B]` float.
        reference_rejected: `[B]` float.
        chosen_tokens: `[B]`, how many tokens were summed; at least 1.
        rejected_tokens: `[B]`.
    """

    policy_chosen: Float[Tensor, " B"]
    policy_rejected: Float[Tensor, " B"]
    reference_chosen: Float[Tensor, " B"]
    reference_rejected: Float[Tensor, " B"]
    chosen_tokens: Int[Tensor, " B"]
    rejected_tokens: Int[Tensor, " B"]

    def swapped(self) -> "PairLogprobs":
        """As if the rejected were the chosen."""
        return PairLogprobs(
            self.policy_rejected,
            self.policy_chosen,
            self.reference_rejected,
            self.reference_chosen,
            self.rejected_tokens,
            self.chosen_tokens,
        )

    def chosen_ratio(self) -> Float[Tensor, " B"]:
        return self.policy_chosen - self.reference_chosen

    def rejected_ratio(self) -> Float[Tensor, " B"]:
        return self.policy_rejected - self.reference_rejected

    def margin(self) -> Float[Tensor, " B"]:
        policy_preference = self.policy_chosen - self.policy_rejected
        return policy_preference - (self.reference_chosen - self.reference_rejected)

    def margin_a_token(self) -> Float[Tensor, " B"]:
        return (
            self.chosen_ratio() / self.chosen_tokens - self.rejected_ratio() / self.rejected_tokens
        )


def _losses(kind: str, pairs: PairLogprobs, beta: float) -> Float[Tensor, " B"]:
    match kind:
        case "sigmoid":
            return -logsigmoid(beta * pairs.margin())
        case "sigmoid_norm":
            return -logsigmoid(beta * pairs.margin_a_token())
        case "ipo":
            return (pairs.margin_a_token() - 1 / (2 * beta)) ** 2
        case "hinge":
            return torch.relu(1 - beta * pairs.margin())
        case "apo_zero":
            chosen, rejected = pairs.chosen_ratio(), pairs.rejected_ratio()
            return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)
        case "apo_down":
            chosen, margin = pairs.chosen_ratio(), pairs.margin()
            return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * margin)
    raise ValueError(f"loss '{kind}' is unknown")


def dpo_loss(kind: str, pairs: PairLogprobs, beta: float, label_smoothing: float = 0.0) -> DPOLoss:
    """Loss of each pair.

    Args:
        kind: One of those above.
        pairs: What policy and reference think of them.
        beta: How dearly the policy pays for leaving the reference; > 0.
        label_smoothing: The share of pairs whose labels are taken to be swapped, in [0, 0.5]
            (Mitchell 2023, conservative DPO).
    """
    losses = _losses(kind, pairs, beta)
    if label_smoothing:
        swapped = _losses(kind, pairs.swapped(), beta)
        losses = (1 - label_smoothing) * losses + label_smoothing * swapped
    return DPOLoss(
        losses, beta * pairs.chosen_ratio().detach(), beta * pairs.rejected_ratio().detach()
    )
