"""A teacher that hands out the dataset's own worked solutions, in the recipe's format.

For datasets of a large model's chains of thought (OpenR1-Math, OpenThoughts, …) and of human
solutions (GSM8K, MATH, AQuA). `distill` verifies them like any teacher's: what does not end in
the known answer is rejected.
"""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from reasoning_lab.data.prose_answers import ProseAnswers
from reasoning_lab.data.teacher import boxed
from reasoning_lab.hardware import HardwareConfig
from reasoning_lab.types import Completion, Problem, UserError
from reasoning_lab.verify.answers import extract_answer

_BEGIN, _END = "<think>", "</think>"
# Sky-T1's marks, which OpenThoughts and Bespoke-Stratos keep.
_MARKS = {
    "<|begin_of_thought|>": _BEGIN,
    "<|end_of_thought|>": _END,
    "<|begin_of_solution|>": "",
    "<|end_of_solution|>": "",
}
# GSM8K: "48/2 = <<48/2=24>>24", and a last line "#### 24".
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_LAST_LINE = "\n####"


class RecordedTeacher:
    """Reads `metadata["solutions"]`, which a source fills from `data.rows.solutions`.

    A problem with fewer solutions than are asked for gives those that it has.

    Args:
        answer_pattern: Regular expression of a final answer in prose, the answer its only
            group that matches; the last match counts. For solutions without a box or `####`.

    Raises:
        UserError: For a pattern that is none; when it writes, for a problem without the key.
    """

    name = "recorded"

    def __init__(self, answer_pattern: str) -> None:
        self._answers = ProseAnswers(answer_pattern)

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

    def __call__(
        self, problems: Sequence[Problem], samples: int, seed: int
    ) -> list[list[Completion]]:
        return [
            [Completion([], self.formatted(text)) for text in _solutions(problem)[:samples]]
            for problem in problems
        ]

    def formatted(self, solution: str) -> str:
        """The solution as a thought and a boxed answer; without a box where it has no answer."""
        for mark, ours in _MARKS.items():
            solution = solution.replace(mark, ours)
        if _END in solution:
            solution = solution.strip()
            return solution if solution.startswith(_BEGIN) else f"{_BEGIN}\n{solution}"
        solution = _CALCULATOR.sub("", solution)
        answer = extract_answer(solution)
        if answer is None:
            solution, answer = self._divided(solution)
        thought = f"{_BEGIN}\n{solution.strip()}\n{_END}"
        return f"{thought}\n{boxed(answer.strip())}" if answer else thought

    def _divided(self, solution: str) -> tuple[str, str | None]:
        """The working, and the answer that it ends with."""
        body, mark, last = f"\n{solution.rstrip()}".rpartition(_LAST_LINE)
        if mark and "\n" not in last:
            return body, last
        return solution, self._answers.last(solution)


def _solutions(problem: Problem) -> list[str]:
    found: list[str] | None = problem.metadata.get("solutions")
    if found is None:
        raise UserError(
            f"teacher: {problem.metadata.get('row', f'problem {problem.id}')} has no recorded "
            "solutions; name their column in data.rows.solutions, or choose another teacher"
        )
    return found
