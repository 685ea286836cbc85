import math

import pytest
import torch

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
