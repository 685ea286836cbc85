"""Compare an answer with gold by the problem's own checker; runs inside the workers.

The checkers are:

- `math`: a formula, list, interval, relation, time or word, see `math.py` and `DECISIONS.md`;
- `number`: one exact number with its unit, see `number.py`;
- `choice`: the letter of an option, see `choice.py`;
- `instructions`: the form of the whole response, see the package `instructions`;
- `reasoning_gym/<family>`: the scorer of that family, see the package `gym`;
- `my_package.my_checker`: a checker of the user, see `user_checkers.py`.

Programs are not compared but run, so the checker `python` is not here; see the package `programs`.

No checker limits its own time or memory: the workers do. None evaluates an answer as code in this
process. Only a user's checker may evaluate, in a separate process for each answer.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from reasoning_lab.config.targets import TRUSTED_VARIABLE, is_trusted
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.choice import LETTERS, SEVERAL_OPTIONS, parse_choice
from reasoning_lab.verify.gym.families import family_verdict, require_scorable_gold
from reasoning_lab.verify.instructions import (
    Instruction,
    InstructionError,
    followed,
    parse_instructions,
)
from reasoning_lab.verify.math import is_readable_gold, math_verdict
from reasoning_lab.verify.number import NumberWithUnit, parse_number, parse_number_answer
from reasoning_lab.verify.user_checkers import check_with_user_checker, require_accepted_gold
from reasoning_lab.verify.verdicts import UnreadableGoldError, refuse_gold, verdict_of

# Imported here so that the fork server imports it once for all workers.
importlib.import_module("reasoning_gym")


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


# The functions of a checker: one parses the gold or raises, one compares an answer with it.
_Checker = tuple[Callable[[Problem], Any], Callable[[Problem, str], Verdict]]


def _checker(problem: Problem) -> _Checker:
    kind, _, family = problem.checker.partition("/")
    if kind == "reasoning_gym" and family:
        return require_scorable_gold, family_verdict
    if is_trusted(problem.checker):
        return require_accepted_gold, check_with_user_checker
    try:
        return _CHECKERS[problem.checker]
    except KeyError:
        raise UserError(
            f"{problem.origin}: unknown checker '{problem.checker}'; use "
            f"{', '.join(repr(name) for name in _CHECKERS)}, 'python', 'reasoning_gym/<family>', "
            f"or a function of a package that {TRUSTED_VARIABLE} names"
        ) from None


def _parse_math_gold(problem: Problem) -> None:
    if not is_readable_gold(problem.gold):
        refuse_gold(problem)


def _check_math(problem: Problem, answer: str) -> Verdict:
    return math_verdict(problem.gold, answer) or refuse_gold(problem)


def _parse_number_gold(problem: Problem) -> NumberWithUnit:
    return parse_number(problem.gold) or refuse_gold(problem)


def _check_number(problem: Problem, answer: str) -> Verdict:
    gold, number = _parse_number_gold(problem), parse_number_answer(answer)
    return verdict_of(None if number is None else gold.matches(number))


def _parse_choice_gold(problem: Problem) -> str:
    letter = parse_choice(problem.gold, _choices(problem))
    if letter is None or letter == SEVERAL_OPTIONS:
        refuse_gold(problem)
    return letter


def _check_choice(problem: Problem, answer: str) -> Verdict:
    gold, letter = _parse_choice_gold(problem), parse_choice(answer, _choices(problem))
    return verdict_of(None if letter is None else letter == gold)


def _parse_instructions_gold(problem: Problem) -> Sequence[Instruction]:
    try:
        return parse_instructions(problem.gold)
    except InstructionError as error:
        refuse_gold(problem, details=f" ({error})")


def _check_instructions(problem: Problem, answer: str) -> Verdict:
    return verdict_of(all(followed(_parse_instructions_gold(problem), answer, "strict")))


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


_CHECKERS: dict[str, _Checker] = {
    "math": (_parse_math_gold, _check_math),
    "number": (_parse_number_gold, _check_number),
    "choice": (_parse_choice_gold, _check_choice),
    "instructions": (_parse_instructions_gold, _check_instructions),
}
