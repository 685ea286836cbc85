"""Differences between recipes whose training is repeated: inference over seeds and problems.

A difference over problems alone speaks of the policies that were trained. Another seed trains
others, and a claim about recipes has to allow for that. Problems are the same in each seed, so
both are crossed random effects (Searle, Casella and McCulloch 1992, "Variance Components",
chapter 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from reasoning_lab.evaluate.statistics import Difference, complete
from reasoning_lab.types import UserError

# Two say next to nothing of what a third would do.
LEAST_SEEDS = 3
_TAIL = 0.025
# Means that are equal differ by about 1e-16 where they are added in another order; a variance below
# this is theirs alone, as one answer of 10^9 more or less gives a larger one.
ROUNDING_VARIANCE = 1e-24


@dataclass(frozen=True, slots=True)
class CrossedErrors:
    """The standard errors of a mean over seeds and problems; the weaker of two tests counts.

    One test is Student's over seeds alone, which mistakes what all seeds owe to these problems for
    a property of the recipes. The other has both parts, with Satterthwaite's degrees of freedom.

    Attributes:
        of_seeds: Variance of the mean that further seeds have.
        seeds_freedom: Its degrees of freedom.
        of_problems: Variance of the mean that further problems have.
        problems_freedom: Its degrees of freedom, at least 1.
    """

    of_seeds: float
    seeds_freedom: float
    of_problems: float
    problems_freedom: float

    def half_width(self, tail: float) -> float:
        """Half of the interval that leaves `tail` out on either side."""
        return max(float(-stdtrit(freedom, tail) * error) for error, freedom in self._tests())

    def p_value(self, mean: float) -> float:
        """Two-sided, of a true mean of zero."""
        return max(
            2 * float(stdtr(freedom, -abs(mean) / error)) if error > 0 else 0.0
            for error, freedom in self._tests()
        )

    def _tests(self) -> list[tuple[float, float]]:
        """The standard error and the degrees of freedom of each test."""
        total = self.of_seeds + self.of_problems
        parts = self.of_seeds**2 / self.seeds_freedom + self.of_problems**2 / self.problems_freedom
        return [
            (float(np.sqrt(self.of_seeds)), self.seeds_freedom),
            (float(np.sqrt(total)), total**2 / parts),
        ]


def paired_difference_over_seeds(
    a: Sequence[npt.ArrayLike], b: Sequence[npt.ArrayLike]
) -> Difference:
    """Difference between a and b over further seeds and further problems.

    With `d[s, p]` the difference of a problem's means in seed s, the variance of the mean has two
    parts. The seeds' is `var_s(mean_p d) / S`. The problems' is `var_p(mean_s d) / P`, less what
    one problem scatters between seeds, and not below zero. `CrossedErrors` makes two tests of them.
    `tests/evaluate/test_seed_inference.py` simulates both.

    Args:
        a: One `[P, K]` bool array a seed, True = the sample is correct.
        b: The same of the other policy, with the same seeds and the same problem in row p.

    Returns:
        Mean, 95% interval and p-value over seeds and problems; `n` = P.

    Raises:
        UserError: There are fewer than two seeds, or an array is not complete or of another length.
    """
    if len(a) != len(b) or len(a) < 2:
        raise UserError(
            f"A difference over seeds needs the same two or more seeds on both sides, not {len(a)} "
            f"and {len(b)}: run the seeds that are missing."
        )
    differences = seed_differences(a, b)
    seeds, problems = differences.shape
    mean = float(differences.mean())
    of_a_seed, within = scatter_of(differences)
    of_seeds = of_a_seed / seeds
    of_problems = problems_variance(differences.mean(axis=0), within / seeds)
    # Seeds that agree to the last answer do so by chance: their completions scatter all the same.
    if of_seeds < ROUNDING_VARIANCE:
        of_seeds = within / (seeds * problems)
    if of_seeds + of_problems < ROUNDING_VARIANCE:
        is_zero = mean**2 < ROUNDING_VARIANCE
        return Difference(mean, mean, mean, 1.0 if is_zero else 2.0 ** (1 - seeds), problems)
    errors = CrossedErrors(of_seeds, seeds - 1, of_problems, max(1, problems - 1))
    half = errors.half_width(_TAIL)
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean, low, high, errors.p_value(mean), problems)


def seed_differences(
    a: Sequence[npt.ArrayLike], b: Sequence[npt.ArrayLike]
) -> npt.NDArray[np.float64]:
    """`[S, P]` float64: in each seed, each problem's mean of a minus that of b.

    Args:
        a: One `[P, K]` bool array a seed, True = the sample is correct.
        b: The same of the other policy, with the same seeds and the same problem in row p.

    Raises:
        UserError: An array is not complete or of another length.
    """
    rows = [complete(one).mean(axis=1) for one in (*a, *b)]
    if len({len(row) for row in rows}) != 1:
        raise UserError(
            "The seeds answered different numbers of problems: evaluate all on one set."
        )
    differences: npt.NDArray[np.float64] = np.stack(rows[: len(a)]) - np.stack(rows[len(a) :])
    return differences


def scatter_of(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """How one seed scatters around the mean of `[S, P]`, S at least 2.

    Returns:
        The variance of a seed's mean over problems, and that of one problem in one seed beside
        what its seed and its problem explain: seeds learn other problems, and completions scatter.
    """
    seeds, problems = differences.shape
    seed_means, problem_means = differences.mean(axis=1), differences.mean(axis=0)
    of_seeds = float(seed_means.var(ddof=1))
    if problems < 2:
        return of_seeds, 0.0
    residual = differences - seed_means[:, None] - problem_means + differences.mean()
    return of_seeds, float((residual**2).sum() / ((seeds - 1) * (problems - 1)))


def problems_variance(by_problem: npt.NDArray[np.float64], within: float) -> float:
    """Variance that further problems give the mean of `[P]`, of which each scatters by `within`."""
    if len(by_problem) < 2:
        return 0.0
    return max(float(by_problem.var(ddof=1)) - within, 0.0) / len(by_problem)
