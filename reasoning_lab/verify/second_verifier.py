"""A second verifier reads what the first called correct; where they disagree, one was deceived.

The second is another rule for the same gold: `math` for a family of reasoning-gym and for `number`,
and `number` for `math`. Choices and rules of a user's own have no second one. An answer that
repeats the gold's text is correct for both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from reasoning_lab.types import Problem, Rollout, Verdict
from reasoning_lab.verify.verifier import Verifier

_SECOND_CHECKERS = {"math": "number", "number": "math"}


class SecondReading(NamedTuple):
    """What the second verifier said of some correct rollouts.

    Attributes:
        read: How many it could judge.
        disagreed: How many of these are not correct by it.
    """

    read: int
    disagreed: int


def read_again(
    rollouts: Sequence[Rollout], verifier: Verifier, thought_prefix: str = ""
) -> SecondReading:
    """Verify rollouts that are correct by their own checker by a second one.

    Those without a second checker, or whose gold it cannot read, are left out.
    """
    seconds = [(rollout, problem) for rollout in rollouts if (problem := _second(rollout.problem))]
    unreadable = verifier.unreadable_golds([problem for _, problem in seconds])
    ids = {problem.id for problem in unreadable}
    readable = [(rollout, problem) for rollout, problem in seconds if problem.id not in ids]
    verdicts = verifier.verify(
        [problem for _, problem in readable],
        [thought_prefix + rollout.completion.text for rollout, _ in readable],
    )
    disagreed = sum(verdict is not Verdict.CORRECT for _, verdict in verdicts)
    return SecondReading(len(readable), disagreed)


def _second(problem: Problem) -> Problem | None:
    """The problem under its second checker."""
    is_generated = problem.checker.startswith("reasoning_gym/")
    checker = "math" if is_generated else _SECOND_CHECKERS.get(problem.checker)
    return None if checker is None else replace(problem, checker=checker)
