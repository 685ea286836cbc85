import math

import pytest
import torch
from torch import Tensor

from reasoning_lab.advantages import centered_advantages, group_advantages
from reasoning_lab.losses.dpo import dpo_loss
from reasoning_lab.losses.grpo import grpo_loss
from reasoning_lab.losses.next_token import next_token_loss


def test_next_token_loss_by_hand() -> None:
    # Softmax over 2 tokens with logits (0, log k) gives (1, k) / (1 + k).
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(4)], [0.0, 0.0]], requires_grad=True)
    loss = next_token_loss(logits, torch.tensor([1, 0, 1]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 5) + math.log(1 / 2)) / 3)
    loss.backward()
    # (softmax - one-hot) / 3 tokens
    expected = torch.tensor([[0.25, -0.25], [-0.8, 0.8], [0.5, -0.5]]) / 3
    torch.testing.assert_close(logits.grad, expected)


def test_next_token_loss_of_no_token_is_a_differentiable_zero() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = next_token_loss(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None


def test_dpo_loss_by_hand() -> None:
    policy_chosen = torch.tensor([-1.0, -6.0], requires_grad=True)
    policy_rejected = torch.tensor([-4.0, -2.0], requires_grad=True)
    result = dpo_loss(
        policy_chosen, policy_rejected, torch.tensor([-2.0, -3.0]), torch.tensor([-3.0, -3.0]), 0.5
    )
    # First pair: 0.5 * ((-1 + 4) - (-2 + 3)) = 1; second: 0.5 * ((-6 + 2) - 0) = -2.
    assert result.margins.tolist() == [1.0, -2.0]
    assert not result.margins.requires_grad
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))]
    assert result.losses.tolist() == pytest.approx(expected)
    result.losses.sum().backward()
    # d/dm of log(1 + exp(-m)) = -1 / (1 + exp(m)), and dm/d(chosen) = beta.
    steepness = [0.5 / (1 + math.e), 0.5 / (1 + math.exp(-2))]
    assert policy_chosen.grad.tolist() == pytest.approx([-slope for slope in steepness])
    assert policy_rejected.grad.tolist() == pytest.approx(steepness)


def test_dpo_loss_of_the_reference_itself_is_log_2() -> None:
    chosen, rejected = torch.tensor([-7.0]), torch.tensor([-90.0])
    result = dpo_loss(chosen, rejected, chosen, rejected, 0.1)
    assert result.losses.item() == pytest.approx(math.log(2))
    assert result.margins.item() == 0.0


def test_dpo_loss_stays_finite_far_from_the_reference() -> None:
    policy = torch.tensor([-5000.0], requires_grad=True)
    zero = torch.zeros(1)
    loss = dpo_loss(policy, zero, zero, zero, 1.0).losses.sum()
    loss.backward()
    assert loss.item() == pytest.approx(5000)
    assert policy.grad.tolist() == [-1.0]


def _at_ratios(ratios: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Policy logprobs with gradient and rollout logprobs, in double precision."""
    rollout = torch.linspace(-2.0, -0.5, sum(map(len, ratios)), dtype=torch.double)
    rollout = rollout.view(len(ratios), -1)
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
    policy, rollout = _at_ratios([[ratio]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    advantages = torch.tensor([advantage], dtype=torch.double)
    result = grpo_loss(policy, rollout, advantages, mask, clip_low=0.2, clip_high=0.3)
    assert result.loss.item() == pytest.approx(-gain)
    assert result.clip_frac.item() == float(clipped)
    result.loss.backward()
    # d(ratio)/d(logprob) = ratio.
    assert policy.grad.item() == pytest.approx(0.0 if clipped else -ratio * advantage)


def test_grpo_gradient_at_ratio_1_is_the_advantage_over_all_trained_tokens() -> None:
    policy, rollout = _at_ratios([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[False, True, True, True], [False, False, True, False]])
    advantages = torch.tensor([0.5, -3.0], dtype=torch.double)
    result = grpo_loss(policy, rollout, advantages, mask, 0.2, 0.2)
    # 4 trained tokens in the whole batch: (3 * 0.5 - 1 * 3) / 4, whatever each row's length.
    assert result.loss.item() == pytest.approx(1.5 / 4)
    assert result.clip_frac.item() == 0.0
    result.loss.backward()
    expected = -torch.tensor([[0, 0.5, 0.5, 0.5], [0, 0, -3.0, 0]], dtype=torch.double) / 4
    torch.testing.assert_close(policy.grad, expected)


def test_grpo_clip_frac_counts_trained_tokens_only() -> None:
    policy, rollout = _at_ratios([[9.0, 9.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[False, True, True, True, True]])
    result = grpo_loss(policy, rollout, torch.ones(1, dtype=torch.double), mask, 0.2, 0.2)
    assert result.clip_frac.item() == 0.25


@pytest.mark.parametrize("junk", [123.0, -5.0e4, math.inf, -math.inf, math.nan])
def test_grpo_ignores_what_stands_at_masked_positions(junk: float) -> None:
    mask = torch.tensor([[False, True, True], [False, True, False]])
    advantages = torch.tensor([1.0, -0.5], dtype=torch.double)
    found = []
    for filler in (0.0, junk):
        policy, rollout = _at_ratios([[1.0, 1.1, 0.7], [1.0, 0.9, 1.0]])
        policy = policy.detach().masked_fill(~mask, filler).requires_grad_()
        result = grpo_loss(policy, rollout, advantages, mask, 0.2, 0.2)
        result.loss.backward()
        found.append((result.loss.item(), policy.grad))
    assert found[0][0] == found[1][0] == pytest.approx(-(1.1 + 0.7 - 0.5 * 0.9) / 3)
    assert torch.equal(found[0][1], found[1][1])
    assert (found[1][1][~mask] == 0).all()


def test_grpo_of_no_trained_token_is_a_differentiable_zero() -> None:
    policy, rollout = _at_ratios([[1.2, 0.4]])
    mask = torch.zeros(1, 2, dtype=torch.bool)
    result = grpo_loss(policy, rollout, torch.ones(1, dtype=torch.double), mask, 0.2, 0.2)
    result.loss.backward()
    assert result.loss.item() == result.clip_frac.item() == 0.0
    assert policy.grad.tolist() == [[0.0, 0.0]]


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    centered = [[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, 0.75, -0.25]]
    torch.testing.assert_close(centered_advantages(rewards), torch.tensor(centered))
    # Population deviations: 1/2, and sqrt((3 * 1/16 + 9/16) / 4) = sqrt(3)/4.
    deviations = torch.tensor([[0.5], [math.sqrt(3) / 4]])
    expected = torch.tensor(centered) / (deviations + 1e-4)
    torch.testing.assert_close(group_advantages(rewards), expected)


@pytest.mark.parametrize("advantages", [group_advantages, centered_advantages])
@pytest.mark.parametrize("size", [1, 3, 7, 48])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -0.7])
def test_groups_without_a_signal_get_exactly_0(advantages, size: int, reward: float) -> None:
    rewards = torch.full((2, size), reward)
    assert torch.equal(advantages(rewards), torch.zeros(2, size))


@pytest.mark.parametrize("advantages", [group_advantages, centered_advantages])
def test_a_group_does_not_change_its_neighbour(advantages) -> None:
    mixed = torch.tensor([[1.0, 0.0, 0.3]])
    beside = torch.cat([torch.ones(1, 3), mixed, torch.tensor([[5.0, -5.0, 0.0]])])
    torch.testing.assert_close(advantages(beside)[1:2], advantages(mixed))
    assert (advantages(beside)[0] == 0).all()
