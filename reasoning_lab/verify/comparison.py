"""Compare an answer's tree with gold's, by the decisions in the table of `DECISIONS.md`."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import sympy

from reasoning_lab.verify import parse_tree as tree
from reasoning_lab.verify.formula_equality import equal_formulas
from reasoning_lab.verify.formulas import parse_literal
from reasoning_lab.verify.parse_tree import Formula, Node, PlainList, Relation
from reasoning_lab.verify.relations import (
    FLIPPED,
    LONE_SYMBOL,
    are_proportional,
    distinct_names,
    equal_real_sets,
    is_equation,
    is_inequality,
    is_name,
    is_real_set,
    is_rounded_value,
    match_unordered,
    relation_value,
    remove_spaces,
    values_by_name,
    values_without_names,
)


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
        value = relation_value(gold)
        return equal_real_sets(gold, answer) if value is None else is_equivalent(value, answer)
    if gold == answer and not isinstance(gold, Formula):
        return True
    for node_type, compare in _COMPARISONS:
        if isinstance(gold, node_type) or isinstance(answer, node_type):
            return compare(gold, answer)
    if isinstance(gold, Formula) and isinstance(answer, Formula):
        return equal_formulas(gold.text, answer.text)
    return False


def _same_sides(gold: Node | None, answer: Node | None) -> bool:
    return gold is not None and answer is not None and is_equivalent(gold, answer)


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
    if first is None:
        return sides[-1] if len(sides) == 2 else None
    if is_name(relation.texts[0]):
        return sides[-1]
    if len(sides) > 1 and LONE_SYMBOL.fullmatch(relation.texts[len(sides) - 1]):
        sides = sides[:-1]
    return sides[-1] if all(_same_sides(sides[-1], side) for side in sides) else None


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
    gold_name, answer_name = (remove_spaces(relation.texts[0]) for relation in (gold, answer))
    are_names = is_name(gold.texts[0]) and is_name(answer.texts[0])
    if are_names and _same_sides(relation_value(gold), _stated_value(answer)):
        same_name = gold_name.casefold() == answer_name.casefold()
        return same_name or _same_sides(gold.sides[0], answer.sides[0])
    if len(gold.sides) == 2 and len(answer.sides) > 2:
        return gold_name == answer_name and _same_sides(relation_value(gold), answer.sides[-1])
    return are_proportional(gold, answer)


def _same_chain(gold: Relation, answer: Relation) -> bool:
    """Return whether the sides are equal in order, or in reverse with flipped relations."""
    if len(gold.sides) != len(answer.sides):
        return False
    flipped = tuple(FLIPPED.get(operator, "") for operator in reversed(answer.operators))
    return any(
        operators == gold.operators and all(map(_same_side_of_chain, gold.sides, sides))
        for operators, sides in ((answer.operators, answer.sides), (flipped, answer.sides[::-1]))
    )


def _same_side_of_chain(gold: Node | None, answer: Node | None) -> bool:
    """Compare two sides; an answer may leave out a lone symbol, as `> 5` does."""
    if answer is None and isinstance(gold, Formula):
        return LONE_SYMBOL.fullmatch(gold.text) is not None
    return gold is answer is None or _same_sides(gold, answer)


def _equal_in_order(golds: Sequence[Node], answers: Sequence[Node]) -> bool:
    return len(golds) == len(answers) and all(map(is_equivalent, golds, answers))


def _solution_values(items: Sequence[Node]) -> list[Node]:
    """Return the values; a point that is listed twice counts once."""
    values = values_without_names(items)
    are_points = all(isinstance(value, tree.Bracketed) for value in values)
    return _distinct(values) if are_points else values


def _same_list(gold: Node, answer: Node) -> bool:
    """Compare where at least one side is a list without brackets."""
    if isinstance(gold, Formula) and isinstance(answer, PlainList) and answer.conjunction == "or":
        return all(is_equivalent(gold, item) for item in answer.items)
    lists = [side for side in (gold, answer) if isinstance(side, PlainList)]
    if any(is_inequality(item) for side in lists for item in side.items):
        if len({side.conjunction for side in lists}) == 1 < len(lists):
            return match_unordered(lists[0].items, lists[1].items, is_equivalent)
        return equal_real_sets(gold, answer)
    match gold, answer:
        case PlainList(), PlainList():
            return _same_plain_list(gold, answer)
        case PlainList(), tree.Bracketed():
            return _bracketed_matches_list(gold, answer)
        case tree.Bracketed(), PlainList():
            return _list_matches_bracketed(gold, answer)
    return False


def _same_plain_list(gold: PlainList, answer: PlainList) -> bool:
    """Compare two lists without brackets, which have an order only by distinct names."""
    if (
        gold.conjunction != answer.conjunction
        and "" not in (gold.conjunction, answer.conjunction)
        and all(isinstance(item, tree.Words) for item in gold.items)
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


def _bracketed_matches_list(gold: PlainList, answer: tree.Bracketed) -> bool:
    has_distinct_names = values_by_name(gold.items) is not None
    if answer.brackets == "{}" and not has_distinct_names:
        return match_unordered(values_without_names(gold.items), answer.items, is_equivalent)
    has_one_name = len(distinct_names(gold.items)) == 1 and not has_distinct_names
    if gold.conjunction == "or" or has_one_name:
        return False
    is_ordered = answer.brackets == "()" or (answer.brackets == "[]" and len(answer.items) > 2)
    return is_ordered and _equal_in_order(values_without_names(gold.items), answer.items)


def _list_matches_bracketed(gold: tree.Bracketed, answer: PlainList) -> bool:
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
    if isinstance(gold, tree.Bracketed) and isinstance(answer, tree.Bracketed):
        if gold.brackets == "{}" == answer.brackets:
            return match_unordered(_distinct(gold.items), _distinct(answer.items), is_equivalent)
        if gold.brackets == answer.brackets:
            return _equal_in_order(gold.items, answer.items)
        return is_real_set(gold) and is_real_set(answer) and equal_real_sets(gold, answer)
    if tree.EMPTY_SET in (gold, answer):
        return tree.Words("\\emptyset") in (gold, answer)
    match gold, answer:
        case (tree.Words(), _) | (_, tree.Words()):
            return equal_real_sets(gold, answer)
        case tree.Bracketed("{}", (item,)), _:
            return is_equivalent(item, answer)
        case _, tree.Bracketed("{}", (item,)):
            return is_equivalent(gold, item)
    return equal_real_sets(gold, answer)


def _same_quantity(gold: Node, answer: Node) -> bool:
    """Compare quantities: a missing unit matches every unit, two units must be equal."""
    (gold_value, gold_unit), (answer_value, answer_unit) = (
        (node.value, node.unit) if isinstance(node, tree.Quantity) else (node, ())
        for node in (gold, answer)
    )
    if gold_unit != answer_unit and gold_unit and answer_unit:
        return False
    if is_equivalent(gold_value, answer_value) and not (
        answer_unit == ("percent",) and _is_below_one(gold)
    ):
        return True
    if gold_unit == answer_unit or ("percent",) not in (gold_unit, answer_unit):
        return False
    gold_number = _number_text(gold_value, bool(gold_unit))
    answer_number = _number_text(answer_value, bool(answer_unit))
    return "" not in (gold_number, answer_number) and equal_formulas(gold_number, answer_number)


def _is_below_one(gold: Node) -> bool:
    """Return whether gold is a number below one, which is never that many percent."""
    number = parse_literal(gold.text) if isinstance(gold, Formula) else None
    return number is not None and abs(number.value) < 1


def _number_text(node: Node, is_percentage: bool) -> str:
    """Return a formula's text, divided by 100 where it is a percentage; empty for another node."""
    if not isinstance(node, Formula):
        return ""
    if not is_percentage:
        return node.text
    number = parse_literal(node.text)
    if number is None:
        return f"\\frac{{{node.text}}}{{100}}"
    share = number.value / 100
    return f"\\frac{{{share.numerator}}}{{{share.denominator}}}"


