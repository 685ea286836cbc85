"""Integrals with elementary functions: parsed by the lab's grammar, compared by sympy.

sympy receives objects and never text, which `sympify` and `parse_expr` would evaluate.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy

from reasoning_lab.verify.gym.expressions import Grammar, NotInGrammarError

_MAX_BITS = 512
_MAX_EXPONENT = 1_000
_CONSTANTS = "abcdefghjklmnopqrstuvwxyzABCDFGHJKLMNOPQRSTUVWXYZ"
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "cot": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "exp": sympy.exp,
    "log": sympy.log,
    "ln": sympy.log,
    "sqrt": sympy.sqrt,
    "Abs": sympy.Abs,
    "abs": sympy.Abs,
}


def parse_expression(text: str, variable: str) -> Any:
    """Parse `text` to an object of sympy.

    Args:
        text: Python's notation; any letter but the variable, E and I is a constant.
        variable: The name of the variable.

    Raises:
        NotInGrammarError: The text does not fit the grammar.
    """
    names = {name: sympy.Symbol(name) for name in (*_CONSTANTS, "C1", "C_1", variable)}
    grammar = Grammar(
        number=_number,
        names={"E": sympy.E, "pi": sympy.pi} | names,
        functions=_FUNCTIONS,
        power=_power,
        decimals=True,
    )
    return grammar.parse(text)


def is_antiderivative(expression: Any, integrand: Any, variable: str) -> bool:
    """Return whether sympy shows that the derivative of `expression` is `integrand`."""
    derivative = sympy.diff(expression, sympy.Symbol(variable))
    return bool(sympy.simplify(derivative - integrand) == 0)


def _number(value: Fraction) -> Any:
    return sympy.Rational(value.numerator, value.denominator)


def _power(base: Any, exponent: Any) -> Any:
    """Return `base**exponent`; refuse it where it would be a huge number or product."""
    if exponent.is_number:
        if not exponent.is_Rational or abs(exponent) > _MAX_EXPONENT:
            raise NotInGrammarError("the exponent is no small number")
        if base.is_Rational:
            bits = max(int(base.p).bit_length(), int(base.q).bit_length())
            if bits * abs(exponent) > _MAX_BITS:
                raise NotInGrammarError("a power is too large")
    return base**exponent
