"""Values of a row as JSON, parquet and people write them: looked up, checked, and made text.

Below `rows.py`. A row is untrusted: a value is read as it is meant, or refused by a `RowError` that
says why and what to do.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from reasoning_lab.types import UserError

_SHOWN_CHARS = 80
# Of a float; written out, a larger one would fill the memory.
_MAX_EXPONENT = 324
_SHOWN_COLUMNS = 20
# Who speaks, by the names that published chats give it.
_ROLE_KEYS = ("role", "from")


class RowError(UserError):
    """A row that cannot be read.

    Args:
        reason: In snake_case, for a ledger, e.g. `missing_prompt`.
        message: What is wrong and the remedy, in one sentence without the row's place.
    """

    def __init__(self, reason: str, message: str) -> None:
        # Text that is no Unicode could not be printed, nor kept in a table.
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        self.reason = reason
        super().__init__(self.message)

    def at(self, place: str) -> "RowError":
        """The same error of the row at `place`, e.g. `train.jsonl, line 3`."""
        return RowError(self.reason, f"{place}: {self.message}")


class JsonFloat(float):
    """A number of a JSON text that remembers its digits, of which a float holds seventeen."""

    text: str

    def __new__(cls, text: str) -> "JsonFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number


def value_at(row: Any, column: str) -> Any:
    """The value at a dotted path; None where the path leads nowhere.

    In a list a step is a position from 0, or the role of the first message of that role.
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
    if step.isdecimal():
        return values[int(step)] if len(step) < 10 and int(step) < len(values) else None
    messages = (value for value in values if isinstance(value, Mapping))
    return next((m for m in messages if step in [m.get(key) for key in _ROLE_KEYS]), None)


def root_of(column: str, columns: Iterable[str]) -> str | None:
    """The column of `columns` that a dotted path begins with; None = there is none."""
    names = sorted(columns, key=len, reverse=True)
    return next((name for name in names if column == name or column.startswith(f"{name}.")), None)


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN, as pandas writes it."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def answer_text(value: Any) -> str | None:
    """A known answer as text; None = it is missing, or of a type that is no answer.

    A number is written out with all its digits: 18.0 as `18`, 1e-07 as `0.0000001`. A list of one
    answer is that answer.
    """
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list):
        value = value[0]
    if is_missing(value) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return value
    return number_text(value) if isinstance(value, int | float | Decimal) else None


def number_text(number: int | float | Decimal) -> str | None:
    """A number in plain decimals, without zeros behind the last digit.

    None = it is infinite, or so large or small that a float could not hold it.
    """
    if isinstance(number, int):
        return str(number)
    if not math.isfinite(number):
        return None
    try:
        exact = number if isinstance(number, Decimal) else Decimal(_digits(number))
    except InvalidOperation:
        return None
    if abs(exact.adjusted()) > _MAX_EXPONENT:
        return None
    text = format(exact, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _digits(number: float) -> str:
    return number.text if isinstance(number, JsonFloat) else repr(number)


def text_problem(text: str) -> str | None:
    """Why a text cannot be used; None when it can."""
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
    """Whether nothing in it would be seen: it is empty, or space and marks without a width."""
    if text[:1].isalnum():
        return False
    return not any(char.isprintable() and not char.isspace() for char in text)


def shown(value: Any) -> str:
    """A value as an error names it, cut to one short line."""
    text = value.text if isinstance(value, JsonFloat) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def missing_column(column: str, columns: Iterable[str]) -> str:
    """Say that there is no such column, which ones there are, and which was meant."""
    names = list(columns)
    listed = ", ".join(names[:_SHOWN_COLUMNS]) or "none"
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    near = difflib.get_close_matches(column, names, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return f"there is no column '{column}'; the columns are {listed}{more}{meant}"
