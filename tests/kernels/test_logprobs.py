from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import Phi3ForCausalLM

from reasoning_lab.data.tokens.batches import padded_batch, step_batches
from reasoning_lab.data.tokens.packing import TrainedPart, packed_batch
from reasoning_lab.kernels.logprobs import TokenBatch, token_logprobs, trained_logits
from reasoning_lab.losses.next_token import next_token_loss
from reasoning_lab.training.token_stage import micro_batches
from reasoning_lab.types import Example
from tests.support.tiny import tiny_phi3

VOCAB, PAD = 50, 0


@pytest.fixture(scope="module")
def model() -> Phi3ForCausalLM:
    return tiny_phi3(VOCAB, PAD, 1, seed=0, initializer_range=0.2)


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


def _untrained_to_0(logprobs: Tensor, prompt: int) -> Tensor:
    return torch.where(torch.arange(len(logprobs)) < prompt, 0.0, logprobs)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.4, 1.7])
def test_padded_rows_equal_documents_alone(model, temperature: float) -> None:
    examples = _examples((3, 9), (7, 2), (1, 1), (5, 14))
    found = token_logprobs(model, padded_batch(examples, PAD), temperature)
    assert found.shape == (4, 19)
    for row, example in zip(found, examples, strict=True):
        alone = _untrained_to_0(_alone(model, example, temperature), len(example.prompt_ids))
        torch.testing.assert_close(row[: example.length], alone, rtol=0, atol=1e-5)
        assert (row[example.length :] == 0).all()


@torch.no_grad()
def test_temperature_sharpens(model) -> None:
    batch = padded_batch(_examples((3, 9)), PAD)
    logits, targets = trained_logits(model, batch)
    greedy = logits.argmax(-1)
    assert (greedy != targets).any()
    best = TokenBatch(batch.input_ids.clone(), batch.completion_mask)
    best.input_ids[0, 3] = greedy[0]
    first = [token_logprobs(model, best, t)[0, 3].item() for t in (0.5, 1.0, 2.0)]
    assert first[0] > first[1] > first[2]


@torch.no_grad()
@pytest.mark.parametrize("part", list(TrainedPart))
def test_packed_rows_equal_documents_alone(model, part: TrainedPart) -> None:
    rows = [_examples((3, 5), (2, 6), (4, 1)), _examples((6, 8)), _examples((1, 9), (5, 9))]
    found = token_logprobs(model, packed_batch(rows, 24, PAD, part))
    for row, documents in zip(found, rows, strict=True):
        start = 0
        for document in documents:
            trained_from = 1 if part is TrainedPart.SEQUENCE else len(document.prompt_ids)
            alone = _untrained_to_0(_alone(model, document), trained_from)
            mine = row[start : start + document.length]
            torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)
            start += document.length
        assert (row[start:] == 0).all()


@torch.no_grad()
def test_a_single_packed_row_keeps_its_documents_apart(model) -> None:
    first, other, second = _examples((3, 5), (3, 5), (2, 6))
    rows = [[first, second], [other, second]]
    found = [
        token_logprobs(model, packed_batch([row], 16, PAD, TrainedPart.SEQUENCE))[0, 8:]
        for row in rows
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0], _alone(model, second), rtol=0, atol=1e-5)


def test_the_vocabulary_projection_runs_for_trained_tokens_alone(model) -> None:
    examples = _examples((3, 2), (4, 3))
    projected = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: projected.append(tuple(output.shape))
    )
    try:
        with torch.no_grad():
            logits, targets = trained_logits(model, padded_batch(examples, PAD))
    finally:
        handle.remove()
    assert projected == [(5, VOCAB)]
    assert logits.shape == (5, VOCAB)
    assert targets.tolist() == [*examples[0].completion_ids, *examples[1].completion_ids]


def test_gradients_reach_the_policy_and_are_0_at_untrained_tokens(model) -> None:
    model.zero_grad()
    (example,) = _examples((4, 3))
    token_logprobs(model, padded_batch([example], PAD)).sum().backward()
    found = model.lm_head.weight.grad.clone()
    model.zero_grad()
    _alone(model, example)[4:].sum().backward()
    torch.testing.assert_close(found, model.lm_head.weight.grad, rtol=0, atol=1e-4)
    model.zero_grad()


def _gradient(model: Phi3ForCausalLM, examples: Sequence[Example], accumulation: int) -> Tensor:
    """Of one planned step as an optimizer sees it: micro-batch losses over `accumulation`."""
    steps = micro_batches(
        [range(len(examples))],
        lambda rows: padded_batch([examples[row] for row in rows], PAD),
        [len(example.completion_ids) for example in examples],
        accumulation,
    )
    assert len(steps) == accumulation
    model.zero_grad()
    for batch in steps:
        loss = next_token_loss(*trained_logits(model, batch.tokens))
        (loss * batch.weight / accumulation).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_accumulation_does_not_change_the_gradient(model) -> None:
    examples = _examples((3, 1), (2, 17), (5, 4), (1, 9), (4, 2), (6, 6), (2, 30), (3, 3))
    model.zero_grad()
    trained = [_alone(model, example)[len(example.prompt_ids) :] for example in examples]
    (-torch.cat(trained).sum() / 72).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert expected.abs().max() > 1e-2
    for accumulation in (1, 2, 4, 8):
        found = _gradient(model, examples, accumulation)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    model.zero_grad()


def test_micro_batches_follow_the_plan_and_weigh_by_trained_tokens() -> None:
    examples = _examples((1, 1), (1, 3), (1, 2), (1, 2))
    plan = [*step_batches([2, 4, 3, 3], 4, 1, 0), [3, 1, 0, 2]]
    steps = micro_batches(
        plan,
        lambda rows: padded_batch([examples[row] for row in rows], PAD),
        [1, 3, 2, 2],
        2,
    )
    batches = list(steps)
    assert [int(batch.tokens.completion_mask.sum()) for batch in batches[2:]] == [5, 3]
    # 8 trained tokens a step, so 4 a micro-batch on average.
    assert [batch.weight for batch in batches[2:]] == [5 / 4, 3 / 4]
    assert batches[0].weight + batches[1].weight == 2
    assert batches[2].tokens.input_ids[:, 0].tolist() == [
        examples[3].prompt_ids[0],
        examples[1].prompt_ids[0],
    ]
