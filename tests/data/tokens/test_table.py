import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning_lab.data.tokens.documents import Document, TrainedPart, document_of
from reasoning_lab.data.tokens.table import Overlong, TokenTable
from reasoning_lab.types import Example


def _documents(count: int, part: TrainedPart = TrainedPart.COMPLETION) -> list[Document]:
    rng = random.Random(count)
    sizes = [(rng.randint(0, 6), rng.randint(1, 40)) for _ in range(count)]
    return [
        document_of(Example([2 * n] * prompt, [2 * n + 1] * completion), trained=part)
        for n, (prompt, completion) in enumerate(sizes)
    ]


def _is_same(one: Document, other: Document) -> bool:
    return (
        one.token_ids.tolist() == other.token_ids.tolist()
        and one.loss_mask.tolist() == other.loss_mask.tolist()
        and one.prompt_length == other.prompt_length
    )


@pytest.mark.parametrize("part", list(TrainedPart))
def test_a_table_gives_back_its_documents(part: TrainedPart) -> None:
    documents = [*_documents(50, part), document_of(Example([1], [2]), Example([3, 4], [5, 6]))]
    table = TokenTable.of_documents(documents)
    assert len(table) == 51
    assert all(map(_is_same, table, documents))
    assert table.lengths.tolist() == list(map(len, documents))
    assert table.trained_tokens.tolist() == [document.trained_tokens for document in documents]
    chosen = table.select(np.array([7, 3, 50]))
    assert all(map(_is_same, chosen, [documents[7], documents[3], documents[50]]))


def test_a_table_of_nothing() -> None:
    table = TokenTable.of_documents([])
    assert (len(table), list(table), len(table.pieces(4, Overlong.SPLIT))) == (0, [], 0)


def test_pieces_by_hand() -> None:
    long = document_of(Example([1, 2, 3], [4, 5, 6, 7, 8]))
    table = TokenTable.of_documents([document_of(Example([9], [9])), long])
    split = table.pieces(3, Overlong.SPLIT)
    assert [piece.token_ids.tolist() for piece in split] == [[9, 9], [1, 2, 3], [4, 5, 6], [7, 8]]
    # Nothing predicts the first token of a piece.
    assert [piece.loss_mask.astype(int).tolist() for piece in split] == [
        [0, 1],
        [0, 0, 0],
        [0, 1, 1],
        [0, 1],
    ]
    assert [piece.prompt_length for piece in split] == [1, 3, 0, 0]
    assert split.trained_tokens.tolist() == [1, 0, 2, 1]
    cut_off = table.pieces(5, Overlong.TRUNCATE)
    assert [piece.token_ids.tolist() for piece in cut_off] == [[9, 9], [1, 2, 3, 4, 5]]
    assert cut_off.trained_tokens.tolist() == [1, 2]
    assert [len(piece) for piece in table.pieces(5, Overlong.DROP)] == [2]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    most=st.integers(1, 12),
    overlong=st.sampled_from(list(Overlong)),
)
def test_pieces_are_short_and_lose_only_what_was_chosen(
    lengths: list[int], most: int, overlong: Overlong
) -> None:
    documents = [document_of(Example([], [n] * length)) for n, length in enumerate(lengths)]
    pieces = TokenTable.of_documents(documents).pieces(most, overlong)
    tokens_left: Counter[int] = Counter()
    for piece, length, trained in zip(pieces, pieces.lengths, pieces.trained_tokens, strict=True):
        assert len(piece) == length <= most
        assert piece.trained_tokens == trained == length - 1
        tokens_left.update(piece.token_ids.tolist())
    for number, length in enumerate(lengths):
        expected = {"split": length, "truncate": min(length, most)}
        expected["drop"] = length if length <= most else 0
        assert tokens_left[number] == expected[overlong]
