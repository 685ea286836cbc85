"""What a checker returns: the verdict on an answer, or the error of a gold."""

from dataclasses import dataclass, replace
from typing import NoReturn

from reasoning_lab.types import Problem, Rollout, UserError, Verdict

_SHOWN_CHARS = 100


class UnreadableGoldError(UserError):
    """The checker cannot read the problem's gold: an error in the data."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the verifier says of a completion.

    Attributes:
        answer: The extracted answer; None = there was none.
        verdict: The verdict on it.
        passed_frac: The fraction of the problem's tests that it passed, in [0, 1]; None = its
            checker has no tests.
    """

    answer: str | None
    verdict: Verdict
    passed_frac: float | None = None

    def applied_to(self, rollout: Rollout) -> Rollout:
        """Return the rollout with this judgement instead of its own."""
        return replace(
            rollout, answer=self.answer, verdict=self.verdict, passed_frac=self.passed_frac
        )


def refuse_gold(
    problem: Problem, reason: str = "can't read the gold", details: str = ""
) -> NoReturn:
    """Raise UnreadableGoldError with the problem's origin and checker, the reason and the gold."""
    raise UnreadableGoldError(
        f"{problem.origin}: '{problem.checker}' {reason} {problem.gold[:_SHOWN_CHARS]!r}{details}; "
        "correct or drop this problem in its data source"
    )


def verdict_of(is_correct: bool | None) -> Verdict:
    """Return the verdict on an answer; None = the checker cannot read it."""
    if is_correct is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if is_correct else Verdict.WRONG
