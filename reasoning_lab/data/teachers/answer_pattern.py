"""Final answers in prose, for solutions that box none."""

import re

from reasoning_lab.types import UserError


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
