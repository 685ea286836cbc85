"""Compare two formulas exactly.

Rational numbers are compared exactly, other constants to hundreds of digits, and formulas with
variables at points of both signs. math-verify decides what is left.
"""

import re
from fractions import Fraction
from typing import Any

import math_verify
import sympy
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

from reasoning_lab.verify.formulas import Literal, SuppressSympyErrors, parse_formula, parse_literal

_ROUNDED_PLACES = 6
_POINTS = [
    [sympy.Rational(number) for number in point.split()]
    for point in (
        "17/13 -19/29 41/17 -7/5",
        "-23/19 31/37 -5/11 43/31",
        "29/53 37/23 59/47 11/61",
        "71/19 83/29 67/13 97/31",
    )
]
# These lie beyond the constants of answers, where |x - 2024| has its other sign.
_FAR_POINTS = [
    [sign * sympy.Rational(size, 7) for size in (100_003, 200_003, 300_007, 400_009)]
    for sign in (1, -1)
]
_PIECEWISE = (sympy.Abs, sympy.Max, sympy.Min, sympy.floor, sympy.ceiling, sympy.Piecewise)
_FACTORIALS = (sympy.factorial, sympy.binomial, sympy.gamma)
_DIGITS = 30
_MIN_RELATIVE_DIFFERENCE = sympy.Float("1e-20")
_NEARLY_ZERO = sympy.Float("1e-25")


def equal_formulas(gold: str, answer: str) -> bool:
    """Return whether two formulas are equal; a gold of six decimals or more may be rounded."""
    if _remove_spaces(gold) == _remove_spaces(answer):
        return True
    gold_literal, answer_literal = parse_literal(gold), parse_literal(answer)
    if gold_literal and answer_literal:
        equal = gold_literal.value == answer_literal.value
        return equal or _is_rounding_of(gold_literal, answer_literal.value)
    gold_formula, answer_formula = parse_formula(gold), parse_formula(answer)
    if gold_formula is None or answer_formula is None:
        return False
    if gold_literal and _may_be_rounded(gold_literal):
        return _is_rounded_value(gold_literal, answer_formula)
    return equal_expressions(gold_formula, answer_formula)


def _remove_spaces(text: str) -> str:
    return re.sub(r"\s+(?![A-Za-z0-9])|(?<![A-Za-z0-9])\s+", "", text)


def _is_rounding_of(gold: Literal, value: Fraction) -> bool:
    half = Fraction(1, 2 * 10**gold.places)
    return _may_be_rounded(gold) and abs(gold.value - value) <= half


def _may_be_rounded(gold: Literal) -> bool:
    """Return whether a literal has six decimals and six significant digits, or more."""
    digits = abs(gold.value) * 10**gold.places
    return gold.places >= _ROUNDED_PLACES and digits >= 10 ** (_ROUNDED_PLACES - 1)


def _is_rounded_value(gold: Literal, answer: Any) -> bool:
    with SuppressSympyErrors():
        value = answer.evalf(gold.places + _DIGITS)
        is_number = bool(value.is_Float or value.is_Integer)
        return is_number and _is_rounding_of(gold, Fraction(str(value)))
    return False


def equal_expressions(gold: Any, answer: Any) -> bool:
    """Return whether two evaluated sympy objects are equal."""
    are_matrices = {isinstance(side, sympy.MatrixBase) for side in (gold, answer)}
    if True in are_matrices:
        same_shape = False not in are_matrices and gold.shape == answer.shape
        return same_shape and all(map(equal_expressions, gold.flat(), answer.flat()))
    if gold == answer:
        return not gold.has(sympy.nan, sympy.zoo)
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return _same_by_math_verify(gold, answer)
    if gold.is_Rational and answer.is_Rational:
        return False
    if any(side.has(sympy.oo, -sympy.oo, sympy.nan, sympy.zoo) for side in (gold, answer)):
        return False
    if gold.atoms(AppliedUndef) or answer.atoms(AppliedUndef):
        return _same_by_math_verify(gold, answer)
    if gold.has(*_FACTORIALS) and answer.has(*_FACTORIALS) and sympy.combsimp(gold / answer) == 1:
        return True
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    is_same = _same_at_points(gold, answer, symbols) if symbols else _same_constant(gold, answer)
    return _same_by_math_verify(gold, answer) if is_same is None else is_same


def _same_at_points(gold: Any, answer: Any, symbols: list[Any]) -> bool | None:
    """Compare at fixed points of both signs; None where fewer than two have real values."""
    compared_points = 0
    for point in (*_POINTS, *(_FAR_POINTS if _has_pieces(gold - answer) else ())):
        values = {s: point[at % 4] + at // 4 for at, s in enumerate(symbols)}
        try:
            gold_value, answer_value = gold.subs(values).doit(), answer.subs(values).doit()
            if not (_is_real(gold_value) and _is_real(answer_value)) and not gold.has(sympy.I):
                continue
            is_same = _same_constant(gold_value, answer_value)
        except MemoryError:
            raise
        except Exception:
            return None
        if is_same is False:
            return False
        compared_points += is_same is True
    return True if compared_points > 1 else None


def _has_pieces(difference: Any) -> bool:
    """Return whether a formula may change its form far from zero, as `|x - 5|` does."""
    powers = difference.atoms(sympy.Pow)
    if any(power.exp.free_symbols for power in powers):
        return False
    roots = any(power.exp.is_Rational and power.exp.q % 2 == 0 for power in powers)
    return bool(roots or difference.has(*_PIECEWISE))


def _is_real(value: Any) -> bool:
    number = value.evalf(_DIGITS)
    return bool(number.is_Number and number.is_finite)


def _same_constant(gold: Any, answer: Any) -> bool | None:
    """Compare two constants exactly, or to hundreds of digits; None where sympy cannot."""
    with SuppressSympyErrors():
        difference = gold - answer
        if difference.is_Rational:
            return bool(difference == 0)
        gold_value, answer_value = evaluate_constant(gold), evaluate_constant(answer)
        if gold_value is None or answer_value is None:
            return None
        scale = max(abs(gold_value), abs(answer_value))
        # A value that is nearly zero may be a zero that sympy did not simplify.
        smallest = scale * _MIN_RELATIVE_DIFFERENCE
        if scale > _NEARLY_ZERO and abs(gold_value - answer_value) > smallest:
            return False
        parts = difference.as_real_imag() if difference.has(sympy.I) else (difference,)
        return all(map(_vanishes, parts))
    return None


def evaluate_constant(value: Any) -> Any | None:
    """Evaluate a constant to thirty digits; None when it has no finite value."""
    number = value.evalf(_DIGITS)
    parts = number.as_real_imag()
    return number if all(part.is_Number and part.is_finite for part in parts) else None


def _vanishes(value: Any) -> bool:
    if value.is_Rational:
        return bool(value == 0)
    try:
        return bool(value.evalf(5, maxn=2_000, strict=True) == 0)
    except PrecisionExhausted:
        return True


def _same_by_math_verify(gold: Any, answer: Any) -> bool:
    return bool(math_verify.verify([gold], [answer], timeout_seconds=None))
