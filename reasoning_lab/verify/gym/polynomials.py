"""Exact polynomials in several variables, as values for `expressions`.

Exponents are integers and may be negative. Degree, coefficients and the number of terms are
bounded, so a product of many `(x+1)**200` is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from reasoning_lab.verify.gym.expressions import NotInGrammarError

# Name and exponent of each factor, sorted by name: x**2*y is (("x", 2), ("y", 1)).
Monomial = tuple[tuple[str, int], ...]

_MAX_EXPONENT = 1_000
_MAX_BITS = 4_096
_MAX_PRODUCTS = 5_000
_MAX_EXPONENT_OF_SUM = 60


@dataclass(frozen=True)
class Polynomial:
    """A sum of terms.

    Args:
        terms: The coefficient of each monomial, without zeros.
        expanded: Whether the text was a plain sum of terms, in which a sum is multiplied only by
            numbers and never raised to a power.
    """

    terms: Mapping[Monomial, Fraction]
    expanded: bool = True

    def __post_init__(self) -> None:
        for monomial, coefficient in self.terms.items():
            size = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length())
            if size > _MAX_BITS or any(abs(power) > _MAX_EXPONENT for _, power in monomial):
                raise NotInGrammarError("a coefficient or an exponent is too large")

    @classmethod
    def constant(cls, value: Fraction) -> Self:
        return cls({(): value} if value else {})

    @classmethod
    def variable(cls, name: str) -> Self:
        return cls({((name, 1),): Fraction(1)})

    def __add__(self, other: "Polynomial") -> "Polynomial":
        total = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
        return Polynomial(_without_zeros(total), self.expanded and other.expanded)

    def __neg__(self) -> "Polynomial":
        return Polynomial({m: -c for m, c in self.terms.items()}, self.expanded)

    def __sub__(self, other: "Polynomial") -> "Polynomial":
        return self + -other

    def __mul__(self, other: "Polynomial") -> "Polynomial":
        if len(self.terms) * len(other.terms) > _MAX_PRODUCTS:
            raise NotInGrammarError("too many terms")
        total: dict[Monomial, Fraction] = {}
        for left, left_coefficient in self.terms.items():
            for right, right_coefficient in other.terms.items():
                monomial = _multiply_monomials(left, right)
                product = left_coefficient * right_coefficient
                total[monomial] = total.get(monomial, Fraction(0)) + product
        no_sums = len(self.terms) == len(other.terms) == 1
        keeps_form = self._is_constant or other._is_constant or no_sums
        return Polynomial(_without_zeros(total), keeps_form and self.expanded and other.expanded)

    def __truediv__(self, other: "Polynomial") -> "Polynomial":
        return self * other._inverse()

    def power(self, exponent: "Polynomial") -> "Polynomial":
        """Return this polynomial to the power of a constant integer, which is at least 0 for a sum.

        Raises:
            NotInGrammarError: The exponent is anything else, or too large.
        """
        value = exponent.terms.get((), Fraction(0))
        if not exponent._is_constant or value.denominator != 1 or abs(value) > _MAX_EXPONENT:
            raise NotInGrammarError("the exponent is no small integer")
        base = self if value >= 0 else self._inverse()
        if len(base.terms) > 1 and value > _MAX_EXPONENT_OF_SUM:
            raise NotInGrammarError("a power of a sum is too large")
        bits = max((c.numerator.bit_length() for c in base.terms.values()), default=0)
        if bits * abs(value) > _MAX_BITS:
            raise NotInGrammarError("a power is too large")
        result = Polynomial.constant(Fraction(1))
        for _ in range(abs(int(value))):
            result = result * base
        return result

    def derivative(self, name: str) -> "Polynomial":
        """Return the derivative with respect to the variable `name`."""
        total: dict[Monomial, Fraction] = {}
        for monomial, coefficient in self.terms.items():
            power = dict(monomial).get(name, 0)
            if power:
                total[_multiply_monomials(monomial, ((name, -1),))] = coefficient * power
        return Polynomial(total, self.expanded)

    @property
    def _is_constant(self) -> bool:
        return all(monomial == () for monomial in self.terms)

    def _inverse(self) -> "Polynomial":
        if not self.terms:
            raise ZeroDivisionError
        if len(self.terms) > 1:
            raise NotInGrammarError("division by a sum")
        ((monomial, coefficient),) = self.terms.items()
        inverse = tuple((name, -power) for name, power in monomial)
        return Polynomial({inverse: 1 / coefficient}, self.expanded)


def _multiply_monomials(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _without_zeros(terms: Mapping[Monomial, Fraction]) -> dict[Monomial, Fraction]:
    return {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
