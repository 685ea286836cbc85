"""From what each token costs to the loss of an update, in parts that all policy losses share.

Shao et al. 2024 (arXiv:2402.03300), equation 3, has all of them: a policy loss of each token
(`policy_losses.py`), a divergence from the reference, and a mean. What differs between the
algorithms is the policy loss, how advantages are made (`advantages.py`) and how a token weighs
(`token_weights`). An entropy bonus, importance weights (`importance.py`) and a mask of tokens whose
entropy is low can go with any.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Entropies that differ by less are equal: float32 rounds them by less, whatever the micro-batch.
_TIE_NATS = 1e-5


def token_weights(
    aggregation: str,
    completion_tokens: Sequence[int],
    group_sizes: Sequence[int],
    prompts: int,
    group_size: int | Sequence[int],
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
        group_size: Rollouts of a prompt as configured, for all prompts or for each rollout's.
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
        sizes = [group_size] * rollouts if isinstance(group_size, int) else group_size
        return [1 / (prompts * size * max_new_tokens) for size in sizes]
    raise ValueError(f"aggregation '{aggregation}' is unknown")


def weighted_loss(
    losses: Float[Tensor, " K"],
    weights: Float[Tensor, " K"],
    factors: Float[Tensor, " K"] | None = None,
    divergences: Float[Tensor, " K"] | None = None,
    kl_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """The loss of an update, or of a part of it: a sum over tokens.

    Args:
        losses: `[K]`, with gradient; see `policy_losses`.
        weights: `[K]`, each token's is its rollout's; see `token_weights`.
        factors: `[K]`, multiply each token's policy loss: importance weights, or 0 = a token that
            does not train. The weights of the others stay as they are.
        divergences: `[K]`, with gradient; see `kl_to_reference`.
        kl_weight: Of the divergence in each token's loss; 0 = it is not in the loss.
    """
    if factors is not None:
        losses = losses * factors
    if divergences is not None and kl_weight:
        losses = losses + kl_weight * divergences
    return (losses * weights).sum()


def entropy_bonus(
    entropies: Float[Tensor, " K"], trained_tokens: int, mask: Bool[Tensor, " K"] | None = None
) -> Float[Tensor, ""]:
    """The share of these tokens in the mean entropy of an update, in nats.

    Args:
        entropies: `[K]`, with gradient.
        trained_tokens: Of the whole update, less those that its masks leave out.
        mask: `[K]`, True = the token counts; None = all do.
    """
    return (entropies if mask is None else entropies[mask]).sum() / max(trained_tokens, 1)


def top_entropy_threshold(entropies: Float[Tensor, " K"], top_frac: float) -> float:
    """The entropy from which on a token is among the `top_frac` with the highest.

    Wang et al. 2025, "Beyond the 80/20 rule" (arXiv:2506.01939): few tokens, those at which a
    thought forks, carry what RL learns. Between two tokens it is interpolated, as TRL does. It is
    lower by a hundred-thousandth of a nat: rollouts that begin alike have tokens of one entropy but
    for rounding, and these train together or not at all.

    Args:
        entropies: `[K]`, of all trained tokens of an update, in any order; one at least.
        top_frac: In (0, 1].
    """
    quantile = np.quantile(entropies.double().cpu().numpy(), 1 - top_frac)
    return float(quantile) - _TIE_NATS


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