def _same_ratio(gold: Node, answer: Node) -> bool:
    """Compare ratios up to a factor; a ratio that may be a time of day is not reduced."""
    may_be_reduced = not any(
        isinstance(node, tree.Ratio) and node.may_be_time and _is_reducible(node)
        for node in (gold, answer)
    )
    if isinstance(gold, tree.Ratio) and isinstance(answer, tree.Ratio):
        return _equal_in_order(gold.parts, answer.parts) or (
            may_be_reduced and _proportional_parts(gold.parts, answer.parts)
        )
    ratio, other = (gold, answer) if isinstance(gold, tree.Ratio) else (answer, gold)
    if not isinstance(ratio, tree.Ratio) or not isinstance(other, Formula):
        return False
    if not may_be_reduced or len(ratio.parts) != 2:
        return False
    numerator, denominator = _formula_texts(*ratio.parts)
    fraction = f"\\frac{{{numerator}}}{{{denominator}}}"
    if other is answer:
        return equal_formulas(fraction, other.text)
    literal = parse_literal(other.text)
    if literal and "." not in other.text and literal.value.denominator == 1:
        return False
    return equal_formulas(other.text, fraction)


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


def _is_reducible(ratio: tree.Ratio) -> bool:
    numbers = [parse_literal(part.text) for part in ratio.parts if isinstance(part, Formula)]
    values = [int(number.value) for number in numbers if number]
    return len(values) != 2 or sympy.gcd(*values) != 1


