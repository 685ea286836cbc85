"""Turn a dataset's row into a problem: which column holds what, and which rows are refused.

It stands between the readers (`readers.py`) and the table of problems (`table_source.py`). A row
is untrusted, so every value is checked. An unreadable row raises a `RowError` with a reason, which
a source counts or refuses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from string import ascii_uppercase
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_lab.config.fields import FREE_KEYS, FREE_KEYS_WHEN_SET, choice
from reasoning_lab.data.sources.domains import check_domain, row_domain
from reasoning_lab.data.sources.messages import (
    Conversation,
    is_conversation,
    read_conversation,
)
from reasoning_lab.data.sources.multiple_choice import (
    GOLD_NAMES,
    correct_letter,
    read_options,
    shuffled_by,
    wrong_choices,
)
from reasoning_lab.data.sources.row_checkers import row_checker
from reasoning_lab.data.sources.row_instructions import instructions_gold, row_instructions
from reasoning_lab.data.sources.row_levels import check_levels, mapped_level, read_level
from reasoning_lab.data.sources.row_programs import PYTHON, check_tests, program_problem
from reasoning_lab.data.sources.row_solutions import read_solutions, with_thought
from reasoning_lab.data.sources.row_values import (
    RowError,
    answer_text,
    check_text,
    is_blank,
    is_missing,
    missing_column_error,
    nested_paths,
    root_of,
    short_repr,
    text_at,
    value_at,
)
from reasoning_lab.types import DEFAULT_DOMAIN, Message, Problem, UserError
from reasoning_lab.verify.extraction import extract_answer, fenced

_AFTER = "after "


@dataclass
class RowMapping:
    """Which column of a row holds what; `data.rows` in a config.

    A column may be a path into nested values, e.g. `messages.0.content`. A step into a list of
    messages may be a role: `messages.user.content`, or a position from the end:
    `messages.-1.content`.

    Attributes:
        prompt: Column of the question: a text, or a list of messages. Of these the last one of the
            user is the question, those before it stay before it, and an answer behind it is the
            solution where `solutions` names no column.
        system: Column of the system message; a row without one has none.
        gold: Column of the known answer.
        gold_in: Where the answer is in that column: `whole`, `boxed` (its last \\boxed{}), or
            `after MARK` (the text after the last MARK).
        gold_names: How gold names the right one of `options`: `label` (its letter, or the
            dataset's label), `text`, `index_from_0` or `index_from_1`. Null means its label, or its
            text if that is no number.
        no_gold: Answers that mean "no known answer"; their rows are skipped and counted. The
            empty text stands for a column that is empty or holds no answer.
        level: The level of all rows as a number, or a column of levels: whole numbers, or texts
            with one number, e.g. `Level 3`. A row without a value has level 1.
        levels: What the values of that column mean: text to level, e.g. `{easy: 1, hard: 2}`, or
            lowest number of a range to level, e.g. `{0: 3, 0.25: 2, 0.75: 1}` for pass rates. A
            list of truth values counts as the fraction that is true, and the empty text stands for
            a missing value. Without any, the value is the level.
        options: Column of 2 to 26 choices: a list, or a mapping of labels to texts. They become
            lines of the prompt, `A) …`, and gold becomes a letter.
        shuffled: Columns of wrong choices, a text or a list of texts each, where `gold` is the text
            of the right one. All choices are shuffled by the question and become lines of the
            prompt, as with `options`.
        solutions: Column of the dataset's own worked solutions, a text or a list of texts.
        thought: Column of the thinking that led to the solution.
        only: Column to the value that a row must have there, or a list of such values.
        checker: Which rule compares answers, e.g. `math`, `choice` or `number`.
        family: The name under which tables group these problems.
        family_column: Column of the family; replaces `family`.
        cases: A column, and for each of its values what replaces the other keys, e.g.
            `{domain: {math: {}, puzzle: {checker: choice, gold_in: whole}}}`. A row with another
            value cannot be read, unless `only` leaves it out.
        domain: The domain of these problems, such as `mathematics` or `logic`.
        domain_column: Column of the domain; replaces `domain`.
        option_order: The order of `options`: `dataset` = as they are, or `question` = shuffled by
            the question, where the dataset's right one always stands at the same place.
        checker_column: Column of the checker's name, one of the lab's own; a row without one has
            `checker`. A row of another checker than `choice` may have no `options`.
        instructions: Column of instructions on the form of the response: a list of mappings, each
            of its `id` and its arguments, or a list of ids. They are the gold of the checker
            `instructions`; beside another one they are for the reward of that name.
        instruction_arguments: Column of a list of the ids' arguments, a mapping for each.
        tests: Part to column, for the checker `python`. `shown` and `hidden` are tests, a text or a
            list of texts each, and the prompt shows the first. `setup` is code that runs before
            them. `entry_point` is the name of the function that they call; the prompt is then code
            to complete, and gold the rest of it.
    """

    prompt: str = "prompt"
    gold: str = "gold"
    gold_in: str = "whole"
    gold_names: str | None = field(default=None, metadata={"choices": GOLD_NAMES})
    no_gold: list[str] = field(default_factory=list)
    level: str | int = "level"
    options: str | None = None
    shuffled: list[str] = field(default_factory=list)
    solutions: str | None = None
    thought: str | None = None
    only: dict[str, Any] = field(default_factory=dict, metadata=FREE_KEYS)
    checker: str = "math"
    family: str = "file"
    family_column: str | None = None
    levels: dict[Any, int] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)
    cases: dict[str, dict[str, Any]] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)
    system: str | None = field(default=None, metadata={"when_set": True})
    domain: str = field(default=DEFAULT_DOMAIN, metadata={"when_set": True})
    domain_column: str | None = field(default=None, metadata={"when_set": True})
    option_order: str = choice("dataset", "question", when_set=True)
    checker_column: str | None = field(default=None, metadata={"when_set": True})
    instructions: str | None = field(default=None, metadata={"when_set": True})
    instruction_arguments: str | None = field(default=None, metadata={"when_set": True})
    tests: dict[str, str] = field(default_factory=dict, metadata=FREE_KEYS_WHEN_SET)

    def check(self, key: str) -> None:
        """Raise UserError for values that fit no row; `key` is where they stand in the config."""
        if self.gold_in not in ("whole", "boxed") and not (
            self.gold_in.startswith(_AFTER) and self.gold_in.removeprefix(_AFTER).strip()
        ):
            raise UserError(
                f"{key}.gold_in: '{self.gold_in}' is unknown; choose whole, boxed or 'after MARK'"
            )
        check_levels(self.level, self.levels, key)
        check_domain(self.domain, f"{key}.domain")
        if self.options is not None and self.shuffled:
            raise UserError(f"{key}.shuffled: {key}.options names choices too; give one of the two")
        if len(self.shuffled) >= len(ascii_uppercase):
            raise UserError(f"{key}.shuffled: {len(self.shuffled)} columns; give at most 25")
        if self.instruction_arguments is not None and self.instructions is None:
            raise UserError(
                f"{key}.instruction_arguments: there is no column of their ids; name it in "
                f"{key}.instructions"
            )
        if self.cases:
            self._check_cases(f"{key}.cases")
        elif self.checker_column is None:
            check_tests(self.tests, self.checker, f"{key}.tests")

    def _check_cases(self, key: str) -> None:
        if len(self.cases) != 1:
            raise UserError(f"{key}: it names {len(self.cases)} columns; name one")
        (column,) = self.cases
        names = {item.name for item in fields(self)} - {"only", "cases"}
        for value, changes in self._by_value().items():
            if not isinstance(changes, Mapping):
                raise UserError(f"{key}: '{value}' is {changes!r}; give the keys that it replaces")
            for name in changes:
                if name not in names:
                    listed = ", ".join(sorted(names))
                    raise UserError(f"{key}: '{value}' has '{name}'; choose among {listed}")
            try:
                variant = OmegaConf.to_object(OmegaConf.structured(self._variant(changes)))
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                raise UserError(
                    f"{key}: '{value}' has a value of a wrong type ({reason})"
                ) from error
            assert isinstance(variant, RowMapping)
            variant.check(f"{key}.{column}.{value}")

    def _by_value(self) -> Mapping[str, Mapping[str, Any]]:
        """What each value of the column of `cases` replaces."""
        (by_value,) = self.cases.values()
        return by_value

    def _variant(self, changes: Mapping[str, Any]) -> "RowMapping":
        return replace(self, cases={}, **changes)

    def columns(self) -> dict[str, str]:
        """The columns that some row must have, each with the config key that names it.

        With `cases` these are the cases' own: a key that each of them replaces names no column.
        """
        if self.cases:
            selecting = dict.fromkeys(self.only, "data.rows.only")
            selecting |= dict.fromkeys(self.cases, "data.rows.cases")
            variants = [self._variant(changes) for changes in self._by_value().values()]
            return {
                column: key for one in variants for column, key in one.columns().items()
            } | selecting
        pairs: list[tuple[str, str | int | None]] = [
            ("prompt", self.prompt),
            ("gold", None if self._gold_is_instructions else self.gold),
            ("level", None if self.level == "level" else self.level),
            ("options", self.options),
            *(("shuffled", column) for column in self.shuffled),
            ("solutions", self.solutions),
            ("thought", self.thought),
            *(("only", column) for column in self.only),
            ("family_column", self.family_column),
            ("domain_column", self.domain_column),
            ("system", self.system),
            ("checker_column", self.checker_column),
            ("instructions", self.instructions),
            ("instruction_arguments", self.instruction_arguments),
            *((f"tests.{part}", column) for part, column in self.tests.items()),
        ]
        columns: dict[str, str] = {}
        for key, column in pairs:
            if isinstance(column, str):
                columns.setdefault(column, f"data.rows.{key}")
        return columns

    @property
    def _gold_is_instructions(self) -> bool:
        """Whether every row's instructions are its gold."""
        is_checker = self.checker == "instructions" and self.checker_column is None
        return is_checker and self.instructions is not None

    def selects(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has the values that `only` requires."""
        return all(
            value_at(row, column) in (required if isinstance(required, list) else [required])
            for column, required in self.only.items()
        )

    def for_row(self, row: Mapping[str, Any]) -> "RowMapping | None":
        """The mapping of a row: this one, or its case of this one; None = `only` leaves it out.

        Raises:
            RowError: `cases` does not have the row's value.
        """
        if not self.selects(row):
            return None
        if not self.cases:
            return self
        (column,) = self.cases
        value = value_at(row, column)
        by_value = self._by_value()
        if not isinstance(value, str | int) or str(value) not in by_value:
            raise RowError(
                "unlisted_case",
                f"'{column}' is {short_repr(value)}, which data.rows.cases.{column} does not have; "
                "add it, or leave such rows out with data.rows.only",
            )
        return self._variant(by_value[str(value)])

    def problem(
        self, row: Mapping[str, Any], name: str, columns: Sequence[str] | None = None
    ) -> Problem | None:
        """The problem in a row; None when it has no gold and `no_gold` allows that.

        Args:
            row: A row for which `for_row` gives this mapping.
            name: The row's file and line without folders, for the problem's metadata.
            columns: The dataset's columns, for an error; None = the row has all of them.

        Raises:
            RowError: The row lacks what the mapping names.
        """
        known_columns = row if columns is None else columns
        checker = row_checker(row, self.checker, self.checker_column)
        metadata: dict[str, Any] = {"row": name}
        gold: str | None = None
        if self.instructions is not None:
            instructions = row_instructions(
                row, self.instructions, self.instruction_arguments, known_columns
            )
            if checker == "instructions":
                gold = instructions_gold(instructions, self.instructions)
            elif instructions:
                metadata["instructions"] = instructions
        if gold is None:
            gold = self._gold(row, known_columns)
        if gold is None:
            return None
        conversation = self._conversation(row, known_columns)
        prompt = conversation.prompt
        choices, gold = self._choices(row, prompt, gold, checker, known_columns)
        if choices:
            lettered = zip(ascii_uppercase, choices, strict=False)
            prompt = "\n".join([prompt, *(f"{letter}) {text}" for letter, text in lettered)])
            metadata["choices"] = choices
        solutions = None if conversation.solution is None else [conversation.solution]
        if self.solutions is not None:
            solutions = read_solutions(row, self.solutions)
        if solutions is not None:
            metadata["solutions"] = with_thought(row, solutions, self.thought, known_columns)
        if self.tests and checker == PYTHON:
            code = value_at(row, self.gold) if self.gold_in == "whole" else gold
            program = program_problem(row, self.tests, prompt, str(code), known_columns)
            prompt, gold = program.prompt, program.gold
            metadata |= program.metadata
            if solutions is not None:
                metadata["solutions"] = [fenced(text) for text in metadata["solutions"]]
        return Problem(
            prompt,
            gold,
            checker,
            self._label(row, "family", known_columns),
            self._level(row),
            metadata,
            conversation.earlier,
            row_domain(self._label(row, "domain", known_columns), self.domain_column),
        )

    def _choices(
        self, row: Mapping[str, Any], prompt: str, gold: str, checker: str, columns: Iterable[str]
    ) -> tuple[list[str], str]:
        """The row's choices in the order of its question, and the gold."""
        if self.shuffled:
            wrong = wrong_choices(row, gold, self.shuffled, columns)
            return shuffled_by(prompt, [gold, *wrong], gold)
        # In a mixed corpus, rows of other checkers need none.
        needs_none = self.checker_column is not None and checker != "choice"
        if self.options is None or (needs_none and is_missing(value_at(row, self.options))):
            return [], gold
        if root_of(self.options, columns) is None:
            raise missing_column_error(self.options, "options", columns)
        texts, labels = read_options(value_at(row, self.options), self.options)
        gold = correct_letter(gold, texts, labels, self.gold_names, self.gold)
        if self.option_order == "question":
            return shuffled_by(prompt, texts, texts[ascii_uppercase.index(gold)])
        return texts, gold

    def _label(self, row: Mapping[str, Any], key: str, columns: Iterable[str]) -> str:
        """The row's `family` or `domain`: of its column where one is named, a text or a number."""
        column: str | None = getattr(self, f"{key}_column")
        if column is None:
            label: str = getattr(self, key)
            return label
        value = value_at(row, column)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return text_at(row, column, f"{key}_column", columns)

    def _conversation(self, row: Mapping[str, Any], columns: Iterable[str]) -> Conversation:
        system = None if self.system is None else value_at(row, self.system)
        if is_missing(system) or (isinstance(system, str) and is_blank(system)):
            system = None
        elif self.system is not None:
            system = text_at(row, self.system, "system", columns)
        value = value_at(row, self.prompt)
        if is_conversation(value):
            return read_conversation(value, self.prompt, system)
        prompt = text_at(row, self.prompt, "prompt", columns)
        return Conversation(() if system is None else (Message("system", system),), prompt, None)

    def _gold(self, row: Mapping[str, Any], columns: Iterable[str]) -> str | None:
        value = value_at(row, self.gold)
        whole = answer_text(value)
        answer: str | None = ""
        if whole is not None:
            answer = whole
            if self.gold_in == "boxed":
                answer = extract_answer(whole)
            elif self.gold_in != "whole":
                mark = self.gold_in.removeprefix(_AFTER)
                answer = whole.rpartition(mark)[2] if mark in whole else ""
        elif not is_missing(value):
            raise RowError(
                "unreadable_gold",
                f"'{self.gold}' is {short_repr(value)}; give one text or finite number"
                f"{nested_paths(value, self.gold)}",
            )
        gold = (answer or "").strip()
        if gold in self.no_gold:
            return None
        if not gold or is_blank(gold):
            if whole is None and root_of(self.gold, columns) is None:
                raise missing_column_error(self.gold, "gold", columns)
            missing_part = "" if self.gold_in == "whole" else f", without an answer {self.gold_in}"
            raise RowError(
                "missing_gold",
                f"'{self.gold}' is {short_repr(value)}{missing_part}; give a non-empty string, or "
                "skip such rows with data.rows.no_gold=['']",
            )
        check_text(gold, self.gold)
        return gold

    def _level(self, row: Mapping[str, Any]) -> int:
        if isinstance(self.level, int):
            return self.level
        value = value_at(row, self.level)
        if self.levels:
            return mapped_level(value, self.level, self.levels)
        return read_level(value, self.level)
