import numpy as np
import pytest

from reasoning_lab.data.tokens.packing import pack


def test_pack_by_hand() -> None:
    # 3 and 4 leave room for no more than 3, which the last has; then 5 and the 5 that fits best.
    rows = pack([3, 4, 5, 1, 5, 3], 10)
    assert [row.tolist() for row in rows] == [[0, 1, 5], [2, 4], [3]]
    assert rows.sums(np.array([3, 4, 5, 1, 5, 3])).tolist() == [10, 10, 1]


def test_pack_loses_and_overfills_nothing() -> None:
    lengths = np.random.default_rng(0).integers(1, 281, 40_000)
    rows = pack(lengths, 280)
    assert sorted(rows.documents) == list(range(40_000))
    assert sorted(document for row in rows for document in row) == list(range(40_000))
    sums = rows.sums(lengths)
    assert sums.tolist() == [lengths[row].sum() for row in rows]
    assert sums.max() <= 280
    assert sums.mean() / 280 > 0.98


@pytest.mark.parametrize(("longest", "row_tokens"), [(4096, 4096), (700, 4096), (7000, 16_384)])
def test_rows_are_full(longest: int, row_tokens: int) -> None:
    lengths = np.random.default_rng(1).integers(longest // 20, longest + 1, 50_000)
    assert pack(lengths, row_tokens).sums(lengths).mean() / row_tokens >= 0.99


def test_rows_hold_documents_of_all_lengths() -> None:
    lengths = np.random.default_rng(4).integers(10, 51, 20_000)
    rows = pack(lengths, 1000)
    means = [lengths[row].mean() for row in rows]
    # Of about 33 documents with a standard deviation of 12.
    assert np.std(means) < 3


@pytest.mark.parametrize("lengths", [[3, 11], [0, 4]])
def test_a_document_that_no_row_holds_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit rows of 10"):
        pack(lengths, 10)


def test_pack_of_nothing() -> None:
    assert len(pack([], 10)) == 0
