"""Equations and inequalities: what they name, what they give, and when two are one."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import sympy

from reasoning_lab.verify import formulas
from reasoning_lab.verify.formulas import parse
from reasoning_lab.verify.nodes import Leaf, Node, Relation

EQUALITIES = frozenset({"=", "\\approx", "\\equiv"})
FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq", "=": "="}
CALL = re.compile(
    r"(?:\\(?:text|operatorname)\{[^{}]*\}|[A-Za-z]|\\[a-z]+ ?|\})"
    r"(?:\^\{-1\}|\^?\{?'*\}?)\([^()]*\)"
)
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_NO_NAME = re.compile(
    r"[0-9^!<>]|^\s*-|\\(?:sqrt|log|ln|exp|sum|int|lim)(?![A-Za-z])|^\|[a-vxy]\|$|\bnot\b"
)
LONE_SYMBOL = re.compile(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?")


def is_equation(relation: Relation) -> bool:
    """Whether each of its relations is an equality."""
    return all(operator in EQUALITIES for operator in relation.operators)


def is_name(text: str) -> bool:
    """Whether a side names what the other gives: `x`, `f(3)`, `S_{10}`, `Area`, `a+b`, `(p,q)`."""
    bare = _SUBSCRIPT.sub("", text)
    bare = CALL.sub("f", bare)
    return (
        bool(re.search(r"[A-Za-z]", bare)) and bare.strip() != "\\pi" and not _NO_NAME.search(bare)
    )


def is_quantity(text: str) -> bool:
    """Whether a name is that of one thing, as `AB` is, and `x+y` and `xy` are not."""
    bare = CALL.sub("f", _SUBSCRIPT.sub("", text))
    return not re.search(r"[-+]|(?<![A-Za-z\\{])[a-z] ?[a-z](?![a-z]*\})", bare)


def asked_value(relation: Relation) -> Node | None:
    """What a gold that is an equation asks for: the last side, where the first is a name."""
    if relation.operators == ("\\in",):
        return relation.sides[-1]
    if not is_equation(relation):
        return None
    sides = [
        s for s, o in zip(relation.sides[1:], relation.operators, strict=True) if o != "\\approx"
    ]
    if len(relation.sides) > 2 or (is_name(relation.texts[0]) and is_quantity(relation.texts[0])):
        return sides[-1] if sides else relation.sides[-1]
    return None


def scaled(gold: Relation, answer: Relation) -> bool:
    """Whether one relation of two sides is a multiple of the other, as 2x = 4y is of x = 2y."""
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return False
    differences = []
    for relation in (gold, answer):
        sides: list[Any] = [
            parse(side.text) if isinstance(side, Leaf) else None for side in relation.sides
        ]
        if not all(isinstance(side, sympy.Expr) for side in sides):
            return False
        differences.append(sides[0] - sides[1])
    one, other = differences
    if one.free_symbols != other.free_symbols or not one.free_symbols or other == 0 or one == 0:
        return False
    operators = (gold.operators[0], answer.operators[0])
    equation = set(operators) <= EQUALITIES or operators == ("\\neq", "\\neq")
    try:
        ratio = sympy.simplify(one / other)
        if not (ratio.is_number and ratio.is_real and ratio != 0):
            return equation and _same_solutions(one, other)
        if equation:
            return True
        turned = operators[1] if ratio > 0 else FLIPPED.get(operators[1], "")
        return operators[0] == turned
    except MemoryError:
        raise
    except Exception:
        return False


def _same_solutions(one: Any, other: Any) -> bool:
    """Whether both equations give one symbol the same values, and at least one."""
    for symbol in sorted(one.free_symbols, key=str):
        try:
            solutions = [set(sympy.solve(side, symbol)) for side in (one, other)]
        except NotImplementedError:
            continue
        return bool(solutions[0]) and matched(
            list(solutions[0]), list(solutions[1]), formulas.equal
        )
    return False


def is_about(exact: Node | None, rounded: Node | None) -> bool:
    """Whether a decimal is the rounded value of a formula, to its last place but for one unit."""
    if not (isinstance(exact, Leaf) and isinstance(rounded, Leaf)):
        return True
    decimal, value = formulas.literal(rounded.text), formulas.parse(exact.text)
    if decimal is None or not isinstance(value, sympy.Expr) or value.free_symbols:
        return True
    number = formulas.complex_digits(value)
    if number is None or not number.is_real:
        return False
    # A whole number is rounded, a decimal may be cut off as well.
    most = sympy.Rational(1, 10**decimal.places) if decimal.places else sympy.Rational(1, 2)
    return bool(abs(number - sympy.Rational(decimal.value)) <= most)


def matched(golds: Sequence[Any], answers: Sequence[Any], rule: Callable[[Any, Any], bool]) -> bool:
    """Whether each gold has an answer of its own that equals it, in any order."""
    left = list(answers)
    if len(golds) != len(left):
        return False
    for gold in golds:
        place = next((at for at, answer in enumerate(left) if rule(gold, answer)), None)
        if place is None:
            return False
        del left[place]
    return True


def squeezed(text: str) -> str:
    """The text without spaces and without the marks of prose."""
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(" ", "")
