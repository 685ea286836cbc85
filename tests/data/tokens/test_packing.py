import numpy as np
import pytest

from reasoning_lab.data.tokens.packing import pack


def test_pack_by_hand() -> None:
    # 10 fills a row; 6 leaves 4, where neither 5 fits but the 4; the 5s share a row.
    rows = pack([6, 5, 4, 5, 10], 10)
    assert [row.tolist() for row in rows] == [[4], [0, 2], [1, 3]]
    assert rows.sums(np.array([6, 5, 4, 5, 10])).tolist() == [10, 10, 10]
    # The 2 goes where it leaves no room, beside the 8, though the 7 has more.
    assert [row.tolist() for row in pack([7, 8, 2], 10)] == [[1, 2], [0]]


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


def test_short_documents_fill_what_long_ones_leave() -> None:
    lengths = np.random.default_rng(4).choice([20, 90], 600)
    rows = pack(lengths, 200)
    # Two long documents leave 20, for one short one, as long as there are both.
    pairs = min((lengths == 90).sum() // 2, (lengths == 20).sum())
    assert sum(sorted(lengths[row].tolist()) == [20, 90, 90] for row in rows) == pairs
