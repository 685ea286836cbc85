"""Equations and inequalities: the names in them, their values, and when two are equivalent."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import sympy

from reasoning_lab.verify.formula_equality import equal_expressions, evaluate_constant
from reasoning_lab.verify.formulas import (
    parse_formula,
    parse_literal,
)
from reasoning_lab.verify.parse_tree import Formula, Node, PlainList, Relation

EQUALITIES = frozenset({"=", "\\approx", "\\equiv"})
FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq", "=": "="}
FUNCTION_CALL = re.compile(
    r"(?:\\(?:text|operatorname)\{[^{}]*\}|[A-Za-z]|\\[a-z]+ ?|\})"
    r"(?:\^\{-1\}|\^?\{?'*\}?)\([^()]*\)"
)
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_NOT_A_NAME = re.compile(
    r"[0-9^!<>]|^\s*-|\\(?:sqrt|log|ln|exp|sum|int|lim)(?![A-Za-z])|^\|[a-vxy]\|$|\bnot\b"
)
LONE_SYMBOL = re.compile(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?")


def is_equation(relation: Relation) -> bool:
    """Return whether every operator is an equality."""
    return all(operator in EQUALITIES for operator in relation.operators)


def is_name(text: str) -> bool:
    """Return whether a side is a name: `x`, `f(3)`, `S_{10}`, `Area`, `a+b`, `(p,q)`."""
    name = FUNCTION_CALL.sub("f", _SUBSCRIPT.sub("", text))
    if not re.search(r"[A-Za-z]", name) or name.strip() == "\\pi":
        return False
    return not _NOT_A_NAME.search(name)


def has_single_value(text: str) -> bool:
    """Return whether a name has a single value, as `AB` has, and `x+y` and `xy` have not."""
    name = FUNCTION_CALL.sub("f", _SUBSCRIPT.sub("", text))
    return not re.search(r"[-+]|(?<![A-Za-z\\{])[a-z] ?[a-z](?![a-z]*\})", name)


def relation_value(relation: Relation) -> Node | None:
    """Return the last side of a membership, a chain or an equation that names a value; else None.

    A side behind `\\approx` counts only when there is no exact one.
    """
    if relation.operators == ("\\in",):
        return relation.sides[-1]
    if not is_equation(relation):
        return None
    sides = [
        s for s, o in zip(relation.sides[1:], relation.operators, strict=True) if o != "\\approx"
    ]
    if len(relation.sides) > 2 or (
        is_name(relation.texts[0]) and has_single_value(relation.texts[0])
    ):
        return sides[-1] if sides else relation.sides[-1]
    return None


def values_by_name(items: Sequence[Node]) -> list[tuple[str, Node]] | None:
    """Return names and values of `x = 5, y = 6`; None when the names are not distinct."""
    pairs = []
    for item in items:
        if not isinstance(item, Relation) or not is_equation(item) or not is_name(item.texts[0]):
            return None
        value = relation_value(item)
        if value is None:
            return None
        pairs.append((remove_spaces(item.texts[0]), value))
    return pairs if len({name for name, _ in pairs}) == len(pairs) > 1 else None


def values_without_names(items: Sequence[Node]) -> list[Node]:
    """Return the items without the names of `x = 1 or x = 2` and `n = 1, 2, 3`."""
    values: list[Node] = []
    for item in items:
        value = (
            relation_value(item) if isinstance(item, Relation) and is_name(item.texts[0]) else None
        )
        values += value.items if isinstance(value, PlainList) else [value or item]
    return values


def distinct_names(items: Sequence[Node]) -> set[str]:
    """Return the left sides of the items that are relations."""
    return {remove_spaces(item.texts[0]) for item in items if isinstance(item, Relation)}


def are_proportional(gold: Relation, answer: Relation) -> bool:
    """Return whether one relation of two sides is a multiple of the other: 2x = 4y, x = 2y."""
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return False
    differences = []
    for relation in (gold, answer):
        sides: list[Any] = [
            parse_formula(side.text) if isinstance(side, Formula) else None
            for side in relation.sides
        ]
        if not all(isinstance(side, sympy.Expr) for side in sides):
            return False
        differences.append(sides[0] - sides[1])
    gold_difference, answer_difference = differences
    symbols = gold_difference.free_symbols
    if symbols != answer_difference.free_symbols or not symbols or 0 in differences:
        return False
    operators = (gold.operators[0], answer.operators[0])
    both_equations = set(operators) <= EQUALITIES or operators == ("\\neq", "\\neq")
    try:
        ratio = sympy.simplify(gold_difference / answer_difference)
        if not (ratio.is_number and ratio.is_real and ratio != 0):
            return both_equations and _same_solutions(gold_difference, answer_difference)
        if both_equations:
            return True
        return operators[0] == (operators[1] if ratio > 0 else FLIPPED.get(operators[1], ""))
    except MemoryError:
        raise
    except Exception:
        return False


def _same_solutions(left: Any, right: Any) -> bool:
    """Return whether both equations have the same solutions in one symbol, at least one."""
    for symbol in sorted(left.free_symbols, key=str):
        try:
            solutions = [set(sympy.solve(side, symbol)) for side in (left, right)]
        except NotImplementedError:
            continue
        return bool(solutions[0]) and match_unordered(
            list(solutions[0]), list(solutions[1]), equal_expressions
        )
    return False


def is_rounded_value(exact: Node | None, rounded: Node | None) -> bool:
    """Return whether a decimal is the value of a formula, up to one unit in its last place.

    The result is True where the two cannot be compared.
    """
    if not (isinstance(exact, Formula) and isinstance(rounded, Formula)):
        return True
    decimal, value = parse_literal(rounded.text), parse_formula(exact.text)
    if decimal is None or not isinstance(value, sympy.Expr) or value.free_symbols:
        return True
    number = evaluate_constant(value)
    if number is None or not number.is_real:
        return False
    # An integer must be rounded, a decimal may be truncated as well.
    tolerance = sympy.Rational(1, 10**decimal.places) if decimal.places else sympy.Rational(1, 2)
    return bool(abs(number - sympy.Rational(decimal.value)) <= tolerance)


def match_unordered(
    golds: Sequence[Any], answers: Sequence[Any], equal: Callable[[Any, Any], bool]
) -> bool:
    """Return whether golds and answers pair up one to one, in any order."""
    unmatched = list(answers)
    if len(golds) != len(unmatched):
        return False
    for gold in golds:
        place = next((at for at, answer in enumerate(unmatched) if equal(gold, answer)), None)
        if place is None:
            return False
        del unmatched[place]
    return True


def remove_spaces(text: str) -> str:
    """Return the text without spaces and without `\\text` around words."""
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(" ", "")
