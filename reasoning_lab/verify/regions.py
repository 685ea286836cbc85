"""Sets of real numbers: intervals, unions and inequalities of one symbol."""

import re
from collections.abc import Sequence
from typing import Any

import sympy

from reasoning_lab.verify.formulas import parse
from reasoning_lab.verify.nodes import (
    REALS,
    Group,
    Leaf,
    Listing,
    Node,
    Relation,
    SetExpression,
    Words,
)
from reasoning_lab.verify.relations import CALL, FLIPPED, LONE_SYMBOL, is_equation

_MAGNITUDE = re.compile(r"\| ?[a-z] ?\|")


def is_region(node: Node) -> bool:
    """Whether it can only be a set of numbers: `(1,2)` may be a point."""
    if isinstance(node, Group):
        finite = (
            isinstance(node.items[0], Leaf) and isinstance(node.items[-1], Leaf)
            if node.items
            else True
        )
        if node.brackets == "()" and len(node.items) == 2 and finite:
            return any("\\infty" in item.text for item in node.items if isinstance(item, Leaf))
        return len(node.items) == 2 and node.brackets != "{}"
    if isinstance(node, Listing):
        return bool(node.joint) and not all(map(is_value, node.items))
    return isinstance(node, SetExpression) or node == REALS or node == Words("reals")


def same_region(gold: Node, answer: Node, symbol: bool = False) -> bool:
    """Whether two nodes stand for one set; `symbol` = relations of two symbols do not."""
    if (
        symbol
        and _symbol_of(gold) != _symbol_of(answer)
        and None not in map(_symbol_of, (gold, answer))
    ):
        return False
    left, right = _region(gold), _region(answer)
    if left is None or right is None:
        return False
    if left == right:
        return True
    try:
        return bool(left.symmetric_difference(right).is_empty)
    except MemoryError:
        raise
    except Exception:
        return False


def _symbol_of(node: Node) -> str | None:
    """The one side of a relation that is a lone symbol, if there is one."""
    if not isinstance(node, Relation):
        return None
    lone = [text for text in node.texts if LONE_SYMBOL.fullmatch(text)]
    return lone[0].strip() if len(lone) == 1 else None


def _region(node: Node | None) -> Any | None:
    """The set of real numbers that an interval, set or inequality of one symbol stands for."""
    match node:
        case Leaf() | Words():
            return sympy.S.Reals if node in (REALS, Words("reals")) else None
        case Group("{}", items):
            numbers = [_number(item) for item in items]
            return None if None in numbers else sympy.FiniteSet(*numbers)
        case Group(brackets, (low, high)):
            return _interval(_number(low), _number(high), brackets[0] == "(", brackets[1] == ")")
        case Listing(items, joint) if joint and not all(map(is_value, items)):
            if len({_symbol_of(item) for item in items}) > 1:
                return None
            operator = "\\cup" if joint == "or" else "\\cap"
            return _joined(operator, [_region(item) for item in items])
        case SetExpression(operator, parts):
            return _joined(operator, [_region(part) for part in parts])
        case Relation():
            return _solved(node)
    return None


def is_value(node: Node) -> bool:
    """Whether it is no inequality."""
    return not isinstance(node, Relation) or is_equation(node)


def _joined(operator: str, sets: Sequence[Any]) -> Any | None:
    if any(part is None for part in sets):
        return None
    if operator == "\\cup":
        return sympy.Union(*sets)
    return sympy.Intersection(*sets) if operator == "\\cap" else sympy.Complement(sets[0], sets[1])


def _number(node: Node | None) -> Any | None:
    value = parse(node.text) if isinstance(node, Leaf) else None
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


def _solved(relation: Relation) -> Any | None:
    """`x < 5`, `5 > x`, `1 < x \\le 2` and `x \\neq 5` as sets."""
    place = next(
        (
            at
            for at, (side, text) in enumerate(zip(relation.sides, relation.texts, strict=True))
            if side is None
            or (
                _number(side) is None
                and any(kind.fullmatch(text) for kind in (LONE_SYMBOL, CALL, _MAGNITUDE))
            )
        ),
        None,
    )
    if place is None or len(relation.sides) > 3 or (len(relation.sides) == 3 and place != 1):
        return None
    region = sympy.S.Reals
    for at, operator in enumerate(relation.operators):
        other = at if at != place else at + 1
        operator = operator if at == place else FLIPPED.get(operator, "")
        bound = _number(relation.sides[other])
        if bound is None or operator not in ("=", "<", ">", "\\le", "\\ge", "\\neq"):
            return None
        region = sympy.Intersection(region, _half_line(operator, bound))
    return _of_magnitude(region) if _MAGNITUDE.fullmatch(relation.texts[place]) else region


def _of_magnitude(region: Any) -> Any:
    """The numbers whose absolute value lies in the region."""
    sizes = sympy.Intersection(region, sympy.Interval(0, sympy.oo))
    pieces = sizes.args if isinstance(sizes, sympy.Union) else (sizes,)
    if not all(isinstance(piece, sympy.Interval) for piece in pieces):
        return None
    mirrored = [sympy.Interval(-p.end, -p.start, p.right_open, p.left_open) for p in pieces]
    return sympy.Union(*pieces, *mirrored)


def _half_line(operator: str, bound: Any) -> Any:
    if operator == "=":
        return sympy.FiniteSet(bound)
    if operator == "\\neq":
        return sympy.S.Reals - sympy.FiniteSet(bound)
    if operator in ("<", "\\le"):
        return sympy.Interval(-sympy.oo, bound, True, operator == "<")
    return sympy.Interval(bound, sympy.oo, operator == ">", True)
