"""Canonical forms: problems that differ in nothing that a solver has to think about share one.

A form sorts operands where the operation commutes, replaces names and wording, and keeps numbers.
Problems of one form are twins. Every source splits by the form, so twins are in one split, and a
generator draws one of them. Rules are by the shape of a prompt: whoever made it, and whatever
checks it, "3 + 4" and "4 + 3" are twins. A prompt that no rule knows is its own form, up to case
and spacing.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reasoning_lab.types import Problem, prompt_id
from reasoning_lab.verify.gym.expressions import Grammar, NotInGrammarError

# A part of the identity of generated problems: raised when a rule changes.
FORMS_VERSION = 1

_LONGEST_PROMPT = 4_000


def canonical_form(problem: Problem) -> str:
    """What twins have in common; the text that the user says, where no rule knows its shape."""
    if problem.earlier_messages or len(problem.prompt) > _LONGEST_PROMPT:
        return problem.user_text
    if problem.checker in _BY_METADATA:
        form = _BY_METADATA[problem.checker](problem)
        return problem.user_text if form is None else f"{problem.family}: {form}"
    prompt = " ".join(problem.prompt.split())
    for kind, shape, form_of in _BY_PROMPT:
        if (match := shape.fullmatch(prompt)) is not None:
            form = form_of(*(part for part in match.groups() if part is not None))
            if form is not None:
                return f"{kind}: {form}"
    return problem.user_text


def form_id(problem: Problem) -> str:
    """16 hex digits that identify the canonical form; the problem's id where no rule knows it."""
    return prompt_id(canonical_form(problem))


@dataclass(frozen=True)
class _Expression:
    """A sum of products as it is written: nothing is computed.

    Attributes:
        terms: The sign and the sorted factors of each term, in any order.
    """

    terms: tuple[tuple[int, tuple[str, ...]], ...]

    @classmethod
    def atom(cls, text: object) -> "_Expression":
        return cls(((1, (str(text),)),))

    def __add__(self, other: "_Expression") -> "_Expression":
        return _Expression((*self.terms, *other.terms))

    def __neg__(self) -> "_Expression":
        return _Expression(tuple((-sign, factors) for sign, factors in self.terms))

    def __sub__(self, other: "_Expression") -> "_Expression":
        return self + -other

    def __mul__(self, other: "_Expression") -> "_Expression":
        (sign, factors), (other_sign, other_factors) = self._product(), other._product()
        return _Expression(((sign * other_sign, tuple(sorted((*factors, *other_factors)))),))

    def __truediv__(self, other: "_Expression") -> "_Expression":
        return self * _Expression.atom(f"/{other._factor()}")

    def power(self, exponent: "_Expression") -> "_Expression":
        return _Expression.atom(f"{self._factor()}**{exponent._factor()}")

    def __str__(self) -> str:
        texts = (("+" if sign > 0 else "-") + "*".join(factors) for sign, factors in self.terms)
        return "".join(sorted(texts))

    def _product(self) -> tuple[int, tuple[str, ...]]:
        return self.terms[0] if len(self.terms) == 1 else (1, (f"({self})",))

    def _factor(self) -> str:
        is_atom = len(self.terms) == 1 and self.terms[0][0] > 0 and len(self.terms[0][1]) == 1
        return self.terms[0][1][0] if is_atom else f"({self})"


def _expression(text: str) -> str | None:
    """The canonical text of an expression, in which one variable is called x."""
    letters = set(re.findall("[A-Za-z]", text))
    names = {one: _Expression.atom("x" if len(letters) == 1 else one) for one in letters}
    grammar = Grammar(_Expression.atom, names, power=_Expression.power, decimals=True)
    try:
        return str(grammar.parse(text))
    except NotInGrammarError:
        return None


def _equation(left: str, right: str) -> str | None:
    sides = (_expression(left), _expression(right))
    return None if None in sides else f"{sides[0]} = {sides[1]}"


def _sorted_numbers(text: str) -> str:
    return " ".join(sorted(re.findall(r"\d+", text), key=lambda digits: (len(digits), digits)))


def _sorted_list(text: str) -> str:
    """A list of which the order says nothing, such as animals; each name stands for its number."""
    return ", ".join(sorted(text.split(", ")))


def _unordered(*operands: str) -> str:
    return " and ".join(sorted(operands))


def _fraction(text: str) -> str:
    return "/".join(re.findall(r"\d+", text))


_INNERMOST_BRACKETS = re.compile(r"\(([^\s()]+) ([-+*]|<<|>>) ([^\s()]+)\)")


def _bitwise(text: str) -> str:
    """Every operation has brackets of its own; the innermost ones are sorted first."""

    def with_sorted_operands(match: re.Match[str]) -> str:
        left, operation, right = match.groups()
        operands = sorted([left, right]) if operation in "+*" else [left, right]
        return f"[{operands[0]}{operation}{operands[1]}]"

    while (shorter := _INNERMOST_BRACKETS.sub(with_sorted_operands, text)) != text:
        text = shorter
    return text


def _dice(dice: str, target: str) -> str:
    return f"{_sorted_list(dice)} >= {target}"


