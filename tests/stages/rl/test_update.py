"""The micro-batches of an update and their gradient, and a step's entropy."""

import pytest
import torch

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.batch import TokenBatch
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.losses.policy_gradient import grpo_loss, token_weights
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import entropy, rank_batches, rollout_batches
from reasoning_lab.types import Example
from tests.support.rl import rewarded_group, word_tokenizer
from tests.support.tiny import tiny_model


def test_a_masked_rollout_is_in_no_gradient() -> None:
    config, tokenizer, device = RLStage(max_new_tokens=9), word_tokenizer(), torch.device("cpu")
    groups = [rewarded_group(1.0, 0.0, -1.0, masked=1)]
    (batch,) = rollout_batches(groups, tokenizer, config, None, device)
    # The first, of 2 tokens, is gone, 3 + 4 tokens are left.
    assert batch.advantages.tolist() == [0.0] * 3 + [-1.0] * 4
    assert batch.weights.tolist() == pytest.approx([1 / 7] * 7)
    assert len(batch.rollout_logprobs) == batch.tokens.loss_mask.sum() == 7
    assert batch.rollout_logprobs.sum().item() == pytest.approx(-3.5)
    groups = [rewarded_group(1.0, 0.0, -1.0)]
    (batch,) = rollout_batches(groups, tokenizer, config, None, device)
    assert batch.advantages.tolist() == [1.0] * 2 + [0.0] * 3 + [-1.0] * 4
    nothing = [rewarded_group(1.0, 0.0, masked=2)]
    assert rollout_batches(nothing, tokenizer, config, None, device) == []


def test_gradient_padded_alone_and_joined_is_one() -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=4).double()
    examples = [
        Example([3, 4], [5, 6, 7, 1]),
        Example([8], [9, 1]),
        Example([3, 9, 9], [4] * 7),
    ]
    lengths = torch.tensor([len(example.completion_ids) for example in examples])
    advantages = torch.tensor([0.7, -1.2, 0.4], dtype=torch.double)
    weights = torch.tensor(
        token_weights("sequence", lengths.tolist(), [3, 3, 3], 1, 3, 9), dtype=torch.double
    )

    def gradient(batches: list[TokenBatch]) -> torch.Tensor:
        logprobs = torch.cat([token_logprobs(model, batch, 0.8) for batch in batches])
        advantages_of_tokens, weights_of_tokens = (
            values.repeat_interleave(lengths) for values in (advantages, weights)
        )
        behavior_logprobs = logprobs.detach() + 0.1
        loss = grpo_loss(
            logprobs, behavior_logprobs, advantages_of_tokens, weights_of_tokens, 0.2, 0.2
        ).loss
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    padded = gradient([completion_batch(examples)])
    alone = gradient([completion_batch([example]) for example in examples])
    bind_kernels(model)
    joined = gradient([completion_batch(examples)])
    assert padded.abs().max() > 1e-3
    torch.testing.assert_close(alone, padded, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(joined, padded, atol=1e-9, rtol=1e-7)


def test_an_idle_ranks_batch_has_a_gradient_of_zeros() -> None:
    config, tokenizer, device = RLStage(max_new_tokens=9), word_tokenizer(), torch.device("cpu")
    groups = [rewarded_group(1.0, 0.0)]
    (batch,) = rollout_batches(groups, tokenizer, config, None, device)
    assert rank_batches([batch]) == [batch]
    idle = batch.untrained()
    assert len(idle.rollout_logprobs) == idle.tokens.loss_mask.sum() == 0
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    for binds in (False, True):
        if binds:
            bind_kernels(model)
        model.zero_grad()
        logprobs = token_logprobs(model, idle.tokens)
        result = grpo_loss(logprobs, idle.rollout_logprobs, idle.advantages, idle.weights, 0.2, 0.2)
        result.loss.backward()
        slopes = [parameter.grad for parameter in model.parameters()]
        assert all(slope is not None and not slope.any() for slope in slopes)


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_entropy_is_at_temperature_1_over_rollouts_of_all_groups(
    rows: int | None,
) -> None:
    tokenizer = word_tokenizer()
    model = tiny_model("qwen3", 20, 0, 1, seed=4)
    # Sixteen rollouts, of 2 and 3 tokens in turn; every second is read.
    rollouts = [record.rollout for _ in range(8) for record in rewarded_group(0.0, 0.0).rollouts]
    short = rollouts[0]
    prompt = prompt_tokens(tokenizer, [short.problem.prompt])[0]
    tokens = torch.tensor([[*prompt, *short.completion.token_ids]])
    logits = model(tokens, use_cache=False).logits[0, -3:-1]
    expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    device = torch.device("cpu")
    assert entropy(model, rollouts, tokenizer, rows, device) == pytest.approx(expected, rel=1e-4)
    # Where there are few, all are read: the longer one counts for its three tokens.
    alone = entropy(model, rollouts[1:2], tokenizer, rows, device)
    both = entropy(model, rollouts[:2], tokenizer, rows, device)
    assert both == pytest.approx((2 * expected + 3 * alone) / 5, rel=1e-4)
