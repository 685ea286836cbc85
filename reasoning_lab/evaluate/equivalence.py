"""Whether new seeds reproduce a difference between two recipes: an equivalence test.

A p-value above 0.05 is no evidence that two runs agree. Schuirmann 1987, "A comparison of the two
one-sided tests procedure", turns the question round: the new difference is equivalent to the
earlier one if both tests refuse that they lie a margin or more apart, which is so where the 90%
interval of their distance lies inside the margin. Where several differences must all be
equivalent, their tests need no correction (Berger and Hsu 1996, "Bioequivalence trials,
intersection-union tests and equivalence confidence sets").

Seeds and problems are crossed random effects, as in `seed_inference`. Both runs have the same
problems, so what a problem adds to both cancels; what it adds to one alone is a second part of the
variance. Seeds differ, so the runs are two samples of them.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy.special import comb
from scipy.stats import nct
from scipy.stats import t as student

from reasoning_lab.evaluate.seed_inference import (
    LEAST_SEEDS,
    ROUNDING_VARIANCE,
    CrossedErrors,
    problems_variance,
    scatter_of,
)
from reasoning_lab.types import UserError

POWER = 0.8
_LEVEL = 0.05
_MOST_SEEDS = 1000

Differences = npt.NDArray[np.float64]


class Agreement(StrEnum):
    """What new seeds say of an earlier difference."""

    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Shift:
    """How much larger a difference is with new seeds than it was with the earlier ones.

    Attributes:
        mean: Fraction; positive = larger with the new seeds.
        ci90: Its 90% interval over seeds and problems, which the equivalence test reads.
        ci95: Its 95% interval.
        p_value: Two-sided, of "no shift".
        seed_deviation: Standard deviation of the difference from seed to seed, both runs pooled.
    """

    mean: float
    ci90: tuple[float, float]
    ci95: tuple[float, float]
    p_value: float
    seed_deviation: float

    def agreement(self, margin: float, p_corrected: float) -> Agreement:
        """What the shift says, by a margin above zero.

        Equivalent: the 90% interval lies inside the margin. Different: the shift is larger than
        the margin, and it is significant by the corrected p-value. Else nothing is decided.
        """
        if max(map(abs, self.ci90)) < margin:
            return Agreement.EQUIVALENT
        if abs(self.mean) > margin and p_corrected < _LEVEL:
            return Agreement.DIFFERENT
        return Agreement.UNDECIDED


def shift_between(earlier: Differences, new: Differences) -> Shift:
    """The shift of a difference from earlier seeds to new ones, over further seeds and problems.

    Where both runs have three seeds or more, their seeds' variances are added as Welch (1947) does.
    With fewer on a side that side's variance is next to unknown, and both runs share one: the
    pooled variance, or with one new seed that of the earlier ones. This takes the new seeds to
    scatter like the earlier ones, which holds for seeds of one recipe.

    Args:
        earlier: `[S, P]`, the difference of each earlier seed at each problem.
        new: `[S', P]`, that of each new seed; column p is the same problem.

    Raises:
        UserError: The earlier run has fewer than two seeds, or the new one has none.
    """
    counts = len(earlier), len(new)
    if counts[0] < 2 or counts[1] < 1:
        raise UserError(
            f"An equivalence test needs two earlier seeds and a new one at least, not {counts[0]} "
            f"and {counts[1]}: run more seeds."
        )
    problems = earlier.shape[1]
    by_problem = new.mean(axis=0) - earlier.mean(axis=0)
    mean = float(by_problem.mean())
    sides = [scatter_of(side) if len(side) > 1 else (0.0, 0.0) for side in (earlier, new)]
    (earlier_seeds, earlier_within), (new_seeds, new_within) = sides
    of_seeds, freedom = _of_both(earlier_seeds, new_seeds, *counts)
    within, _ = _of_both(earlier_within, new_within, *counts)
    deviation = np.sqrt(_pooled(earlier_seeds, new_seeds, *counts))
    # Seeds that agree to the last answer do so by chance: their completions scatter all the same.
    if of_seeds < ROUNDING_VARIANCE:
        of_seeds, freedom = within / problems, sum(counts) - 2
        deviation = np.sqrt(_pooled(earlier_within, new_within, *counts) / problems)
    of_problems = problems_variance(by_problem, within)
    if of_seeds + of_problems < ROUNDING_VARIANCE:
        return _without_scatter(mean, *counts, problems)
    errors = CrossedErrors(of_seeds, freedom, of_problems, max(1, problems - 1))
    ci90, ci95 = (
        (mean - half, mean + half) for half in (errors.half_width(_LEVEL), errors.half_width(0.025))
    )
    return Shift(mean, ci90, ci95, errors.p_value(mean), float(deviation))


def _of_both(earlier: float, new: float, first: int, second: int) -> tuple[float, float]:
    """Variance of the difference of two means, and its degrees of freedom.

    `earlier` and `new` are the variances of one value, of which `first` and `second` are averaged.
    """
    pooled_freedom = first + second - 2
    if min(first, second) < LEAST_SEEDS:
        return _pooled(earlier, new, first, second) * (1 / first + 1 / second), pooled_freedom
    a, b = earlier / first, new / second
    parts = a**2 / (first - 1) + b**2 / (second - 1)
    return a + b, (a + b) ** 2 / parts if parts else pooled_freedom


def _pooled(earlier: float, new: float, first: int, second: int) -> float:
    return ((first - 1) * earlier + (second - 1) * new) / (first + second - 2)


def _without_scatter(mean: float, first: int, second: int, problems: int) -> Shift:
    """The shift where every problem of a run had the same difference in every seed.

    Then at most a fraction 1 - tail^(1 / P) of all problems can have another, by one run or the
    other. Seeds that fall apart so exactly do so in one of `comb(first + second, first)` ways.
    """
    ends = [1 - tail ** (1 / problems) for tail in (_LEVEL, 0.025)]
    ci90, ci95 = ((mean - end, mean + end) for end in ends)
    is_zero = mean**2 < ROUNDING_VARIANCE
    p_value = 1.0 if is_zero else min(1.0, 2 / float(comb(first + second, first)))
    return Shift(mean, ci90, ci95, p_value, 0.0)


def seeds_needed(
    deviation: float, margin: float, earlier_seeds: int | None, at_least: int = 1
) -> int | None:
    """With how many new seeds a recipe that has not changed is found equivalent in 4 of 5 cases.

    The power of both one-sided tests at no shift, by the noncentral t-distribution: at least
    2 P(one refuses) - 1. What problems add to one run alone is left out, as it is zero where the
    recipe is the same.

    Args:
        deviation: Standard deviation of the difference from seed to seed.
        margin: Of the equivalence test.
        earlier_seeds: How many there are; None = as many as new ones.
        at_least: The least number of new seeds to return.

    Returns:
        The number; None = 1,000 are not enough, or nothing scatters from seed to seed.
    """
    if deviation <= 0:
        return None
    new = np.arange(max(at_least, 1 if earlier_seeds else 2), _MOST_SEEDS + 1)
    earlier = new if earlier_seeds is None else np.full_like(new, earlier_seeds)
    freedom = (earlier + new - 2).astype(np.float64)
    both = np.minimum(earlier, new) >= LEAST_SEEDS
    # Welch's degrees of freedom where both runs have the same variance.
    a, b, first, second = 1 / earlier[both], 1 / new[both], earlier[both] - 1, new[both] - 1
    freedom[both] = (a + b) ** 2 / (a**2 / first + b**2 / second)
    error = deviation * np.sqrt(1 / earlier + 1 / new)
    one_side = nct.sf(student.isf(_LEVEL, freedom), freedom, margin / error)
    enough = np.flatnonzero(2 * one_side - 1 >= POWER)
    return int(new[enough[0]]) if len(enough) else None
