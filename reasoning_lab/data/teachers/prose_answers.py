"""Final answers that are told in prose, for solutions that box none."""

import re

from reasoning_lab.types import UserError


class ProseAnswers:
    """Finds the answer that a text ends with.

    Args:
        pattern: Regular expression of a final answer, the answer its only group that matches.

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

    def last(self, text: str) -> str | None:
        """The group of the last match; None where nothing matches."""
        answer = None
        for match in self._pattern.finditer(text):
            answer = next((group for group in match.groups() if group), answer)
        return answer
