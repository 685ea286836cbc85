"""Say whether an answer's structure means the same as gold's: the rules of `README.md`'s table."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from reasoning_lab.verify import formulas
from reasoning_lab.verify.formulas import literal, parse, same_formula
from reasoning_lab.verify.reading import (
    EMPTY,
    REALS,
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

_EQUALITIES = frozenset({"=", "\\approx", "\\equiv"})
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq", "=": "="}
_DOTS = ("\\ldots", "...", "\\ldots ", "..")
_CALL = re.compile(
    r"(?:\\(?:text|operatorname)\{[^{}]*\}|[A-Za-z]|\\[a-z]+ ?|\})\^?\{?'*\}?\([^()]*\)"
)
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")
_NO_NAME = re.compile(
    r"[0-9^!<>]|^\s*-|\\(?:sqrt|log|ln|exp|sum|int|lim)(?![A-Za-z])|^\|[a-vxy]\|$|\bnot\b"
)
_MAGNITUDE = re.compile(r"\| ?[a-z] ?\|")
_LONE_SYMBOL = re.compile(r"[A-Za-z](?:_\{[^{}]*\})?|\\[a-z]+ ?")


def same(gold: Node, answer: Node) -> bool:
    """Whether the answer means what gold means; not symmetric, gold decides what is asked."""
    if isinstance(answer, Relation):
        if isinstance(gold, Relation):
            return _same_relation(gold, answer)
        value = _answer_value(answer)
        if value is not None:
            return same(gold, value)
        return _is_region(gold) and _same_region(gold, answer)
    if isinstance(gold, Relation):
        return _relation_answered(gold, answer)
    if gold == answer and not isinstance(gold, Leaf):
        return True
    for kinds, rule in _RULES:
        if isinstance(gold, kinds) or isinstance(answer, kinds):
            return rule(gold, answer)
    return isinstance(gold, Leaf) and isinstance(answer, Leaf) and _same_leaf(gold, answer)


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
    return (
        first is None or len(relation.sides) > 2 or _is_name(relation.texts[0]) or readable(first)
    )


def _same_leaf(gold: Leaf, answer: Leaf) -> bool:
    return same_formula(gold.text, answer.text)


# Relations ---------------------------------------------------------------------------------------


def _is_equation(relation: Relation) -> bool:
    return all(operator in _EQUALITIES for operator in relation.operators)


def _is_name(text: str) -> bool:
    """Whether a side names what the other gives: `x`, `f(3)`, `S_{10}`, `Area`, `a+b`, `(p,q)`."""
    bare = _SUBSCRIPT.sub("", text)
    bare = _CALL.sub("f", bare)
    return bool(re.search(r"[A-Za-z]", bare)) and not _NO_NAME.search(bare)


def _answer_value(relation: Relation) -> Node | None:
    """What an answer that is an equation or a membership gives; None when it gives no one value.

    A chain of numbers must hold: `3 = 7` gives nothing.
    """
    first, last = relation.sides[0], relation.sides[-1]
    if relation.operators == ("\\in",):
        return last if _LONE_SYMBOL.fullmatch(relation.texts[0]) or first is None else None
    if not _is_equation(relation) or last is None:
        return None
    sides = relation.sides
    if "\\approx" in relation.operators:
        # What stands before "approximately" is exact; behind a name there is nothing else.
        place = relation.operators.index("\\approx")
        if place > 0 or not _is_name(relation.texts[0]):
            sides = sides[: place + 1]
            last = sides[-1]
    if first is None:
        return last if len(sides) == 2 else None
    if _is_name(relation.texts[0]):
        return last
    if len(sides) > 1 and _LONE_SYMBOL.fullmatch(relation.texts[len(sides) - 1]):
        sides = sides[:-1]
        last = sides[-1]
    holds = all(side is not None and last is not None and same(last, side) for side in sides)
    return last if holds else None


def _gold_value(relation: Relation) -> Node | None:
    """What a gold that is an equation asks for: the last side, where the first is a name."""
    if relation.operators == ("\\in",):
        return relation.sides[-1]
    if not _is_equation(relation):
        return None
    sides = [
        s for s, o in zip(relation.sides[1:], relation.operators, strict=True) if o != "\\approx"
    ]
    if len(relation.sides) > 2 or (_is_name(relation.texts[0]) and _is_quantity(relation.texts[0])):
        return sides[-1] if sides else relation.sides[-1]
    return None


def _is_quantity(text: str) -> bool:
    """Whether a name is that of one thing, as `AB` is, and `x+y` and `xy` are not."""
    bare = _CALL.sub("f", _SUBSCRIPT.sub("", text))
    return not re.search(r"[-+]|(?<![A-Za-z\\{])[a-z] ?[a-z](?![a-z]*\})", bare)


def _relation_answered(gold: Relation, answer: Node) -> bool:
    value = _gold_value(gold)
    if value is not None:
        return same(value, answer)
    return _same_region(gold, answer)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    if _is_equation(gold) and _is_equation(answer):
        return _same_equation(gold, answer)
    if "\\in" in gold.operators + answer.operators:
        left = _gold_value(gold) if gold.operators == ("\\in",) else gold
        right = _answer_value(answer) if answer.operators == ("\\in",) else answer
        return left is not None and right is not None and same(left, right)
    return (
        _same_chain(gold, answer)
        or _same_region(gold, answer, symbol=True)
        or _scaled(gold, answer)
    )


def _same_equation(gold: Relation, answer: Relation) -> bool:
    names = [_squeezed(relation.texts[0]) for relation in (gold, answer)]
    if all(_is_name(relation.texts[0]) for relation in (gold, answer)):
        left, right = _gold_value(gold), _answer_value(answer)
        if left is not None and right is not None and same(left, right):
            return names[0].casefold() == names[1].casefold() or _same_sides(gold, answer, 0)
    if len(gold.sides) == 2 and len(answer.sides) > 2:
        value = _gold_value(gold)
        last = answer.sides[-1]
        return value is not None and last is not None and names[0] == names[1] and same(value, last)
    return _scaled(gold, answer)


def _same_sides(gold: Relation, answer: Relation, place: int) -> bool:
    left, right = gold.sides[place], answer.sides[place]
    return left is not None and right is not None and same(left, right)


def _same_chain(gold: Relation, answer: Relation) -> bool:
    """The same sides in the same order, or all of it turned round."""
    if len(gold.sides) != len(answer.sides):
        return False
    flipped = tuple(_FLIPPED.get(o, "") for o in reversed(answer.operators))
    for operators, sides in (
        (answer.operators, answer.sides),
        (flipped, tuple(reversed(answer.sides))),
    ):
        pairs = zip(gold.sides, sides, strict=True)
        if operators == gold.operators and all(
            (a is None and b is None)
            or (a is not None and b is not None and same(a, b))
            or (b is None and isinstance(a, Leaf) and bool(_LONE_SYMBOL.fullmatch(a.text)))
            for a, b in pairs
        ):
            return True
    return False


def _scaled(gold: Relation, answer: Relation) -> bool:
    """Whether one relation of two sides is a multiple of the other, as 2x = 4y is of x = 2y."""
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return False
    differences = []
    for relation in (gold, answer):
        sides = [parse(side.text) if isinstance(side, Leaf) else None for side in relation.sides]
        if not all(isinstance(side, sympy.Expr) for side in sides):
            return False
        differences.append(sides[0] - sides[1])
    one, other = differences
    if one.free_symbols != other.free_symbols or not one.free_symbols or other == 0 or one == 0:
        return False
    operators = (gold.operators[0], answer.operators[0])
    equation = set(operators) <= _EQUALITIES or operators == ("\\neq", "\\neq")
    try:
        ratio = sympy.simplify(one / other)
        if not (ratio.is_number and ratio.is_real and ratio != 0):
            return equation and _same_solutions(one, other)
        if equation:
            return True
        turned = operators[1] if ratio > 0 else _FLIPPED.get(operators[1], "")
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
        return bool(solutions[0]) and _matched(
            list(solutions[0]), list(solutions[1]), formulas.equal
        )
    return False


# Regions -----------------------------------------------------------------------------------------


def _is_region(node: Node) -> bool:
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
    return isinstance(node, SetExpression) or node == REALS or node == Words("reals")


def _same_region(gold: Node, answer: Node, symbol: bool = False) -> bool:
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
    lone = [text for text in node.texts if _LONE_SYMBOL.fullmatch(text)]
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
        case Listing(items, joint) if joint and not any(map(_is_value, items)):
            operator = "\\cup" if joint == "or" else "\\cap"
            return _joined(operator, [_region(item) for item in items])
        case SetExpression(operator, parts):
            return _joined(operator, [_region(part) for part in parts])
        case Relation():
            return _solved(node)
    return None


def _is_value(node: Node) -> bool:
    return not isinstance(node, Relation) or _is_equation(node)


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
    return sympy.Interval(low, high, left_open, right_open)


def _solved(relation: Relation) -> Any | None:
    """`x < 5`, `5 > x`, `1 < x \\le 2` and `x \\neq 5` as sets."""
    place = next(
        (
            at
            for at, (side, text) in enumerate(zip(relation.sides, relation.texts, strict=True))
            if side is None
            or _number(side) is None
            and any(kind.fullmatch(text) for kind in (_LONE_SYMBOL, _CALL, _MAGNITUDE))
        ),
        None,
    )
    if place is None or len(relation.sides) > 3 or (len(relation.sides) == 3 and place != 1):
        return None
    region = sympy.S.Reals
    for at, operator in enumerate(relation.operators):
        other = at if at != place else at + 1
        operator = operator if at == place else _FLIPPED.get(operator, "")
        bound = _number(relation.sides[other])
        if bound is None or operator not in ("<", ">", "\\le", "\\ge", "\\neq"):
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
    if operator == "\\neq":
        return sympy.S.Reals - sympy.FiniteSet(bound)
    if operator in ("<", "\\le"):
        return sympy.Interval(-sympy.oo, bound, True, operator == "<")
    return sympy.Interval(bound, sympy.oo, operator == ">", True)


# Lists and brackets ------------------------------------------------------------------------------


def _matched(
    golds: Sequence[Any], answers: Sequence[Any], rule: Callable[[Any, Any], bool]
) -> bool:
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


def _in_order(golds: Sequence[Node], answers: Sequence[Node]) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


def _named(items: Sequence[Node]) -> list[tuple[str, Node]] | None:
    """The names and values of items such as `x = 5, y = 6`; None when their names are not distinct."""
    pairs = []
    for item in items:
        if not isinstance(item, Relation) or not _is_equation(item) or not _is_name(item.texts[0]):
            return None
        value = _gold_value(item)
        if value is None:
            return None
        pairs.append((_squeezed(item.texts[0]), value))
    return pairs if len({name for name, _ in pairs}) == len(pairs) > 1 else None


def _values(items: Sequence[Node]) -> list[Node]:
    """The items without names: `x = 1 or x = 2`, and `n = 1, 2, 3`."""
    values = []
    for item in items:
        value = (
            _gold_value(item) if isinstance(item, Relation) and _is_name(item.texts[0]) else None
        )
        values.append(item if value is None else value)
    return values


def _solutions(items: Sequence[Node]) -> list[Node]:
    """The values; of points that are listed twice, one."""
    values = _values(items)
    return _distinct(values) if all(isinstance(value, Group) for value in values) else values


def _names(items: Sequence[Node]) -> set[str]:
    return {_squeezed(item.texts[0]) for item in items if isinstance(item, Relation)}


def _same_listing(gold: Node, answer: Node) -> bool:
    """A list without brackets is in any order, unless distinct names give it one."""
    if any(isinstance(side, Listing) and not _is_value(side.items[0]) for side in (gold, answer)):
        if isinstance(gold, Listing) and isinstance(answer, Listing) and gold.joint == answer.joint:
            return _matched(gold.items, answer.items, same)
        return _same_region(gold, answer)
    if isinstance(gold, Listing) and isinstance(answer, Listing):
        golds, answers = _named(gold.items), _named(answer.items)
        if golds and answers:
            return _matched(golds, answers, lambda a, b: a[0] == b[0] and same(a[1], b[1]))
        if golds:
            return _in_order([value for _, value in golds], answer.items)
        if len(_names(gold.items) | _names(answer.items)) > 1 and _names(gold.items):
            return _matched(gold.items, answer.items, same)
        return _matched(_solutions(gold.items), _solutions(answer.items), same)
    if isinstance(gold, Listing) and isinstance(answer, Group):
        golds = _named(gold.items)
        if answer.brackets == "{}" and not golds:
            return _matched(_values(gold.items), answer.items, same)
        ordered = answer.brackets == "()" or (answer.brackets == "[]" and len(answer.items) > 2)
        return ordered and _in_order(_values(gold.items), answer.items)
    if isinstance(gold, Group) and isinstance(answer, Listing):
        if gold.brackets == "{}":
            return _matched(_distinct(gold.items), _distinct(_values(answer.items)), same)
        named = _named(answer.items)
        if named:
            return gold.brackets == "()" and _in_order(
                gold.items, [v for _, v in sorted(named, key=_name)]
            )
        return gold.brackets == "()" and _in_order(gold.items, answer.items)
    return False


def _name(pair: tuple[str, Node]) -> str:
    return pair[0]


def _distinct(items: Sequence[Node]) -> list[Node]:
    kept_items: list[Node] = []
    for item in items:
        if not any(same(other, item) for other in kept_items):
            kept_items.append(item)
    return kept_items


def _same_group(gold: Node, answer: Node) -> bool:
    if isinstance(gold, Group) and isinstance(answer, Group):
        if gold.brackets == "{}" == answer.brackets:
            return _matched(_distinct(gold.items), _distinct(answer.items), same)
        if gold.brackets == answer.brackets:
            return _in_order(gold.items, answer.items)
        return _is_region(gold) and _is_region(answer) and _same_region(gold, answer)
    if EMPTY in (gold, answer):
        return Words("\\emptyset") in (gold, answer)
    for one, other in ((gold, answer), (answer, gold)):
        if isinstance(one, Group) and one.brackets == "{}" and len(one.items) == 1:
            if not isinstance(other, Words):
                pair = (one.items[0], other) if one is gold else (other, one.items[0])
                return same(*pair)
    return _same_region(gold, answer)


# Quantities, ratios, times and words -------------------------------------------------------------


def _same_quantity(gold: Node, answer: Node) -> bool:
    """A unit that one side leaves out is granted; of two units, each is the other's."""
    values, units = [], []
    for node in (gold, answer):
        values.append(node.value if isinstance(node, Quantity) else node)
        units.append(node.unit if isinstance(node, Quantity) else ())
    if units[0] == units[1] or () in units:
        if same(values[0], values[1]) and not (units[1] == ("percent",) and _is_share(gold)):
            return True
        return ("percent",) in units and units[0] != units[1] and _same_percentage(values, units)
    return False


