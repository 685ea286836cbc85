"""Integrals with elementary functions: parsed by the lab's grammar, compared by sympy.

sympy receives objects and never text, which `sympify` and `parse_expr` would evaluate.
"""

from typing import Any

import sympy

from reasoning_lab.verify.gym.expressions import Grammar, NotInGrammarError

_MAX_BITS = 512
_MAX_EXPONENT = 1_000
_CONSTANTS = "abcdefghjklmnopqrstuvwxyzABCDFGHJKLMNOPQRSTUVWXYZ"
_NAMES = "sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log sqrt Abs"
_FUNCTIONS = {name: getattr(sympy, name) for name in _NAMES.split()}
_OTHER_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs"}
_FUNCTIONS |= {name: _FUNCTIONS[other] for name, other in _OTHER_NAMES.items()}


def parse_expression(text: str, variable: str) -> Any:
    """Parse Python's notation, in which any letter but `variable`, E and I is a constant, to sympy.

    Raises:
        NotInGrammarError: The text does not fit the grammar.
    """
    names = {name: sympy.Symbol(name) for name in (*_CONSTANTS, "C1", "C_1", variable)}
    grammar = Grammar(
        number=lambda value: sympy.Rational(value.numerator, value.denominator),
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
