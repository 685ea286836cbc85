"""Compare an answer with gold by the problem's own rule; runs inside the pool's workers.

The kinds of checker are:

- `math`: math-verify (https://github.com/huggingface/Math-Verify);
- `number`: one exact number with its unit;
- `choice`: a letter from A to E;
- `reasoning_gym/<family>`: that family's own meaning, see the package `gym`;
- `my_package.my_rule`: a function of the user's own, see `_check_own`.

None limits its own time or memory: the pool does. None evaluates an answer as code.
"""

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from numbers import Rational
from typing import Any, NoReturn

import math_verify

# Imported here so that a fork of the server has it.
import reasoning_gym  # noqa: F401

from reasoning_lab.targets import TRUSTED_VARIABLE, is_trusted, resolve
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.choice import LETTERS, SEVERAL, read_choice
from reasoning_lab.verify.gym import UnscorableGoldError, family_verdict, require_scorable_gold
from reasoning_lab.verify.number import Quantity, read_number
from reasoning_lab.verify.sandbox import in_child

_LOG = logging.getLogger(__name__)

# With these left in, "3$ or $5" would be read as its last part alone.
_MATH_MODE = re.compile(r"(?<!\\)\$")
_PLAIN_NUMBER = re.compile(
    r"(?:\\\$)?(?P<decimal>-?(?:0|[1-9][0-9]{0,8}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,2})(?:\.[0-9]{1,6})?)"
    r"|(?P<sign>-?)\\[dt]?frac\{(?P<top>[0-9]{1,9})\}\{(?P<bottom>[1-9][0-9]{0,8})\}"
)
_SURELY_APART = Fraction(1, 100_000)
_SHOWN_CHARS = 100
# math-verify reads none of these as they are meant.
_FINAL_STOP = re.compile(r"(?<=[^\s.])\s*[.,;]$")
_IMAGINARY = re.compile(r"(?<=[0-9])\s+(?=i(?![A-Za-z]))")
_PERCENT = re.compile(r"\\?%$")
_BASES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_IN_BASE = re.compile(
    r"\(?(?P<digits>(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]+)\)?\s*_\s*\{?(?:\\text\s*\{)?\s*"
    rf"(?P<base>[0-9]+|{'|'.join(_BASES)})\s*\}}?\}}?"
)

# It warns once a process that its timeouts are off, which is what the pool wants.
logging.getLogger("math_verify").setLevel(logging.ERROR)


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


def _math_gold(problem: Problem) -> list[Any]:
    gold = _parse_math(problem.gold)
    if not gold:
        _refuse(problem, "math-verify can't read the gold")
    return gold


def _evaluate_math_gold(problem: Problem) -> None:
    """Read the gold and work it out, which shows one that no answer could be compared with."""
    (gold, *_) = _math_gold(problem)
    try:
        gold.doit()
    except MemoryError:
        raise
    except Exception as error:
        # math-verify compares such a gold unevaluated.
        _LOG.debug("%s: not evaluated (%s)", problem.origin, error)


def _check_math(problem: Problem, answer: str) -> Verdict:
    answer = _FINAL_STOP.sub("", answer)
    for rule in (_numbers_verdict, _bases_verdict, _percent_verdict):
        decided = rule(problem.gold, answer)
        if decided is not None:
            return decided
    gold = _math_gold(problem)
    parsed = _parse_math(answer)
    if not parsed:
        return Verdict.UNPARSEABLE
    # Not symmetric: gold comes first.
    equal = math_verify.verify(gold, parsed, timeout_seconds=None)
    return Verdict.CORRECT if equal and not _exactly_apart(gold[0], parsed[0]) else Verdict.WRONG


def _numbers_verdict(gold: str, answer: str) -> Verdict | None:
    """What math-verify says of two ordinary numbers, in a hundredth of its time; else None.

    It rounds differences to six decimals, so what is nearly equal is left to it.
    """
    left, right = _plain_number(gold), _plain_number(answer)
    if left is None or right is None:
        return None
    if left == right:
        return Verdict.CORRECT
    return Verdict.WRONG if abs(left - right) > _SURELY_APART else None


