"""Compare an answer's tree with gold's, by the decisions in the table of `README.md`."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import sympy

from reasoning_lab.verify.formula_equality import equal_formulas
from reasoning_lab.verify.formulas import parse_literal
from reasoning_lab.verify.parse_tree import (
    EMPTY_SET,
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
from reasoning_lab.verify.real_sets import equal_real_sets, is_inequality, is_real_set
from reasoning_lab.verify.relations import (
    FLIPPED,
    LONE_SYMBOL,
    are_proportional,
    distinct_names,
    is_equation,
    is_name,
    is_rounded_value,
    match_unordered,
    relation_value,
    remove_spaces,
    values_by_name,
    values_without_names,
)
from reasoning_lab.verify.times import equal_times


def is_equivalent(gold: Node, answer: Node) -> bool:
    """Return whether the answer means what gold means.

    The comparison is not symmetric: gold decides what form of answer is accepted.
    """
    if isinstance(answer, Relation):
        if isinstance(gold, Relation):
            return _same_relation(gold, answer)
        value = _stated_value(answer)
        if value is not None:
            return is_equivalent(gold, value)
        return is_real_set(gold) and equal_real_sets(gold, answer)
    if isinstance(gold, Relation):
        return _relation_matches(gold, answer)
    if gold == answer and not isinstance(gold, Formula):
        return True
    for node_type, compare in _COMPARISONS:
        if isinstance(gold, node_type) or isinstance(answer, node_type):
            return compare(gold, answer)
    if isinstance(gold, Formula) and isinstance(answer, Formula):
        return equal_formulas(gold.text, answer.text)
    return False


def _stated_value(relation: Relation) -> Node | None:
    """Return the one value that an equation or a membership states, or None.

    A chain of numbers must hold: `3 = 7` states nothing.
    """
    first, last = relation.sides[0], relation.sides[-1]
    if relation.operators == ("\\in",):
        return last if LONE_SYMBOL.fullmatch(relation.texts[0]) or first is None else None
    if not is_equation(relation) or last is None:
        return None
    sides = relation.sides
    if "\\approx" in relation.operators:
        # The side before "approximately" is exact, and counts unless it is only a name.
        place = relation.operators.index("\\approx")
        if place > 0 or not is_name(relation.texts[0]):
            if not is_rounded_value(sides[place], sides[place + 1]):
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
    holds = all(
        side is not None and last is not None and is_equivalent(last, side) for side in sides
    )
    return last if holds else None


def _relation_matches(gold: Relation, answer: Node) -> bool:
    value = relation_value(gold)
    if value is not None:
        return is_equivalent(value, answer)
    return equal_real_sets(gold, answer)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    if is_equation(gold) and is_equation(answer):
        return _same_equation(gold, answer)
    if "\\in" in gold.operators + answer.operators:
        gold_set = relation_value(gold) if gold.operators == ("\\in",) else gold
        answer_set = _stated_value(answer) if answer.operators == ("\\in",) else answer
        if gold_set is None or answer_set is None:
            return False
        return is_equivalent(gold_set, answer_set) or equal_real_sets(gold_set, answer_set)
    return (
        _same_chain(gold, answer)
        or equal_real_sets(gold, answer, same_symbol=True)
        or are_proportional(gold, answer)
    )


def _same_equation(gold: Relation, answer: Relation) -> bool:
    names = [remove_spaces(relation.texts[0]) for relation in (gold, answer)]
    if all(is_name(relation.texts[0]) for relation in (gold, answer)):
        left, right = relation_value(gold), _stated_value(answer)
        if left is not None and right is not None and is_equivalent(left, right):
            return names[0].casefold() == names[1].casefold() or _same_first_side(gold, answer)
    if len(gold.sides) == 2 and len(answer.sides) > 2:
        value = relation_value(gold)
        last = answer.sides[-1]
        return (
            value is not None
            and last is not None
            and names[0] == names[1]
            and is_equivalent(value, last)
        )
    return are_proportional(gold, answer)


def _same_first_side(gold: Relation, answer: Relation) -> bool:
    left, right = gold.sides[0], answer.sides[0]
    return left is not None and right is not None and is_equivalent(left, right)


def _same_chain(gold: Relation, answer: Relation) -> bool:
    """Return whether the sides are equal in order, or in reverse with flipped relations."""
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
            or (a is not None and b is not None and is_equivalent(a, b))
            or (b is None and isinstance(a, Formula) and bool(LONE_SYMBOL.fullmatch(a.text)))
            for a, b in pairs
        ):
            return True
    return False


def _equal_in_order(golds: Sequence[Node], answers: Sequence[Node]) -> bool:
    return len(golds) == len(answers) and all(map(is_equivalent, golds, answers))


def _solution_values(items: Sequence[Node]) -> list[Node]:
    """Return the values; a point that is listed twice counts once."""
    values = values_without_names(items)
    return _distinct(values) if all(isinstance(value, Bracketed) for value in values) else values


def _same_list(gold: Node, answer: Node) -> bool:
    """Compare where at least one side is a list without brackets."""
    if isinstance(gold, Formula) and isinstance(answer, PlainList) and answer.conjunction == "or":
        return all(is_equivalent(gold, item) for item in answer.items)
    if any(isinstance(side, PlainList) and _has_inequality(side) for side in (gold, answer)):
        if (
            isinstance(gold, PlainList)
            and isinstance(answer, PlainList)
            and gold.conjunction == answer.conjunction
        ):
            return match_unordered(gold.items, answer.items, is_equivalent)
        return equal_real_sets(gold, answer)
    match gold, answer:
        case PlainList(), PlainList():
            return _same_plain_list(gold, answer)
        case PlainList(), Bracketed():
            return _bracketed_matches_list(gold, answer)
        case Bracketed(), PlainList():
            return _list_matches_bracketed(gold, answer)
    return False


def _has_inequality(node: PlainList) -> bool:
    return any(map(is_inequality, node.items))


def _same_plain_list(gold: PlainList, answer: PlainList) -> bool:
    """Compare two lists without brackets, which have an order only by distinct names."""
    if (
        gold.conjunction != answer.conjunction
        and "" not in (gold.conjunction, answer.conjunction)
        and all(isinstance(item, Words) for item in gold.items)
    ):
        return False
    gold_values, answer_values = values_by_name(gold.items), values_by_name(answer.items)
    if gold_values and answer_values:
        return match_unordered(
            gold_values, answer_values, lambda a, b: a[0] == b[0] and is_equivalent(a[1], b[1])
        )
    if gold_values:
        return _equal_in_order([value for _, value in gold_values], answer.items)
    gold_names = distinct_names(gold.items)
    if gold_names and len(gold_names | distinct_names(answer.items)) > 1:
        return match_unordered(gold.items, answer.items, is_equivalent)
    return match_unordered(
        _solution_values(gold.items), _solution_values(answer.items), is_equivalent
    )


def _bracketed_matches_list(gold: PlainList, answer: Bracketed) -> bool:
    has_distinct_names = values_by_name(gold.items) is not None
    if answer.brackets == "{}" and not has_distinct_names:
        return match_unordered(values_without_names(gold.items), answer.items, is_equivalent)
    if gold.conjunction == "or":
        return False
    if len(distinct_names(gold.items)) == 1 and not has_distinct_names:
        return False
    is_ordered = answer.brackets == "()" or (answer.brackets == "[]" and len(answer.items) > 2)
    return is_ordered and _equal_in_order(values_without_names(gold.items), answer.items)


def _list_matches_bracketed(gold: Bracketed, answer: PlainList) -> bool:
    if gold.brackets == "{}":
        return match_unordered(
            _distinct(gold.items), _distinct(values_without_names(answer.items)), is_equivalent
        )
    if gold.brackets != "()":
        return False
    answer_values = values_by_name(answer.items)
    if answer_values:
        by_name = sorted(answer_values, key=lambda pair: pair[0])
        return _equal_in_order(gold.items, [value for _, value in by_name])
    if answer.conjunction == "or" or len(distinct_names(answer.items)) == 1:
        return False
    return _equal_in_order(gold.items, answer.items)


def _distinct(items: Sequence[Node]) -> list[Node]:
    distinct: list[Node] = []
    for item in items:
        if not any(is_equivalent(other, item) for other in distinct):
            distinct.append(item)
    return distinct


def _same_bracketed(gold: Node, answer: Node) -> bool:
    """Compare where at least one side has brackets; a set of one equals its element."""
    if isinstance(gold, Bracketed) and isinstance(answer, Bracketed):
        if gold.brackets == "{}" == answer.brackets:
            return match_unordered(_distinct(gold.items), _distinct(answer.items), is_equivalent)
        if gold.brackets == answer.brackets:
            return _equal_in_order(gold.items, answer.items)
        return is_real_set(gold) and is_real_set(answer) and equal_real_sets(gold, answer)
    if EMPTY_SET in (gold, answer):
        return Words("\\emptyset") in (gold, answer)
    for one, other in ((gold, answer), (answer, gold)):
        if not isinstance(one, Bracketed) or isinstance(other, Words):
            continue
        if one.brackets == "{}" and len(one.items) == 1:
            pair = (one.items[0], other) if one is gold else (other, one.items[0])
            return is_equivalent(*pair)
    return equal_real_sets(gold, answer)


def _same_quantity(gold: Node, answer: Node) -> bool:
    """Compare quantities: a missing unit matches every unit, two units must be equal."""
    values, units = [], []
    for node in (gold, answer):
        values.append(node.value if isinstance(node, Quantity) else node)
        units.append(node.unit if isinstance(node, Quantity) else ())
    if units[0] == units[1] or () in units:
        if is_equivalent(values[0], values[1]) and not (
            units[1] == ("percent",) and _is_below_one(gold)
        ):
            return True
        return ("percent",) in units and units[0] != units[1] and _same_percentage(values, units)
    return False


def _is_below_one(gold: Node) -> bool:
    """Return whether gold is a number below one, which is never that many percent."""
    number = parse_literal(gold.text) if isinstance(gold, Formula) else None
    return number is not None and abs(number.value) < 1


def _same_percentage(values: list[Node], units: list[tuple[str, ...]]) -> bool:
    fractions = []
    for value, unit in zip(values, units, strict=True):
        if not isinstance(value, Formula):
            return False
        number = parse_literal(value.text)
        if unit and number:
            share = number.value / 100
            fractions.append(f"\\frac{{{share.numerator}}}{{{share.denominator}}}")
        else:
            fractions.append(f"\\frac{{{value.text}}}{{100}}" if unit else value.text)
    return equal_formulas(*fractions)


def _same_ratio(gold: Node, answer: Node) -> bool:
    """Compare ratios up to a factor; a ratio that may be a time of day is not reduced."""
    for node in (gold, answer):
        if isinstance(node, Ratio) and node.may_be_time and _is_reducible(node):
            return _equal_ratio_parts(gold, answer)
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return _equal_ratio_parts(gold, answer) or _proportional_parts(gold.parts, answer.parts)
    ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    if not isinstance(ratio, Ratio) or len(ratio.parts) != 2 or not isinstance(other, Formula):
        return False
    if other is gold:
        literal = parse_literal(other.text)
        if literal and "." not in other.text and literal.value.denominator == 1:
            return False
    numerator, denominator = _formula_texts(*ratio.parts)
    fraction = f"\\frac{{{numerator}}}{{{denominator}}}"
    if other is gold:
        return equal_formulas(other.text, fraction)
    return equal_formulas(fraction, other.text)


def _equal_ratio_parts(gold: Node, answer: Node) -> bool:
    return (
        isinstance(gold, Ratio)
        and isinstance(answer, Ratio)
        and _equal_in_order(gold.parts, answer.parts)
    )


def _proportional_parts(golds: Sequence[Node], answers: Sequence[Node]) -> bool:
    if len(golds) != len(answers):
        return False
    for gold_pair, answer_pair in zip(pairwise(golds), pairwise(answers), strict=True):
        (a, c), (b, d) = _formula_texts(*gold_pair), _formula_texts(*answer_pair)
        if not equal_formulas(f"({a})\\cdot ({d})", f"({b})\\cdot ({c})"):
            return False
    return True


def _formula_texts(left: Node, right: Node) -> tuple[str, str]:
    """Return the texts of two formulas; another node's text is `?`, which equals no formula."""
    left_text, right_text = (n.text if isinstance(n, Formula) else "?" for n in (left, right))
    return left_text, right_text


