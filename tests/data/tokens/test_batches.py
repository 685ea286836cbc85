import random
from collections import Counter
from itertools import combinations

import pytest
import torch

from reasoning_lab.data.tokens.batches import completion_batch, step_batches, token_batch
from reasoning_lab.data.tokens.documents import TrainedPart, document_of
from reasoning_lab.data.tokens.packing import pack
from reasoning_lab.types import Example


def _lengths(count: int) -> list[int]:
    rng = random.Random(count)
    return [rng.randint(1, 300) for _ in range(count)]


@pytest.mark.parametrize(("count", "batch_size"), [(1000, 8), (130, 8), (20, 8), (8, 8), (3, 8)])
def test_the_plan_is_full_batches_and_balanced_epochs(count: int, batch_size: int) -> None:
    plan = step_batches(_lengths(count), batch_size, 400, seed=5)
    assert [len(batch) for batch in plan] == [batch_size] * 400
    read: Counter[int] = Counter(dict.fromkeys(range(count), 0))
    for batch in plan:
        read.update(batch)
        assert set(read) == set(range(count))
        assert max(read.values()) - min(read.values()) <= 1


@pytest.mark.parametrize("count", [3, 20, 130, 1000])
def test_the_plan_is_a_pure_function_and_a_longer_one_begins_with_it(count: int) -> None:
    lengths = _lengths(count)
    random.seed(0)
    plan = step_batches(lengths, 8, 100, seed=5)
    random.seed(1)
    assert step_batches(list(lengths), 8, 100, seed=5) == plan
    for steps in (0, 1, 7, 15, 16, 17, 60):
        assert step_batches(lengths, 8, steps, seed=5) == plan[:steps]
    assert step_batches(lengths, 8, 100, seed=6) != plan


def test_epochs_differ_in_order() -> None:
    plan = step_batches(_lengths(160), 8, 40, seed=0)
    epochs = [plan[:20], plan[20:]]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(160))
    assert {frozenset(batch) for batch in epochs[0]} != {frozenset(batch) for batch in epochs[1]}


def test_rows_of_a_batch_have_similar_lengths_and_batches_come_in_any_order() -> None:
    lengths = _lengths(2048)
    plan = step_batches(lengths, 8, 256, seed=0)

    def padding(batches: list[list[int]]) -> float:
        used = sum(lengths[row] for batch in batches for row in batch)
        return sum(8 * max(lengths[row] for row in batch) for batch in batches) / used - 1

    unsorted = [list(range(start, start + 8)) for start in range(0, 2048, 8)]
    assert padding(plan) < padding(unsorted) / 4
    longest = [max(lengths[row] for row in batch) for batch in plan[:16]]
    assert longest != sorted(longest)


def test_a_plan_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one document"):
        step_batches([], 8, 1, seed=0)


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


def test_pack_by_hand() -> None:
    # 10 is longest and leaves no room; 6 leaves 4, which the third has; of those left, 5 and 5.
    # 11 fits nowhere.
    packing = pack([6, 5, 4, 5, 11, 10], 10)
    assert packing.rows == [[5], [0, 2], [1, 3]]
    assert packing.dropped == [4]
    # 7 leaves 5: the 3 and the 2 that come first, not the 5 that comes last.
    assert sorted(pack([3, 7, 2, 5], 12).rows[0]) == [0, 1, 2]


def test_pack_fills_the_first_row_as_full_as_any_choice_would() -> None:
    rng = random.Random(3)
    for _ in range(50):
        lengths = [rng.randint(5, 40) for _ in range(9)]
        longest = max(lengths)
        rest = list(lengths)
        rest.remove(longest)
        sums = {sum(some) for count in range(9) for some in combinations(rest, count)}
        fullest = longest + max(total for total in sums if total <= 60 - longest)
        assert sum(lengths[document] for document in pack(lengths, 60).rows[0]) == fullest


def test_pack_loses_splits_and_overfills_nothing() -> None:
    lengths = _lengths(500)
    packing = pack(lengths, 280)
    placed = [document for row in packing.rows for document in row]
    assert sorted([*placed, *packing.dropped]) == list(range(500))
    assert packing.dropped == [index for index, length in enumerate(lengths) if length > 280]
    assert all(sum(lengths[document] for document in row) <= 280 for row in packing.rows)
    assert all(packing.rows)
    filled = sum(lengths[document] for document in placed) / (280 * len(packing.rows))
    assert filled > 0.95


def test_pack_mixes_lengths() -> None:
    rng = random.Random(4)
    lengths = [rng.choice([20, 90]) for _ in range(600)]
    rows = pack(lengths, 200).rows
    # Two long documents leave 20, for one short one, as long as both kinds wait.
    assert sum(sorted(lengths[document] for document in row) == [20, 90, 90] for row in rows) > 130


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
