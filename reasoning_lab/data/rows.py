"""From a dataset's row to a problem: which column holds what, and what is refused.

Between whatever reads rows (`sources.py`) and the table of problems that a source draws from.
A row is untrusted: everything taken from it is checked, and named by its place when refused.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from string import ascii_uppercase
from typing import Any

from reasoning_lab.types import Problem, UserError
from reasoning_lab.verify.answers import extract_answer

_AFTER = "after "
_NUMBER = re.compile(r"\d+")
_LETTER = re.compile(r"\s*\(?([A-Z])\s*[).:]\s*")
_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class RowMapping:
    """Which column of a row is what; below `data.rows` in a config.

    A column may be a path into nested values, e.g. `messages.0.content`.

    Attributes:
        prompt: Column of the question.
        gold: Column of the known answer.
        gold_in: Where in that column the answer stands: `whole`, `boxed` (its last \\boxed{}),
            or `after MARK` (what follows the last MARK).
        no_gold: Answers that mean that there is none; their rows are skipped and counted. The
            empty text stands for a column that is empty or holds no answer.
        level: The level of all rows as a number, or a column of levels: whole numbers or texts
            with one in them, e.g. `Level 3`. A row without a value is of level 1.
        options: Column of a list of choices. They become lines of the prompt, `A) …`, and gold
            is a letter.
        shuffled: Columns of further choices, all wrong, where `gold` is the text of the right one.
            They are put with it in an order that the question decides, and asked as `options` are.
        solutions: Column of the dataset's own worked solutions, a text or a list of texts.
        thought: Column of the thinking that led to the solution.
        only: Column to the value that a row must have there, or a list of such values.
        checker: Which rule compares answers, e.g. `math`, `choice` or `number`.
        family: The name under which tables group these problems.
        family_column: Column of the family, instead.
    """

    prompt: str = "prompt"
    gold: str = "gold"
    gold_in: str = "whole"
    no_gold: Sequence[str] = ()
    level: str | int = "level"
    options: str | None = None
    shuffled: Sequence[str] = ()
    solutions: str | None = None
    thought: str | None = None
    only: Mapping[str, Any] = field(default_factory=dict)
    checker: str = "math"
    family: str = "file"
    family_column: str | None = None

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has the values that `only` asks for."""
        return all(
            _at(row, column) in (wanted if isinstance(wanted, list) else [wanted])
            for column, wanted in self.only.items()
        )

    def problem(self, row: Mapping[str, Any], place: str, name: str) -> Problem | None:
        """The problem that a row holds; None when it has no gold, which `no_gold` allows.

        Args:
            row: One that `wants` holds for.
            place: Where the row is, for an error.
            name: The same without folders, for the problem's metadata.

        Raises:
            UserError: The row lacks what the mapping names.
        """
        gold = self._gold(row, place)
        if gold is None:
            return None
        prompt = _text(row, self.prompt, "prompt", place)
        metadata: dict[str, Any] = {"row": name}
        choices: list[str] = []
        if self.shuffled:
            wrong = [_text(row, column, "shuffled", place) for column in self.shuffled]
            choices = random.Random(prompt).sample([gold, *wrong], 1 + len(wrong))
            gold = ascii_uppercase[choices.index(gold)]
        elif self.options is not None:
            choices = _choices(row, self.options, place)
            if gold not in ascii_uppercase[: len(choices)]:
                raise UserError(
                    f"{place}: '{self.gold}' is {gold!r}, no letter of the {len(choices)} choices "
                    f"in '{self.options}'; correct the row"
                )
        if choices:
            lettered = zip(ascii_uppercase, choices, strict=False)
            prompt = "\n".join([prompt, *(f"{letter}) {text}" for letter, text in lettered)])
            metadata["choices"] = choices
        if self.solutions is not None:
            metadata["solutions"] = self._solutions(row, self.solutions, place)
        family = self.family
        if self.family_column is not None:
            family = _text(row, self.family_column, "family_column", place)
        return Problem(prompt, gold, self.checker, family, self._level(row, place), metadata)

    def _gold(self, row: Mapping[str, Any], place: str) -> str | None:
        value = _at(row, self.gold)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        found: str | None = ""
        if isinstance(value, str):
            found = value
            if self.gold_in == "boxed":
                found = extract_answer(value)
            elif self.gold_in != "whole":
                mark = self.gold_in.removeprefix(_AFTER)
                found = value.rpartition(mark)[2] if mark in value else ""
        elif value is not None:
            raise UserError(f"{place}: '{self.gold}' is {_shown(value)}; give a non-empty string")
        gold = (found or "").strip()
        if gold in self.no_gold:
            return None
        if not gold:
            lacks = "" if self.gold_in == "whole" else f", without an answer {self.gold_in}"
            raise UserError(
                f"{place}: '{self.gold}' is {_shown(value)}{lacks}; give a non-empty string, or "
                "skip such rows with data.rows.no_gold=['']"
            )
        return gold

    def _level(self, row: Mapping[str, Any], place: str) -> int:
        if isinstance(self.level, int):
            return self.level
        value = _at(row, self.level)
        level = 1 if value is None else value
        if isinstance(level, str) and (found := _NUMBER.search(level)):
            level = int(found[0])
        if not isinstance(level, int) or isinstance(level, bool) or not 1 <= level < 2**31:
            raise UserError(
                f"{place}: '{self.level}' is {_shown(value)}; give an integer of at least 1, or "
                "leave such rows out with data.rows.only"
            )
        return level

    def _solutions(self, row: Mapping[str, Any], column: str, place: str) -> list[str]:
        value = _at(row, column)
        texts = [value] if isinstance(value, str) or value is None else value
        if not isinstance(texts, Sequence) or not all(isinstance(t, str | None) for t in texts):
            raise UserError(
                f"{place}: '{column}' is {_shown(value)}; give a text or a list of texts, or "
                "name another column in data.rows.solutions"
            )
        solutions = [text.strip() for text in texts if text and text.strip()]
        if self.thought is None:
            return solutions
        thought = _text(row, self.thought, "thought", place)
        return [f"<think>\n{thought}\n</think>\n{solution}" for solution in solutions]


