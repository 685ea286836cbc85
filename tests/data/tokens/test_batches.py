import random
from collections import Counter

import numpy as np
import pytest
import torch

from reasoning_lab.data.tokens.batches import completion_batch, step_batches, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.types import Example


def _lengths(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(1, 301, count)


@pytest.mark.parametrize(("count", "batch_size"), [(1000, 8), (130, 8), (20, 8), (8, 8), (3, 8)])
def test_the_plan_is_full_batches_and_balanced_epochs(count: int, batch_size: int) -> None:
    plan = step_batches(_lengths(count), batch_size, 400, seed=5)
    assert plan.shape == (400, batch_size)
    read: Counter[int] = Counter(dict.fromkeys(range(count), 0))
    for batch in plan:
        read.update(batch.tolist())
        assert set(read) == set(range(count))
        assert max(read.values()) - min(read.values()) <= 1


@pytest.mark.parametrize("count", [3, 20, 130, 1000])
def test_the_plan_is_a_pure_function_and_a_longer_one_begins_with_it(count: int) -> None:
    lengths = _lengths(count)
    plan = step_batches(lengths, 8, 100, seed=5)
    for steps in (0, 1, 7, 15, 16, 17, 60, 100):
        assert np.array_equal(step_batches(lengths, 8, steps, seed=5), plan[:steps])
    assert not np.array_equal(step_batches(lengths, 8, 100, seed=6), plan)


def test_epochs_differ_in_order() -> None:
    plan = step_batches(_lengths(160), 8, 40, seed=0)
    epochs = [plan[:20], plan[20:]]
    for epoch in epochs:
        assert sorted(epoch.flatten()) == list(range(160))
    first, second = ({frozenset(batch) for batch in epoch.tolist()} for epoch in epochs)
    assert first != second


def test_rows_of_a_batch_have_similar_lengths_and_batches_come_in_any_order() -> None:
    lengths = _lengths(2048)
    plan = step_batches(lengths, 8, 256, seed=0)

    def padding(batches: np.ndarray) -> float:
        return float(8 * lengths[batches].max(axis=1).sum() / lengths[batches].sum() - 1)

    assert padding(plan) < padding(np.arange(2048).reshape(256, 8)) / 4
    longest = lengths[plan[:16]].max(axis=1).tolist()
    assert longest != sorted(longest)


def test_a_plan_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one document"):
        step_batches(np.array([]), 8, 1, seed=0)


def test_a_document_of_several_examples_by_hand() -> None:
    document = document_of(Example([1], [2]), Example([3, 4], [5, 6]))
    assert document.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert document.loss_mask.astype(int).tolist() == [0, 1, 0, 0, 1, 1]
    assert (len(document), document.trained_tokens, document.prompt_length) == (6, 3, 1)


def test_a_document_needs_a_token() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        document_of(Example([], []))


def test_a_batch_by_hand() -> None:
    batch = completion_batch([Example([1, 2], [3]), Example([4], [5, 6, 7]), Example([], [8, 1])])
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 7, 9]
    # The last document has no prompt, so nothing could predict its first token.
    assert batch.loss_mask.int().tolist() == [0, 0, 1, 0, 1, 1, 1, 0, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert batch.lengths.tolist() == [3, 4, 2]
    assert batch.trained_lengths.tolist() == [1, 3, 1]
    assert batch.first_reads is None
    assert batch.input_ids.dtype == torch.int64
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.loss_mask.dtype == torch.bool


def test_documents_with_one_prompt_read_it_as_the_first_does() -> None:
    batch = completion_batch([Example([1, 2], [3]), Example([1], [2, 3]), Example([1, 2], [4])])
    assert batch.first_reads is not None
    assert batch.first_reads.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 8]


def test_sums_by_document_by_hand() -> None:
    batch = completion_batch([Example([1, 2], [3, 4]), Example([5], []), Example([6], [7, 8, 9])])
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], requires_grad=True)
    sums = batch.sum_by_document(values)
    assert sums.tolist() == [3.0, 0.0, 12.0]
    (sums * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.0, 100.0, 100.0, 100.0]


@pytest.mark.parametrize(
    ("part", "mask"),
    [
        (TrainedPart.SEQUENCE, [0, 1, 1, 0, 1, 0, 1, 1]),
        (TrainedPart.COMPLETION, [0, 0, 1, 0, 1, 0, 0, 1]),
    ],
)
def test_trained_parts_by_hand(part: TrainedPart, mask: list[int]) -> None:
    examples = [Example([1, 2], [3]), Example([], [4, 5]), Example([1, 2], [6])]
    batch = token_batch([document_of(one, trained=part) for one in examples])
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 5, 1, 2, 6]
    assert batch.loss_mask.int().tolist() == mask


@pytest.mark.parametrize("part", list(TrainedPart))
def test_a_batch_holds_each_document_once_with_its_own_positions_and_mask(
    part: TrainedPart,
) -> None:
    rng = random.Random(7)
    examples = [
        Example([2 * number] * rng.randint(0, 9), [2 * number + 1] * rng.randint(1, 30))
        for number in range(1, 201)
    ]
    batch = token_batch([document_of(one, trained=part) for one in examples])
    counts = Counter(batch.input_ids.tolist())
    trained = Counter(batch.input_ids[batch.loss_mask].tolist())
    for number, example in enumerate(examples, start=1):
        prompt, completion = 2 * number, 2 * number + 1
        assert counts[prompt] == len(example.prompt_ids)
        assert counts[completion] == len(example.completion_ids)
        of_it = (batch.input_ids == prompt) | (batch.input_ids == completion)
        assert batch.position_ids[of_it].tolist() == list(range(example.length))
        first = 1 if part is TrainedPart.SEQUENCE else max(1, len(example.prompt_ids))
        assert trained[prompt] + trained[completion] == example.length - first
