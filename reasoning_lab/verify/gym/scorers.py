"""The lab's scorers, for families whose reasoning-gym scorer evaluates text or is wrong.

Each scorer returns whether the answer is correct, or raises NotInGrammarError. It parses answer,
gold and metadata by `expressions` or a regular expression and evaluates none of them, since the
rows may come from elsewhere.

The differences from reasoning-gym's scorers:

- `countdown`, `puzzle24`: the value must be exact, and the answer uses all numbers of the problem.
  reasoning-gym allows a relative error of 1e-5, rounds towards zero, and does not check which
  numbers an answer to puzzle24 uses.
- `coin_flip`: reasoning-gym gives the full score to `0` for a gold of `0.23`.
- `game_of_life_halting`: reasoning-gym accepts any text.
- `number_sorting`: reasoning-gym allows a difference of 1 in each number.
"""

import re
import string
from collections.abc import Callable
from fractions import Fraction

from reasoning_lab.types import Problem
from reasoning_lab.verify.gym.expressions import Grammar, NotInGrammarError
from reasoning_lab.verify.gym.polynomials import Polynomial

Scorer = Callable[[Problem, str], bool]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}")
_INTEGER = re.compile(r"[0-9]+")
_ANY_BASE = re.compile(
    r"([-+]?)\s*(0[xX][0-9a-fA-F]{1,300}|0[oO][0-7]{1,300}|0[bB][01]{1,1000}|0|[1-9][0-9]{0,300})"
)
_LIST = re.compile(r"\[[-+0-9.,'\"\s]*\]")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})")
_PROBABILITY = re.compile(r"\+?(?:(?:[0-9]{1,30})?\.?[0-9]{1,30}|[0-9]{1,30}\s*/\s*[0-9]{1,30})%?")
_PROBABILITY_ATOL = Fraction(1, 10_000)
_PROBABILITY_RTOL = Fraction(1, 1_000)
_ARITHMETIC = Grammar(number=Fraction)


def _polynomial_multiplication(problem: Problem, answer: str) -> bool:
    """Return whether the answer is the expanded product; an unexpanded product is wrong."""
    names = {*string.ascii_letters, *_NAME.findall(problem.gold)}
    gold, value = _parse_polynomial(problem.gold, names), _parse_polynomial(answer, names)
    return value.expanded and value.terms == gold.terms


def _simple_integration(problem: Problem, answer: str) -> bool:
    """Return whether the answer's derivative is the integrand."""
    variable = str(problem.metadata["variable"])
    names = {*string.ascii_letters, variable, "C1", "C_1", "constant"}
    integrand = _parse_polynomial(str(problem.metadata["integrand"]), names, decimals=True)
    value = _parse_polynomial(answer, names, decimals=True)
    return value.derivative(variable).terms == integrand.terms


def _parse_polynomial(text: str, names: set[str], decimals: bool = False) -> Polynomial:
    grammar = Grammar(
        number=Polynomial.constant,
        names={name: Polynomial.variable(name) for name in names},
        power=Polynomial.power,
        decimals=decimals,
    )
    value: Polynomial = grammar.parse(text)
    return value


def _intermediate_integration(problem: Problem, answer: str) -> bool:
    """Return whether sympy can show that the answer's derivative is the integrand."""
    # Only this family needs sympy.
    from reasoning_lab.verify.gym.calculus import is_antiderivative, parse_expression

    variable = str(problem.metadata["variable"])
    integrand = parse_expression(str(problem.metadata["integrand"]), variable)
    # sympy could not solve some of the family's integrals. Other answers can still be scored.
    if answer == problem.gold and "Integral(" in answer:
        return True
    return is_antiderivative(parse_expression(answer, variable), integrand, variable)


def _countdown(problem: Problem, answer: str) -> bool:
    """Return whether the answer uses the problem's numbers, each once, and reaches its target."""
    return _uses_and_reaches(answer, problem.metadata["numbers"], problem.metadata["target"])


def _puzzle24(problem: Problem, answer: str) -> bool:
    """Return whether the answer uses the problem's four numbers, each once, and reaches 24."""
    return _uses_and_reaches(answer, problem.metadata["numbers"], 24)


def _uses_and_reaches(expression: str, numbers: list[int], target: int) -> bool:
    value = _ARITHMETIC.parse(expression)
    used_numbers = sorted(int(number) for number in _INTEGER.findall(expression))
    return used_numbers == sorted(int(number) for number in numbers) and bool(value == int(target))


def _bitwise_arithmetic(problem: Problem, answer: str) -> bool:
    return _parse_integer(answer) == _parse_integer(problem.gold)


def _parse_integer(text: str) -> int:
    match = _ANY_BASE.fullmatch(text.strip())
    if match is None:
        raise NotInGrammarError("no integer")
    return int(match[1] + match[2], base=0)


def _number_sorting(problem: Problem, answer: str) -> bool:
    return _parse_numbers(answer) == _parse_numbers(problem.gold)


def _parse_numbers(text: str) -> list[Fraction]:
    inside = text.strip()[1:-1].strip().rstrip(",")
    items = [item.strip(" \t\r\n'\"") for item in inside.split(",")] if inside else []
    if not _LIST.fullmatch(text.strip()) or not all(map(_DECIMAL.fullmatch, items)):
        raise NotInGrammarError("no list of numbers")
    return [Fraction(item) for item in items]


def _coin_flip(problem: Problem, answer: str) -> bool:
    """Return whether both are the same probability, up to rounding to four decimals."""
    gold, value = _parse_probability(problem.gold), _parse_probability(answer)
    return abs(value - gold) <= min(_PROBABILITY_ATOL, _PROBABILITY_RTOL * gold)


def _parse_probability(text: str) -> Fraction:
    stripped = text.strip()
    if not _PROBABILITY.fullmatch(stripped):
        raise NotInGrammarError("no probability")
    try:
        value = Fraction(stripped.rstrip("%").replace(" ", ""))
    except (ValueError, ZeroDivisionError) as error:
        raise NotInGrammarError("no probability") from error
    return value / 100 if stripped.endswith("%") else value


def _same_text(problem: Problem, answer: str) -> bool:
    return answer.strip() == problem.gold.strip()


def _same_word(problem: Problem, answer: str) -> bool:
    return answer.strip().casefold() == problem.gold.strip().casefold()


def _n_queens(problem: Problem, answer: str) -> bool:
    return answer in list(problem.metadata["valid_answers"])


SCORERS: dict[str, Scorer] = {
    "binary_matrix": _same_text,
    "bitwise_arithmetic": _bitwise_arithmetic,
    "coin_flip": _coin_flip,
    "countdown": _countdown,
    "game_of_life_halting": _same_word,
    "intermediate_integration": _intermediate_integration,
    "n_queens": _n_queens,
    "number_sorting": _number_sorting,
    "polynomial_multiplication": _polynomial_multiplication,
    "puzzle24": _puzzle24,
    "simple_integration": _simple_integration,
    "spiral_matrix": _same_text,
    "string_insertion": _same_text,
}
