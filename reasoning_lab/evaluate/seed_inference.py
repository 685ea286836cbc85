"""Differences between recipes whose training is repeated: inference over seeds and problems.

A difference over problems alone speaks of the policies that were trained. Another seed trains
others, and a claim about recipes has to allow for that. Problems are the same in each seed, so
both are crossed random effects (Searle, Casella and McCulloch 1992, "Variance Components",
chapter 4).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from reasoning_lab.evaluate.statistics import Difference, complete
from reasoning_lab.types import UserError

_TAIL = 0.025
# Means that are equal differ by about 1e-16 where they are added in another order; a variance below
# this is theirs alone, as one answer of 10^9 more or less gives a larger one.
_ROUNDING_VARIANCE = 1e-24


def paired_difference_over_seeds(
    a: Sequence[npt.ArrayLike], b: Sequence[npt.ArrayLike]
) -> Difference:
    """Difference between a and b over further seeds and further problems.

    With `d[s, p]` the difference of a problem's means in seed s, the variance of the mean has two
    parts. The seeds' is `var_s(mean_p d) / S`. The problems' is `var_p(mean_s d) / P`, less what
    one problem scatters between seeds, and not below zero. Two tests are made, and the weaker one
    counts: the paired t-test over seeds, which mistakes what all seeds owe to these problems for a
    difference of the recipes; and one with both parts and Satterthwaite's degrees of freedom.
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
    rows = [complete(one).mean(axis=1) for one in (*a, *b)]
    if len({len(row) for row in rows}) != 1:
        raise UserError(
            "The seeds answered different numbers of problems: evaluate all on one set."
        )
    differences = np.stack(rows[: len(a)]) - np.stack(rows[len(a) :])
    seeds, problems = differences.shape
    mean = float(differences.mean())
    of_seeds, of_problems, between = _variances(differences)
    # Seeds that agree to the last answer do so by chance: their completions scatter all the same.
    if of_seeds < _ROUNDING_VARIANCE:
        of_seeds = between
    total = of_seeds + of_problems
    if total < _ROUNDING_VARIANCE:
        is_zero = mean**2 < _ROUNDING_VARIANCE
        return Difference(mean, mean, mean, 1.0 if is_zero else 2.0 ** (1 - seeds), problems)
    freedom = total**2 / (of_seeds**2 / (seeds - 1) + of_problems**2 / max(1, problems - 1))
    tests = [(np.sqrt(of_seeds), seeds - 1), (np.sqrt(total), freedom)]
    half = max(float(-stdtrit(df, _TAIL) * error) for error, df in tests)
    p_value = max(
        2 * float(stdtr(df, -abs(mean) / error)) if error > 0 else 0.0 for error, df in tests
    )
    return Difference(mean, max(mean - half, -1.0), min(mean + half, 1.0), p_value, problems)


def _variances(differences: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Variances of the mean of `[S, P]`: of seeds, of problems, of one within the other."""
    seeds, problems = differences.shape
    seed_means, problem_means = differences.mean(axis=1), differences.mean(axis=0)
    of_seeds = float(seed_means.var(ddof=1) / seeds)
    if problems < 2:
        return of_seeds, 0.0, 0.0
    residual = differences - seed_means[:, None] - problem_means + differences.mean()
    within = float((residual**2).sum() / ((seeds - 1) * (problems - 1)))
    of_problems = float(problem_means.var(ddof=1) - within / seeds) / problems
    return of_seeds, max(of_problems, 0.0), within / (seeds * problems)
