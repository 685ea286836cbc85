"""Policy losses against TRL's own code, naive second writings and arithmetic by hand."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from reasoning_lab.losses.policy_gradient import token_weights, weighted_loss
from reasoning_lab.losses.policy_losses import (
    PolicyLoss,
    TokenLosses,
    cispo,
    clip,
    dppo,
    gspo,
    reinforce,
    sapo,
)
from tests.support.tensors import gradient_of
from tests.support.trl_losses import of_tokens, padded_rollouts, trl_grpo

MOST = 9
# Bounds that these rollouts' ratios cross on both sides.
LOSSES: dict[str, PolicyLoss] = {
    "clip": partial(clip, clip_low=0.2, clip_high=0.28),
    "gspo": partial(gspo, clip_low=0.05, clip_high=0.06),
    "cispo": partial(cispo, clip_low=0.4, clip_high=0.3),
    "dppo_tv": partial(dppo, clip_low=0.04, clip_high=0.05),
    "dppo_kl": partial(dppo, divergence="kl", clip_low=0.01, clip_high=0.02),
    "sapo": partial(sapo, temperature_positive=1.2, temperature_negative=2.0),
    "reinforce": reinforce,
}


def clipped(tokens: TokenLosses) -> tuple[Tensor, Tensor]:
    """Which tokens each bound changes."""
    assert tokens.clipped_low is not None
    assert tokens.clipped_high is not None
    return tokens.clipped_low, tokens.clipped_high


def ours(
    loss: PolicyLoss,
    policy: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    aggregation: str,
    factors: Tensor | None = None,
) -> tuple[Tensor, TokenLosses]:
    """The loss of padded rollouts, two prompts' with three each, and of their tokens."""
    weights = token_weights(aggregation, mask.sum(1).tolist(), [3] * 6, 2, 3, MOST)
    tokens = loss(policy[mask], old[mask], of_tokens(advantages, mask), mask.sum(1))
    total = weighted_loss(
        tokens.losses,
        of_tokens(torch.tensor(weights).to(policy), mask),
        None if factors is None else factors[mask],
    )
    return total, tokens


@pytest.mark.parametrize("corrected", [None, "token", "sequence"])
@pytest.mark.parametrize(
    ("name", "aggregation", "kind", "bounds", "level"),
    [
        ("clip", "sequence", "grpo", (0.2, 0.28), "token"),
        ("clip", "token", "dapo", (0.2, 0.28), "token"),
        ("clip", "constant", "dr_grpo", (0.2, 0.28), "token"),
        ("gspo", "sequence", "grpo", (0.05, 0.06), "sequence"),
        ("sapo", "sequence", "sapo", (0.0, 0.0), "token"),
        # TRL has no lower bound, and its upper one is of the ratio.
        ("cispo", "token", "cispo", (0.0, 1.3), "token"),
    ],
)
def test_loss_and_gradient_are_trls(
    name: str,
    aggregation: str,
    kind: str,
    bounds: tuple[float, float],
    level: str,
    corrected: str | None,
) -> None:
    policy, old, reference, advantages, mask = padded_rollouts()
    factors = None
    if corrected:
        # A weight of each token, as TRL multiplies it into one ratio of the rollout, is no GSPO.
        if (name, corrected) == ("gspo", "token"):
            return
        factors = (old - reference).exp().clamp(max=1.5)
        if corrected == "sequence":
            factors = factors[:, :1].expand(mask.shape)
    loss = partial(cispo, clip_low=1.0, clip_high=0.3) if name == "cispo" else LOSSES[name]
    mine, theirs = (policy.clone().requires_grad_() for _ in range(2))
    expected, trl = trl_grpo(
        kind,
        theirs,
        old,
        advantages,
        mask,
        bounds,
        MOST,
        correction=factors,
        level=level,
        temperatures=(1.2, 2.0),
    )
    total, tokens = ours(loss, mine, old, advantages, mask, aggregation, factors)
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    total.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    assert gradient_of(mine).abs().max() > 1e-2
    if name == "sapo":
        assert tokens.clipped_low is tokens.clipped_high is None
        return
    low, high = (float(part.float().mean()) for part in clipped(tokens))
    if name == "clip":
        assert low == pytest.approx(trl["clip_ratio/low_mean"], abs=1e-6)
        assert high == pytest.approx(trl["clip_ratio/high_mean"], abs=1e-6)
    assert (min(low, high) > 0) is (name in ("clip", "gspo"))


