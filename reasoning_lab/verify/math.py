"""The checker `math`: structure by `reading`, formulas by latex2sympy, and exact comparison.

Verdicts of two ordinary numbers need neither, and are given first.
"""

import logging
import re
from fractions import Fraction

from reasoning_lab.types import Verdict
from reasoning_lab.verify.characters import ascii_form
from reasoning_lab.verify.choice import SEVERAL, read_choice
from reasoning_lab.verify.comparison import same
from reasoning_lab.verify.formulas import parse
from reasoning_lab.verify.nodes import (
    Based,
    Clock,
    Congruence,
    Group,
    Leaf,
    Listing,
    Node,
    Quantity,
    Ratio,
    Relation,
    SetExpression,
    Words,
)
from reasoning_lab.verify.number import decimal_value
from reasoning_lab.verify.plain_text import plain
from reasoning_lab.verify.reading import read
from reasoning_lab.verify.relations import is_name

_PLAIN_NUMBER = re.compile(
    r"(?:\\\$)?(?P<decimal>-?(?:0|[1-9][0-9]{0,8}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,2})(?:\.[0-9]{1,5})?)"
    r"|(?P<sign>-?)\\[dt]?frac\{(?P<top>[0-9]{1,9})\}\{(?P<bottom>[1-9][0-9]{0,8})\}"
)

_OPTION = re.compile(r"\s*\\?[({A-Jtm]")
_ALONE = re.compile(r"\(?[A-J]\)?[.:]?")
_LABELLED = re.compile(
    r"(?:[Oo]ption|[Cc]hoice) \(?[A-J]\)?[.:]?"
    r"|(?:\([A-J]\)[.:]?|[A-J][.):]) (?!(?:or|and|not|is)\b|,).*"
)
_DOTS = ("\\ldots", "...", "\\ldots ", "..")

# It warns once a process that its timeouts are off, which is what the pool wants.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def math_verdict(gold: str, answer: str) -> Verdict | None:
    """Compare an answer with gold; None where gold is no readable formula."""
    decided = _numbers_verdict(gold, answer)
    if decided is not None:
        return decided
    wanted = read(gold, gold=True)
    if not _is_readable(wanted) and not _is_labelled(gold):
        return None
    try:
        given = read(answer)
        if same(wanted, given) or _same_label(gold, answer):
            return Verdict.CORRECT
        return Verdict.WRONG if readable(given) else Verdict.UNPARSEABLE
    except MemoryError:
        raise
    except Exception:
        # sympy fails in many ways, by recursion above all; no answer may end the run.
        return Verdict.UNPARSEABLE


def _same_label(gold: str, answer: str) -> bool:
    """Whether both are an option of one letter, and one of them adds its text: `(C) 25` is C."""
    if not _OPTION.match(gold):
        return False
    texts = [plain(ascii_form(text)) for text in (gold, answer)]
    alone = [_ALONE.fullmatch(text) for text in texts]
    if texts[0] == texts[1] and _LABELLED.fullmatch(texts[0]):
        return True
    if not any(alone) or not all(_ALONE.fullmatch(t) or _LABELLED.fullmatch(t) for t in texts):
        return False
    letters = {read_choice(text, []) for text in texts}
    return len(letters) == 1 and letters.isdisjoint({None, SEVERAL})


def is_math(gold: str) -> bool:
    """Whether the checker can read the gold; works it out, which shows one that takes too long."""
    return _is_readable(read(gold, gold=True)) or _is_labelled(gold)


def _is_labelled(gold: str) -> bool:
    return _OPTION.match(gold) is not None and bool(_LABELLED.fullmatch(plain(ascii_form(gold))))


def _is_readable(node: Node) -> bool:
    try:
        return readable(node)
    except RecursionError:
        return False


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
        return decimal_value(match["decimal"])
    return Fraction(int(match["sign"] + match["top"]), int(match["bottom"]))


def readable(node: Node | None) -> bool:
    """Whether each of its formulas is one."""
    match node:
        case None | Words() | Clock() | Based():
            return True
        case Leaf(text):
            return text in _DOTS or parse(text) is not None
        case Quantity(value, _):
            return readable(value)
        case Congruence(value, modulus):
            return readable(value) and readable(modulus)
        case Ratio(parts, _) | SetExpression(_, parts):
            return all(map(readable, parts))
        case Group(_, items) | Listing(items):
            return all(map(readable, items))
        case Relation():
            return _readable_relation(node)


def _readable_relation(relation: Relation) -> bool:
    """A step between the first and the last side of a chain, and a name, need not be formulas."""
    last = relation.sides[-1]
    if last is None or not readable(last):
        return False
    first = relation.sides[0]
    return first is None or len(relation.sides) > 2 or is_name(relation.texts[0]) or readable(first)
