"""Policy-gradient losses against TRL's own code, arithmetic by hand and naive second writings."""

import math

import pytest
import torch
from torch import Tensor

from reasoning_lab.losses.policy_gradient import (
    GRPOLoss,
    KLTerm,
    grpo_loss,
    importance_weights,
    kl_to_reference,
    token_weights,
)
from tests.support.tensors import gradient_of
from tests.support.trl_losses import trl_grpo

CLIP = (0.2, 0.28)
MOST = 9


def _batch(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Policy, behavior and reference logprobs, advantages, mask of six rollouts of 1 to 8 tokens.

    `[6, 8]`, as TRL has them, and `[6]` advantages.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(8) < torch.tensor([8, 3, 1, 6, 5, 2])[:, None]
    old = -3 * torch.rand(6, 8, generator=generator)
    policy = old + 0.4 * torch.randn(6, 8, generator=generator)
    reference = old + 0.4 * torch.randn(6, 8, generator=generator)
    return policy, old, reference, torch.randn(6, generator=generator), mask


def _weights(aggregation: str, mask: Tensor) -> Tensor:
    """`[6]`, of two prompts' rollouts, three each, none of which was dropped."""
    return torch.tensor(token_weights(aggregation, mask.sum(1).tolist(), [3] * 6, 2, 3, MOST))


def _of_tokens(of_rollouts: Tensor, mask: Tensor) -> Tensor:
    """`[K]`, each token's is its rollout's."""
    return of_rollouts[:, None].expand(mask.shape)[mask]


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(
    ("aggregation", "kind"), [("sequence", "grpo"), ("token", "dapo"), ("constant", "dr_grpo")]
)
def test_loss_gradient_and_metrics_are_trls(
    aggregation: str, kind: str, corrected: bool, kl_weight: float
) -> None:
    policy, old, reference, advantages, mask = _batch()
    correction = importance_weights(old, reference, 1.5) if corrected else None
    ours, theirs = (policy.clone().requires_grad_() for _ in range(2))
    expected, trl = trl_grpo(
        kind, theirs, old, advantages, mask, CLIP, MOST, kl_weight, reference, correction
    )
    kl = KLTerm(reference[mask], "k3", kl_weight) if kl_weight else None
    result = grpo_loss(
        ours[mask],
        old[mask],
        _of_tokens(advantages, mask),
        _of_tokens(_weights(aggregation, mask), mask),
        *CLIP,
        None if correction is None else correction[mask],
        kl,
    )
    torch.testing.assert_close(result.loss, expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    result.loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    tokens = mask.sum()
    low, high = result.clipped_low.sum() / tokens, result.clipped_high.sum() / tokens
    assert float(low) == pytest.approx(trl["clip_ratio/low_mean"], abs=1e-6)
    assert float(high) == pytest.approx(trl["clip_ratio/high_mean"], abs=1e-6)
    assert min(low, high) > 0
    if kl_weight:
        assert result.kl_to_reference is not None
        divergence = float(result.kl_to_reference.sum() / tokens)
        assert divergence == pytest.approx(trl["kl"], abs=1e-5)


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_any_cut_into_micro_batches_has_the_same_gradient(aggregation: str) -> None:
    policy, old, reference, advantages, mask = _batch()
    weights = _weights(aggregation, mask)
    whole = policy.clone().requires_grad_()

    def loss_of(logprobs: Tensor, rows: Tensor) -> Tensor:
        trained = mask[rows]
        return grpo_loss(
            logprobs[rows][trained],
            old[rows][trained],
            _of_tokens(advantages[rows], trained),
            _of_tokens(weights[rows], trained),
            *CLIP,
            kl=KLTerm(reference[rows][trained], "k2", 0.1),
        ).loss

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


def test_token_weights_by_hand() -> None:
    # Two rollouts of one prompt, of 2 and 6 tokens, of 10 at most.
    rollouts = ([2, 6], [2, 2])
    assert token_weights("sequence", *rollouts, 1, 2, 10) == [1 / 4, 1 / 12]
    assert token_weights("token", *rollouts, 1, 2, 10) == [1 / 8, 1 / 8]
    assert token_weights("constant", *rollouts, 1, 2, 10) == [1 / 20, 1 / 20]
    assert token_weights("token", [], [], 1, 2, 10) == []
    # Of three prompts: those that were dropped count in a mean over prompts, not over tokens.
    assert token_weights("sequence", *rollouts, 3, 2, 10) == [1 / 12, 1 / 36]
    assert token_weights("token", *rollouts, 3, 2, 10) == [1 / 8, 1 / 8]
    assert token_weights("constant", *rollouts, 3, 2, 10) == [1 / 60, 1 / 60]


@pytest.mark.parametrize(("aggregation", "kind"), [("sequence", "grpo"), ("constant", "dr_grpo")])
def test_a_dropped_group_counts_as_one_of_zero_advantage_does_in_trl(
    aggregation: str, kind: str
) -> None:
    policy, old, _, advantages, mask = _batch()
    advantages[:3] = 0.0
    expected, _ = trl_grpo(kind, policy, old, advantages, mask, CLIP, MOST)
    rest = mask[3:]
    weights = token_weights(aggregation, rest.sum(1).tolist(), [3] * 3, 2, 3, MOST)
    result = grpo_loss(
        policy[3:][rest],
        old[3:][rest],
        _of_tokens(advantages[3:], rest),
        _of_tokens(torch.tensor(weights), rest),
        *CLIP,
    )
    torch.testing.assert_close(result.loss, expected, atol=1e-6, rtol=1e-5)


def test_kl_estimators_by_hand() -> None:
    policy, reference = torch.log(torch.tensor([0.5, 0.2])), torch.log(torch.tensor([0.25, 0.4]))
    # d = log 2 and -log 2.
    log2 = math.log(2)
    for estimator, expected in {
        "k1": [log2, -log2],
        "k2": [log2**2 / 2, log2**2 / 2],
        "k3": [0.5 - 1 + log2, 2 - 1 - log2],
    }.items():
        divergences = kl_to_reference(estimator, policy, reference)
        assert divergences.tolist() == pytest.approx(expected), estimator


@pytest.mark.parametrize(("estimator", "exact"), [("k1", True), ("k3", True), ("k2", False)])
def test_k1_and_k3_are_unbiased_and_the_gradient_of_k2_is_the_divergences(
    estimator: str, exact: bool
) -> None:
    logits = torch.tensor([0.3, -0.5, 1.1], dtype=torch.double, requires_grad=True)
    reference = torch.tensor([0.6, 0.1, 0.3], dtype=torch.double).log()
    policy = torch.log_softmax(logits, 0)
    probs = policy.exp()
    divergence = (probs * (policy - reference)).sum()
    samples = kl_to_reference(estimator, policy, reference)
    # The expectation over the policy's own tokens, enumerated.
    expectation = (probs.detach() * samples).sum()
    assert (abs(expectation.item() - divergence.item()) < 1e-12) is exact
    (true,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(expectation, logits)
    assert torch.allclose(gradient, true) is (estimator == "k2")
    if estimator == "k1":
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_importance_weights_are_cut_and_carry_no_gradient() -> None:
    old = torch.log(torch.tensor([0.5, 0.1, 0.9])).requires_grad_()
    weights = importance_weights(old, torch.log(torch.tensor([0.25, 0.2, 0.1])), 2.5)
    assert weights.tolist() == pytest.approx([2.0, 0.5, 2.5])
    assert not weights.requires_grad


def _loss(
    policy: Tensor,
    rollout: Tensor,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> GRPOLoss:
    """Of tokens that weigh alike."""
    weights = torch.full_like(advantages, 1 / max(len(advantages), 1))
    return grpo_loss(policy, rollout, advantages, weights, clip_low, clip_high)


def _clip_frac(result: GRPOLoss) -> float:
    return float((result.clipped_low | result.clipped_high).double().mean())


def _at_ratios(ratios: list[float]) -> tuple[Tensor, Tensor]:
    """Policy logprobs with gradient and rollout logprobs, in double precision."""
    rollout = torch.linspace(-2.0, -0.5, len(ratios), dtype=torch.double)
    policy = rollout + torch.tensor(ratios, dtype=torch.double).log()
    return policy.requires_grad_(), rollout


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "clipped"),
    [
        (1.5, 2.0, 1.3 * 2, True),  # already raised enough
        (1.25, 2.0, 1.25 * 2, False),  # inside the upper bound, though outside the lower's width
        (0.5, 2.0, 0.5 * 2, False),  # fell although good: still raised
        (0.5, -2.0, 0.8 * -2, True),  # already lowered enough
        (0.85, -2.0, 0.85 * -2, False),
        (1.5, -2.0, 1.5 * -2, False),  # rose although bad: still lowered
    ],
)
def test_grpo_clips_each_side_only_where_it_would_push_on(
    ratio: float, advantage: float, gain: float, clipped: bool
) -> None:
    policy, rollout = _at_ratios([ratio])
    advantages = torch.tensor([advantage], dtype=torch.double)
    result = _loss(policy, rollout, advantages, 0.2, 0.3)
    assert result.loss.item() == pytest.approx(-gain)
    assert _clip_frac(result) == float(clipped)
    result.loss.backward()
    # d(ratio)/d(logprob) = ratio.
    assert gradient_of(policy).item() == pytest.approx(0.0 if clipped else -ratio * advantage)


def test_grpo_gradient_at_ratio_1_is_the_advantage_over_all_trained_tokens() -> None:
    policy, rollout = _at_ratios([1.0, 1.0, 1.0, 1.0])
    # Three tokens of one rollout, one of another.
    advantages = torch.tensor([0.5, 0.5, 0.5, -3.0], dtype=torch.double)
    result = _loss(policy, rollout, advantages)
    # (3 * 0.5 - 1 * 3) / 4, whatever each rollout's length.
    assert result.loss.item() == pytest.approx(1.5 / 4)
    assert _clip_frac(result) == 0.0
    result.loss.backward()
    torch.testing.assert_close(policy.grad, -advantages / 4)


def test_grpo_counts_clipped_tokens() -> None:
    policy, rollout = _at_ratios([9.0, 1.0, 1.0, 1.0])
    assert _clip_frac(_loss(policy, rollout, torch.ones(4, dtype=torch.double))) == 0.25


def test_grpo_of_no_trained_token_is_a_differentiable_zero() -> None:
    policy, rollout = _at_ratios([])
    result = _loss(policy, rollout, torch.ones(0, dtype=torch.double))
    result.loss.backward()
    assert result.loss.item() == 0.0
    assert gradient_of(policy).tolist() == []
