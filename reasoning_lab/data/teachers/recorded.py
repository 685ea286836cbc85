"""A teacher that hands out the dataset's own worked solutions, in the recipe's format.

For datasets of a large model's chains of thought (OpenR1-Math, OpenThoughts, …) and of human
solutions (GSM8K, MATH, AQuA). `distill` verifies them like any teacher's: what does not end in
the known answer is rejected, and so is a chain of thought that was cut off.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.procedural import boxed
from reasoning_lab.data.teachers.prose_answers import ProseAnswers
from reasoning_lab.models.thoughts import (
    THINK_CLOSE,
    THINK_OPEN,
    is_cut_off,
    with_one_thought,
    without_turn_end,
)
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify.extraction import extract_answer

_THOUGHT_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    # Sky-T1's, which OpenThoughts and Bespoke-Stratos keep.
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
)
_SOLUTION_MARKS = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<answer>", "</answer>"),
)
# Of a file whose solutions end a thought so often, those without any mark were cut off.
_THOUGHTFUL_FRAC = 0.1
# GSM8K: "48/2 = <<48/2=24>>24", and a last line "#### 24".
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_LAST_LINE = "\n####"


class RecordedTeacher:
    """Reads `metadata["solutions"]`, which a source fills from `data.rows.solutions`.

    A problem with fewer solutions than are asked for gives those that it has.

    Args:
        answer_pattern: Regular expression of a final answer in prose, the answer its only
            group that matches; the last match counts. For solutions without a box or `####`.
        marks: Pairs of what begins and what ends a thought in the dataset's texts, beside those of
            the common families; upper case is lower case. They become `<think>` and `</think>`.

    Raises:
        UserError: For a pattern that is none or marks that are no pairs; when it writes, for a
            problem without the key.
    """

    name = "recorded"

    def __init__(self, answer_pattern: str, marks: Sequence[Sequence[str]] = ()) -> None:
        self._answers = ProseAnswers(answer_pattern)
        self._thought = _Marks([*_THOUGHT_MARKS, *marks])
        self._solution = _Marks(_SOLUTION_MARKS)
        # By file: its solutions, and those among them that end a thought.
        self._solution_counts: Counter[str] = Counter()
        self._thought_counts: Counter[str] = Counter()

    def open(self, hardware: HardwareConfig) -> AbstractContextManager["RecordedTeacher"]:
        return nullcontext(self)

    def refusal(self, problem: Problem) -> str | None:
        if problem.metadata.get("solutions") is not None:
            return None
        return (
            f"{problem.origin} has no recorded solutions; name their column in "
            "data.rows.solutions, or choose another teacher"
        )

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        return [self.formatted(text) for text in _solutions(problem)[:1]]

    def survey(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """The problems as they come; takes note of which files' solutions have thoughts."""
        for problem in problems:
            solutions = problem.metadata.get("solutions") or ()
            self._solution_counts[_file_of(problem)] += len(solutions)
            self._thought_counts[_file_of(problem)] += sum(map(self._thought.ends_in, solutions))
            yield problem

    def __call__(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        return [self._completions(problem, samples) for problem in problems]

    def _completions(self, problem: Problem, samples: int) -> list[Completion]:
        solutions = _solutions(problem)
        file = _file_of(problem)
        thoughtful = any(map(self._thought.ends_in, solutions)) or (
            self._thought_counts[file] > _THOUGHTFUL_FRAC * self._solution_counts[file]
        )
        return [self.completion(solution, thoughtful) for solution in solutions[:samples]]

    def formatted(self, solution: str) -> str:
        """The text of `completion`, of a dataset of which nothing else is known."""
        return self.completion(solution).text

    def completion(self, solution: str, thoughtful: bool = False) -> Completion:
        """The solution as a thought and a boxed answer; without a box where it has no answer.

        Args:
            solution: As the dataset has it.
            thoughtful: Whether the dataset's solutions have thoughts, so that one without the end
                of a thought was cut off.
        """
        text = self._thought.replaced(without_turn_end(solution), THINK_OPEN, THINK_CLOSE)
        cut_off = is_cut_off(text) or self._solution.last_is_open(text)
        text = without_turn_end(self._solution.replaced(text, "", "")).strip()
        if THINK_CLOSE in text or THINK_OPEN in text:
            return Completion([], with_one_thought(text), truncated=cut_off)
        if thoughtful or cut_off:
            return Completion([], f"{THINK_OPEN}\n{text}", truncated=True)
        return Completion([], self._human(text))

    def _human(self, solution: str) -> str:
        """A solution without marks: all of it is the thought, its answer is boxed behind it."""
        solution = _CALCULATOR.sub("", solution)
        answer = extract_answer(solution)
        if answer is None:
            solution, answer = self._divided(solution)
        thought = f"{THINK_OPEN}\n{solution.strip()}\n{THINK_CLOSE}"
        return f"{thought}\n{boxed(answer.strip())}" if answer else thought

    def _divided(self, solution: str) -> tuple[str, str | None]:
        """The working, and the answer that it ends with."""
        body, mark, last = f"\n{solution.rstrip()}".rpartition(_LAST_LINE)
        if mark and "\n" not in last:
            return body, last
        return solution, self._answers.last(solution)


class _Marks:
    """Pairs of marks, each an opening and a closing, read in capitals or not."""

    def __init__(self, pairs: Sequence[Any]) -> None:
        wrong = [pair for pair in pairs if not _is_pair(pair)]
        if wrong:
            raise UserError(
                f"teacher.marks: {wrong[0]!r} is no pair of different marks; give each as "
                "[OPENING, CLOSING]"
            )
        marks = [mark for pair in pairs for mark in pair]
        if len({mark.casefold() for mark in marks}) < len(marks):
            raise UserError(
                f"teacher.marks: a mark of {pairs[-1]!r} is there already; give each once, and "
                "none of the common families', in pairs [OPENING, CLOSING]"
            )
        self._openings = {opening.casefold() for opening, _ in pairs}
        longest_first = sorted(marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)

    def replaced(self, text: str, opening: str, closing: str) -> str:
        """The text with these in the place of the marks."""
        return self._pattern.sub(lambda mark: opening if self._opens(mark) else closing, text)

    def ends_in(self, text: str) -> bool:
        """Whether a closing mark occurs."""
        return not all(map(self._opens, self._pattern.finditer(text)))

    def last_is_open(self, text: str) -> bool:
        """Whether the last mark is an opening."""
        last = max(self._pattern.finditer(text), key=re.Match.start, default=None)
        return last is not None and self._opens(last)

    def _opens(self, mark: re.Match[str]) -> bool:
        return mark[0].casefold() in self._openings


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(mark, str) and mark.strip() for mark in pair)
    )


def _file_of(problem: Problem) -> str:
    """What its place names before the row; its family where it has no place."""
    row: str | None = problem.metadata.get("row")
    return problem.family if row is None else str(row).rpartition(",")[0]


def _solutions(problem: Problem) -> list[str]:
    metadata: Mapping[str, list[str] | None] = problem.metadata
    solutions = metadata.get("solutions")
    if solutions is None:
        raise UserError(
            f"teacher: {problem.metadata.get('row', f'problem {problem.id}')} has no recorded "
            "solutions; name their column in data.rows.solutions, or choose another teacher"
        )
    return solutions
