"""Engine against trainer: how far they are apart, and weights that correct it.

An engine computes the trainer's policy with other kernels, often in another precision, or with
older weights. Its tokens then come from a slightly different distribution. A token's importance
weight is its probability under the trainer's policy by its probability under the engine's.

- truncate: weights are cut. Yao et al. 2025, "Your efficient RL framework secretly brings you
  off-policy RL training".
- mask: tokens whose weight lies outside a band do not train. IcePop (Ling team 2025,
  arXiv:2510.18855) has the band [0.5, 5] for tokens.

Weights are of tokens, or of whole rollouts: the product over all tokens, which is the exact
correction and varies far more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Beyond a weight of e^20 nothing is told apart, and its square would overflow.
_MOST_LOG_WEIGHT = 20.0


class Band(NamedTuple):
    """Which importance weights are trusted.

    Attributes:
        level: token, or sequence = one weight for all tokens of a rollout.
        low: The least; 0 = no bound.
        high: The most.
    """

    level: str
    low: float
    high: float


def importance_weights(
    behavior_logprobs: Float[Tensor, " K"],
    rollout_logprobs: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    mode: str,
    band: Band,
) -> Float[Tensor, " K"]:
    """What each token's loss is multiplied by, without gradient.

    Args:
        behavior_logprobs: `[K]`, the trainer's, before the update.
        rollout_logprobs: `[K]`, the engine's.
        lengths: `[D]` int64, tokens of each rollout.
        mode: truncate = a weight outside the band is cut to its bound; mask = it is 0.
        band: Which weights are trusted, and whether they are of tokens or of rollouts.
    """
    log_weights = _log_weights(behavior_logprobs, rollout_logprobs, lengths, band.level)
    weights = log_weights.exp()
    if mode == "truncate":
        weights = weights.clamp(band.low, band.high)
    elif mode == "mask":
        weights = weights.masked_fill((weights < band.low) | (weights > band.high), 0.0)
    else:
        raise ValueError(f"mode '{mode}' is unknown")
    return weights.repeat_interleave(lengths) if band.level == "sequence" else weights


def mismatch_sums(
    behavior_logprobs: Float[Tensor, " K"],
    rollout_logprobs: Float[Tensor, " K"],
    lengths: Int[Tensor, " D"],
    band: Band,
) -> dict[str, Float[Tensor, ""]]:
    """Sums over some tokens, or rollouts, which add up over micro-batches and ranks.

    Arguments are those of `importance_weights`. What is near 0 is summed as it is, since the
    rounding of a sum of ones would hide it.
    """
    difference = (behavior_logprobs - rollout_logprobs).detach()
    bounded = difference.clamp(-_MOST_LOG_WEIGHT, _MOST_LOG_WEIGHT)
    log_weights = _log_weights(behavior_logprobs, rollout_logprobs, lengths, band.level)
    if band.level == "sequence":
        log_weights = log_weights[lengths > 0]
    weights = log_weights.exp()
    excess = torch.expm1(log_weights.clamp(-_MOST_LOG_WEIGHT, _MOST_LOG_WEIGHT))
    return {
        "tokens": torch.ones_like(difference).sum(),
        "kl": (torch.expm1(bounded) - bounded).sum(),
        "difference": difference.abs().sum(),
        "weights": torch.ones_like(excess).sum(),
        "excess": excess.sum(),
        "square_excess": excess.square().sum(),
        "outside": ((weights < band.low) | (weights > band.high)).sum().to(excess),
    }


def mismatch_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """How far engine and trainer are apart, from the sums of all tokens of an update.

    With weights w, of which n are summed:

    - kl: KL(engine, trainer) in nats a token, by Schulman's k3: the mean of w - 1 - log w, of
      tokens whatever the band's level.
    - chi_square: the mean of (w - 1)^2, an estimate of Pearson's divergence.
    - effective_sample_frac: (sum w)^2 / (n sum w^2), Kish's share of samples that count.
    - outside_frac: the share of weights outside the band.
    - logprob_difference_mean: the mean distance of the two logprobs of a token.

    Args:
        sums: Of `mismatch_sums`, of one token at least.
    """
    mean, square = (sums[key] / sums["weights"] for key in ("excess", "square_excess"))
    return {
        "kl": sums["kl"] / sums["tokens"],
        "chi_square": square,
        "effective_sample_frac": (1 + mean) ** 2 / (1 + 2 * mean + square),
        "outside_frac": sums["outside"] / sums["weights"],
        "logprob_difference_mean": sums["difference"] / sums["tokens"],
    }


def _log_weights(
    behavior_logprobs: Tensor, rollout_logprobs: Tensor, lengths: Tensor, level: str
) -> Tensor:
    """Of each token, `[K]`, or each rollout, `[D]`."""
    of_tokens = (behavior_logprobs - rollout_logprobs).detach()
    if level == "token":
        return of_tokens
    if level == "sequence":
        return torch.segment_reduce(of_tokens, "sum", lengths=lengths, initial=0)
    raise ValueError(f"level '{level}' is unknown")
