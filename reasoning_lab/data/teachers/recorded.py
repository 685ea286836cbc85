"""A teacher that returns the dataset's own worked solutions, in the recipe's format.

It serves datasets of a large model's chains of thought (OpenR1-Math, OpenThoughts, …) and of human
solutions (GSM8K, MATH, AQuA). `distill` verifies them like any teacher's. It rejects a solution
that does not end in the known answer, and a chain of thought that was cut off.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.data.teachers.config import RecordedTeacherConfig
from reasoning_lab.data.teachers.teacher import AnswerPattern
from reasoning_lab.models.think_tags import (
    THINK_CLOSE,
    THINK_OPEN,
    has_open_thought,
    merge_thoughts,
    strip_turn_end,
)
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify.extraction import (
    BOXED,
    AnswerForm,
    answer_form,
    boxed,
    extract_answer,
)

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
# If more than this fraction of a file's solutions end a thought, those without marks were cut off.
_THOUGHT_FRAC = 0.1
# GSM8K: "48/2 = <<48/2=24>>24", and a last line "#### 24".
_GSM8K_CALCULATION = re.compile(r"<<[^<>]*>>")
_GSM8K_ANSWER = "\n####"


class RecordedTeacher:
    """Reads `metadata["solutions"]`, which a source fills from `data.rows.solutions`.

    A problem with fewer solutions than `samples` returns all that it has.

    Raises:
        UserError: The pattern is no regular expression, or the marks are no pairs. Writing raises
            it for a problem without the key.
    """

    name = "recorded"

    def __init__(self, config: RecordedTeacherConfig) -> None:
        self._answer_pattern = AnswerPattern(config.answer_pattern)
        self._thought_marks = _MarkPairs([*_THOUGHT_MARKS, *config.marks])
        self._solution_marks = _MarkPairs(_SOLUTION_MARKS)
        # For each file: the number of its solutions, and of those that end a thought.
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
        return [
            self.completion(text, form=answer_form(problem.checker)).text
            for text in self._solutions(problem)[:1]
        ]

    def _solutions(self, problem: Problem) -> list[str]:
        if (refusal := self.refusal(problem)) is not None:
            raise UserError(f"teacher: {refusal}")
        solutions: list[str] = problem.metadata["solutions"]
        return solutions

    def observe(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """Yield the problems unchanged and count which files' solutions have thoughts."""
        for problem in problems:
            solutions = problem.metadata.get("solutions") or ()
            self._solution_counts[_file_name(problem)] += len(solutions)
            self._thought_counts[_file_name(problem)] += sum(
                map(self._thought_marks.has_closing, solutions)
            )
            yield problem

    def __call__(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        return [self._completions(problem, samples) for problem in problems]

    def _completions(self, problem: Problem, samples: int) -> list[Completion]:
        solutions, form = self._solutions(problem), answer_form(problem.checker)
        file = _file_name(problem)
        has_thoughts = any(map(self._thought_marks.has_closing, solutions)) or (
            self._thought_counts[file] > _THOUGHT_FRAC * self._solution_counts[file]
        )
        completions = [self.completion(text, has_thoughts, form) for text in solutions[:samples]]
        return [self._with_boxed_letter(c) if _is_choice(problem) else c for c in completions]

    def _with_boxed_letter(self, completion: Completion) -> Completion:
        """Box the option that the text behind a thought names, unless it boxes one itself."""
        thought, end, answer = completion.text.rpartition(THINK_CLOSE)
        letter = self._answer_pattern.last_answer(answer)
        if not end or completion.truncated or letter is None or extract_answer(answer) is not None:
            return completion
        return replace(completion, text=f"{thought}{end}{answer}\n{boxed(letter.strip())}")

    def completion(
        self, solution: str, has_thoughts: bool = False, form: AnswerForm = BOXED
    ) -> Completion:
        """The solution as a thought and a boxed answer; without a box where it has no answer.

        A solution without a thought stays as it is where the answer's form is no box.
        `has_thoughts`: the dataset's solutions have thoughts, so a solution without the end of a
        thought was cut off.
        """
        text = self._thought_marks.replace(strip_turn_end(solution), THINK_OPEN, THINK_CLOSE)
        cut_off = has_open_thought(text) or self._solution_marks.ends_open(text)
        text = strip_turn_end(self._solution_marks.replace(text, "", "")).strip()
        if THINK_CLOSE in text or THINK_OPEN in text:
            return Completion([], merge_thoughts(text), truncated=cut_off)
        if has_thoughts or cut_off:
            return Completion([], f"{THINK_OPEN}\n{text}", truncated=True)
        if form is not BOXED:
            return Completion([], text)
        return Completion([], self._from_unmarked(text))

    def _from_unmarked(self, solution: str) -> str:
        """Make the whole text the thought and box its answer after it."""
        solution = _GSM8K_CALCULATION.sub("", solution)
        answer = extract_answer(solution)
        if answer is None:
            solution, answer = self._split_answer(solution)
        thought = f"{THINK_OPEN}\n{solution.strip()}\n{THINK_CLOSE}"
        return f"{thought}\n{boxed(answer.strip())}" if answer else thought

    def _split_answer(self, solution: str) -> tuple[str, str | None]:
        """Split the working from the answer that it ends with."""
        body, mark, last = f"\n{solution.rstrip()}".rpartition(_GSM8K_ANSWER)
        if mark and "\n" not in last:
            return body, last
        return solution, self._answer_pattern.last_answer(solution)


class _MarkPairs:
    """Pairs of an opening and a closing mark, matched without regard to case."""

    def __init__(self, pairs: Sequence[Sequence[str]]) -> None:
        for pair in pairs:
            if len(pair) != 2 or not all(mark.strip() for mark in pair):
                raise UserError(
                    f"teacher.marks: {pair!r} is no pair of different marks; give each as "
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

    def replace(self, text: str, opening: str, closing: str) -> str:
        """Replace every opening and every closing mark of `text`."""
        return self._pattern.sub(lambda mark: opening if self._is_opening(mark) else closing, text)

    def has_closing(self, text: str) -> bool:
        """Whether a closing mark occurs."""
        return not all(map(self._is_opening, self._pattern.finditer(text)))

    def ends_open(self, text: str) -> bool:
        """Whether the last mark is an opening."""
        last = max(self._pattern.finditer(text), key=re.Match.start, default=None)
        return last is not None and self._is_opening(last)

    def _is_opening(self, mark: re.Match[str]) -> bool:
        return mark[0].casefold() in self._openings


def _is_choice(problem: Problem) -> bool:
    return problem.checker == "choice"


def _file_name(problem: Problem) -> str:
    """The file that a problem was read from; its family where it names no row."""
    row: str | None = problem.metadata.get("row")
    return problem.family if row is None else str(row).rpartition(",")[0]
