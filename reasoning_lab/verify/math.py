"""The checker `math`: parse gold and answer into trees, and compare the trees.

`parser` reads the structure, latex2sympy (through `formulas`) reads the formulas in it, and
`comparison` compares exactly. Two ordinary numbers need neither and are compared first.
"""

import logging
import re
from fractions import Fraction

from reasoning_lab.types import Verdict
from reasoning_lab.verify import parse_tree as tree
from reasoning_lab.verify.characters import normalise_characters, strip_latex
from reasoning_lab.verify.choice import SEVERAL_OPTIONS, parse_choice
from reasoning_lab.verify.comparison import is_equivalent
from reasoning_lab.verify.formulas import parse_formula
from reasoning_lab.verify.number import parse_decimal
from reasoning_lab.verify.parser import parse_answer
from reasoning_lab.verify.relations import is_name
from reasoning_lab.verify.verdicts import verdict_of

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
    gold_number, answer_number = _parse_ordinary_number(gold), _parse_ordinary_number(answer)
    if gold_number is not None and answer_number is not None:
        return verdict_of(gold_number == answer_number)
    if not is_readable_gold(gold):
        return None
    try:
        answer_tree = parse_answer(answer)
        if is_equivalent(parse_answer(gold, gold=True), answer_tree) or _same_option(gold, answer):
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
    gold_tree = parse_answer(gold, gold=True)
    try:
        if is_readable(gold_tree):
            return True
    except RecursionError:
        pass
    return bool(_OPTION.match(gold) and _LABELLED_OPTION.fullmatch(_without_markup(gold)))


def is_readable(node: tree.Node | None) -> bool:
    """Return whether every formula in a tree can be parsed.

    The sides of a chain between the first and the last need not be readable, and the first may be
    a name.
    """
    match node:
        case None | tree.Words() | tree.TimeOfDay() | tree.BasedNumber():
            return True
        case tree.Formula(text):
            return text in _DOTS or parse_formula(text) is not None
        case tree.Quantity(value, _):
            return is_readable(value)
        case tree.Congruence(value, modulus):
            return is_readable(value) and is_readable(modulus)
        case tree.Ratio(parts, _) | tree.SetExpression(_, parts):
            return all(map(is_readable, parts))
        case tree.Bracketed(_, items) | tree.PlainList(items):
            return all(map(is_readable, items))
        case tree.Relation(_, sides, texts):
            if sides[-1] is None or not is_readable(sides[-1]):
                return False
            return len(sides) > 2 or sides[0] is None or is_name(texts[0]) or is_readable(sides[0])


def _without_markup(text: str) -> str:
    return strip_latex(normalise_characters(text))


def _same_option(gold: str, answer: str) -> bool:
    """Return whether both name one option, and one of them adds its text: `(C) 25` is C."""
    if not _OPTION.match(gold):
        return False
    texts = [_without_markup(gold), _without_markup(answer)]
    if texts[0] == texts[1] and _LABELLED_OPTION.fullmatch(texts[0]):
        return True
    letters_alone = [_LETTER_ALONE.fullmatch(text) for text in texts]
    if not any(letters_alone) or not all(
        alone or _LABELLED_OPTION.fullmatch(text)
        for alone, text in zip(letters_alone, texts, strict=True)
    ):
        return False
    letters = {parse_choice(text, []) for text in texts}
    return len(letters) == 1 and letters.isdisjoint({None, SEVERAL_OPTIONS})


def _parse_ordinary_number(text: str) -> Fraction | None:
    """Parse a number that means the same in every notation; None for any other text."""
    match = _ORDINARY_NUMBER.fullmatch(text)
    if match is None:
        return None
    if match["decimal"]:
        return parse_decimal(match["decimal"])
    return Fraction(int(match["sign"] + match["top"]), int(match["bottom"]))
