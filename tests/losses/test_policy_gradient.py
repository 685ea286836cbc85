"""What all policy losses share, against TRL's own code, by hand and by enumeration."""

import math

import pytest
import torch
from torch import Tensor

from reasoning_lab.losses.policy_gradient import (
    entropy_bonus,
    kl_to_reference,
    token_weights,
    top_entropy_threshold,
    weighted_loss,
)
from reasoning_lab.losses.policy_losses import clip
from tests.support.trl_losses import of_tokens, padded_rollouts, trl_grpo

MOST = 9


def _weights(aggregation: str, mask: Tensor) -> Tensor:
    """`[6]`, of two prompts' rollouts, three each, none of which was dropped."""
    return torch.tensor(token_weights(aggregation, mask.sum(1).tolist(), [3] * 6, 2, 3, MOST))


@pytest.mark.parametrize("top_frac", [1.0, 0.4])
@pytest.mark.parametrize("bonus", [0.0, 0.05])
@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
@pytest.mark.parametrize(
    ("aggregation", "kind"), [("sequence", "grpo"), ("token", "dapo"), ("constant", "dr_grpo")]
)
def test_divergence_entropy_and_masks_are_trls(
    aggregation: str, kind: str, kl_weight: float, bonus: float, top_frac: float
) -> None:
    policy, old, reference, advantages, mask = padded_rollouts()
    ours, theirs = (policy.clone().requires_grad_() for _ in range(2))

    def entropies(logprobs: Tensor) -> Tensor:
        return logprobs.square()  # Any function with a gradient.

    expected, trl = trl_grpo(
        kind,
        theirs,
        old,
        advantages,
        mask,
        (0.2, 0.28),
        MOST,
        kl_weight,
        reference,
        entropies=entropies(theirs),
        top_entropy_frac=top_frac,
        entropy_bonus=bonus,
    )
    values = entropies(ours)[mask]
    chosen = values.detach().double() >= top_entropy_threshold(values.detach(), top_frac)
    divergences = kl_to_reference("k3", ours[mask], reference[mask])
    tokens = clip(ours[mask], old[mask], of_tokens(advantages, mask), mask.sum(1), 0.2, 0.28)
    weights = of_tokens(_weights(aggregation, mask), mask)
    loss = weighted_loss(tokens.losses, weights, chosen.float(), divergences, kl_weight)
    loss = loss - bonus * entropy_bonus(values, int(chosen.sum()), chosen)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    # 40 of 100 tokens would be 10 of 25.
    assert int(chosen.sum()) == (25 if top_frac == 1 else 10)
    if kl_weight:
        assert float(divergences.detach().mean()) == pytest.approx(trl["kl"], abs=1e-5)


def test_top_entropy_threshold_by_hand() -> None:
    entropies = torch.tensor([0.5, 0.1, 0.4, 0.2, 0.3])
    # Between the third and the fourth of five: 0.3 + 0.2 * (0.4 - 0.3).
    assert top_entropy_threshold(entropies, 0.45) == pytest.approx(0.32, abs=2e-5)
    assert top_entropy_threshold(entropies, 1.0) == pytest.approx(0.1, abs=2e-5)
    assert top_entropy_threshold(entropies.flip(0), 0.001) == pytest.approx(0.4996, abs=2e-5)


def test_tokens_of_one_entropy_train_together_whatever_rounding_does() -> None:
    # Four rollouts begin alike; half of the eight tokens are asked for, which cuts the four apart.
    shared = 0.4 + 1e-7 * torch.tensor([1.0, -1.0, 2.0, -2.0])
    entropies = torch.cat([shared, torch.tensor([0.9, 0.8, 0.1, 0.2])])
    chosen = entropies >= top_entropy_threshold(entropies, 0.5)
    assert chosen.tolist() == [True] * 6 + [False] * 2


def test_entropy_bonus_by_hand() -> None:
    entropies = torch.tensor([0.5, 0.1, 0.4])
    assert entropy_bonus(entropies, 10).item() == pytest.approx(0.1)
    mask = torch.tensor([True, False, True])
    assert entropy_bonus(entropies, 5, mask).item() == pytest.approx(0.18)
    assert entropy_bonus(entropies[:0], 0).item() == 0.0


def test_factors_change_no_weight_and_no_divergence() -> None:
    losses, weights = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25])
    assert weighted_loss(losses, weights).item() == 1.0
    factors, divergences = torch.tensor([0.0, 3.0]), torch.tensor([4.0, 8.0])
    # 0.5 * (0 + 0.1 * 4) + 0.25 * (6 + 0.1 * 8)
    total = weighted_loss(losses, weights, factors, divergences, 0.1)
    assert total.item() == pytest.approx(0.2 + 1.7)


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
    policy, old, _, advantages, mask = padded_rollouts()
    advantages[:3] = 0.0
    expected, _ = trl_grpo(kind, policy, old, advantages, mask, (0.2, 0.28), MOST)
    rest = mask[3:]
    weights = token_weights(aggregation, rest.sum(1).tolist(), [3] * 3, 2, 3, MOST)
    rewards = of_tokens(advantages[3:], rest)
    tokens = clip(policy[3:][rest], old[3:][rest], rewards, rest.sum(1), 0.2, 0.28)
    loss = weighted_loss(tokens.losses, of_tokens(torch.tensor(weights), rest))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)


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
