"""The checker of a row that names it, as mixed corpora do; `row_mapping.py` uses it.

A row is untrusted, so it can only name a checker of the lab: which code of the user's own runs is
for the config to say, by `data.rows.checker` or in `data.rows.cases`.
"""

from collections.abc import Mapping
from typing import Any

from reasoning_lab.data.sources.row_values import RowError, is_missing, short_repr, value_at
from reasoning_lab.verify import CHECKERS


def row_checker(row: Mapping[str, Any], checker: str, column: str | None) -> str:
    """The name in `column`; `checker` where there is no column, or none in the row.

    Raises:
        RowError: The lab has no checker of that name.
    """
    value = None if column is None else value_at(row, column)
    if is_missing(value):
        return checker
    if value not in CHECKERS:
        raise RowError(
            "unknown_checker",
            f"'{column}' is {short_repr(value)}; give one of {', '.join(CHECKERS)}, or say in "
            f"data.rows.cases.{column} what its values mean",
        )
    return str(value)
