"""Read the instructions of a row on the form of a response, in IFEval's layout or as mappings.

`row_mapping.py` uses it. IFEval has a list of ids and a list of their arguments, one dict for each.
Tables fill such dicts with nulls, and some datasets store the lists as JSON texts. The other layout
is a list of mappings, each of an `id` and its arguments.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reasoning_lab.data.sources.row_values import (
    RowError,
    is_missing,
    missing_column,
    root_of,
    short_repr,
    value_at,
)
from reasoning_lab.verify.instructions import InstructionError, read_instructions


def row_instructions(
    row: Mapping[str, Any], column: str, arguments_column: str | None, columns: Iterable[str]
) -> list[dict[str, Any]]:
    """The instructions of a row, each a mapping of its `id` and its arguments; empty = it has none.

    Args:
        row: The row.
        column: Column of the ids, or of the mappings.
        arguments_column: Column of the ids' arguments; None = `column` has mappings.
        columns: All columns of the dataset.

    Raises:
        RowError: A column is missing, or the instructions cannot be checked.
    """
    value = _value(row, column, "instructions", columns)
    if is_missing(value):
        return []
    if arguments_column is not None:
        arguments = _value(row, arguments_column, "instruction_arguments", columns)
        value = _paired(value, arguments, column, arguments_column)
    try:
        instructions = read_instructions(value)
    except InstructionError as error:
        raise RowError(
            "unreadable_instructions",
            f"'{column}' cannot be checked: {error}; correct the row",
        ) from error
    return [{"id": one.id, **one.arguments} for one in instructions]


def instructions_gold(instructions: Sequence[Mapping[str, Any]], column: str) -> str:
    """The gold of the checker `instructions`: their JSON.

    Raises:
        RowError: There are none.
    """
    if not instructions:
        raise RowError(
            "missing_instructions",
            f"'{column}' has none; give a list, or name another column in data.rows.instructions",
        )
    return json.dumps(instructions, ensure_ascii=False)


def _value(row: Mapping[str, Any], column: str, key: str, columns: Iterable[str]) -> Any:
    value = value_at(row, column)
    if value is None and root_of(column, columns) is None:
        raise RowError(
            f"missing_{key}",
            f"{missing_column(column, columns)}; name one in data.rows.{key}",
        )
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _paired(ids: Any, arguments: Any, column: str, arguments_column: str) -> list[dict[str, Any]]:
    """Each id with its arguments; null = it has none."""
    for name, value in ((column, ids), (arguments_column, arguments)):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise RowError(
                "unreadable_instructions", f"'{name}' is {short_repr(value)}; give a list"
            )
    if len(ids) != len(arguments):
        raise RowError(
            "unreadable_instructions",
            f"'{column}' has {len(ids)} ids and '{arguments_column}' {len(arguments)} dicts; give "
            "one for each",
        )
    pairs = []
    for name, given in zip(ids, arguments, strict=True):
        if not is_missing(given) and not isinstance(given, Mapping):
            raise RowError(
                "unreadable_instructions",
                f"'{arguments_column}' has {short_repr(given)}; give a dict for each id",
            )
        pairs.append({**({} if is_missing(given) else given), "id": name})
    return pairs
