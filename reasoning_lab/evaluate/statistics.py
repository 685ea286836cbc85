"""Estimates with honest intervals from verified completions of a fixed set of problems.

Place in the flow: evaluation gives one array per policy and benchmark, `[P, S]` bool, True =
sample s of problem p is correct; reports take means, intervals and paired differences from
here. Several samples of one problem are not independent, so a problem is the unit
(cluster) everywhere: Miller 2024, "Adding Error Bars to Evals", sections 2 and 4; pass@k is
Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.
Simplified: problems count as drawn independently, families as no clusters of their own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import beta, norm
from scipy.stats import t as student

from reasoning_lab.types import UserError

_TAIL = 0.025
_FEW_PROBLEMS = 10
_RESAMPLES = 10_000
_SIGNS_AT_ONCE = 2**18  # 2 MiB as float64: more falls out of the caches, at several times the cost.

Means = npt.NDArray[np.float64]
Verified = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its 95% interval.

    Attributes:
        mean: Fraction in [0, 1].
        low: Lower end of the interval, >= 0.
        high: Upper end of the interval, <= 1.
        n: Problems.
        samples: Completions of each problem.
    """

    mean: float
    low: float
    high: float
    n: int
    samples: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean over problems of (a - b), with its 95% interval.

    Attributes:
        mean: Fraction in [-1, 1]; positive = a is better.
        low: Lower end of the interval, >= -1.
        high: Upper end of the interval, <= 1.
        p_value: Two-sided, of "no difference"; never below 1 / 10,001, the test's resolution.
        n: Problems that both answered.
    """

    mean: float
    low: float
    high: float
    p_value: float
    n: int


def pass_at_1(correct: npt.ArrayLike) -> Estimate:
    """Mean fraction of correct samples, with an interval clustered by problem.

    With at least 10 problems' worth of right and of wrong answers the interval is Student's
    t over the per-problem means. With fewer t is too narrow, and Clopper-Pearson stands in, over
    as many trials as would give the mean its variance (Korn and Graubard 1998, "Confidence
    intervals for proportions with small expected number of positive counts"). With less than one
    problem's worth, or when all problems have the same mean, their variance tells nothing and
    each problem is one trial, which is never too narrow, as no variable in [0, 1] spreads more.

    Args:
        correct: `[P, S]` bool, True = the sample is correct; 0 and 1 will do.

    Raises:
        UserError: The array is not complete: ragged, empty, or with NaN or masked entries.
    """
    verified = _complete(correct)
    return _estimate(verified.mean(axis=1), verified.shape[1])


def pass_at_k(correct: npt.ArrayLike, k: int) -> Estimate:
    """Chance that at least one of k samples is correct, without bias, from S >= k samples.

    Per problem with c correct samples: 1 - C(S - c, k) / C(S, k). Intervals as `pass_at_1`.

    Args:
        correct: `[P, S]` bool, True = the sample is correct.
        k: Samples allowed, 1 <= k <= S.

    Raises:
        UserError: The array is not complete, or k is not within 1 and S.
    """
    verified = _complete(correct)
    samples = verified.shape[1]
    if not 1 <= k <= samples:
        raise UserError(f"pass@{k} needs k between 1 and the {samples} samples of each problem.")
    wrong = samples - verified.sum(axis=1)
    log_miss = _log_choose(np.maximum(wrong, k), k) - _log_choose(np.asarray(samples), k)
    means = np.where(wrong >= k, -np.expm1(log_miss), 1.0)
    return _estimate(np.clip(means, 0.0, 1.0), samples)


def majority(votes: Sequence[Sequence[str | None]], correct: npt.ArrayLike) -> Estimate:
    """maj@k: how often the answer that most of a problem's k samples give is correct.

    Correct samples vote for one answer, however they write it; wrong ones each for what they
    wrote. What cannot be read does not vote; of a tie the expected value counts, and without a
    vote the problem is lost. Intervals as `pass_at_1`. Simplified: a wrong answer written in two
    ways splits its votes.

    Args:
        votes: `[P][k]` answers as extracted; None = there is none.
        correct: `[P, k]` bool, True = the sample is correct.

    Raises:
        UserError: The array is not complete.
    """
    verified = _complete(correct)
    means = np.array(
        [_won(answers, right) for answers, right in zip(votes, verified, strict=True)],
    )
    return _estimate(means, verified.shape[1])


def _won(answers: Sequence[str | None], right: Verified) -> float:
    """1, 0, or the share that the right answer has in a tie for most votes."""
    wrong = Counter(
        answer.strip()
        for answer, is_right in zip(answers, right, strict=True)
        if answer is not None and not is_right
    )
    most = max([int(right.sum()), *wrong.values()])
    ahead = list(wrong.values()).count(most)
    return 1 / (1 + ahead) if right.sum() == most > 0 else 0.0


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> Difference:
    """How much better a does than b on the same problems.

    The interval is Student's t over the per-problem differences of means. When they are all
    equal, t is zero wide; then at most a fraction q = 1 - 0.025^(1/P) of all problems
    behaves otherwise, and the ends are where that fraction lies at -1 or at 1. The p-value
    is of the sign-flip permutation test: without a difference every problem's sign is a
    fair coin. 10,000 flips with a fixed seed, the observed one counted among them.

    Args:
        a: `[P, S]` bool, True = the sample is correct.
        b: `[P, S']` bool, row p the same problem as row p of `a`.

    Raises:
        UserError: An array is not complete, or the two have different numbers of problems.
    """
    first, second = _complete(a), _complete(b)
    if len(first) != len(second):
        raise UserError(
            f"A paired difference compares the same problems, but one side has {len(first)} "
            f"and the other {len(second)}: evaluate both on one benchmark with one n."
        )
    differences = first.mean(axis=1) - second.mean(axis=1)
    n, mean = len(differences), float(differences.mean())
    if np.ptp(differences) == 0:
        fraction = 1 - _TAIL ** (1 / n)
        low, high = mean - fraction * (1 + mean), mean + fraction * (1 - mean)
    else:
        half = _t_half_width(differences)
        low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    return Difference(mean, low, high, _sign_flip_p_value(differences), n)


def over_seeds(runs: Sequence[npt.ArrayLike]) -> Verified:
    """Several seeds' results as further samples of the same problems.

    Feed the result to the functions above; the cluster stays the problem. The interval then
    speaks of new problems for these trained policies, not of what another seed would train.

    Args:
        runs: One `[P, S]` bool array a seed, equal shapes, equal problems row by row.

    Returns:
        `[P, len(runs) * S]` bool.

    Raises:
        UserError: There is no run, one is not complete, or their shapes differ.
    """
    verified = [_complete(run) for run in runs]
    shapes = sorted({run.shape for run in verified})
    if len(shapes) != 1:
        raise UserError(
            f"Seeds are pooled over equal problems and samples, but their shapes are {shapes}: "
            "evaluate every seed with the same n and samples."
        )
    return np.concatenate(verified, axis=1)


def across_seeds(means: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean over all seeds that could have been drawn: Student's t, within 0..1.

    Args:
        means: pass@1 of each seed, at least two. Few seeds make it wide, as they should.
    """
    values = np.asarray(means, dtype=np.float64)
    half = _t_half_width(values)
    return max(float(values.mean()) - half, 0.0), min(float(values.mean()) + half, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    corrected = np.empty(len(order))
    corrected[order] = stepped
    return [float(p) for p in corrected]


def _complete(correct: npt.ArrayLike) -> Verified:
    """`correct` as `[P, S]` bool, refused unless every problem has every sample."""
    try:
        numbers = np.ma.filled(np.ma.asarray(correct).astype(np.float64), np.nan)
    except (TypeError, ValueError):
        numbers = np.empty((0,))
    if numbers.ndim != 2 or numbers.size == 0:
        raise UserError(
            "Results are one row a problem with equally many samples in each, at least one: "
            "finish the evaluation before estimating from it."
        )
    missing = int(np.isnan(numbers).any(axis=1).sum())
    if missing:
        raise UserError(
            f"{missing} of {len(numbers)} problems miss samples: finish the evaluation "
            "before estimating from it."
        )
    if not np.isin(numbers, (0, 1)).all():
        raise UserError("Results are true or false (0 or 1) a sample, but other numbers are here.")
    return numbers.astype(np.bool_)


def _estimate(means: Means, samples: int) -> Estimate:
    """Mean and 95% interval of `[P]` per-problem means in [0, 1]."""
    n, mean = len(means), float(means.mean())
    few = min(means.sum(), n - means.sum())
    if few < _FEW_PROBLEMS or np.ptp(means) == 0:
        trials = n if few < 1 or np.ptp(means) == 0 else _trials(means)
        right, wrong = mean * trials, (1 - mean) * trials
        low = float(beta.ppf(_TAIL, right, wrong + 1)) if right > 0 else 0.0
        high = float(beta.isf(_TAIL, right + 1, wrong)) if wrong > 0 else 1.0
    else:
        half = _t_half_width(means)
        low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Estimate(mean, low, high, n, samples)


def _t_half_width(values: Means) -> float:
    """Half the 95% t interval of the mean of `[P]` values, P >= 2."""
    n = len(values)
    return float(student.isf(_TAIL, n - 1) * values.std(ddof=1) / np.sqrt(n))


def _trials(means: Means) -> float:
    """Independent trials that tell as much as `[P]` problems, P at least; t stands for z."""
    n, mean = len(means), means.mean()
    trials = mean * (1 - mean) / (means.var(ddof=1) / n)
    return max(float(n), float(trials * (norm.isf(_TAIL) / student.isf(_TAIL, n - 1)) ** 2))


def _log_choose(n: npt.NDArray[np.int64], k: int) -> Means:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _sign_flip_p_value(differences: Means) -> float:
    """Two-sided p of mean 0 under random signs of `[P]` differences."""
    values = differences[differences != 0]
    observed = abs(values.sum())
    # Sums that are equal on paper differ in their last bits by the order of addition.
    threshold = observed - 1e-9 * max(1.0, observed)
    generator = np.random.default_rng(0)
    extreme = 0
    # Fours, as the generator draws four int8 at a time: the division changes no sign.
    at_once = 4 * max(1, _SIGNS_AT_ONCE // (4 * max(1, len(values))))
    for start in range(0, _RESAMPLES, at_once):
        count = min(at_once, _RESAMPLES - start)
        signs = generator.integers(0, 2, size=(count, len(values)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ values
        extreme += int((np.abs(sums) >= threshold).sum())
    return (1 + extreme) / (1 + _RESAMPLES)