def _is_share(gold: Node) -> bool:
    """Whether gold is a number below one, which as many percent are not."""
    number = literal(gold.text) if isinstance(gold, Leaf) else None
    return number is not None and abs(number.value) < 1


def _same_percentage(values: list[Node], units: list[tuple[str, ...]]) -> bool:
    hundredths = []
    for value, unit in zip(values, units, strict=True):
        if not isinstance(value, Leaf):
            return False
        number = literal(value.text)
        if unit and number:
            share: Fraction = number.value / 100
            hundredths.append(
                f"\\frac{{{share.numerator}}}{{{share.denominator}}}".replace("{-", "{-")
            )
        else:
            hundredths.append(f"\\frac{{{value.text}}}{{100}}" if unit else value.text)
    return same_formula(*hundredths)


def _same_clock(gold: Node, answer: Node) -> bool:
    times = [_clock(node) for node in (gold, answer)]
    if times[0] is None or times[1] is None:
        return False
    (hour, minute, half), (other_hour, other_minute, other_half) = times
    if minute != other_minute:
        return False
    if half and other_half:
        return (hour, half) == (other_hour, other_half)
    return hour == other_hour or (
        bool(half or other_half) and _in_day(times[0]) == _in_day(times[1])
    )


def _in_day(time: tuple[int, int, str]) -> int:
    return time[0] if not time[2] else time[0] % 12 + (12 if time[2] == "pm" else 0)


