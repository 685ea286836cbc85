"""Whether completions come from the weights that a policy has now."""

from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_lab.data.tokens.batches import completion_batch
from reasoning_lab.kernels.logprobs import token_logprobs
from reasoning_lab.models.tokenizer import prompt_tokens
from reasoning_lab.types import Completion, Example


@torch.no_grad()
def move(policy: PreTrainedModel, seed: int) -> None:
    """Change every weight by about a third of it."""
    torch.manual_seed(seed)
    for weight in policy.parameters():
        weight.mul_(1 + 0.3 * torch.randn(weight.shape))


@torch.no_grad()
def assert_sampled_by(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[Completion],
    temperature: float,
) -> None:
    """The engine's logprobs of its own tokens are those that the loss reads."""
    rows = [
        Example(ids, one.token_ids)
        for ids, one in zip(prompt_tokens(tokenizer, prompts), completions, strict=True)
    ]
    expected = token_logprobs(policy, completion_batch(rows), temperature)
    logprobs = [value for one in completions for value in one.logprobs]
    assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)
