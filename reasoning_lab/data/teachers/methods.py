"""How the procedural teacher works each problem family: one function a family.

A method reads the metadata that reasoning-gym gives with a problem, writes its working on
the scratchpad and returns the answer that the working leads to. Every number that could be
got wrong goes through `Scratchpad.step`; nothing reads the gold answer.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from reasoning_lab.data.teachers.procedural import Scratchpad

Method = Callable[[Mapping[str, Any], Scratchpad], str]


def chain_sum(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Left to right, one term at a time."""
    first, *rest = problem["expression"].split()
    total = int(first)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        value = total + int(term) if operator == "+" else total - int(term)
        total = pad.step(f"{total} {operator} {term} = {{}}", value)
    return str(total)


def leg_counting(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Legs of each kind of animal, then the running total."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total = 0
    for position, (animal, count) in enumerate(problem["animals"].items()):
        legs = pad.step(f"{count} * {ANIMALS[animal]} = {{}}", count * ANIMALS[animal])
        total = pad.step(f"{total} + {legs} = {{}}", total + legs) if position else legs
    return str(total)


def simple_equations(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Move the constant to the right, divide by the coefficient."""
    left, right = problem["equation"].split(" = ")
    name = problem["variable"]
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


def complex_arithmetic(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Real part, then imaginary part; a product by its four partial products."""
    a, b = (int(part) for part in problem["num1"])
    c, d = (int(part) for part in problem["num2"])
    operator = problem["operation"]
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


def fraction_simplification(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Divide both numbers by the smallest prime that they share, until none is left."""
    top, bottom = problem["numerator"], problem["denominator"]
    # The smallest shared divisor is a prime.
    while shared := next((d for d in range(2, bottom + 1) if top % d == bottom % d == 0), None):
        above = pad.step(f"{top} / {shared} = {{}}", top // shared)
        bottom = pad.step(f"{bottom} / {shared} = {{}}", bottom // shared)
        top = above
    return f"{top}/{bottom}"


def gcd(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Euclid's own way: subtract the smaller from the larger until they are equal or one is 1."""
    first, *rest = problem["numbers"]
    divisor = first
    for number in rest:
        while divisor != number and min(divisor, number) > 1:
            larger, smaller = max(divisor, number), min(divisor, number)
            value = pad.step(f"{larger} - {smaller} = {{}}", larger - smaller)
            # A slip may leave 0 or go back up; without this the chain could go on for ever.
            divisor, number = smaller, min(max(value, 1), larger - 1)
        divisor = min(divisor, number)
    return str(divisor)


def count_primes(problem: Mapping[str, Any], pad: Scratchpad) -> str:
    """Name each prime in the range and keep count, up to the first beyond it."""
    count = 0
    for prime in problem["primes"]:
        count = pad.step(f"{prime}: {{}}", count + 1)
    after = next(n for n in itertools.count(problem["end"] + 1) if all(n % d for d in range(2, n)))
    pad.say(f"{after} > {problem['end']}")
    return str(count)


METHODS: Mapping[str, Method] = {
    "chain_sum": chain_sum,
    "complex_arithmetic": complex_arithmetic,
    "count_primes": count_primes,
    "fraction_simplification": fraction_simplification,
    "gcd": gcd,
    "leg_counting": leg_counting,
    "simple_equations": simple_equations,
}
