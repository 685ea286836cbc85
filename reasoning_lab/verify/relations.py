"""Equations, inequalities and sets of real numbers: names, values, and when two are equivalent."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sympy

from reasoning_lab.verify import parse_tree as tree
from reasoning_lab.verify.formula_equality import equal_expressions, evaluate_constant
from reasoning_lab.verify.formulas import SuppressSympyErrors, parse_formula, parse_literal
from reasoning_lab.verify.parse_tree import Formula, Node, PlainList, Relation

_EQUALITIES = frozenset({"=", "\\approx", "\\equiv"})
FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq", "=": "="}
_FUNCTION_CALL = re.compile(
    r"(?:\\(?:text|operatorname)\{[^{}]*\}|[A-Za-z]|\\[a-z]+ ?|\})"
    r"(?:\^\{-1\}|\^?\{?'*\}?)\([^()]*\)"
)
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_NOT_A_NAME = re.compile(
    r"[0-9^!<>]|^\s*-|\\(?:sqrt|log|ln|exp|sum|int|lim)(?![A-Za-z])|^\|[a-vxy]\|$|\bnot\b"
)
_MAGNITUDE = re.compile(r"\| ?[a-z] ?\|")
LONE_SYMBOL = re.compile(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?")


def is_equation(relation: Relation) -> bool:
    """Return whether every operator is an equality."""
    return _EQUALITIES.issuperset(relation.operators)


def is_name(text: str) -> bool:
    """Return whether a side is a name: `x`, `f(3)`, `S_{10}`, `Area`, `a+b`, `(p,q)`."""
    name = _FUNCTION_CALL.sub("f", _SUBSCRIPT.sub("", text))
    if not re.search(r"[A-Za-z]", name) or name.strip() == "\\pi":
        return False
    return not _NOT_A_NAME.search(name)


def _has_single_value(text: str) -> bool:
    """Return whether a name has a single value, as `AB` has, and `x+y` and `xy` have not."""
    name = _FUNCTION_CALL.sub("f", _SUBSCRIPT.sub("", text))
    return not re.search(r"[-+]|(?<![A-Za-z\\{])[a-z] ?[a-z](?![a-z]*\})", name)


def relation_value(relation: Relation) -> Node | None:
    """Return the last side of a membership, a chain or an equation that names a value; else None.

    A side behind `\\approx` counts only when there is no exact one.
    """
    if relation.operators == ("\\in",):
        return relation.sides[-1]
    if not is_equation(relation):
        return None
    name = relation.texts[0]
    if len(relation.sides) == 2 and not (is_name(name) and _has_single_value(name)):
        return None
    pairs = zip(relation.sides[1:], relation.operators, strict=True)
    exact_sides = [side for side, operator in pairs if operator != "\\approx"]
    return exact_sides[-1] if exact_sides else relation.sides[-1]


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
    both_equations = set(operators) <= _EQUALITIES or operators == ("\\neq", "\\neq")
    with SuppressSympyErrors():
        ratio = sympy.simplify(gold_difference / answer_difference)
        if not (ratio.is_number and ratio.is_real and ratio != 0):
            return both_equations and _same_solutions(gold_difference, answer_difference)
        if both_equations:
            return True
        return operators[0] == (operators[1] if ratio > 0 else FLIPPED.get(operators[1], ""))
    return False


def _same_solutions(left: Any, right: Any) -> bool:
    """Return whether both equations have the same solutions in one symbol, at least one."""
    for symbol in sorted(left.free_symbols, key=str):
        try:
            left_set, right_set = (set(sympy.solve(side, symbol)) for side in (left, right))
        except NotImplementedError:
            continue
        return bool(left_set) and match_unordered(left_set, right_set, equal_expressions)
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
    golds: Collection[Any], answers: Collection[Any], equal: Callable[[Any, Any], bool]
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


def is_real_set(node: Node) -> bool:
    """Return whether a node can only be a set of numbers; `(1,2)` may be a point."""
    match node:
        case tree.Bracketed("()", (Formula(low), Formula(high))):
            return "\\infty" in low or "\\infty" in high
        case tree.Bracketed(brackets, items):
            return len(items) == 2 and brackets != "{}"
        case PlainList(items, conjunction):
            return bool(conjunction) and any(map(is_inequality, items))
    return isinstance(node, tree.SetExpression) or node in (tree.REALS, tree.Words("reals"))


def equal_real_sets(gold: Node, answer: Node, same_symbol: bool = False) -> bool:
    """Return whether two nodes are the same set, with `same_symbol` also in the same symbol."""
    symbols = {_symbol_of(gold), _symbol_of(answer)} if same_symbol else set()
    if len(symbols) == 2 and None not in symbols:
        return False
    gold_set, answer_set = _real_set(gold), _real_set(answer)
    if gold_set is None or answer_set is None:
        return False
    if gold_set == answer_set:
        return True
    with SuppressSympyErrors():
        return bool(gold_set.symmetric_difference(answer_set).is_empty)
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
        case Formula() | tree.Words():
            return sympy.S.Reals if node in (tree.REALS, tree.Words("reals")) else None
        case tree.Bracketed("{}", items):
            numbers = [_real_number(item) for item in items]
            return None if None in numbers else sympy.FiniteSet(*numbers)
        case tree.Bracketed(brackets, (low, high)):
            return _interval(
                _real_number(low), _real_number(high), brackets[0] == "(", brackets[1] == ")"
            )
        case PlainList(items, conjunction) if conjunction and any(map(is_inequality, items)):
            if len({_symbol_of(item) for item in items}) > 1:
                return None
            return _combine_sets("\\cup" if conjunction == "or" else "\\cap", items)
        case tree.SetExpression(operator, parts):
            return _combine_sets(operator, parts)
        case Relation():
            return _solution_set(node)
    return None


def is_inequality(node: Node) -> bool:
    """Return whether a node is a relation with an operator that is no equality."""
    return isinstance(node, Relation) and not is_equation(node)


def _combine_sets(operator: str, nodes: Sequence[Node]) -> Any | None:
    sets = [_real_set(node) for node in nodes]
    if None in sets:
        return None
    if operator == "\\cup":
        return sympy.Union(*sets)
    return sympy.Intersection(*sets) if operator == "\\cap" else sympy.Complement(*sets)


def _real_number(node: Node | None) -> Any | None:
    value = parse_formula(node.text) if isinstance(node, Formula) else None
    if not isinstance(value, sympy.Expr) or not value.is_extended_real or value.free_symbols:
        return None
    return value


def _interval(low: Any, high: Any, left_open: bool, right_open: bool) -> Any | None:
    if low is None or high is None or not low < high:
        return None
    if (low.is_infinite and not left_open) or (high.is_infinite and not right_open):
        return None
    return sympy.Interval(low, high, left_open, right_open)


def _solution_set(relation: Relation) -> Any | None:
    """Return the set of `x < 5`, `5 > x`, `1 < x \\le 2` or `x \\neq 5`."""
    sides, texts = relation.sides, relation.texts
    place = next((at for at, text in enumerate(texts) if _is_unknown(sides[at], text)), None)
    if place is None or len(sides) > 3 or (len(sides) == 3 and place != 1):
        return None
    solutions = sympy.S.Reals
    for at, operator in enumerate(relation.operators):
        bound = _real_number(sides[at if at != place else at + 1])
        operator = operator if at == place else FLIPPED.get(operator, "")
        if bound is None or operator not in ("=", "<", ">", "\\le", "\\ge", "\\neq"):
            return None
        solutions = sympy.Intersection(solutions, _solutions_of(operator, bound))
    return _from_magnitudes(solutions) if _MAGNITUDE.fullmatch(texts[place]) else solutions


def _is_unknown(side: Node | None, text: str) -> bool:
    """Return whether a side is left out, or a symbol, a function's value or a magnitude."""
    if side is None:
        return True
    forms = (LONE_SYMBOL, _FUNCTION_CALL, _MAGNITUDE)
    return _real_number(side) is None and any(form.fullmatch(text) for form in forms)


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
