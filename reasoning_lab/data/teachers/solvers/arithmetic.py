"""Solvers of arithmetic: numbers only, and one short line for each operation."""

import itertools
import re

from reasoning_lab.data.teachers.solvers.scratchpad import Scratchpad
from reasoning_lab.types import Problem


def chain_sum(problem: Problem, pad: Scratchpad) -> str:
    """Left to right, one term at a time."""
    first, *rest = problem.metadata["expression"].split()
    total = int(first)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        value = total + int(term) if operator == "+" else total - int(term)
        total = pad.step(f"{total} {operator} {term} = {{}}", value)
    return str(total)


def leg_counting(problem: Problem, pad: Scratchpad) -> str:
    """Legs of each kind of animal, then the running total."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    total = 0
    for position, (animal, count) in enumerate(problem.metadata["animals"].items()):
        legs = pad.step(f"{count} * {ANIMALS[animal]} = {{}}", count * ANIMALS[animal])
        total = pad.step(f"{total} + {legs} = {{}}", total + legs) if position else legs
    return str(total)


def simple_equations(problem: Problem, pad: Scratchpad) -> str:
    """Move the constant to the right, divide by the coefficient."""
    left, right = problem.metadata["equation"].split(" = ")
    name = problem.metadata["variable"]
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


def complex_arithmetic(problem: Problem, pad: Scratchpad) -> str:
    """Real part, then imaginary part; a product by its four partial products."""
    a, b = (int(part) for part in problem.metadata["num1"])
    c, d = (int(part) for part in problem.metadata["num2"])
    operator = problem.metadata["operation"]
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


def fraction_simplification(problem: Problem, pad: Scratchpad) -> str:
    """Divide both numbers by the smallest prime that they share, until none is left."""
    top, bottom = problem.metadata["numerator"], problem.metadata["denominator"]
    # The smallest shared divisor is a prime.
    while shared := next((d for d in range(2, bottom + 1) if top % d == bottom % d == 0), None):
        reduced_top = pad.step(f"{top} / {shared} = {{}}", top // shared)
        bottom = pad.step(f"{bottom} / {shared} = {{}}", bottom // shared)
        top = reduced_top
    return f"{top}/{bottom}"


def gcd(problem: Problem, pad: Scratchpad) -> str:
    """Euclid: subtract the smaller from the larger until they are equal or one is 1."""
    first, *rest = problem.metadata["numbers"]
    divisor = first
    for number in rest:
        while divisor != number and min(divisor, number) > 1:
            larger, smaller = max(divisor, number), min(divisor, number)
            value = pad.step(f"{larger} - {smaller} = {{}}", larger - smaller)
            # After a slip the value may be 0 or grow; these bounds make the loop end.
            divisor, number = smaller, min(max(value, 1), larger - 1)
        divisor = min(divisor, number)
    return str(divisor)


def count_primes(problem: Problem, pad: Scratchpad) -> str:
    """List and count each prime in the range, up to the first beyond it."""
    count = 0
    for prime in problem.metadata["primes"]:
        count = pad.step(f"{prime}: {{}}", count + 1)
    next_prime = next(
        n for n in itertools.count(problem.metadata["end"] + 1) if all(n % d for d in range(2, n))
    )
    pad.lines.append(f"{next_prime} > {problem.metadata['end']}")
    return str(count)
