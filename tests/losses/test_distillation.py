"""A teacher's advantages against TRL's own code and arithmetic by hand."""

import pytest
import torch

from reasoning_lab.losses.distillation import teacher_advantages
from reasoning_lab.losses.policy_gradient import token_weights, weighted_loss
from reasoning_lab.losses.policy_losses import PolicyLoss, cispo, reinforce
from tests.support.tensors import gradient_of
from tests.support.trl_losses import padded_rollouts, trl_opd


def test_advantages_by_hand() -> None:
    policy = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    advantages = teacher_advantages(policy, torch.tensor([-0.25, -3.0, -2.0]))
    # The teacher finds the first token likelier, the second less likely, the third as likely.
    assert advantages.tolist() == [0.75, -2.5, 0.0]
    assert not advantages.requires_grad


@pytest.mark.parametrize(
    ("loss", "is_older"), [(reinforce, False), (cispo, False), (reinforce, True)]
)
def test_loss_and_gradient_are_trls(loss: PolicyLoss, is_older: bool) -> None:
    """Also where an older policy sampled, whose logprobs TRL then takes for the advantages."""
    teacher, older, _, _, mask = padded_rollouts()
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(*mask.shape, 11, generator=generator)
    tokens = torch.randint(11, mask.shape, generator=generator)
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    expected = trl_opd(theirs, tokens, mask, teacher, older if is_older else None, 0.8)
    logprobs = (mine / 0.8).log_softmax(-1).gather(2, tokens[..., None])[..., 0][mask]
    before = older[mask] if is_older else logprobs.detach()
    lengths = mask.sum(1)
    advantages = teacher_advantages(before, teacher[mask])
    weights = token_weights("token", lengths.tolist(), [1] * 6, 6, 1, 9)
    token_losses = loss(logprobs, before, advantages, lengths).losses
    total = weighted_loss(token_losses, torch.tensor(weights).repeat_interleave(lengths))
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    expected.backward()
    total.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-5)
    assert gradient_of(mine).abs().max() > 1e-2


def test_expected_gradient_is_that_of_the_reverse_divergence() -> None:
    """Over all tokens of a vocabulary, each as often as the policy draws it."""
    generator = torch.Generator().manual_seed(3)
    teacher = torch.randn(7, generator=generator, dtype=torch.double).log_softmax(0)
    logits = torch.randn(7, generator=generator, dtype=torch.double, requires_grad=True)
    logprobs = logits.log_softmax(0)
    divergence = (logprobs.exp() * (logprobs - teacher)).sum()
    (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    advantages = teacher_advantages(logprobs, teacher)
    tokens = reinforce(logprobs, logprobs.detach(), advantages, torch.tensor([7]))
    (mine,) = torch.autograd.grad((logprobs.detach().exp() * tokens.losses).sum(), logits)
    torch.testing.assert_close(mine, expected)
    assert expected.abs().max() > 1e-2
