"""Read the tests of a row whose answer is a program; `row_mapping.py` uses it.

MBPP has a list of tests, which its prompt shows (Austin et al. 2021, arXiv:2108.07732, section 3),
and a list of harder ones. HumanEval has code to complete, the name of its function, and a text that
defines `check(candidate)` (Chen et al. 2021, arXiv:2107.03374). `reasoning_lab.verify.programs`
runs them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reasoning_lab.data.sources.row_values import (
    RowError,
    check_text,
    is_missing,
    missing_column,
    root_of,
    short_repr,
    value_at,
)
from reasoning_lab.types import UserError
from reasoning_lab.verify.extraction import fenced

# The checker that runs programs.
PYTHON = "python"
# Parts of `data.rows.tests`, each with a column.
_PARTS = ("shown", "hidden", "setup", "entry_point")


def check_tests(tests: Mapping[str, str], checker: str, key: str) -> None:
    """Raise UserError unless `tests` names columns of parts, for rows whose checker runs them."""
    for part in tests:
        if part not in _PARTS:
            raise UserError(f"{key}: '{part}' is no part; choose among {', '.join(_PARTS)}")
    if tests and not {"shown", "hidden"} & tests.keys():
        raise UserError(f"{key}: it names no tests; give the column of shown or hidden ones")
    if bool(tests) != (checker == PYTHON):
        raise UserError(
            f"{key}: it names {len(tests)} columns, and the checker is '{checker}'; tests are for "
            f"the checker '{PYTHON}', which needs some"
        )


@dataclass(frozen=True, slots=True)
class ProgramProblem:
    """What becomes of a row: the prompt, the reference program, and metadata for the checker."""

    prompt: str
    gold: str
    metadata: Mapping[str, Any]


def program_problem(
    row: Mapping[str, Any], tests: Mapping[str, str], prompt: str, gold: str, columns: Iterable[str]
) -> ProgramProblem:
    """The problem of a row with tests.

    Args:
        row: The row.
        tests: Part to column, as in `data.rows.tests`.
        prompt: The text of its prompt.
        gold: The text of its gold, with its indentation.
        columns: All columns of the dataset.

    Raises:
        RowError: A column is missing, or holds something else than texts; there is no test.
    """
    parts = {key: _texts(row, key, column, columns) for key, column in tests.items()}
    shown, hidden = parts.get("shown", []), parts.get("hidden", [])
    if not shown and not hidden:
        named = " and ".join(f"'{tests[part]}'" for part in ("shown", "hidden") if part in tests)
        raise RowError("missing_tests", f"{named} has no test; give at least one")
    metadata: dict[str, Any] = {"tests": [*shown, *hidden]}
    if setup := "\n".join(parts.get("setup", [])):
        metadata["setup"] = setup
    if "entry_point" in tests:
        if len(parts["entry_point"]) != 1:
            raise RowError("missing_tests", f"'{tests['entry_point']}' names no function; name one")
        metadata |= {"entry_point": parts["entry_point"][0], "given_code": f"{prompt}\n"}
        gold = f"{prompt}\n{gold}"
        prompt = f"Complete this function:\n\n{fenced(prompt)}"
    if shown:
        prompt = f"{prompt}\n\nYour code should pass these tests:\n\n{fenced(chr(10).join(shown))}"
    return ProgramProblem(prompt, gold, metadata)


def _texts(row: Mapping[str, Any], key: str, column: str, columns: Iterable[str]) -> list[str]:
    """The texts in a column, without empty ones."""
    value = value_at(row, column)
    if value is None and root_of(column, columns) is None:
        raise RowError(
            "missing_tests",
            f"{missing_column(column, columns)}; name one in data.rows.tests.{key}",
        )
    texts = [] if is_missing(value) else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError(
            "unreadable_tests", f"'{column}' is {short_repr(value)}; give a text or a list of texts"
        )
    for text in texts:
        check_text(text, column)
    return [text for text in texts if text.strip()]
