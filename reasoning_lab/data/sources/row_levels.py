"""Read a problem's level from a row: a number, a text, a pass rate, or a list of verdicts.

`row_mapping.py` uses it.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from reasoning_lab.data.sources.row_values import RowError, is_blank, is_missing, short_repr
from reasoning_lab.types import UserError

MAX_LEVEL = 2**31 - 1
_NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:[.,]\d+)*(?!\d)")


def read_level(value: Any, column: str) -> int:
    """The level that a value names: a whole number, or a text with one; a missing value names 1.

    Raises:
        RowError: It names none.
    """
    level = value
    if is_missing(value) or (isinstance(value, str) and is_blank(value)):
        level = 1
    elif isinstance(value, str) and (match := _NUMBER.search(value)):
        level = int(match[0]) if re.fullmatch(r"\d{1,10}", match[0]) else value
    elif isinstance(value, float | Decimal) and float(value).is_integer():
        level = int(value)
    if not isinstance(level, int) or isinstance(level, bool) or not 1 <= level <= MAX_LEVEL:
        raise RowError(
            "unreadable_level",
            f"'{column}' is {short_repr(value)}; give an integer of at least 1, say by "
            "data.rows.levels what it means, or select other rows with data.rows.only",
        )
    return level


def mapped_level(value: Any, column: str, levels: Mapping[Any, int]) -> int:
    """The level that `levels` gives to a value.

    Args:
        value: A text, a number, or a list of truth values, which counts as the fraction that is
            true.
        column: Its column, for an error.
        levels: Text to level, or lowest number of a range to level. The empty text stands for a
            missing value.

    Raises:
        RowError: It is not in `levels`.
    """
    if isinstance(value, list) and value and all(isinstance(item, bool) for item in value):
        value = sum(value) / len(value)
    text = "" if is_missing(value) else value.strip() if isinstance(value, str) else None
    if text in levels:
        return levels[text]
    number = _number(value)
    ranges = {
        lowest: level for key, level in levels.items() if (lowest := _number(key)) is not None
    }
    if number is None or not ranges or number < min(ranges):
        raise RowError(
            "unreadable_level",
            f"'{column}' is {short_repr(value)}, which data.rows.levels does not have; add it, or "
            "select other rows with data.rows.only",
        )
    return ranges[max(lowest for lowest in ranges if lowest <= number)]


def check_levels(level: str | int, levels: Mapping[Any, int], key: str) -> None:
    """Raise UserError for options that no row fits; `key` is where `data.rows` stands."""
    if isinstance(level, int) and not 1 <= level <= MAX_LEVEL:
        raise UserError(f"{key}.level: {level} is no level; give 1 or more, or a column")
    if levels and isinstance(level, int):
        raise UserError(f"{key}.levels: {key}.level={level} is no column; name the column there")
    for value, mapped in levels.items():
        if not 1 <= mapped <= MAX_LEVEL:
            raise UserError(f"{key}.levels: '{value}' has level {mapped}; give 1 or more")


def _number(value: Any) -> float | None:
    """A finite number, also one written as text; None = it is no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
