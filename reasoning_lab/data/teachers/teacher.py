"""What every teacher must provide, and the format in which all of them write a final answer."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from reasoning_lab.config.hardware import HardwareConfig
from reasoning_lab.types import Completion, Problem, UserError

# A teacher that is ready to write: from problems, the number of samples and a seed that fixes them,
# it makes at most so many completions of each problem. They carry no token ids, because the
# student's tokenizer may differ from the teacher's. A completion that was cut off is `truncated`,
# and its thought stays open.
SolutionWriter = Callable[[Sequence[Problem], int, int], list[list[Completion]]]


class Teacher(Protocol):
    """Whatever writes worked solutions for the `distill` stage.

    Composition creates one to check its options, so construction must be cheap.

    Attributes:
        name: The author that its rollouts name.
    """

    name: str

    def open(self, hardware: HardwareConfig) -> AbstractContextManager[SolutionWriter]:
        """Load what writing needs, e.g. a model, and free it at the end."""
        ...

    def refusal(self, problem: Problem) -> str | None:
        """Why it cannot solve `problem`, with the remedy; None = it can."""
        ...

    def preview(self, problem: Problem, seed: int) -> Sequence[str]:
        """What it would write about `problem`; empty where only a model could say."""
        ...


@runtime_checkable
class ObservingTeacher(Protocol):
    """A teacher that must see all problems before it writes."""

    def observe(self, problems: Iterator[Problem]) -> Iterator[Problem]:
        """Yield the problems unchanged and record what writing needs to know about them."""
        ...


class AnswerPattern:
    """A regular expression that matches a final answer in prose.

    Args:
        pattern: The expression. The answer is the only one of its groups that matches.

    Raises:
        UserError: It is no regular expression, or has no group.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(
                f"teacher.answer_pattern: '{pattern}' is no regular expression ({error}); "
                "correct it"
            ) from error
        if not self._pattern.groups:
            raise UserError(
                f"teacher.answer_pattern: '{pattern}' has no group; put the answer in (…)"
            )

    def last_answer(self, text: str) -> str | None:
        """The answer in the last match; None where nothing matches."""
        answer = None
        for match in self._pattern.finditer(text):
            answer = next((group for group in match.groups() if group), answer)
        return answer
