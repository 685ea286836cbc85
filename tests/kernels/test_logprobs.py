from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Phi3ForCausalLM

from reasoning_lab.data.tokens.batches import completion_batch, step_batches, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.data.tokens.packing import Rows
from reasoning_lab.data.tokens.table import TokenTable
from reasoning_lab.kernels.binding import bind_kernels
from reasoning_lab.kernels.logprobs import token_logprobs, trained_logits
from reasoning_lab.losses.next_token import next_token_loss
from reasoning_lab.training.micro_batches import PlannedBatches
from reasoning_lab.training.next_token_training import document_batches
from reasoning_lab.types import Example
from tests.support.tensors import gradient_of
from tests.support.tiny import tiny_phi3

VOCAB, PAD = 50, 0


@pytest.fixture(scope="module")
def model() -> Phi3ForCausalLM:
    policy = tiny_phi3(VOCAB, PAD, 1, seed=0, initializer_range=0.2)
    bind_kernels(policy)
    return policy


def _examples(*sizes: tuple[int, int]) -> list[Example]:
    generator = torch.Generator().manual_seed(sum(map(sum, sizes)))

    def draw(count: int) -> list[int]:
        return torch.randint(2, VOCAB, (count,), generator=generator).tolist()

    return [Example(draw(prompt), draw(completion)) for prompt, completion in sizes]


def _alone(model: Phi3ForCausalLM, example: Example, temperature: float = 1.0) -> Tensor:
    """`[T]` logprobs from the ordinary forward pass over one document, 0 at position 0."""
    tokens = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
    logits = model(input_ids=tokens, use_cache=False).logits[0]
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    read = [logprobs[place - 1, tokens[0, place]] for place in range(1, tokens.shape[1])]
    return torch.stack([torch.zeros(()), *read])


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.4, 1.7])
def test_a_batch_equals_documents_alone(model: Phi3ForCausalLM, temperature: float) -> None:
    examples = _examples((3, 9), (7, 2), (1, 1), (5, 14))
    computed = token_logprobs(model, completion_batch(examples), temperature)
    alone = [_alone(model, one, temperature)[len(one.prompt_ids) :] for one in examples]
    torch.testing.assert_close(computed, torch.cat(alone), rtol=0, atol=1e-5)


@torch.no_grad()
def test_temperature_sharpens(model: Phi3ForCausalLM) -> None:
    batch = completion_batch(_examples((3, 9)))
    logits, targets = trained_logits(model, batch)
    greedy = logits.argmax(-1)
    assert (greedy != targets).any()
    batch.input_ids[3] = greedy[0]
    first = [token_logprobs(model, batch, t)[0].item() for t in (0.5, 1.0, 2.0)]
    assert first[0] > first[1] > first[2]


@torch.no_grad()
@pytest.mark.parametrize("part", list(TrainedPart))
def test_each_trained_part_equals_documents_alone(
    model: Phi3ForCausalLM, part: TrainedPart
) -> None:
    examples = _examples((3, 5), (2, 6), (4, 1), (6, 8), (1, 9), (5, 9))
    batch = token_batch([document_of(one, trained=part) for one in examples])
    starts = [1 if part is TrainedPart.SEQUENCE else len(one.prompt_ids) for one in examples]
    alone = [_alone(model, one)[start:] for one, start in zip(examples, starts, strict=True)]
    computed = token_logprobs(model, batch)
    torch.testing.assert_close(computed, torch.cat(alone), rtol=0, atol=1e-5)
    sums = torch.stack([logprobs.sum() for logprobs in alone])
    torch.testing.assert_close(batch.sum_by_document(computed), sums, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_documents_of_a_batch_do_not_read_each_other(model: Phi3ForCausalLM) -> None:
    first, other, second = _examples((3, 5), (3, 5), (2, 9))
    computed = [
        token_logprobs(model, completion_batch([one, second]))[5:] for one in (first, other)
    ]
    torch.testing.assert_close(computed[0], computed[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(computed[0], _alone(model, second)[2:], rtol=0, atol=1e-5)


def test_the_vocabulary_projection_runs_for_trained_tokens_alone(model: Phi3ForCausalLM) -> None:
    examples = _examples((3, 2), (4, 3))
    projected = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: projected.append(tuple(output.shape))
    )
    try:
        with torch.no_grad():
            logits, targets = trained_logits(model, completion_batch(examples))
    finally:
        handle.remove()
    assert projected == [(5, VOCAB)]
    assert logits.shape == (5, VOCAB)
    assert targets.tolist() == [*examples[0].completion_ids, *examples[1].completion_ids]


def test_gradients_reach_the_policy_and_are_0_at_untrained_tokens(model: Phi3ForCausalLM) -> None:
    model.zero_grad()
    (example,) = _examples((4, 3))
    token_logprobs(model, completion_batch([example])).sum().backward()
    gradient = gradient_of(model.lm_head.weight).clone()
    model.zero_grad()
    _alone(model, example)[4:].sum().backward()
    torch.testing.assert_close(gradient, model.lm_head.weight.grad, rtol=0, atol=1e-4)
    model.zero_grad()


def _batches(examples: Sequence[Example], plan: np.ndarray, accumulation: int) -> PlannedBatches:
    documents = TokenTable.of_documents([document_of(example) for example in examples])
    return document_batches(documents, Rows.single(len(examples)), plan, accumulation)


def _gradient(model: Phi3ForCausalLM, examples: Sequence[Example], accumulation: int) -> Tensor:
    """Of one planned step as an optimizer sees it: micro-batch losses over `accumulation`."""
    steps = _batches(examples, np.arange(len(examples))[None], accumulation)
    assert len(steps) == accumulation
    model.zero_grad()
    for batch in steps:
        loss = next_token_loss(*trained_logits(model, batch.tokens))
        (loss * batch.weight / accumulation).backward()
    return torch.cat([gradient_of(parameter).flatten() for parameter in model.parameters()])


def test_accumulation_does_not_change_the_gradient(model: Phi3ForCausalLM) -> None:
    examples = _examples((3, 1), (2, 17), (5, 4), (1, 9), (4, 2), (6, 6), (2, 30), (3, 3))
    model.zero_grad()
    trained = [_alone(model, example)[len(example.prompt_ids) :] for example in examples]
    (-torch.cat(trained).sum() / 72).backward()
    expected = torch.cat([gradient_of(parameter).flatten() for parameter in model.parameters()])
    assert expected.abs().max() > 1e-2
    for accumulation in (1, 2, 4, 8):
        computed = _gradient(model, examples, accumulation)
        torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-6)
    model.zero_grad()


def test_micro_batches_follow_the_plan_and_weigh_by_trained_tokens() -> None:
    examples = _examples((1, 1), (1, 3), (1, 2), (1, 2))
    plan = np.concatenate([step_batches(np.array([2, 4, 3, 3]), 4, 1, 0), [[3, 1, 0, 2]]])
    batches = list(_batches(examples, plan, 2))
    assert [int(batch.tokens.loss_mask.sum()) for batch in batches[2:]] == [5, 3]
    # 8 trained tokens a step, so 4 a micro-batch on average.
    assert [batch.weight for batch in batches[2:]] == [5 / 4, 3 / 4]
    assert batches[0].weight + batches[1].weight == 2
    assert batches[2].tokens.input_ids[batches[2].tokens.cu_seqlens[:-1]].tolist() == [
        examples[3].prompt_ids[0],
        examples[1].prompt_ids[0],
    ]