def _clock(node: Node) -> tuple[int, int, str] | None:
    if isinstance(node, Clock):
        return node.hour, node.minute, node.half
    if isinstance(node, Ratio) and node.clock:
        hour, minute = (literal(part.text) for part in node.parts if isinstance(part, Leaf))
        if hour and minute:
            return int(hour.value), int(minute.value), ""
    return None


def _same_ratio(gold: Node, answer: Node) -> bool:
    """Ratios are equal up to a factor, but what may be a time of day is not reduced."""
    parts = [node.parts if isinstance(node, Ratio) else None for node in (gold, answer)]
    if parts[0] and parts[1] and _in_order(parts[0], parts[1]):
        return True
    if any(isinstance(node, Ratio) and node.clock and _reducible(node) for node in (gold, answer)):
        return False
    if parts[0] and parts[1]:
        return len(parts[0]) == len(parts[1]) and all(
            same_formula(f"({a})\\cdot ({d})", f"({b})\\cdot ({c})")
            for (a, c), (b, d) in (
                (_texts(parts[0][at], parts[0][at + 1]), _texts(parts[1][at], parts[1][at + 1]))
                for at in range(len(parts[0]) - 1)
            )
        )
    ratio = parts[0] or parts[1]
    other = answer if parts[0] else gold
    if ratio is None or len(ratio) != 2 or not isinstance(other, Leaf):
        return False
    whole = literal(other.text) if parts[1] else None
    if whole and "." not in other.text and whole.value.denominator == 1:
        return False
    above, below = _texts(*ratio)
    fraction = f"\\frac{{{above}}}{{{below}}}"
    return same_formula(fraction, other.text) if parts[0] else same_formula(other.text, fraction)