def _is_reducible(ratio: Ratio) -> bool:
    numbers = [parse_literal(part.text) for part in ratio.parts if isinstance(part, Formula)]
    values = [int(number.value) for number in numbers if number]
    return len(values) != 2 or sympy.gcd(*values) != 1


def _same_congruence(gold: Node, answer: Node) -> bool:
    if not (isinstance(gold, Congruence) and isinstance(answer, Congruence)):
        return False
    return is_equivalent(gold.value, answer.value) and is_equivalent(gold.modulus, answer.modulus)


def _same_words(gold: Node, answer: Node) -> bool:
    texts = [_comparable_text(node) for node in (gold, answer)]
    if texts[0] is not None and texts[0] == texts[1]:
        return True
    return equal_real_sets(gold, answer) if Words("reals") in (gold, answer) else False


def _comparable_text(node: Node) -> str | None:
    if isinstance(node, Words):
        return node.text
    return node.text.casefold().strip("() ") if isinstance(node, Formula) else None


def _never_equal(gold: Node, answer: Node) -> bool:
    return False


# The first type that gold or answer has decides.
_COMPARISONS: tuple[tuple[type, Callable[[Node, Node], bool]], ...] = (
    (PlainList, _same_list),
    (Congruence, _same_congruence),
    (Quantity, _same_quantity),
    (Bracketed, _same_bracketed),
    (SetExpression, equal_real_sets),
    (TimeOfDay, equal_times),
    (Ratio, _same_ratio),
    (BasedNumber, _never_equal),
    (Words, _same_words),
)
