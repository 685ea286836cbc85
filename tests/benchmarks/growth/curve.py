"""A curve: how long one kind of work takes at doubling sizes, and the exponent of its growth."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

# A measured exponent may be so much above the expected one: caches and memory cost large sizes.
MARGIN = 0.25
_LEAST_REPETITIONS, _MOST_REPETITIONS = 3, 15
_ENOUGH_S = 0.4

# Prepares the work of a size, which is called and timed; what it opens goes on the stack.
Prepare = Callable[[int, ExitStack], Callable[[], object]]


@dataclass(frozen=True)
class Curve:
    """One kind of work.

    Attributes:
        axis: What is doubled, with its unit.
        work: What is timed, and what stays the same.
        sizes: Each twice the one before.
        expected: The exponent that the work itself has.
        prepare: See `Prepare`.
    """

    axis: str
    work: str
    sizes: Sequence[int]
    expected: float
    prepare: Prepare


def doublings(first: int, last: int) -> tuple[int, ...]:
    """`first`, twice it, and so on; `last` is the last."""
    return tuple(first * 2**power for power in range((last // first).bit_length()))


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log sizes, by least squares, in the upper half of the sizes.

    What a call costs whatever its size bends the lower half, and would flatter the slope.
    """
    start = min(len(sizes) // 2, len(sizes) - 2)
    slope, _ = np.polyfit(np.log(sizes[start:]), np.log(seconds[start:]), 1)
    return float(slope)


def seconds_of(curve: Curve, size: int) -> float:
    """Median of some repetitions."""
    with ExitStack() as stack:
        work = curve.prepare(size, stack)
        seconds: list[float] = []
        while len(seconds) < _LEAST_REPETITIONS or (
            sum(seconds) < _ENOUGH_S and len(seconds) < _MOST_REPETITIONS
        ):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measured_row(name: str, curve: Curve) -> dict[str, Any]:
    """A row of the table."""
    with ExitStack() as stack:
        curve.prepare(curve.sizes[0], stack)()  # What the first call imports and starts.
    seconds = [seconds_of(curve, size) for size in curve.sizes]
    measured_exponent = exponent(curve.sizes, seconds)
    return {
        "name": name,
        "axis": curve.axis,
        "work": curve.work,
        "sizes": list(curve.sizes),
        "seconds": seconds,
        "exponent": measured_exponent,
        "expected": curve.expected,
        "passes": measured_exponent <= curve.expected + MARGIN,
    }
