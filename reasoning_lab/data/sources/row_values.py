"""Look up, check and convert the values of a row, however JSON, parquet or people wrote them.

`row_mapping.py` uses it. A row is untrusted: a value has one clear meaning, or a `RowError` says
why not and what to do.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from reasoning_lab.types import UserError

_SHOWN_CHARS = 80
# The largest exponent of a float. A larger number, written out, would fill the memory.
_MAX_EXPONENT = 324
_SHOWN_COLUMNS = 20
# The keys under which published chats store a message's role.
_ROLE_KEYS = ("role", "from")


class RowError(UserError):
    """A row that cannot be read.

    Args:
        reason: A name in snake_case for a ledger, e.g. `missing_prompt`.
        message: One sentence with the problem and the remedy, without the row's place.
    """

    def __init__(self, reason: str, message: str) -> None:
        # Invalid Unicode can be neither printed nor stored in a table.
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        self.reason = reason
        super().__init__(self.message)

    def with_place(self, place: str) -> "RowError":
        """The same error with the row's place, e.g. `train.jsonl, line 3`."""
        return RowError(self.reason, f"{place}: {self.message}")


class JsonFloat(float):
    """A JSON number that keeps all its digits; a float alone keeps seventeen."""

    text: str

    def __new__(cls, text: str) -> "JsonFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def value_at(row: Any, column: str) -> Any:
    """The value at a dotted path; None where the path does not exist.

    A step into a list is a position from 0, one from the end as in -1, or the role of a message
    (the first one of that role).
    """
    if isinstance(row, Mapping) and column in row:
        return row[column]
    value = row
    for step in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list):
            value = _element(value, step)
        else:
            return None
    return value


def _element(values: Sequence[Any], step: str) -> Any:
    if step.removeprefix("-").isdecimal():
        is_there = len(step) < 10 and -len(values) <= int(step) < len(values)
        return values[int(step)] if is_there else None
    messages = (value for value in values if isinstance(value, Mapping))
    return next((m for m in messages if step in [m.get(key) for key in _ROLE_KEYS]), None)


def root_of(column: str, columns: Iterable[str]) -> str | None:
    """The column in `columns` that a dotted path begins with; None = there is none."""
    names = sorted(columns, key=len, reverse=True)
    return next((name for name in names if column == name or column.startswith(f"{name}.")), None)


def is_missing(value: Any) -> bool:
    """Whether a value means "no value": null, or NaN, as pandas writes it."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def answer_text(value: Any) -> str | None:
    """A known answer as text; None = it is missing, or its type cannot be an answer.

    A number is written with all its digits: 18.0 as `18`, 1e-07 as `0.0000001`. A list of one
    answer counts as that answer.
    """
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list):
        value = value[0]
    if is_missing(value) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return value
    return number_text(value) if isinstance(value, int | float | Decimal) else None


def number_text(number: int | float | Decimal) -> str | None:
    """A number in plain decimals, without trailing zeros.

    None = it is infinite, or too large or too small for a float.
    """
    if isinstance(number, int):
        return str(number)
    if not math.isfinite(number):
        return None
    try:
        exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    except InvalidOperation:
        return None
    if abs(exact.adjusted()) > _MAX_EXPONENT:
        return None
    text = format(exact, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def text_problem(text: str) -> str | None:
    """Why a text cannot be used; None = it can."""
    if "\0" in text:
        return "holds a NUL character"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    return None


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or white space and zero-width characters."""
    if text[:1].isalnum():
        return False
    return not any(char.isprintable() and not char.isspace() for char in text)


def short_repr(value: Any) -> str:
    """A value as one short line, for an error."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def missing_column(column: str, columns: Iterable[str]) -> str:
    """State that the column is missing, which columns exist, and the closest name."""
    names = list(columns)
    listed = ", ".join(names[:_SHOWN_COLUMNS]) or "none"
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    closest = difflib.get_close_matches(column, names, n=1)
    suggestion = f"; did you mean '{closest[0]}'?" if closest else ""
    return f"there is no column '{column}'; the columns are {listed}{more}{suggestion}"


def text_at(row: Mapping[str, Any], column: str, key: str, columns: Iterable[str]) -> str:
    """The text of a column that `data.rows.KEY` names, without the spaces around it.

    Raises:
        RowError: The column is missing, or has no text that can be used.
    """
    value = value_at(row, column)
    if value is None and root_of(column, columns) is None:
        raise missing_column_error(column, key, columns)
    if not isinstance(value, str) or is_blank(value):
        is_absent = is_missing(value) or isinstance(value, str)
        raise RowError(
            f"missing_{key}" if is_absent else f"unreadable_{key}",
            f"'{column}' is {short_repr(value)}; give a non-empty string, or name another "
            f"column in data.rows.{key}{nested_paths(value, column)}",
        )
    check_text(value, column)
    return value.strip()


def check_text(text: str, column: str) -> None:
    """Raise RowError for a text that cannot be used."""
    problem = text_problem(text)
    if problem is not None:
        raise RowError("malformed_text", f"'{column}' {problem}; correct the row")


def missing_column_error(column: str, key: str, columns: Iterable[str]) -> RowError:
    """What to say of a column that `data.rows.KEY` names and the dataset lacks."""
    return RowError(
        f"missing_{key}", f"{missing_column(column, columns)}; name one in data.rows.{key}"
    )


def nested_paths(value: Any, column: str) -> str:
    """Paths to a text inside a nested value, for an error; empty for any other value."""
    while isinstance(value, list) and value and isinstance(value[0], list | Mapping):
        column, value = f"{column}.0", value[0]
    if isinstance(value, Mapping) and value:
        return f", e.g. {', '.join(f'{column}.{name}' for name in list(value)[:4])}"
    return f", e.g. {column}.0" if isinstance(value, list) and value else ""
