"""Compare an answer with gold by the problem's own rule; runs inside the pool's workers.

The kinds of checker are:

- `math`: a formula, list, interval, relation, time or word, see `math.py` and `README.md`;
- `number`: one exact number with its unit;
- `choice`: the letter of an option;
- `reasoning_gym/<family>`: that family's `score_answer`;
- `my_package.my_rule`: a function of the user's own, see `_check_own`.

None limits its own time or memory: the pool does. Some reasoning-gym scorers (e.g. `countdown`)
evaluate the answer as a Python expression, and a worker process is no sandbox against that.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import reasoning_gym

from reasoning_lab.targets import TRUSTED_VARIABLE, is_trusted, resolve
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.choice import LETTERS, SEVERAL, read_choice
from reasoning_lab.verify.math import is_math, math_verdict
from reasoning_lab.verify.number import Quantity, read_answer, read_number

_NUMERIC = re.compile(r"(?:\\[dt]?frac|[-+*/.,_(){}$\s0-9eEijIJ])+")
_DIGIT = re.compile(r"[0-9]")
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
        return _require_own_gold, _check_own
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
    """Call a full score correct; a partial one (reasoning-gym gives some) is wrong.

    Where gold is a number, what doesn't look like one is unparseable.
    """
    dataset = _dataset(problem)
    numeric = _NUMERIC.fullmatch(problem.gold) and _DIGIT.search(problem.gold)
    # `complex_arithmetic` scores min(1.0, exp(-distance)), which is 1.0 for a distance of NaN.
    if numeric and "nan" in answer.lower():
        return Verdict.UNPARSEABLE
    try:
        score = dataset.score_answer(answer, _entry(problem))
    except MemoryError:
        raise
    except Exception:
        _require_scorable_gold(problem)
        score = 0.0
    if score == 1.0:
        return Verdict.CORRECT
    return Verdict.UNPARSEABLE if numeric and not _NUMERIC.fullmatch(answer) else Verdict.WRONG


def _require_scorable_gold(problem: Problem) -> None:
    """Tell a scorer that chokes on the answer from one that chokes on the problem."""
    said = f"'{problem.checker}' can't score the gold"
    try:
        score = _dataset(problem).score_answer(problem.gold, _entry(problem))
    except (UserError, MemoryError):
        raise
    except Exception as error:
        _refuse(problem, said, f" ({type(error).__name__}: {error})")
    if score != 1.0:
        _refuse(problem, said, f" (it scores {score}, not 1)")


def _check_own(problem: Problem, answer: str) -> Verdict:
    """Ask `rule(problem, answer)`: True, False, or None for an answer that it cannot read.

    A ValueError, as `int("five")` raises, stands for None. Any other error is the rule's fault,
    and ends the run.
    """
    rule = resolve(problem.checker, "checker")
    try:
        right = rule(problem, answer)
    except ValueError:
        right = None
    if right is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if right else Verdict.WRONG


def _require_own_gold(problem: Problem) -> None:
    if _check_own(problem, problem.gold.strip()) is not Verdict.CORRECT:
        _refuse(problem, f"'{problem.checker}' does not find right its own gold")


def _entry(problem: Problem) -> dict[str, Any]:
    return {"question": problem.prompt, "answer": problem.gold, "metadata": problem.metadata}


def _dataset(problem: Problem) -> Any:
    family = problem.checker.partition("/")[2]
    try:
        return _dataset_of(family)
    except ValueError as error:
        raise UserError(
            f"{problem.origin}: reasoning-gym has no family '{family}' (checker "
            f"'{problem.checker}'); see its gallery for the names"
        ) from error


@cache
def _dataset_of(family: str) -> Any:
    return reasoning_gym.create_dataset(family)