def _bases_verdict(gold: str, answer: str) -> Verdict | None:
    """Of two numbers with their bases, which math-verify leaves out of account; else None."""
    left, right = _IN_BASE.fullmatch(gold.strip()), _IN_BASE.fullmatch(answer.strip())
    if left is None or right is None:
        return None
    same = all(_written(left, part) == _written(right, part) for part in ("digits", "base"))
    return Verdict.CORRECT if same else Verdict.WRONG


def _written(number: re.Match[str], part: str) -> str:
    """Its digits without zeros in front, or its base as a number."""
    if part == "base" and number["base"] in _BASES:
        return str(2 + _BASES.index(number["base"]))
    return number[part].upper().lstrip("0")


def _percent_verdict(gold: str, answer: str) -> Verdict | None:
    """Correct where one is the other as a percentage: 12% and 0.12; else None.

    That 12% is 12, as MATH's golds have it, is left to math-verify.
    """
    sides = [(_PERCENT.sub("", side.strip()), _PERCENT.search(side)) for side in (gold, answer)]
    if (sides[0][1] is None) == (sides[1][1] is None):
        return None
    values = [_plain_number(text.strip()) for text, _ in sides]
    if values[0] is None or values[1] is None:
        return None
    hundredths = [
        v / 100 if sign else v for v, (_, sign) in zip(values, sides, strict=True) if v is not None
    ]
    return Verdict.CORRECT if hundredths[0] == hundredths[1] else None


def _plain_number(text: str) -> Fraction | None:
    """A decimal or a fraction of integers, so short that a float holds it to six decimals."""
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["decimal"]:
        return Fraction(match["decimal"].replace(",", ""))
    return Fraction(f"{match['sign']}{match['top']}/{match['bottom']}")


def _exactly_apart(gold: Any, answer: Any) -> bool:
    """Whether both are exact rational numbers and differ.

    math-verify evaluates a difference to 15 digits, where 1/20! - 1/21! is nothing.
    """
    if not all(getattr(side, "is_rational", False) for side in (gold, answer)):
        return False
    left, right = gold.doit(), answer.doit()
    return isinstance(left, Rational) and isinstance(right, Rational) and left != right


@lru_cache(maxsize=256)
def _parse_math(text: str) -> list[Any]:
    """Read `text` as one formula; empty when math-verify can't.

    Cached because the samples of one problem share its gold.
    """
    formula = _IMAGINARY.sub("", _MATH_MODE.sub("", text))
    # It reads no percentage inside a box, and outside one it reads what it can of a broken formula.
    wrapped = f"${formula}$" if formula.endswith("%") else f"\\boxed{{{formula}}}"
    parsed: list[Any] = math_verify.parse(
        wrapped, fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed


def _number_gold(problem: Problem) -> Quantity:
    gold = read_number(problem.gold)
    if gold is None:
        _refuse(problem, "'number' can't read the gold")
    return gold


def _check_number(problem: Problem, answer: str) -> Verdict:
    gold = _number_gold(problem)
    # "x = 18" and "9 * 2 = 18" say 18.
    found = read_number(answer.rpartition("=")[2])
    if found is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if gold.matches(found) else Verdict.WRONG


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
    "math": (_evaluate_math_gold, _check_math),
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


def _check_own(problem: Problem, answer: str) -> Verdict:
    """Ask `rule(problem, answer)`: True, False, or None for an answer that it cannot read.

    Each answer gets a sealed process of its own, so that whatever the rule does with it reaches
    no other verdict. A ValueError, as `int("five")` raises, stands for None. Any other error is
    the rule's fault, and ends the run.
    """
    rule = resolve(problem.checker, "checker")

    def ask() -> bool | None:
        right = rule(problem, answer)
        return None if right is None else bool(right)

    try:
        right = in_child(ask)
    except ValueError:
        right = None
    if right is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if right is True else Verdict.WRONG


def _require_own_gold(problem: Problem) -> None:
    if _check_own(problem, problem.gold.strip()) is not Verdict.CORRECT:
        _refuse(problem, f"'{problem.checker}' does not find right its own gold")
