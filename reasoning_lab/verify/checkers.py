"""Compare an answer with gold by the problem's own checker; runs inside the workers.

The checkers are:

- `math`: a formula, list, interval, relation, time or word, see `math.py` and `README.md`;
- `number`: one exact number with its unit, see `number.py`;
- `choice`: the letter of an option, see `choice.py`;
- `reasoning_gym/<family>`: the scorer of that family, see the package `gym`;
- `my_package.my_checker`: a checker of the user, see `user_checkers.py`.

No checker limits its own time or memory: the workers do. None evaluates an answer as code in this
process. Only a user's checker may evaluate, in a separate process for each answer.
"""

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

from reasoning_lab.config.targets import TRUSTED_VARIABLE, is_trusted
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.choice import LETTERS, SEVERAL_OPTIONS, parse_choice
from reasoning_lab.verify.gym.families import (
    UnscorableGoldError,
    family_verdict,
    require_scorable_gold,
)
from reasoning_lab.verify.math import is_readable_gold, math_verdict
from reasoning_lab.verify.number import NumberWithUnit, parse_number, parse_number_answer
from reasoning_lab.verify.user_checkers import check_with_user_checker, user_checker_gold_error

# Imported here so that the fork server imports it once for all workers.
importlib.import_module("reasoning_gym")

_SHOWN_CHARS = 100


class UnreadableGoldError(UserError):
    """The checker cannot read the problem's gold: an error in the data."""


def check(problem: Problem, answer: str) -> Verdict:
    """Return whether `answer` matches `problem.gold` under `problem.checker`.

    The verdict is never TIMEOUT, which only the verifier gives.

    Raises:
        UnreadableGoldError: The checker can't read the gold.
        UserError: The checker is unknown, or `choices` is not a list of texts.
        MemoryError: The answer reached the worker's memory cap.
    """
    _, check_answer = _checker(problem)
    return check_answer(problem, answer)


def gold_error(problem: Problem) -> str | None:
    """Return why the checker can't read the problem's gold; None when it can.

    Raises:
        UserError: The checker is unknown, or `choices` is not a list of texts.
        MemoryError: As in `check`.
    """
    parse_gold, _ = _checker(problem)
    try:
        parse_gold(problem)
    except UnreadableGoldError as error:
        return str(error)
    return None


_GoldParser = Callable[[Problem], Any]
_AnswerChecker = Callable[[Problem, str], Verdict]


def _checker(problem: Problem) -> tuple[_GoldParser, _AnswerChecker]:
    """Return the checker's two functions: one parses the gold or raises, one compares."""
    kind, _, family = problem.checker.partition("/")
    if kind == "reasoning_gym" and family:
        return _parse_gym_gold, _check_reasoning_gym
    if is_trusted(problem.checker):
        return _parse_user_gold, check_with_user_checker
    try:
        return _CHECKERS[problem.checker]
    except KeyError:
        raise UserError(
            f"{problem.origin}: unknown checker '{problem.checker}'; use "
            f"{', '.join(repr(name) for name in _CHECKERS)}, 'reasoning_gym/<family>', or a "
            f"function of a package that {TRUSTED_VARIABLE} names"
        ) from None


def _refuse_gold(problem: Problem, reason: str, details: str = "") -> NoReturn:
    raise UnreadableGoldError(
        f"{problem.origin}: {reason} {problem.gold[:_SHOWN_CHARS]!r}{details}; "
        "correct or drop this problem in its data source"
    )


def _parse_math_gold(problem: Problem) -> None:
    if not is_readable_gold(problem.gold):
        _refuse_gold(problem, "'math' can't read the gold")


def _check_math(problem: Problem, answer: str) -> Verdict:
    verdict = math_verdict(problem.gold, answer)
    if verdict is None:
        _refuse_gold(problem, "'math' can't read the gold")
    return verdict


def _parse_number_gold(problem: Problem) -> NumberWithUnit:
    gold = parse_number(problem.gold)
    if gold is None:
        _refuse_gold(problem, "'number' can't read the gold")
    return gold


def _check_number(problem: Problem, answer: str) -> Verdict:
    gold = _parse_number_gold(problem)
    number = parse_number_answer(answer)
    if number is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if gold.matches(number) else Verdict.WRONG


def _parse_choice_gold(problem: Problem) -> str:
    letter = parse_choice(problem.gold, _choices(problem))
    if letter is None or letter == SEVERAL_OPTIONS:
        _refuse_gold(problem, "'choice' can't read the gold")
    return letter


def _check_choice(problem: Problem, answer: str) -> Verdict:
    gold = _parse_choice_gold(problem)
    letter = parse_choice(answer, _choices(problem))
    if letter is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if letter == gold else Verdict.WRONG


def _choices(problem: Problem) -> tuple[str, ...]:
    choices = problem.metadata.get("choices") or ()
    if (
        not isinstance(choices, list | tuple)
        or len(choices) > len(LETTERS)
        or not all(isinstance(choice, str) for choice in choices)
    ):
        raise UserError(
            f"{problem.origin}: 'choices' is {choices!r}; give a list of at most "
            f"{len(LETTERS)} texts, the one of A first"
        )
    return tuple(choices)


_CHECKERS: dict[str, tuple[_GoldParser, _AnswerChecker]] = {
    "math": (_parse_math_gold, _check_math),
    "number": (_parse_number_gold, _check_number),
    "choice": (_parse_choice_gold, _check_choice),
}


def _parse_gym_gold(problem: Problem) -> None:
    try:
        require_scorable_gold(problem)
    except UnscorableGoldError as error:
        _refuse_gold(problem, f"'{problem.checker}' can't score the gold", str(error))


def _check_reasoning_gym(problem: Problem, answer: str) -> Verdict:
    try:
        return family_verdict(problem, answer)
    except UnscorableGoldError as error:
        _refuse_gold(problem, f"'{problem.checker}' can't score the gold", str(error))


def _parse_user_gold(problem: Problem) -> None:
    details = user_checker_gold_error(problem)
    if details is not None:
        _refuse_gold(problem, f"'{problem.checker}' does not accept its own gold", details)
