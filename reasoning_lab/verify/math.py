"""The checker `math`: parse gold and answer into trees, and compare the trees.

`parser` reads the structure, latex2sympy (through `formulas`) reads the formulas in it, and
`comparison` compares exactly. Two ordinary numbers need neither and are compared first.
"""

import logging
import re
from fractions import Fraction

from reasoning_lab.types import Verdict
from reasoning_lab.verify.characters import normalise_characters
from reasoning_lab.verify.choice import SEVERAL_OPTIONS, parse_choice
from reasoning_lab.verify.comparison import is_equivalent
from reasoning_lab.verify.formulas import parse_formula
from reasoning_lab.verify.number import parse_decimal
from reasoning_lab.verify.parse_tree import (
    BasedNumber,
    Bracketed,
    Congruence,
    Formula,
    Node,
    PlainList,
    Quantity,
    Ratio,
    Relation,
    SetExpression,
    TimeOfDay,
    Words,
)
from reasoning_lab.verify.parser import parse_answer
from reasoning_lab.verify.plain_text import strip_latex
from reasoning_lab.verify.relations import is_name

_ORDINARY_NUMBER = re.compile(
    r"(?:\\\$)?(?P<decimal>-?(?:0|[1-9][0-9]{0,8}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,2})(?:\.[0-9]{1,5})?)"
    r"|(?P<sign>-?)\\[dt]?frac\{(?P<top>[0-9]{1,9})\}\{(?P<bottom>[1-9][0-9]{0,8})\}"
)

_OPTION = re.compile(r"\s*\\?[({A-Jtm]")
_LETTER_ALONE = re.compile(r"\(?[A-J]\)?[.:]?")
_LABELLED_OPTION = re.compile(
    r"(?:[Oo]ption|[Cc]hoice) \(?[A-J]\)?[.:]?"
    r"|(?:\([A-J]\)[.:]?|[A-J][.):]) (?!(?:or|and|not|is)\b|,).*"
)
_DOTS = ("\\ldots", "...", "\\ldots ", "..")

# math-verify warns once a process that its timeouts are off. The workers limit the time here.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def math_verdict(gold: str, answer: str) -> Verdict | None:
    """Compare an answer with gold; None where the gold is no readable formula."""
    verdict = _compare_ordinary_numbers(gold, answer)
    if verdict is not None:
        return verdict
    gold_tree = parse_answer(gold, gold=True)
    if not _is_readable_gold_tree(gold_tree) and not _is_labelled_option(gold):
        return None
    try:
        answer_tree = parse_answer(answer)
        if is_equivalent(gold_tree, answer_tree) or _same_option(gold, answer):
            return Verdict.CORRECT
        return Verdict.WRONG if is_readable(answer_tree) else Verdict.UNPARSEABLE
    except MemoryError:
        raise
    except Exception:
        # sympy fails in many ways, by recursion above all. No answer may end the run.
        return Verdict.UNPARSEABLE


def is_readable_gold(gold: str) -> bool:
    """Return whether the checker can parse the gold.

    This evaluates the gold's formulas, so a gold that takes too long shows here.
    """
    tree = parse_answer(gold, gold=True)
    return _is_readable_gold_tree(tree) or _is_labelled_option(gold)


def is_readable(node: Node | None) -> bool:
    """Return whether every formula in a tree can be parsed."""
    match node:
        case None | Words() | TimeOfDay() | BasedNumber():
            return True
        case Formula(text):
            return text in _DOTS or parse_formula(text) is not None
        case Quantity(value, _):
            return is_readable(value)
        case Congruence(value, modulus):
            return is_readable(value) and is_readable(modulus)
        case Ratio(parts, _) | SetExpression(_, parts):
            return all(map(is_readable, parts))
        case Bracketed(_, items) | PlainList(items):
            return all(map(is_readable, items))
        case Relation():
            return _is_readable_relation(node)


def _is_readable_relation(relation: Relation) -> bool:
    """Return whether the last side is readable, and the first is readable, a name or empty.

    The sides of a chain between the first and the last need not be readable.
    """
    last = relation.sides[-1]
    if last is None or not is_readable(last):
        return False
    first = relation.sides[0]
    return (
        first is None or len(relation.sides) > 2 or is_name(relation.texts[0]) or is_readable(first)
    )


def _is_readable_gold_tree(tree: Node) -> bool:
    try:
        return is_readable(tree)
    except RecursionError:
        return False


def _same_option(gold: str, answer: str) -> bool:
    """Return whether both name one option, and one of them adds its text: `(C) 25` is C."""
    if not _OPTION.match(gold):
        return False
    texts = [strip_latex(normalise_characters(text)) for text in (gold, answer)]
    letters_alone = [_LETTER_ALONE.fullmatch(text) for text in texts]
    if texts[0] == texts[1] and _LABELLED_OPTION.fullmatch(texts[0]):
        return True
    if not any(letters_alone) or not all(
        _LETTER_ALONE.fullmatch(text) or _LABELLED_OPTION.fullmatch(text) for text in texts
    ):
        return False
    letters = {parse_choice(text, []) for text in texts}
    return len(letters) == 1 and letters.isdisjoint({None, SEVERAL_OPTIONS})


def _is_labelled_option(gold: str) -> bool:
    return _OPTION.match(gold) is not None and bool(
        _LABELLED_OPTION.fullmatch(strip_latex(normalise_characters(gold)))
    )


def _compare_ordinary_numbers(gold: str, answer: str) -> Verdict | None:
    """Compare two numbers that mean the same in every notation; None for other texts."""
    gold_value, answer_value = _parse_ordinary_number(gold), _parse_ordinary_number(answer)
    if gold_value is None or answer_value is None:
        return None
    return Verdict.CORRECT if gold_value == answer_value else Verdict.WRONG


def _parse_ordinary_number(text: str) -> Fraction | None:
    """Parse a decimal of at most five places, which is exact, or a fraction of integers."""
    match = _ORDINARY_NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["decimal"]:
        return parse_decimal(match["decimal"])
    return Fraction(int(match["sign"] + match["top"]), int(match["bottom"]))