def _calendar(problem: Problem) -> str | None:
    """What is asked of which dates; of a day of the week that is counted, only the dates."""
    if "task" not in problem.metadata:
        return None
    wording = ("source_dataset", "source_index", "difficulty")
    decisive = {key: value for key, value in problem.metadata.items() if key not in wording}
    return json.dumps(decisive, sort_keys=True, default=str)


def _word_problem(problem: Problem) -> str | None:
    """The template with its numbers; every name and thing that was put into it is left out."""
    variables = problem.metadata.get("variables")
    if not isinstance(variables, Mapping):
        return None
    values = (value if isinstance(value, list) else [value] for value in variables.values())
    texts = {text for listed in values for text in listed if isinstance(text, str) and text}
    names = sorted((t for t in texts if not re.search(r"\d", t)), key=lambda t: (-len(t), t))
    if not names:
        return problem.prompt
    return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})", "_", problem.prompt)


def _sorted_words(what: str, words: str) -> str:
    """Words whose order the answer does not depend on, and what is asked of them."""
    return f"{what}: {' '.join(sorted(re.findall(r'[^, ]+', words)))}"


def _prerequisites(courses: str, pairs: str) -> str:
    return f"{courses}: {' '.join(sorted(re.findall(r'[(][^()]*[)]', pairs)))}"


def _path(edges: str, ends: str) -> str:
    return f"{'|'.join(sorted(edges.split('|')))}/{ends}"


def _shape(*prompts: str) -> re.Pattern[str]:
    """Prompts of one shape; the form is made of each `{}`, and `{_}` is any other text."""
    pattern = "|".join(map(re.escape, prompts))
    pattern = pattern.replace(re.escape("{}"), "(.+?)").replace(re.escape("{_}"), ".+?")
    return re.compile(pattern)


# By what checks a problem: forms that only the generator's own notes give.
_BY_METADATA: Mapping[str, Callable[[Problem], str | None]] = {
    "reasoning_gym/calendar_arithmetic": _calendar,
    "reasoning_gym/gsm_symbolic": _word_problem,
}
# What is asked, the prompts that ask it, and the form of their parts; None = the shape misleads.
_BY_PROMPT: tuple[tuple[str, re.Pattern[str], Callable[..., str | None]], ...] = (
    (
        "value",
        _shape(
            "State the final answer to the following arithmetic problem: {} =",
            "Solve the following multiplication: {}. Give only the result as your final answer.",
            "Calculate {}.",
            "Compute {}.",
            "Evaluate: {}.",
            "Solve {}.",
            "What is {}?",
        ),
        _expression,
    ),
    (
        "equation",
        _shape(
            "Find the real value(s) of {_} in the equation: {} = {} In solving equations, {_}",
            "Solve for real {_}: {} = {} In solving equations, {_}",
            "Determine the real value(s) of {_} that satisfies: {} = {} In solving equations, {_}",
            "Solve the polynomial equation for real {_}: {} = {} In solving equations, {_}",
            "Find the value of {_} in the equation: {} = {}",
            "Solve for {_}: {} = {}",
            "Determine the value of {_} that satisfies: {} = {}",
        ),
        _equation,
    ),
    (
        "expansion",
        _shape(
            "Simplify this expression: {} When performing calculations, {_}",
            "Calculate the following: {} When performing calculations, {_}",
        ),
        _expression,
    ),
    (
        "integral",
        _shape(
            "Find the indefinite integral: ∫ {} dx When performing calculations, {_}",
            "Calculate the antiderivative: ∫ {} dx When performing calculations, {_}",
            "Evaluate the indefinite integral: ∫ {} dx When performing calculations, {_}",
        ),
        _expression,
    ),
    ("complex sum", _shape("Add the complex numbers: ({}) + ({})"), _unordered),
    ("complex product", _shape("Multiply the complex numbers: ({}) × ({})"), _unordered),
    ("fraction", _shape("Simplify the fraction {} to its lowest terms. {_}"), _fraction),
    (
        "gcd",
        _shape("Find the Greatest Common Divisor (GCD) of these numbers: {}. {_}"),
        _sorted_numbers,
    ),
    ("lcm", _shape("Find the Least Common Multiple (LCM) of these numbers: {}"), _sorted_numbers),
    (
        "legs",
        _shape("Your task is to count how many legs there are in total {_} if you have {}?"),
        _sorted_list,
    ),
    ("dice", _shape("I have these dice: {}. What are the odds of rolling {} or {_}"), _dice),
    (
        "bitwise",
        _shape("Please solve this problem. Assume there is arbitrary bit depth {_} value. {}"),
        _bitwise,
    ),
    (
        "letters",
        _shape('How many times does the letter "{}" appear in the text: "{}"?'),
        _sorted_words,
    ),
    (
        "sorted words",
        _shape("Your task is to sort words {_} Now, sort these words in {} order {_} list: {}"),
        _sorted_words,
    ),
    (
        "courses",
        _shape("There are a total of {} courses you have to take, {_}: [{}] Return True {_}"),
        _prerequisites,
    ),
    ("path", _shape("Find a path from the start node {_} Solve the following task: {}/{}"), _path),
)