def naive(
    name: str, logprobs: list[float], old: list[float], advantages: list[float], lengths: list[int]
) -> list[tuple[float, float]]:
    """Each token's loss and its slope by its own logprob, one number at a time.

    What TRL lacks, and what it computes otherwise; the bounds are those of `LOSSES`.
    """
    results = []
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    for start, length in zip(starts, lengths, strict=True):
        rows = range(start, start + length)
        mean = sum(logprobs[t] - old[t] for t in rows) / length
        for t in rows:
            ratio, advantage = math.exp(logprobs[t] - old[t]), advantages[t]
            p, q = math.exp(logprobs[t]), math.exp(old[t])
            if name == "gspo":
                value = math.exp(mean)
                stops = value > 1.06 if advantage > 0 else value < 0.95
                bound = 1.06 if advantage > 0 else 0.95
                results.append(
                    (-bound * advantage, 0.0) if stops else (-value * advantage, -value * advantage)
                )
                continue
            if name == "cispo":
                weight = min(max(ratio, 0.6), 1.3)
            elif name == "dppo_tv":
                stops = p - q > 0.05 if advantage > 0 else q - p > 0.04
                weight = 0.0 if stops else ratio
            elif name == "dppo_kl":
                kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
                stops = p > q and kl > 0.02 if advantage > 0 else p < q and kl > 0.01
                weight = 0.0 if stops else ratio
            else:
                weight = 1.0
            results.append((-weight * advantage * logprobs[t], -weight * advantage))
    return results


@pytest.mark.parametrize("name", ["gspo", "cispo", "dppo_tv", "dppo_kl", "reinforce"])
def test_loss_and_gradient_are_a_naive_writings(name: str) -> None:
    policy, old, _, advantages, mask = padded_rollouts()
    mine = policy.double()[mask].requires_grad_()
    of_rollouts = of_tokens(advantages, mask).double()
    lengths = mask.sum(1)
    tokens = LOSSES[name](mine, old.double()[mask], of_rollouts, lengths)
    expected = naive(
        name, mine.tolist(), old.double()[mask].tolist(), of_rollouts.tolist(), lengths.tolist()
    )
    assert tokens.losses.tolist() == pytest.approx([value for value, _ in expected], abs=1e-12)
    tokens.losses.sum().backward()
    assert gradient_of(mine).tolist() == pytest.approx([slope for _, slope in expected], abs=1e-12)
    if name != "reinforce":
        assert all(part.any() for part in clipped(tokens))


def test_dppo_cuts_importance_weights() -> None:
    policy = torch.tensor([-1.0, -1.0], requires_grad=True)
    # Ratios of e^2 and e^4, of probabilities that hardly move as a negative advantage asks.
    old, advantages = torch.tensor([-3.0, -5.0]), torch.tensor([-1.0, -1.0])
    dppo(policy, old, advantages, torch.tensor([2]), max_ratio=20.0).losses.sum().backward()
    assert gradient_of(policy).tolist() == pytest.approx([math.exp(2), 20.0])


@pytest.mark.parametrize("logprob", [0.0, -1e-7, -200.0])
@pytest.mark.parametrize("behavior", [0.0, -1e-7, -200.0])
def test_a_certain_and_an_impossible_token_have_finite_gradients(
    logprob: float, behavior: float
) -> None:
    for name, loss in LOSSES.items():
        if name in ("clip", "gspo", "sapo") and logprob - behavior > 100:
            continue  # Their ratio itself is no float32, whatever the loss.
        policy = torch.tensor([logprob], requires_grad=True)
        tokens = loss(policy, torch.tensor([behavior]), torch.tensor([1.0]), torch.tensor([1]))
        tokens.losses.sum().backward()
        assert gradient_of(policy).isfinite().all(), name


