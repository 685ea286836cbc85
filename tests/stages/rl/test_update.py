"""The micro-batches of an update and their gradient, and a step's entropy."""

import pytest
import torch

from reasoning_lab.data.tokens.batches import padded_batch
from reasoning_lab.data.tokens.packing import TrainedPart, packed_batch
from reasoning_lab.kernels.logprobs import TokenBatch, token_logprobs
from reasoning_lab.losses.policy_gradient import grpo_loss, token_weights
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.stages.rl.stage import RLStage
from reasoning_lab.stages.rl.update import entropy, micro_batches
from reasoning_lab.types import Example
from tests.support.rl import rewarded_group, word_tokenizer
from tests.support.tiny import tiny_model


def test_a_masked_rollout_is_in_no_gradient() -> None:
    config, tokenizer, device = RLStage(max_new_tokens=9), word_tokenizer(), torch.device("cpu")
    groups = [rewarded_group(1.0, 0.0, -1.0, masked=1)]
    (micro_batch,) = micro_batches(groups, tokenizer, config, None, device)
    # The first, of 2 tokens, is gone, 3 + 4 tokens are left.
    assert micro_batch.advantages.tolist() == [0.0, -1.0]
    assert micro_batch.weights.tolist() == pytest.approx([1 / 7, 1 / 7])
    assert micro_batch.trained_tokens == 7
    assert micro_batch.rollout_logprobs.sum().item() == pytest.approx(-3.5)
    groups = [rewarded_group(1.0, 0.0, -1.0)]
    (micro_batch,) = micro_batches(groups, tokenizer, config, None, device)
    assert micro_batch.advantages.tolist() == [1.0, 0.0, -1.0]
    nothing = [rewarded_group(1.0, 0.0, masked=2)]
    assert micro_batches(nothing, tokenizer, config, None, device) == []


def test_gradient_padded_alone_and_packed_is_one() -> None:
    model = tiny_model("qwen3", 20, 0, 1, seed=4).double()
    examples = [
        Example([3, 4], [5, 6, 7, 1]),
        Example([8], [9, 1]),
        Example([3, 9, 9], [4] * 7),
    ]
    advantages = torch.tensor([0.7, -1.2, 0.4], dtype=torch.double)
    lengths = [len(example.completion_ids) for example in examples]
    weights = torch.tensor(
        token_weights("sequence", lengths, [3, 3, 3], 1, 3, 9), dtype=torch.double
    )

    def gradient(logprobs: list[torch.Tensor]) -> torch.Tensor:
        """Of the loss over each rollout's own `[tokens]` of logprobs."""
        loss = torch.zeros((), dtype=torch.double)
        for row, values in enumerate(logprobs):
            mask = torch.ones(1, len(values), dtype=torch.bool)
            old = (values.detach() + 0.1)[None]
            loss = (
                loss
                + grpo_loss(
                    values[None],
                    old,
                    advantages[row : row + 1],
                    weights[row : row + 1],
                    mask,
                    0.2,
                    0.2,
                ).loss
            )
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    def trained(batch: TokenBatch) -> torch.Tensor:
        return token_logprobs(model, batch, 0.8)[batch.completion_mask]

    padded = gradient(list(trained(padded_batch(examples, 0)).split(lengths)))
    alone = gradient([trained(padded_batch([example], 0)) for example in examples])
    row = packed_batch([examples], 24, 0, TrainedPart.COMPLETION)
    packed = gradient(list(trained(row).split(lengths)))
    assert padded.abs().max() > 1e-3
    torch.testing.assert_close(alone, padded, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(packed, padded, atol=1e-9, rtol=1e-7)


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
