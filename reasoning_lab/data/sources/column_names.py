"""The columns of a file that has the usual names, where `data.rows` does not name others."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

from reasoning_lab.data.sources.readers import Read
from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.verify.extraction import extract_answer

PROMPT_NAMES = ("prompt", "question", "problem")
GOLD_NAMES = ("gold", "answer")
SOLUTION_NAMES = ("solution", "solutions")
# GSM8K's last line: "#### 24".
_ANSWER_MARK = "####"
_SAMPLED_ROWS = 1000


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """What was made of a file's columns.

    Attributes:
        rows: The mapping.
        taken: What it takes by itself, for the log: key of `data.rows` to value.
    """

    rows: RowMapping
    taken: Mapping[str, str]


def named_columns(rows: RowMapping, read: Callable[..., Read]) -> NamedColumns:
    """`rows`, with the columns of the usual names for the keys that are as they are by default.

    A question may be called prompt, question or problem, a gold gold or answer, and a worked
    solution solution or solutions. A name is taken if it is the only one of its kind. A column of
    golds that has `####` in most rows is a solution that ends in its gold. Without a column of
    golds the solutions have them, after `####` or in their last box.

    Args:
        rows: As configured.
        read: Yields the file's rows, of which the first are looked at; it takes the columns `used`.
    """
    names = (*PROMPT_NAMES, *GOLD_NAMES, *SOLUTION_NAMES)
    first = list(islice(read(used=names), _SAMPLED_ROWS))
    sample = [row.content for row in first if not isinstance(row.content, RowError)]
    columns = {name for row in sample for name in row}
    default = RowMapping()
    taken: dict[str, str] = {}
    if rows.prompt == default.prompt and (name := _only(PROMPT_NAMES, columns)):
        taken["prompt"] = name
    solutions = rows.solutions or _only(SOLUTION_NAMES, columns)
    if solutions is not None and rows.solutions is None and not _are_texts(sample, solutions):
        solutions = None
    if solutions is not None:
        taken["solutions"] = solutions
    if rows.gold == default.gold and rows.gold_in == default.gold_in and not rows.options:
        gold = _only(GOLD_NAMES, columns)
        if gold is None and solutions is not None:
            if gold_in := _gold_in(_texts(sample, solutions)):
                taken |= {"gold": solutions, "gold_in": gold_in}
        elif gold is not None:
            taken["gold"] = gold
            if _most(_ANSWER_MARK in text for text in _texts(sample, gold)):
                taken["gold_in"] = f"after {_ANSWER_MARK}"
                taken.setdefault("solutions", gold)
    changed = {key: name for key, name in taken.items() if getattr(rows, key) != name}
    mapping = copy(rows)
    for key, name in changed.items():
        setattr(mapping, key, name)
    return NamedColumns(mapping, changed)


def _only(names: Sequence[str], columns: Collection[str]) -> str | None:
    """The first of `names` if the file has it, else the only other one that it has."""
    if names[0] in columns:
        return names[0]
    present = [name for name in names if name in columns]
    return present[0] if len(present) == 1 else None


def _are_texts(sample: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether each row has a text, a list of texts or nothing there, as solutions are."""
    values = [row.get(column) for row in sample]
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return all(part is None or isinstance(part, str) for part in parts)


def _texts(sample: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    values = [row.get(column) for row in sample]
    first = [value[0] if isinstance(value, list) and value else value for value in values]
    return [value for value in first if isinstance(value, str)]


def _gold_in(solutions: Sequence[str]) -> str | None:
    if _most(_ANSWER_MARK in text for text in solutions):
        return f"after {_ANSWER_MARK}"
    return "boxed" if _most(extract_answer(text) is not None for text in solutions) else None


def _most(flags: Iterable[bool]) -> bool:
    """Whether more than half of some truth values are true."""
    values = list(flags)
    return 2 * sum(values) > len(values)
