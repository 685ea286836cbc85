"""Limits that follow from the lengths of documents."""

import logging

import numpy as np
import pytest

from reasoning_lab.data.tokens.automatic import automatic_limit, length_table, token_limit


def test_the_table_counts_documents() -> None:
    lengths = np.arange(1, 1001)[::-1].copy()
    assert length_table(lengths) == {"50%": 500, "90%": 900, "99%": 990, "longest": 1000}
    assert length_table(np.array([7])) == {"50%": 7, "90%": 7, "99%": 7, "longest": 7}


@pytest.mark.parametrize(
    ("held", "context", "limit"),
    [(1, None, 256), (256, None, 256), (257, 4096, 512), (5000, 4096, 4096), (40, 128, 128)],
)
def test_the_limit_is_the_next_multiple_within_the_context(
    held: int, context: int | None, limit: int
) -> None:
    table = {"50%": 1, "90%": 1, "99%": held, "longest": 10**6}
    assert automatic_limit(table, context) == limit


def test_a_number_and_null_stay(caplog: pytest.LogCaptureFixture) -> None:
    table = length_table(np.array([300]))
    assert token_limit(100, table, 50, "key") == 100
    assert token_limit(None, table, 50, "key") is None
    with caplog.at_level(logging.INFO):
        assert token_limit("auto", table, None, "stages.sft.max_tokens") == 512
    assert "stages.sft.max_tokens=auto is 512 tokens" in caplog.text
    assert "longest 300" in caplog.text