def _texts(one: Node, other: Node) -> tuple[str, str]:
    return tuple(node.text if isinstance(node, Leaf) else "?" for node in (one, other))  # type: ignore[return-value]


def _reducible(ratio: Ratio) -> bool:
    numbers = [literal(part.text) for part in ratio.parts if isinstance(part, Leaf)]
    values = [int(number.value) for number in numbers if number]
    return len(values) != 2 or sympy.gcd(*values) != 1


def _same_congruence(gold: Node, answer: Node) -> bool:
    if not (isinstance(gold, Congruence) and isinstance(answer, Congruence)):
        return False
    return same(gold.value, answer.value) and same(gold.modulus, answer.modulus)


def _same_words(gold: Node, answer: Node) -> bool:
    texts = [_text(node) for node in (gold, answer)]
    if texts[0] is not None and texts[0] == texts[1]:
        return True
    return _same_region(gold, answer) if Words("reals") in (gold, answer) else False


def _text(node: Node) -> str | None:
    if isinstance(node, Words):
        return node.text
    return node.text.casefold().strip("() ") if isinstance(node, Leaf) else None


def _squeezed(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(" ", "")


def _never(gold: Node, answer: Node) -> bool:
    return False


_RULES: tuple[tuple[Any, Callable[[Node, Node], bool]], ...] = (
    (Listing, _same_listing),
    (Congruence, _same_congruence),
    (Quantity, _same_quantity),
    (Group, _same_group),
    (SetExpression, _same_region),
    (Clock, _same_clock),
    (Ratio, _same_ratio),
    (Based, _never),
    (Words, _same_words),
)