@pytest.mark.parametrize("name", LOSSES)
def test_at_the_policy_that_sampled_each_has_reinforces_gradient(name: str) -> None:
    _, old, _, advantages, mask = padded_rollouts()
    policy = old[mask].requires_grad_()
    rewards = of_tokens(advantages, mask)
    tokens = LOSSES[name](policy, old[mask], rewards, mask.sum(1))
    tokens.losses.sum().backward()
    torch.testing.assert_close(policy.grad, -rewards)
    if name not in ("sapo", "reinforce"):
        assert not any(part.any() for part in clipped(tokens))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_any_cut_into_micro_batches_has_the_same_gradient(name: str, aggregation: str) -> None:
    policy, old, reference, advantages, mask = padded_rollouts()
    weights = torch.tensor(token_weights(aggregation, mask.sum(1).tolist(), [3] * 6, 2, 3, MOST))
    whole = policy.clone().requires_grad_()

    def loss_of(logprobs: Tensor, rows: Tensor) -> Tensor:
        cut = mask[rows]
        rewards = of_tokens(advantages[rows], cut)
        tokens = LOSSES[name](logprobs[rows][cut], old[rows][cut], rewards, cut.sum(1))
        factors = (old - reference).exp()[rows][cut]
        return weighted_loss(tokens.losses, of_tokens(weights[rows], cut), factors)

    loss = loss_of(whole, torch.arange(6))
    loss.backward()
    for sizes in ([1] * 6, [2, 4], [5, 1], [3, 3]):
        parts = policy.clone().requires_grad_()
        total = 0.0
        for rows in torch.arange(6).split(sizes):
            part = loss_of(parts, rows)
            part.backward()
            total += part.item()
        assert total == pytest.approx(loss.item(), abs=1e-6)
        torch.testing.assert_close(parts.grad, whole.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("lengths", [[0], [0, 0]])
def test_no_trained_token_costs_a_differentiable_zero(name: str, lengths: list[int]) -> None:
    policy = torch.zeros(0, requires_grad=True)
    nothing = torch.zeros(0)
    sizes = torch.tensor(lengths, dtype=torch.long)
    tokens = LOSSES[name](policy, nothing, nothing, sizes)
    loss = weighted_loss(tokens.losses, nothing)
    loss.backward()
    assert loss.item() == 0.0
    assert gradient_of(policy).tolist() == []


def test_rollouts_without_a_trained_token_stand_between_others() -> None:
    policy, old = torch.tensor([-1.0, -2.0, -1.5]), torch.tensor([-1.1, -1.7, -1.5])
    advantages = torch.tensor([1.0, 1.0, -1.0])
    expected = gspo(policy, old, advantages, torch.tensor([2, 1]))
    tokens = gspo(policy, old, advantages, torch.tensor([0, 2, 0, 1, 0]))
    assert torch.equal(tokens.losses, expected.losses)


def test_unknown_divergences_are_refused() -> None:
    nothing: Any = torch.zeros(0)
    with pytest.raises(ValueError, match="'x' is unknown"):
        dppo(nothing, nothing, nothing, torch.zeros(0, dtype=torch.long), divergence="x")


def _at_ratios(ratios: list[float]) -> tuple[Tensor, Tensor]:
    """Policy logprobs with gradient and behavior logprobs, in double precision."""
    behavior = torch.linspace(-2.0, -0.5, len(ratios), dtype=torch.double)
    policy = behavior + torch.tensor(ratios, dtype=torch.double).log()
    return policy.requires_grad_(), behavior


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "is_clipped"),
    [
        (1.5, 2.0, 1.3 * 2, True),  # already raised enough
        (1.25, 2.0, 1.25 * 2, False),  # inside the upper bound, though outside the lower's width
        (0.5, 2.0, 0.5 * 2, False),  # fell although good: still raised
        (0.5, -2.0, 0.8 * -2, True),  # already lowered enough
        (0.85, -2.0, 0.85 * -2, False),
        (1.5, -2.0, 1.5 * -2, False),  # rose although bad: still lowered
    ],
)
def test_clip_bounds_each_side_only_where_it_would_push_on(
    ratio: float, advantage: float, gain: float, is_clipped: bool
) -> None:
    policy, behavior = _at_ratios([ratio])
    advantages = torch.tensor([advantage], dtype=torch.double)
    tokens = clip(policy, behavior, advantages, torch.tensor([1]), 0.2, 0.3)
    assert tokens.losses.item() == pytest.approx(-gain)
    low, high = clipped(tokens)
    assert (low | high).item() is is_clipped
    assert high.item() is (is_clipped and ratio > 1)
    tokens.losses.sum().backward()
    # d(ratio)/d(logprob) = ratio.
    assert gradient_of(policy).item() == pytest.approx(0.0 if is_clipped else -ratio * advantage)


def test_sapo_gate_by_hand() -> None:
    # At a ratio of 2: 4 / t * sigmoid(t), slope 4 * sigmoid(t) * (1 - sigmoid(t)) * 2.
    policy, behavior = _at_ratios([2.0, 2.0])
    advantages = torch.tensor([1.0, -1.0], dtype=torch.double)
    tokens = sapo(policy, behavior, advantages, torch.tensor([2]), 1.0, 2.0)
    gates = [1 / (1 + math.exp(-t)) for t in (1.0, 2.0)]
    assert tokens.losses.tolist() == pytest.approx([-4 * gates[0], 2 * gates[1]])
    tokens.losses.sum().backward()
    slopes = [8 * gate * (1 - gate) for gate in gates]
    assert gradient_of(policy).tolist() == pytest.approx([-slopes[0], slopes[1]])
