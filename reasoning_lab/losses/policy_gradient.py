"""Clipped policy-gradient loss over rollouts, in parts that GRPO and its kin share.

Shao et al. 2024 (arXiv:2402.03300), equation 3: the smaller of the plain and the clipped gain of
each token, minus an optional divergence from the reference. What differs between the algorithms
is how a token weighs (`token_weights`), how advantages are made
(`reasoning_lab.losses.advantages`) and the two clip bounds, which are DAPO's (Yu et al. 2025,
arXiv:2503.14476).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class GRPOLoss(NamedTuple):
    """What K trained tokens cost.

    Attributes:
        loss: `[]` float.
        clipped_low: `[K]` bool, tokens that would fall further, but for the lower bound.
        clipped_high: `[K]` bool, tokens that would rise further, but for the upper one.
        kl_to_reference: `[K]` float, detached; None without a reference.
    """

    loss: Float[Tensor, ""]
    clipped_low: Bool[Tensor, " K"]
    clipped_high: Bool[Tensor, " K"]
    kl_to_reference: Float[Tensor, " K"] | None


class KLTerm(NamedTuple):
    """How much leaving the reference costs.

    Attributes:
        reference_logprobs: `[K]`, without gradient.
        estimator: k1, k2 or k3.
        weight: Of the estimate in each token's loss; 0 = it is only logged.
    """

    reference_logprobs: Float[Tensor, " K"]
    estimator: str
    weight: float


def token_weights(
    aggregation: str,
    completion_tokens: Sequence[int],
    group_sizes: Sequence[int],
    prompts: int,
    group_size: int,
    max_new_tokens: int,
) -> list[float]:
    """What a token of each rollout weighs, over all rollouts of an update.

    With them the loss of an update is a sum, however it is cut into micro-batches. Each
    aggregation has the denominator of its paper:

    - sequence: Shao et al. 2024 (arXiv:2402.03300), equation 3. Mean over a rollout's tokens, then
      over its group, then over all prompts of the step. A prompt whose group was dropped counts
      in that last mean, as its advantages of 0 do in the paper.
    - token: DAPO, Yu et al. 2025 (arXiv:2503.14476), equation 8. Mean over the trained tokens of
      the groups that are kept; its constraint takes the others out of the batch.
    - constant: Dr. GRPO, Liu et al. 2025 (arXiv:2503.20783), section 3.2. Sum over tokens, divided
      by the most tokens that the step's prompts could have, whatever was drawn or dropped.

    Args:
        aggregation: sequence, token or constant.
        completion_tokens: Trained tokens of each rollout; one of 0 tokens has nothing to weigh.
        group_sizes: Rollouts that each rollout is compared with, itself and those included whose
            tokens are masked.
        prompts: Prompts of the step, before any is dropped.
        group_size: Rollouts of a prompt as configured.
        max_new_tokens: Most tokens of a rollout.
    """
    if aggregation == "sequence":
        return [
            1 / (prompts * size * max(tokens, 1))
            for tokens, size in zip(completion_tokens, group_sizes, strict=True)
        ]
    rollouts = len(completion_tokens)
    if aggregation == "token":
        return [1 / max(sum(completion_tokens), 1)] * rollouts
    if aggregation == "constant":
        return [1 / (prompts * group_size * max_new_tokens)] * rollouts
    raise ValueError(f"aggregation '{aggregation}' is unknown")


def grpo_loss(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    weights: Float[Tensor, " K"],
    clip_low: float,
    clip_high: float,
    correction: Float[Tensor, " K"] | None = None,
    kl: KLTerm | None = None,
) -> GRPOLoss:
    """Loss whose descent raises the probability of rollouts with a positive advantage.

    Args:
        policy_logprobs: `[K]`, with gradient, at the temperature that sampled.
        behavior_logprobs: `[K]`, of the policy as it was when it sampled, at the same temperature.
        advantages: `[K]`, each token's is its rollout's.
        weights: `[K]`, each token's is its rollout's; see `token_weights`.
        clip_low: The ratio is not pushed below 1 - clip_low; in [0, 1].
        clip_high: The ratio is not pushed above 1 + clip_high; >= 0.
        correction: `[K]`, multiplies each token's gain; see `importance_weights`.
        kl: The divergence from a reference.
    """
    ratios = (policy_logprobs - behavior_logprobs).exp()
    plain = ratios * advantages
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high) * advantages
    losses = -torch.minimum(plain, clipped)
    if correction is not None:
        losses = losses * correction
    divergence = None
    if kl is not None:
        divergence = kl_to_reference(kl.estimator, policy_logprobs, kl.reference_logprobs)
        if kl.weight:
            losses = losses + kl.weight * divergence
    bound = clipped < plain
    return GRPOLoss(
        (losses * weights).sum(),
        bound & (ratios < 1),
        bound & (ratios > 1),
        None if divergence is None else divergence.detach(),
    )


def importance_weights(
    behavior_logprobs: Float[Tensor, " K"], rollout_logprobs: Float[Tensor, " K"], most: float
) -> Float[Tensor, " K"]:
    """Truncated importance weights between the trainer's policy and the engine's, `[K]`.

    The engine computes the same policy with other kernels, so its tokens come from a slightly
    different distribution (Yao et al. 2025, truncated importance sampling).

    Args:
        behavior_logprobs: `[K]`, the trainer's, of the weights that sampled.
        rollout_logprobs: `[K]`, the engine's.
        most: Where a weight is cut.
    """
    return (behavior_logprobs - rollout_logprobs).detach().exp().clamp(max=most)


def kl_to_reference(
    estimator: str,
    policy_logprobs: Float[Tensor, " K"],
    reference_logprobs: Float[Tensor, " K"],
) -> Float[Tensor, " K"]:
    """Estimates of KL(policy, reference) at tokens that the policy drew, `[K]`.

    Schulman 2020, "Approximating KL divergence": with d = log policy - log reference, k1 = d is
    unbiased and often negative, k2 = d^2 / 2 biased and small in variance, k3 = exp(-d) - 1 + d
    unbiased and never negative. As a loss only k2's gradient is the divergence's in expectation;
    k1's is 0.
    """
    difference = policy_logprobs - reference_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"estimator '{estimator}' is unknown")
