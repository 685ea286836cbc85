"""Say whether an answer's structure means the same as gold's: the rules of `README.md`'s table."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from reasoning_lab.verify.formulas import literal, same_formula
from reasoning_lab.verify.nodes import (
    EMPTY,
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
from reasoning_lab.verify.regions import is_region, is_value, same_region
from reasoning_lab.verify.relations import (
    FLIPPED,
    LONE_SYMBOL,
    asked_value,
    is_about,
    is_equation,
    is_name,
    matched,
    scaled,
    squeezed,
)


def same(gold: Node, answer: Node) -> bool:
    """Whether the answer means what gold means; not symmetric, gold decides what is asked."""
    if isinstance(answer, Relation):
        if isinstance(gold, Relation):
            return _same_relation(gold, answer)
        value = _answer_value(answer)
        if value is not None:
            return same(gold, value)
        return is_region(gold) and same_region(gold, answer)
    if isinstance(gold, Relation):
        return _relation_answered(gold, answer)
    if gold == answer and not isinstance(gold, Leaf):
        return True
    for kinds, rule in _RULES:
        if isinstance(gold, kinds) or isinstance(answer, kinds):
            return rule(gold, answer)
    return isinstance(gold, Leaf) and isinstance(answer, Leaf) and _same_leaf(gold, answer)


def _same_leaf(gold: Leaf, answer: Leaf) -> bool:
    return same_formula(gold.text, answer.text)


def _answer_value(relation: Relation) -> Node | None:
    """What an answer that is an equation or a membership gives; None when it gives no one value.

    A chain of numbers must hold: `3 = 7` gives nothing.
    """
    first, last = relation.sides[0], relation.sides[-1]
    if relation.operators == ("\\in",):
        return last if LONE_SYMBOL.fullmatch(relation.texts[0]) or first is None else None
    if not is_equation(relation) or last is None:
        return None
    sides = relation.sides
    if "\\approx" in relation.operators:
        # What stands before "approximately" is exact; behind a name there is nothing else.
        place = relation.operators.index("\\approx")
        if place > 0 or not is_name(relation.texts[0]):
            if not is_about(sides[place], sides[place + 1]):
                return None
            sides = sides[: place + 1]
            last = sides[-1]
    if first is None:
        return last if len(sides) == 2 else None
    if is_name(relation.texts[0]):
        return last
    if len(sides) > 1 and LONE_SYMBOL.fullmatch(relation.texts[len(sides) - 1]):
        sides = sides[:-1]
        last = sides[-1]
    holds = all(side is not None and last is not None and same(last, side) for side in sides)
    return last if holds else None


def _relation_answered(gold: Relation, answer: Node) -> bool:
    value = asked_value(gold)
    if value is not None:
        return same(value, answer)
    return same_region(gold, answer)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    if is_equation(gold) and is_equation(answer):
        return _same_equation(gold, answer)
    if "\\in" in gold.operators + answer.operators:
        left = asked_value(gold) if gold.operators == ("\\in",) else gold
        right = _answer_value(answer) if answer.operators == ("\\in",) else answer
        if left is None or right is None:
            return False
        return same(left, right) or same_region(left, right)
    return (
        _same_chain(gold, answer) or same_region(gold, answer, symbol=True) or scaled(gold, answer)
    )


def _same_equation(gold: Relation, answer: Relation) -> bool:
    names = [squeezed(relation.texts[0]) for relation in (gold, answer)]
    if all(is_name(relation.texts[0]) for relation in (gold, answer)):
        left, right = asked_value(gold), _answer_value(answer)
        if left is not None and right is not None and same(left, right):
            return names[0].casefold() == names[1].casefold() or _same_sides(gold, answer, 0)
    if len(gold.sides) == 2 and len(answer.sides) > 2:
        value = asked_value(gold)
        last = answer.sides[-1]
        return value is not None and last is not None and names[0] == names[1] and same(value, last)
    return scaled(gold, answer)


def _same_sides(gold: Relation, answer: Relation, place: int) -> bool:
    left, right = gold.sides[place], answer.sides[place]
    return left is not None and right is not None and same(left, right)


def _same_chain(gold: Relation, answer: Relation) -> bool:
    """The same sides in the same order, or all of it turned round."""
    if len(gold.sides) != len(answer.sides):
        return False
    flipped = tuple(FLIPPED.get(o, "") for o in reversed(answer.operators))
    for operators, sides in (
        (answer.operators, answer.sides),
        (flipped, tuple(reversed(answer.sides))),
    ):
        pairs = zip(gold.sides, sides, strict=True)
        if operators == gold.operators and all(
            (a is None and b is None)
            or (a is not None and b is not None and same(a, b))
            or (b is None and isinstance(a, Leaf) and bool(LONE_SYMBOL.fullmatch(a.text)))
            for a, b in pairs
        ):
            return True
    return False


def _in_order(golds: Sequence[Node], answers: Sequence[Node]) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


def _named(items: Sequence[Node]) -> list[tuple[str, Node]] | None:
    """Names and values of `x = 5, y = 6`; None when the names are not distinct."""
    pairs = []
    for item in items:
        if not isinstance(item, Relation) or not is_equation(item) or not is_name(item.texts[0]):
            return None
        value = asked_value(item)
        if value is None:
            return None
        pairs.append((squeezed(item.texts[0]), value))
    return pairs if len({name for name, _ in pairs}) == len(pairs) > 1 else None


def _values(items: Sequence[Node]) -> list[Node]:
    """The items without names: `x = 1 or x = 2`, and `n = 1, 2, 3`."""
    values: list[Node] = []
    for item in items:
        value = asked_value(item) if isinstance(item, Relation) and is_name(item.texts[0]) else None
        values += value.items if isinstance(value, Listing) else [value or item]
    return values


def _solutions(items: Sequence[Node]) -> list[Node]:
    """The values; of points that are listed twice, one."""
    values = _values(items)
    return _distinct(values) if all(isinstance(value, Group) for value in values) else values


def _names(items: Sequence[Node]) -> set[str]:
    return {squeezed(item.texts[0]) for item in items if isinstance(item, Relation)}


def _same_listing(gold: Node, answer: Node) -> bool:
    """A list without brackets is in any order, unless distinct names give it one."""
    if isinstance(gold, Leaf) and isinstance(answer, Listing) and answer.joint == "or":
        return all(same(gold, item) for item in answer.items)
    if any(
        isinstance(side, Listing) and not all(map(is_value, side.items)) for side in (gold, answer)
    ):
        if isinstance(gold, Listing) and isinstance(answer, Listing) and gold.joint == answer.joint:
            return matched(gold.items, answer.items, same)
        return same_region(gold, answer)
    if isinstance(gold, Listing) and isinstance(answer, Listing):
        golds, answers = _named(gold.items), _named(answer.items)
        if (
            gold.joint != answer.joint
            and "" not in (gold.joint, answer.joint)
            and all(isinstance(item, Words) for item in gold.items)
        ):
            return False
        if golds and answers:
            return matched(golds, answers, lambda a, b: a[0] == b[0] and same(a[1], b[1]))
        if golds:
            return _in_order([value for _, value in golds], answer.items)
        if len(_names(gold.items) | _names(answer.items)) > 1 and _names(gold.items):
            return matched(gold.items, answer.items, same)
        return matched(_solutions(gold.items), _solutions(answer.items), same)
    if isinstance(gold, Listing) and isinstance(answer, Group):
        golds = _named(gold.items)
        if answer.brackets == "{}" and not golds:
            return matched(_values(gold.items), answer.items, same)
        if gold.joint == "or" or (len(_names(gold.items)) == 1 and not golds):
            return False
        ordered = answer.brackets == "()" or (answer.brackets == "[]" and len(answer.items) > 2)
        return ordered and _in_order(_values(gold.items), answer.items)
    if isinstance(gold, Group) and isinstance(answer, Listing):
        if gold.brackets == "{}":
            return matched(_distinct(gold.items), _distinct(_values(answer.items)), same)
        named = _named(answer.items)
        if named:
            return gold.brackets == "()" and _in_order(
                gold.items, [v for _, v in sorted(named, key=_name)]
            )
        if answer.joint == "or" or len(_names(answer.items)) == 1:
            return False
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
            return matched(_distinct(gold.items), _distinct(answer.items), same)
        if gold.brackets == answer.brackets:
            return _in_order(gold.items, answer.items)
        return is_region(gold) and is_region(answer) and same_region(gold, answer)
    if EMPTY in (gold, answer):
        return Words("\\emptyset") in (gold, answer)
    for one, other in ((gold, answer), (answer, gold)):
        if not isinstance(one, Group) or isinstance(other, Words):
            continue
        if one.brackets == "{}" and len(one.items) == 1:
            pair = (one.items[0], other) if one is gold else (other, one.items[0])
            return same(*pair)
    return same_region(gold, answer)


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
            hundredths.append(f"\\frac{{{share.numerator}}}{{{share.denominator}}}")
        else:
            hundredths.append(f"\\frac{{{value.text}}}{{100}}" if unit else value.text)
    return same_formula(*hundredths)


def _same_clock(gold: Node, answer: Node) -> bool:
    time, other = _clock(gold), _clock(answer)
    if time is None or other is None:
        return False
    (hour, minute, half), (other_hour, other_minute, other_half) = time, other
    if minute != other_minute:
        return False
    if half and other_half:
        return (hour, half) == (other_hour, other_half)
    return hour == other_hour or (bool(half or other_half) and _in_day(time) == _in_day(other))


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
    return same_region(gold, answer) if Words("reals") in (gold, answer) else False


def _text(node: Node) -> str | None:
    if isinstance(node, Words):
        return node.text
    return node.text.casefold().strip("() ") if isinstance(node, Leaf) else None


def _never(gold: Node, answer: Node) -> bool:
    return False


_RULES: tuple[tuple[Any, Callable[[Node, Node], bool]], ...] = (
    (Listing, _same_listing),
    (Congruence, _same_congruence),
    (Quantity, _same_quantity),
    (Group, _same_group),
    (SetExpression, same_region),
    (Clock, _same_clock),
    (Ratio, _same_ratio),
    (Based, _never),
    (Words, _same_words),
)
