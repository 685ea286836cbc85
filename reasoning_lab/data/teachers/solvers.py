"""How the procedural teacher solves each problem family: one function a family.

A solver reads the metadata that reasoning-gym stores with a problem and writes its working on the
scratchpad. It returns the answer that the working leads to. Every number that could be wrong goes
through `Scratchpad.step`; nothing reads the gold answer.
"""

import itertools
import random
import re
from collections.abc import Callable, Mapping
from typing import Any


class Scratchpad:
    """The lines of one chain of thought, with slips at fixed rates.

    A noticed slip is written, then repaired; an unnoticed one is believed.

    Attributes:
        lines: What has been written.
    """

    def __init__(
        self, rng: random.Random, noticed_slip_rate: float, unnoticed_slip_rate: float
    ) -> None:
        self._rng = rng
        self._noticed_slip_rate = noticed_slip_rate
        self._unnoticed_slip_rate = unnoticed_slip_rate
        self.lines: list[str] = []

    def step(self, template: str, value: int) -> int:
        """Write `template` with its `{}` filled by the value, or by a slip of it.

        Returns:
            What the rest of the chain uses: the value, or a wrong one after an unnoticed slip.
        """
        draw = self._rng.random()
        if draw < self._noticed_slip_rate:
            self.lines.append(template.format(self._slip(value)))
            template = "Wait, " + template
        elif draw < self._noticed_slip_rate + self._unnoticed_slip_rate:
            value = self._slip(value)
        self.lines.append(template.format(value))
        return value

    def _slip(self, value: int) -> int:
        slipped = value + self._rng.choice([-2, -1, -1, 1, 1, 2, -10, 10])
        return slipped if (slipped < 0) == (value < 0) else value + 1


Solver = Callable[[Mapping[str, Any], Scratchpad], str]


def chain_sum(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Left to right, one term at a time."""
    first, *rest = metadata["expression"].split()
    total = int(first)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        value = total + int(term) if operator == "+" else total - int(term)
        total = pad.step(f"{total} {operator} {term} = {{}}", value)
    return str(total)


def leg_counting(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Legs of each kind of animal, then the running total."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total = 0
    for position, (animal, count) in enumerate(metadata["animals"].items()):
        legs = pad.step(f"{count} * {ANIMALS[animal]} = {{}}", count * ANIMALS[animal])
        total = pad.step(f"{total} + {legs} = {{}}", total + legs) if position else legs
    return str(total)


def simple_equations(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Move the constant to the right, divide by the coefficient."""
    left, right = metadata["equation"].split(" = ")
    name = metadata["variable"]
    coefficient, constant, total = 0, 0, int(right)
    for sign, term in re.findall(r"([+-]?) ?([0-9a-z*]+)", left):
        factor = -1 if sign == "-" else 1
        if term.endswith(name):
            number = term.removesuffix(name).removesuffix("*")
            coefficient += factor * int(number or 1)
        else:
            constant += factor * int(term)
    if constant:
        operator = "-" if constant > 0 else "+"
        total = pad.step(f"{total} {operator} {abs(constant)} = {{}}", total - constant)
    if coefficient != 1:
        quotient = round(total / coefficient)
        total = pad.step(f"{total} / {coefficient} = {{}}", quotient)
    return str(total)


def complex_arithmetic(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Real part, then imaginary part; a product by its four partial products."""
    a, b = (int(part) for part in metadata["num1"])
    c, d = (int(part) for part in metadata["num2"])
    operator = metadata["operation"]
    if operator == "*":
        ac = pad.step(f"{a} * {c} = {{}}", a * c)
        bd = pad.step(f"{b} * {d} = {{}}", b * d)
        ad = pad.step(f"{a} * {d} = {{}}", a * d)
        bc = pad.step(f"{b} * {c} = {{}}", b * c)
        real = pad.step(f"{ac} - {bd} = {{}}", ac - bd)
        imaginary = pad.step(f"{ad} + {bc} = {{}}", ad + bc)
    else:
        sign = 1 if operator == "+" else -1
        real = pad.step(f"{a} {operator} {c} = {{}}", a + sign * c)
        imaginary = pad.step(f"{b} {operator} {d} = {{}}", b + sign * d)
    return f"{real} {'-' if imaginary < 0 else '+'} {abs(imaginary)}i"


def fraction_simplification(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Divide both numbers by the smallest prime that they share, until none is left."""
    top, bottom = metadata["numerator"], metadata["denominator"]
    # The smallest shared divisor is a prime.
    while shared := next((d for d in range(2, bottom + 1) if top % d == bottom % d == 0), None):
        reduced_top = pad.step(f"{top} / {shared} = {{}}", top // shared)
        bottom = pad.step(f"{bottom} / {shared} = {{}}", bottom // shared)
        top = reduced_top
    return f"{top}/{bottom}"


def gcd(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """Euclid: subtract the smaller from the larger until they are equal or one is 1."""
    first, *rest = metadata["numbers"]
    divisor = first
    for number in rest:
        while divisor != number and min(divisor, number) > 1:
            larger, smaller = max(divisor, number), min(divisor, number)
            value = pad.step(f"{larger} - {smaller} = {{}}", larger - smaller)
            # After a slip the value may be 0 or grow; these bounds make the loop end.
            divisor, number = smaller, min(max(value, 1), larger - 1)
        divisor = min(divisor, number)
    return str(divisor)


def count_primes(metadata: Mapping[str, Any], pad: Scratchpad) -> str:
    """List and count each prime in the range, up to the first beyond it."""
    count = 0
    for prime in metadata["primes"]:
        count = pad.step(f"{prime}: {{}}", count + 1)
    next_prime = next(
        n for n in itertools.count(metadata["end"] + 1) if all(n % d for d in range(2, n))
    )
    pad.lines.append(f"{next_prime} > {metadata['end']}")
    return str(count)


SOLVERS: Mapping[str, Solver] = {
    "chain_sum": chain_sum,
    "complex_arithmetic": complex_arithmetic,
    "count_primes": count_primes,
    "fraction_simplification": fraction_simplification,
    "gcd": gcd,
    "leg_counting": leg_counting,
    "simple_equations": simple_equations,
}
