"""Sets of real numbers: intervals, unions and inequalities of one symbol."""

import re
from collections.abc import Sequence
from typing import Any

import sympy

from reasoning_lab.verify.formulas import parse_formula
from reasoning_lab.verify.parse_tree import (
    REALS,
    Bracketed,
    Formula,
    Node,
    PlainList,
    Relation,
    SetExpression,
    Words,
)
from reasoning_lab.verify.relations import FLIPPED, FUNCTION_CALL, LONE_SYMBOL, is_equation

_MAGNITUDE = re.compile(r"\| ?[a-z] ?\|")


def is_real_set(node: Node) -> bool:
    """Return whether a node can only be a set of numbers; `(1,2)` may be a point."""
    if isinstance(node, Bracketed):
        finite = (
            isinstance(node.items[0], Formula) and isinstance(node.items[-1], Formula)
            if node.items
            else True
        )
        if node.brackets == "()" and len(node.items) == 2 and finite:
            return any("\\infty" in item.text for item in node.items if isinstance(item, Formula))
        return len(node.items) == 2 and node.brackets != "{}"
    if isinstance(node, PlainList):
        return bool(node.conjunction) and any(map(is_inequality, node.items))
    return isinstance(node, SetExpression) or node == REALS or node == Words("reals")


def equal_real_sets(gold: Node, answer: Node, same_symbol: bool = False) -> bool:
    """Return whether two nodes stand for the same set.

    Args:
        gold: Gold's node.
        answer: The answer's node.
        same_symbol: Whether two relations must have the same symbol.
    """
    if (
        same_symbol
        and _symbol_of(gold) != _symbol_of(answer)
        and None not in map(_symbol_of, (gold, answer))
    ):
        return False
    gold_set, answer_set = _real_set(gold), _real_set(answer)
    if gold_set is None or answer_set is None:
        return False
    if gold_set == answer_set:
        return True
    try:
        return bool(gold_set.symmetric_difference(answer_set).is_empty)
    except MemoryError:
        raise
    except Exception:
        return False


def _symbol_of(node: Node) -> str | None:
    """Return the side of a relation that is a lone symbol, if there is exactly one."""
    if not isinstance(node, Relation):
        return None
    symbols = [text for text in node.texts if LONE_SYMBOL.fullmatch(text)]
    return symbols[0].strip() if len(symbols) == 1 else None


def _real_set(node: Node | None) -> Any | None:
    """Return the set of an interval, set or inequality of one symbol, as sympy's object."""
    match node:
        case Formula() | Words():
            return sympy.S.Reals if node in (REALS, Words("reals")) else None
        case Bracketed("{}", items):
            numbers = [_real_number(item) for item in items]
            return None if None in numbers else sympy.FiniteSet(*numbers)
        case Bracketed(brackets, (low, high)):
            return _interval(
                _real_number(low), _real_number(high), brackets[0] == "(", brackets[1] == ")"
            )
        case PlainList(items, conjunction) if conjunction and any(map(is_inequality, items)):
            if len({_symbol_of(item) for item in items}) > 1:
                return None
            operator = "\\cup" if conjunction == "or" else "\\cap"
            return _combine_sets(operator, [_real_set(item) for item in items])
        case SetExpression(operator, parts):
            return _combine_sets(operator, [_real_set(part) for part in parts])
        case Relation():
            return _solution_set(node)
    return None


def is_inequality(node: Node) -> bool:
    """Return whether a node is a relation with an operator that is no equality."""
    return isinstance(node, Relation) and not is_equation(node)


def _combine_sets(operator: str, sets: Sequence[Any]) -> Any | None:
    if any(part is None for part in sets):
        return None
    if operator == "\\cup":
        return sympy.Union(*sets)
    return sympy.Intersection(*sets) if operator == "\\cap" else sympy.Complement(sets[0], sets[1])


def _real_number(node: Node | None) -> Any | None:
    value = parse_formula(node.text) if isinstance(node, Formula) else None
    return (
        value
        if isinstance(value, sympy.Expr) and value.is_extended_real and not value.free_symbols
        else None
    )


def _interval(low: Any, high: Any, left_open: bool, right_open: bool) -> Any | None:
    if low is None or high is None or not low < high:
        return None
    if (low.is_infinite and not left_open) or (high.is_infinite and not right_open):
        return None
    return sympy.Interval(low, high, left_open, right_open)


def _solution_set(relation: Relation) -> Any | None:
    """Return the set of `x < 5`, `5 > x`, `1 < x \\le 2` or `x \\neq 5`."""
    symbol_place = next(
        (
            at
            for at, (side, text) in enumerate(zip(relation.sides, relation.texts, strict=True))
            if side is None
            or (
                _real_number(side) is None
                and any(kind.fullmatch(text) for kind in (LONE_SYMBOL, FUNCTION_CALL, _MAGNITUDE))
            )
        ),
        None,
    )
    if symbol_place is None or len(relation.sides) > 3:
        return None
    if len(relation.sides) == 3 and symbol_place != 1:
        return None
    solutions = sympy.S.Reals
    for at, operator in enumerate(relation.operators):
        bound_place = at if at != symbol_place else at + 1
        operator = operator if at == symbol_place else FLIPPED.get(operator, "")
        bound = _real_number(relation.sides[bound_place])
        if bound is None or operator not in ("=", "<", ">", "\\le", "\\ge", "\\neq"):
            return None
        solutions = sympy.Intersection(solutions, _solutions_of(operator, bound))
    return (
        _from_magnitudes(solutions)
        if _MAGNITUDE.fullmatch(relation.texts[symbol_place])
        else solutions
    )


def _from_magnitudes(values: Any) -> Any:
    """Return the numbers whose absolute value lies in the set."""
    magnitudes = sympy.Intersection(values, sympy.Interval(0, sympy.oo))
    pieces = magnitudes.args if isinstance(magnitudes, sympy.Union) else (magnitudes,)
    if not all(isinstance(piece, sympy.Interval) for piece in pieces):
        return None
    mirrored = [sympy.Interval(-p.end, -p.start, p.right_open, p.left_open) for p in pieces]
    return sympy.Union(*pieces, *mirrored)


def _solutions_of(operator: str, bound: Any) -> Any:
    if operator == "=":
        return sympy.FiniteSet(bound)
    if operator == "\\neq":
        return sympy.S.Reals - sympy.FiniteSet(bound)
    if operator in ("<", "\\le"):
        return sympy.Interval(-sympy.oo, bound, True, operator == "<")
    return sympy.Interval(bound, sympy.oo, operator == ">", True)
