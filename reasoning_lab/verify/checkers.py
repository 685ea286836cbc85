"""Compare an answer with gold by the problem's own rule; runs inside the pool's workers.

The kinds of checker are:

- `math`: a formula, list, interval, relation, time or word, see `math.py` and `README.md`;
- `number`: one exact number with its unit;
- `choice`: the letter of an option;
- `reasoning_gym/<family>`: that family's own meaning, see the package `gym`;
- `my_package.my_rule`: a rule of the user's own, see `own_rules.py`.

None limits its own time or memory: the pool does. None evaluates an answer as code here: only a
user's rule may, in a process of its own for each answer.
"""

from collections.abc import Callable
from typing import Any, NoReturn

# Imported here so that a fork of the server has it.
import reasoning_gym  # noqa: F401

from reasoning_lab.config.targets import TRUSTED_VARIABLE, is_trusted
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.choice import LETTERS, SEVERAL, read_choice
from reasoning_lab.verify.gym import UnscorableGoldError, family_verdict, require_scorable_gold
from reasoning_lab.verify.math import is_math, math_verdict
from reasoning_lab.verify.number import Quantity, read_answer, read_number
from reasoning_lab.verify.own_rules import check_own, own_gold_complaint

_SHOWN_CHARS = 100


class UnreadableGoldError(UserError):
    """The checker cannot read the problem's gold: an error in the data."""


def check(problem: Problem, answer: str) -> Verdict:
    """Say whether `answer` matches `problem.gold` under `problem.checker`.

    Never returns TIMEOUT, which is the pool's to give.

    Raises:
        UnreadableGoldError: The checker can't read the gold.
        UserError: The checker is unknown, or `choices` are no list of texts.
        MemoryError: The worker's cap was reached and the checker's library didn't swallow it.
    """
    return _checker(problem)[1](problem, answer)


def gold_complaint(problem: Problem) -> str | None:
    """Say why the checker can't read the problem's gold; None when it can.

    Raises:
        UserError: The checker is unknown, or `choices` are no list of texts.
        MemoryError: As in `check`.
    """
    try:
        _checker(problem)[0](problem)
    except UnreadableGoldError as error:
        return str(error)
    return None


_GoldReader = Callable[[Problem], Any]
_AnswerChecker = Callable[[Problem, str], Verdict]


def _checker(problem: Problem) -> tuple[_GoldReader, _AnswerChecker]:
    """The two functions of the problem's checker: one reads gold or raises, one compares."""
    kind, _, family = problem.checker.partition("/")
    if kind == "reasoning_gym" and family:
        return _require_scorable_gold, _check_reasoning_gym
    if is_trusted(problem.checker):
        return _require_own_gold, check_own
    try:
        return _CHECKERS[problem.checker]
    except KeyError:
        raise UserError(
            f"{problem.origin}: unknown checker '{problem.checker}'; use "
            f"{', '.join(repr(name) for name in _CHECKERS)}, 'reasoning_gym/<family>', or a "
            f"function of a package that {TRUSTED_VARIABLE} names"
        ) from None


def _refuse(problem: Problem, complaint: str, because: str = "") -> NoReturn:
    raise UnreadableGoldError(
        f"{problem.origin}: {complaint} {problem.gold[:_SHOWN_CHARS]!r}{because}; "
        "correct or drop this problem in its data source"
    )


def _require_math_gold(problem: Problem) -> None:
    if not is_math(problem.gold):
        _refuse(problem, "'math' can't read the gold")


def _check_math(problem: Problem, answer: str) -> Verdict:
    verdict = math_verdict(problem.gold, answer)
    if verdict is None:
        _refuse(problem, "'math' can't read the gold")
    return verdict


def _number_gold(problem: Problem) -> Quantity:
    gold = read_number(problem.gold)
    if gold is None:
        _refuse(problem, "'number' can't read the gold")
    return gold


def _check_number(problem: Problem, answer: str) -> Verdict:
    gold = _number_gold(problem)
    quantity = read_answer(answer)
    if quantity is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if gold.matches(quantity) else Verdict.WRONG


def _choice_gold(problem: Problem) -> str:
    named = read_choice(problem.gold, _choices(problem))
    if named is None or named == SEVERAL:
        _refuse(problem, "'choice' can't read the gold")
    return named


def _check_choice(problem: Problem, answer: str) -> Verdict:
    gold = _choice_gold(problem)
    named = read_choice(answer, _choices(problem))
    if named is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if named == gold else Verdict.WRONG


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


_CHECKERS: dict[str, tuple[_GoldReader, _AnswerChecker]] = {
    "math": (_require_math_gold, _check_math),
    "number": (_number_gold, _check_number),
    "choice": (_choice_gold, _check_choice),
}


def _check_reasoning_gym(problem: Problem, answer: str) -> Verdict:
    try:
        return family_verdict(problem, answer)
    except UnscorableGoldError as error:
        _refuse(problem, f"'{problem.checker}' can't score the gold", str(error))


def _require_scorable_gold(problem: Problem) -> None:
    try:
        require_scorable_gold(problem)
    except UnscorableGoldError as error:
        _refuse(problem, f"'{problem.checker}' can't score the gold", str(error))


def _require_own_gold(problem: Problem) -> None:
    complaint = own_gold_complaint(problem)
    if complaint is not None:
        _refuse(problem, f"'{problem.checker}' does not find right its own gold", complaint)