def _same_congruence(gold: Node, answer: Node) -> bool:
    if not (isinstance(gold, tree.Congruence) and isinstance(answer, tree.Congruence)):
        return False
    return is_equivalent(gold.value, answer.value) and is_equivalent(gold.modulus, answer.modulus)


def _same_words(gold: Node, answer: Node) -> bool:
    gold_text, answer_text = _comparable_text(gold), _comparable_text(answer)
    if gold_text is not None and gold_text == answer_text:
        return True
    return tree.Words("reals") in (gold, answer) and equal_real_sets(gold, answer)


def _comparable_text(node: Node) -> str | None:
    if isinstance(node, tree.Words):
        return node.text
    return node.text.casefold().strip("() ") if isinstance(node, Formula) else None


def _same_time(gold: Node, answer: Node) -> bool:
    """Compare times of day; a missing `am` or `pm` matches both."""
    gold_time, answer_time = _parse_time(gold), _parse_time(answer)
    if gold_time is None or answer_time is None or gold_time.minute != answer_time.minute:
        return False
    if gold_time.am_pm and answer_time.am_pm:
        return gold_time == answer_time
    if gold_time.hour == answer_time.hour:
        return True
    either_has_half = bool(gold_time.am_pm or answer_time.am_pm)
    return either_has_half and _hour_of_day(gold_time) == _hour_of_day(answer_time)


def _hour_of_day(time: tree.TimeOfDay) -> int:
    return time.hour % 12 + (12 if time.am_pm == "pm" else 0) if time.am_pm else time.hour


def _parse_time(node: Node) -> tree.TimeOfDay | None:
    if isinstance(node, tree.TimeOfDay):
        return node
    if isinstance(node, tree.Ratio) and node.may_be_time:
        hour, minute = map(parse_literal, _formula_texts(*node.parts))
        if hour and minute:
            return tree.TimeOfDay(int(hour.value), int(minute.value), "")
    return None


# The first type that gold or answer has decides.
_COMPARISONS: tuple[tuple[type, Callable[[Node, Node], bool]], ...] = (
    (PlainList, _same_list),
    (tree.Congruence, _same_congruence),
    (tree.Quantity, _same_quantity),
    (tree.Bracketed, _same_bracketed),
    (tree.SetExpression, equal_real_sets),
    (tree.TimeOfDay, _same_time),
    (tree.Ratio, _same_ratio),
    (tree.BasedNumber, lambda gold, answer: False),
    (tree.Words, _same_words),
)
