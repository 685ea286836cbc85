"""What each token of a rollout costs: the policy losses, all with one signature.

Each takes the same four flat tensors and options of its own:

- policy_logprobs: `[K]` float, with gradient, of the policy that learns.
- behavior_logprobs: `[K]` float, without gradient, of the policy that sampled. Both are at the
  temperature that sampled.
- advantages: `[K]` float, each token's is its rollout's.
- lengths: `[D]` int64, tokens of each of the D rollouts, which stand one behind the other; K
  together. Whole rollouts, as a ratio of sequences reads all tokens of one.

How advantages are made (`advantages.py`) and how a token weighs (`policy_gradient.py`) is none of
their business. The table in `losses/README.md` has the paper of each.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Keeps the logarithm of an absent probability finite.
_LEAST_PROBABILITY = 1e-8


class TokenLosses(NamedTuple):
    """What each of K tokens costs, before it is weighted.

    Attributes:
        losses: `[K]` float, with the gradient of each token's own log-probability alone.
        clipped_low: `[K]` bool, tokens whose loss the lower bound changes; None = there is none.
        clipped_high: `[K]` bool, tokens whose loss the upper bound changes; None = there is none.
    """

    losses: Float[Tensor, " K"]
    clipped_low: Bool[Tensor, " K"] | None = None
    clipped_high: Bool[Tensor, " K"] | None = None


PolicyLoss = Callable[
    [Float[Tensor, " K"], Float[Tensor, " K"], Float[Tensor, " K"], Int[Tensor, " D"]], TokenLosses
]


def clip(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> TokenLosses:
    """The clipped surrogate: minus the smaller of the plain and the clipped gain.

    PPO, Schulman et al. 2017 (arXiv:1707.06347), equation 7, as GRPO has it (Shao et al. 2024,
    arXiv:2402.03300, equation 3). Two bounds are DAPO's (Yu et al. 2025, arXiv:2503.14476).

    Args:
        policy_logprobs, behavior_logprobs, advantages, lengths: See the module.
        clip_low: The ratio is not pushed below 1 - clip_low; in [0, 1].
        clip_high: The ratio is not pushed above 1 + clip_high; >= 0.
    """
    ratios = (policy_logprobs - behavior_logprobs).exp()
    return _clipped_surrogate(ratios, advantages, clip_low, clip_high)


def gspo(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> TokenLosses:
    """The clipped surrogate of a whole rollout's ratio, the geometric mean of its tokens'.

    GSPO, Zheng et al. 2025 (arXiv:2507.18071), equations 13 and 14: the value is the rollout's
    ratio, the gradient each token's own. Where all tokens of a rollout weigh alike, that is the
    gradient of equation 5; where some are masked, these have none.

    Args:
        policy_logprobs, behavior_logprobs, advantages, lengths: See the module.
        clip_low: The rollout's ratio is not pushed below 1 - clip_low; in [0, 1].
        clip_high: It is not pushed above 1 + clip_high; >= 0.
    """
    current = policy_logprobs.detach()
    sums = torch.segment_reduce(current - behavior_logprobs, "sum", lengths=lengths, initial=0)
    means = (sums / lengths.clamp(min=1)).repeat_interleave(lengths)
    ratios = (policy_logprobs - current + means).exp()
    return _clipped_surrogate(ratios, advantages, clip_low, clip_high)


def cispo(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> TokenLosses:
    """REINFORCE under clipped importance weights, so that every token keeps a gradient.

    CISPO, MiniMax 2025 (arXiv:2506.13585), equations 4 and 5. The defaults leave out the lower
    bound, as they do, and cut at 5, as ScaleRL does (Khatri et al. 2025, arXiv:2510.13786).

    Args:
        policy_logprobs, behavior_logprobs, advantages, lengths: See the module.
        clip_low: No ratio counts as less than 1 - clip_low; 1 = no bound.
        clip_high: No ratio counts as more than 1 + clip_high; >= 0.
    """
    ratios = (policy_logprobs.detach() - behavior_logprobs).exp()
    low, high = 1 - clip_low, 1 + clip_high
    losses = -ratios.clamp(low, high) * advantages * policy_logprobs
    return TokenLosses(losses, ratios < low, ratios > high)


def dppo(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    divergence: str = "tv",
    clip_low: float = 0.15,
    clip_high: float = 0.15,
    max_ratio: float = 20.0,
) -> TokenLosses:
    """REINFORCE under importance weights, without tokens whose probability moved too far.

    DPPO, Qi et al. 2026 (arXiv:2602.04879): whether a token is left out depends on a divergence
    between the two policies, not on a ratio, which is noisy where a token is improbable. The
    divergence is between the token and all others together: the binary approximation.

    Args:
        policy_logprobs, behavior_logprobs, advantages, lengths: See the module.
        divergence: tv = total variation, the distance of the two probabilities; kl = the
            Kullback-Leibler divergence of the behavior policy from the one that learns.
        clip_low: A token of a negative advantage is left out if its probability fell by more.
        clip_high: A token of a positive advantage is left out if its probability rose by more.
        max_ratio: Where an importance weight is cut.
    """
    current = policy_logprobs.detach()
    probabilities, behavior = current.exp(), behavior_logprobs.exp()
    if divergence == "tv":
        distance = (probabilities - behavior).abs()
    elif divergence == "kl":
        distance = _binary_kl(behavior_logprobs, current)
    else:
        raise ValueError(f"divergence '{divergence}' is unknown")
    fell = (probabilities < behavior) & (distance > clip_low) & (advantages < 0)
    rose = (probabilities > behavior) & (distance > clip_high) & (advantages > 0)
    ratios = (current - behavior_logprobs).exp().clamp(max=max_ratio)
    losses = -ratios * advantages * policy_logprobs
    return TokenLosses(losses.masked_fill(fell | rose, 0.0), fell, rose)


def sapo(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    temperature_positive: float = 1.0,
    temperature_negative: float = 1.05,
) -> TokenLosses:
    """A soft gate around the ratio 1 in place of clipping.

    SAPO, Gao et al. 2025 (arXiv:2511.20347): the gain is the advantage times
    4 / t * sigmoid(t * (ratio - 1)), whose gradient fades on both sides. No token is clipped.

    Args:
        policy_logprobs, behavior_logprobs, advantages, lengths: See the module.
        temperature_positive: t of tokens with a positive advantage; larger = it fades sooner.
        temperature_negative: t of all other tokens.
    """
    ratios = (policy_logprobs - behavior_logprobs).exp()
    temperatures = torch.full_like(advantages, temperature_negative)
    temperatures = temperatures.masked_fill(advantages > 0, temperature_positive)
    gates = (temperatures * (ratios - 1)).sigmoid() * 4 / temperatures
    return TokenLosses(-gates * advantages)


def reinforce(
    policy_logprobs: Float[Tensor, " K"],
    behavior_logprobs: Float[Tensor, " K"],
    advantages: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
) -> TokenLosses:
    """Minus advantage times log-probability, whoever sampled the token.

    REINFORCE, Williams 1992, of each token. Rollouts that are older than the policy bias
    it, unless importance weights correct that.
    """
    return TokenLosses(-advantages * policy_logprobs)


def _clipped_surrogate(
    ratios: Float[Tensor, " K"], advantages: Float[Tensor, " K"], clip_low: float, clip_high: float
) -> TokenLosses:
    plain = ratios * advantages
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high) * advantages
    bound = clipped < plain
    return TokenLosses(-torch.minimum(plain, clipped), bound & (ratios < 1), bound & (ratios > 1))


def _binary_kl(
    behavior_logprobs: Float[Tensor, " K"], policy_logprobs: Float[Tensor, " K"]
) -> Float[Tensor, " K"]:
    """KL(behavior, policy) between distributions over each token and all others together."""
    behavior = behavior_logprobs.exp()
    others, policy_others = (
        (-torch.expm1(logprobs)).clamp(min=_LEAST_PROBABILITY)
        for logprobs in (behavior_logprobs, policy_logprobs)
    )
    of_token = behavior * (behavior_logprobs - policy_logprobs)
    return of_token + others * (others / policy_others).log()
