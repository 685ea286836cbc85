"""Solvers of logic: knights and knaves, syllogisms, and counting a person who is left out."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reasoning_lab.data.teachers.solvers.scratchpad import Scratchpad
from reasoning_lab.types import Problem

_TRUTH_VALUES = ("T", "F")
_PRIMITIVE = ("telling-truth", "lying")
_STATEMENT = re.compile(r"(All|No|Some) (\w+) are (not )?(\w+)")
_FORMS = ("all", "no", "some", "some not")
_NOTHING = "nothing"
# "All A are B" and "some B are C" tell nothing of A and C: those C need not be the A.
_THEN = {
    ("all", "all"): "all",
    ("all", "no"): "no",
    ("some", "all"): "some",
    ("some", "no"): "some not",
}
_TURNED = {"all": "some", "no": "no", "some": "some", "some not": _NOTHING}
# Every kind has members, as in Aristotle's logic.
_GIVES: Mapping[str, Sequence[str]] = {
    "all": ("all", "some"),
    "no": ("no", "some not"),
    "some": ("some",),
    "some not": ("some not",),
    _NOTHING: (),
}
_PEOPLE_COUNT = re.compile(r"(\w+) has .*?(\d+) (sisters|female friends|female colleagues)")


def knights_knaves(problem: Problem, pad: Scratchpad) -> str:
    """Try the roles in turn, T for a person who tells the truth, until all statements fit.

    Below the roles stand the people's statements in order, up to the first that does not fit.
    """
    names, terms = problem.metadata["names"], problem.metadata["knight_knave_terms"]
    statements = problem.metadata["statements"]
    roles: tuple[bool, ...] = ()
    for roles in itertools.product((True, False), repeat=len(names)):
        pad.lines.append(f"Try {' '.join(map(_letter, roles))}")
        fits = all(
            _is_true(pad, statement, roles) is role
            for statement, role in zip(statements, roles, strict=True)
        )
        pad.lines.append("fits" if fits else "no")
        if fits:
            break
    kinds = [terms["a_knight"] if role else terms["a_knave"] for role in roles]
    *first, last = (f"{name} is {kind}" for name, kind in zip(names, kinds, strict=True))
    return f"{', '.join(first)}, and {last}" if first else last


def _is_true(pad: Scratchpad, statement: Any, roles: Sequence[bool]) -> bool:
    """Write the statement with truth values in place of its parts, and then its own."""
    parts = [roles[person] is (kind == "telling-truth") for kind, person in _parts(statement)]
    if _is_simple(statement):
        return pad.step("{}", _letter(parts[0]), _TRUTH_VALUES) == "T"
    text, value = _text(statement, iter(parts)), _value(statement, iter(parts))
    lines = [f"{text} = {_letter(value)}", f"{text} = {_letter(not value)}"]
    for at, part in enumerate(parts):
        mistaken = [*parts[:at], not part, *parts[at + 1 :]]
        value = _value(statement, iter(mistaken))
        lines.append(f"{_text(statement, iter(mistaken))} = {_letter(value)}")
    return pad.step("{}", lines[0], lines).endswith("T")


def _letter(truth: bool) -> str:
    return "T" if truth else "F"


def _parts(statement: Any) -> Iterator[tuple[str, int]]:
    """The simple statements in it, as (kind, person); the problem's text has them negated."""
    if statement[0] in _PRIMITIVE:
        yield statement[0], statement[1]
    elif statement[0] == "not" and statement[1][0] in _PRIMITIVE:
        kind, person = statement[1]
        yield _PRIMITIVE[1 - _PRIMITIVE.index(kind)], person
    else:
        for part in statement[1:]:
            yield from _parts(part)


def _is_simple(statement: Any) -> bool:
    return statement[0] in _PRIMITIVE or (statement[0] == "not" and statement[1][0] in _PRIMITIVE)


def _text(statement: Any, values: Iterator[bool]) -> str:
    """The statement as the problem words it, with the `values` of its simple parts."""
    if _is_simple(statement):
        return _letter(next(values))
    parts = [
        _text(part, values) if _is_simple(part) else f"({_text(part, values)})"
        for part in statement[1:]
    ]
    if statement[0] == "not":
        return f"not {parts[0]}"
    if statement[0] == "->":
        return f"if {parts[0]} then {parts[1]}"
    return (" iff " if statement[0] == "<=>" else f" {statement[0]} ").join(parts)


def _value(statement: Any, values: Iterator[bool]) -> bool:
    if _is_simple(statement):
        return next(values)
    parts = [_value(part, values) for part in statement[1:]]
    if statement[0] == "not":
        return not parts[0]
    if statement[0] == "->":
        return parts[1] or not parts[0]
    if statement[0] == "<=>":
        return parts[0] is parts[1]
    return all(parts) if statement[0] == "and" else any(parts)


def syllogism(problem: Problem, pad: Scratchpad) -> str:
    """What the premises say of the conclusion's two kinds, and whether that gives the conclusion.

    Either one premise has both kinds, then it is turned round, or the first leads to the second.
    """
    premises = [_STATEMENT.fullmatch(problem.metadata[key]) for key in ("premise1", "premise2")]
    goal = _STATEMENT.fullmatch(problem.metadata["conclusion"])
    if goal is None or None in premises:
        return "No"
    both = [p for p in premises if p is not None and {p[2], p[4]} == {goal[2], goal[4]}]
    written = [
        pad.step(f"{premise[2]} {premise[4]}: {{}}", _form(premise), _FORMS)
        for premise in both or premises
        if premise is not None
    ]
    if both:
        line, known = f"{written[0]} turned", _TURNED[written[0]]
    else:
        line, known = " then ".join(written), _THEN.get((written[0], written[1]), _NOTHING)
    known = pad.step(f"{line} = {{}}", known, (*_FORMS, _NOTHING))
    wanted = _form(goal)
    answer = "Yes" if wanted in _GIVES[known] else "No"
    return pad.step(f"{known} gives {wanted} = {{}}", answer, ("Yes", "No"))


def _form(statement: re.Match[str]) -> str:
    return statement[1].lower() + (" not" if statement[3] else "")


def aiw(problem: Problem, pad: Scratchpad) -> str:
    """A woman's sisters or female friends, and herself."""
    match = _PEOPLE_COUNT.search(problem.prompt)
    if match is None:
        return "0"
    woman, count, kind = match.groups()
    known = pad.step(f"{woman}: {{}} {kind}", int(count))
    pad.lines.append(f"and {woman} herself")
    return str(pad.step(f"{known} + 1 = {{}}", known + 1))
