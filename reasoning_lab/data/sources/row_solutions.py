"""Read the worked solutions of a row; `row_mapping.py` uses it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reasoning_lab.data.sources.row_values import (
    RowError,
    check_text,
    short_repr,
    text_at,
    value_at,
)


def read_solutions(row: Mapping[str, Any], column: str) -> list[str]:
    """The solutions in a column, stripped, without empty ones.

    Raises:
        RowError: It holds something else than a text or a list of texts.
    """
    value = value_at(row, column)
    texts = [value] if isinstance(value, str) or value is None else value
    if not isinstance(texts, Sequence) or not all(isinstance(t, str | None) for t in texts):
        raise RowError(
            "malformed_solutions",
            f"'{column}' is {short_repr(value)}; give a text or a list of texts, or "
            "name another column in data.rows.solutions",
        )
    solutions = [text.strip() for text in texts if text and text.strip()]
    for text in solutions:
        check_text(text, column)
    return solutions


def with_thought(
    row: Mapping[str, Any], solutions: list[str], thought: str | None, columns: Iterable[str]
) -> list[str]:
    """The solutions, each behind the thought in a column; None = the row has none."""
    if thought is None or not solutions:
        return solutions
    text = text_at(row, thought, "thought", columns)
    return [f"<think>\n{text}\n</think>\n{solution}" for solution in solutions]
