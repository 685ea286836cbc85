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


class SideLogprobs(NamedTuple):
    """What policy and reference think of one side of B pairs, summed over a completion's tokens.

    Attributes:
        policy: `[B]` float, with gradient.
        reference: `[B]` float.
        tokens: `[B]`, how many tokens were summed; at least 1.
    """

    policy: Float[Tensor, " B"]
    reference: Float[Tensor, " B"]
    tokens: Int[Tensor, " B"]

    def ratio(self) -> Float[Tensor, " B"]:
        return self.policy - self.reference


def dpo_loss(
    kind: str,
    chosen: SideLogprobs,
    rejected: SideLogprobs,
    beta: float,
    label_smoothing: float = 0.0,
) -> DPOLoss:
    """Loss of each pair.

    Args:
        kind: One of those above.
        chosen: What policy and reference think of the chosen completions.
        rejected: What they think of the rejected ones.
        beta: How strongly the policy is held to the reference: the higher, the closer; > 0.
        label_smoothing: The share of pairs whose labels are taken to be swapped, in [0, 0.5]
            (Mitchell 2023, conservative DPO).
    """
    losses = _losses(kind, chosen, rejected, beta)
    if label_smoothing:
        swapped = _losses(kind, rejected, chosen, beta)
        losses = (1 - label_smoothing) * losses + label_smoothing * swapped
    return DPOLoss(losses, beta * chosen.ratio().detach(), beta * rejected.ratio().detach())


def _losses(kind: str, chosen: SideLogprobs, rejected: SideLogprobs, beta: float) -> Tensor:
    ratio, rejected_ratio = chosen.ratio(), rejected.ratio()
    margin = chosen.policy - rejected.policy - (chosen.reference - rejected.reference)
    margin_a_token = ratio / chosen.tokens - rejected_ratio / rejected.tokens
    match kind:
        case "sigmoid":
            return -logsigmoid(beta * margin)
        case "sigmoid_norm":
            return -logsigmoid(beta * margin_a_token)
        case "ipo":
            return (margin_a_token - 1 / (2 * beta)) ** 2
        case "hinge":
            return torch.relu(1 - beta * margin)
        case "apo_zero":
            return torch.sigmoid(-beta * ratio) + torch.sigmoid(beta * rejected_ratio)
        case "apo_down":
            return torch.sigmoid(beta * ratio) + torch.sigmoid(-beta * margin)
    raise ValueError(f"loss '{kind}' is unknown")
