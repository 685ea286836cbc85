"""The checker `math`: structure by `reading`, formulas by latex2sympy, and exact comparison.

Verdicts of two ordinary numbers need neither, and are given first.
"""

import logging
import re
from fractions import Fraction

from reasoning_lab.types import Verdict
from reasoning_lab.verify.comparison import readable, same
from reasoning_lab.verify.reading import read

_PLAIN_NUMBER = re.compile(
    r"(?:\\\$)?(?P<decimal>-?(?:0|[1-9][0-9]{0,8}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,2})(?:\.[0-9]{1,5})?)"
    r"|(?P<sign>-?)\\[dt]?frac\{(?P<top>[0-9]{1,9})\}\{(?P<bottom>[1-9][0-9]{0,8})\}"
)

# It warns once a process that its timeouts are off, which is what the pool wants.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def math_verdict(gold: str, answer: str) -> Verdict | None:
    """Compare an answer with gold; None where gold is no readable formula."""
    decided = _numbers_verdict(gold, answer)
    if decided is not None:
        return decided
    wanted = read(gold, gold=True)
    if not readable(wanted):
        return None
    given = read(answer)
    if same(wanted, given):
        return Verdict.CORRECT
    return Verdict.WRONG if readable(given) else Verdict.UNPARSEABLE


def is_math(gold: str) -> bool:
    """Whether the checker can read the gold; works it out, which shows one that takes too long."""
    return readable(read(gold, gold=True))


def _numbers_verdict(gold: str, answer: str) -> Verdict | None:
    """Of two ordinary numbers with the same meaning in every notation; else None."""
    left, right = _plain_number(gold), _plain_number(answer)
    if left is None or right is None:
        return None
    return Verdict.CORRECT if left == right else Verdict.WRONG


def _plain_number(text: str) -> Fraction | None:
    """A decimal of at most five places, which is exact, or a fraction of integers."""
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["decimal"]:
        return Fraction(match["decimal"].replace(",", ""))
    return Fraction(f"{match['sign']}{match['top']}/{match['bottom']}")