def row_mapping(options: Mapping[str, Any], key: str) -> RowMapping:
    """The mapping that a config describes.

    Args:
        options: Any of the attributes of `RowMapping`.
        key: Where in the config they are, for an error.
    """
    known = [item.name for item in fields(RowMapping)]
    for name in options:
        if name not in known:
            raise UserError(f"{key}.{name}: there is no such key; choose among {', '.join(known)}")
    mapping = RowMapping(**options)
    if mapping.gold_in not in ("whole", "boxed") and not (
        mapping.gold_in.startswith(_AFTER) and mapping.gold_in.removeprefix(_AFTER).strip()
    ):
        raise UserError(
            f"{key}.gold_in: '{mapping.gold_in}' is unknown; choose whole, boxed or 'after MARK'"
        )
    return mapping


def _at(row: Any, column: str) -> Any:
    """The value at a dotted path; None where the path leads nowhere."""
    if isinstance(row, Mapping) and column in row:
        return row[column]
    value = row
    for step in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _text(row: Mapping[str, Any], column: str, key: str, place: str) -> str:
    value = _at(row, column)
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{place}: '{column}' is {_shown(value)}; give a non-empty string, or name another "
            f"column in data.rows.{key}"
        )
    return value.strip()


def _choices(row: Mapping[str, Any], column: str, place: str) -> list[str]:
    """The texts of the options, without the letters that they may begin with."""
    value = _at(row, column)
    if (
        not isinstance(value, list)
        or not 2 <= len(value) <= len(ascii_uppercase)
        or not all(isinstance(option, str) and option.strip() for option in value)
    ):
        raise UserError(
            f"{place}: '{column}' is {_shown(value)}; give a list of 2 to 26 texts, or name "
            "another column in data.rows.options"
        )
    marks = [_LETTER.match(option) for option in value]
    lettered = all(
        mark and mark[1] == letter for mark, letter in zip(marks, ascii_uppercase, strict=False)
    )
    if not lettered:
        return [option.strip() for option in value]
    return [option[mark.end() :].strip() for option, mark in zip(value, marks, strict=True) if mark]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
