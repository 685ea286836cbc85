"""Estimates with honest intervals from verified completions of a fixed set of problems.

Place in the flow: evaluation gives one array per policy and benchmark, `[P, S]` bool, True =
sample s of problem p is correct; reports compute means, intervals and paired differences
here. Several samples of one problem are not independent, so a problem is the unit
(cluster) everywhere: Miller 2024, "Adding Error Bars to Evals", sections 2 and 4; pass@k is
Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.
Simplified: problems count as independent draws, and families are not clusters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import beta, norm
from scipy.stats import t as student

from reasoning_lab.types import UserError

_TAIL = 0.025
_FEW_PROBLEMS = 10
_RESAMPLES = 10_000
# Signs per batch of the permutation test: 2 MiB as float64 still fit into the caches.
SIGNS_PER_BATCH = 2**18

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
    problem's worth, or when all problems have the same mean, their variance says nothing. Then each
    problem is one trial, which is never too narrow: no variable in [0, 1] has a larger variance.

    Args:
        correct: `[P, S]` bool, True = the sample is correct; 0 and 1 are accepted.

    Raises:
        UserError: The array is ragged or empty, or has NaN or masked entries.
    """
    verified = complete(correct)
    return _estimate(verified.mean(axis=1), verified.shape[1])


def pass_at_k(correct: npt.ArrayLike, k: int) -> Estimate:
    """Unbiased probability that at least one of k samples is correct, from S >= k samples.

    Per problem with c correct samples: 1 - C(S - c, k) / C(S, k). Intervals as `pass_at_1`.

    Args:
        correct: `[P, S]` bool, True = the sample is correct.
        k: Samples allowed, 1 <= k <= S.

    Raises:
        UserError: The array is not complete, or k is not within 1 and S.
    """
    verified = complete(correct)
    samples = verified.shape[1]
    if not 1 <= k <= samples:
        raise UserError(f"pass@{k} needs k between 1 and the {samples} samples of each problem.")
    wrong = samples - verified.sum(axis=1)
    log_all_wrong = _log_choose(np.maximum(wrong, k), k) - _log_choose(np.asarray(samples), k)
    means = np.where(wrong >= k, -np.expm1(log_all_wrong), 1.0)
    return _estimate(np.clip(means, 0.0, 1.0), samples)


def majority(votes: Sequence[Sequence[str | None]], correct: npt.ArrayLike) -> Estimate:
    """maj@k: how often the answer that most of a problem's k samples give is correct.

    All correct samples vote for the same answer; wrong samples vote for the text of their answer.
    Unparseable samples do not vote. A tie counts its expected value, and a problem without votes
    counts as wrong. Intervals as `pass_at_1`. Simplified: a wrong answer in two spellings splits
    its votes.

    Args:
        votes: `[P][k]` extracted answers; None = no answer.
        correct: `[P, k]` bool, True = the sample is correct.

    Raises:
        UserError: The array is not complete.
    """
    verified = complete(correct)
    means = np.array(
        [_majority_score(answers, right) for answers, right in zip(votes, verified, strict=True)],
    )
    return _estimate(means, verified.shape[1])


def _majority_score(answers: Sequence[str | None], right: Verified) -> float:
    """1, 0, or in a tie the probability that the right answer is drawn."""
    wrong = Counter(
        answer.strip()
        for answer, is_right in zip(answers, right, strict=True)
        if answer is not None and not is_right
    )
    most = max([int(right.sum()), *wrong.values()])
    tied = list(wrong.values()).count(most)
    return 1 / (1 + tied) if right.sum() == most > 0 else 0.0


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> Difference:
    """Difference between a and b on the same problems.

    The interval is Student's t over the per-problem differences of means. If all are equal, t has
    no width. Then at most a fraction q = 1 - 0.025^(1/P) of all problems differs, and the ends
    place that fraction at -1 or at 1. The p-value is that of the sign-flip permutation test, in
    which each problem's sign is a fair coin: 10,000 flips with a fixed seed, plus the observed
    signs.

    Args:
        a: `[P, S]` bool, True = the sample is correct.
        b: `[P, S']` bool, row p the same problem as row p of `a`.

    Raises:
        UserError: An array is not complete, or the two have different numbers of problems.
    """
    first, second = complete(a), complete(b)
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

    Pass the result to the functions above; the cluster is still the problem. The interval is then
    over new problems for these policies, not over further seeds.

    Args:
        runs: One `[P, S]` bool array per seed, with equal shapes and the same problem in each row.

    Returns:
        `[P, len(runs) * S]` bool.

    Raises:
        UserError: There is no run, a run is not complete, or shapes differ.
    """
    verified = [complete(run) for run in runs]
    shapes = sorted({run.shape for run in verified})
    if len(shapes) != 1:
        raise UserError(
            f"Seeds are pooled over equal problems and samples, but their shapes are {shapes}: "
            "evaluate every seed with the same n and samples."
        )
    return np.concatenate(verified, axis=1)


def across_seeds(means: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean over all possible seeds: Student's t, clipped to [0, 1].

    `means` are the pass@1 of each seed, at least two.
    """
    values = np.asarray(means, dtype=np.float64)
    half = _t_half_width(values)
    return max(float(values.mean()) - half, 0.0), min(float(values.mean()) + half, 1.0)


def mean_with_interval(values: Sequence[float]) -> list[float]:
    """Mean of values, one a problem of at least two, and the ends of its 95% interval (t)."""
    array = np.asarray(values, dtype=np.float64)
    mean, half = float(array.mean()), _t_half_width(array)
    return [mean, mean - half, mean + half]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down method (1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    monotone = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    corrected = np.empty(len(order))
    corrected[order] = monotone
    return [float(p) for p in corrected]


def complete(correct: npt.ArrayLike) -> Verified:
    """`correct` as `[P, S]` bool, refused unless every problem has every sample."""
    if isinstance(correct, np.ndarray) and not isinstance(correct, np.ma.MaskedArray):
        plain: npt.NDArray[Any] = correct
        if plain.dtype == np.bool_ and plain.ndim == 2 and plain.size:
            return plain
    try:
        numbers = np.ma.filled(np.ma.asarray(correct).astype(np.float64), np.nan)
    except (TypeError, ValueError):
        numbers = np.empty((0,))
    if numbers.ndim != 2 or numbers.size == 0:
        raise UserError(
            "Results need one row per problem, with the same number of samples in each: "
            "finish the evaluation before estimating from it."
        )
    missing = int(np.isnan(numbers).any(axis=1).sum())
    if missing:
        raise UserError(
            f"{missing} of {len(numbers)} problems miss samples: finish the evaluation "
            "before estimating from it."
        )
    if not np.isin(numbers, (0, 1)).all():
        raise UserError("Results are true or false (0 or 1), but there are other numbers.")
    return numbers.astype(np.bool_)


def _estimate(means: Means, samples: int) -> Estimate:
    """Mean and 95% interval of `[P]` per-problem means in [0, 1]."""
    n, mean = len(means), float(means.mean())
    rarer = min(means.sum(), n - means.sum())
    if rarer < _FEW_PROBLEMS or np.ptp(means) == 0:
        trials = n if rarer < 1 or np.ptp(means) == 0 else _effective_trials(means)
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


def _effective_trials(means: Means) -> float:
    """Independent trials with the variance of `[P]` means, at least P; uses t in place of z."""
    n, mean = len(means), means.mean()
    trials = mean * (1 - mean) / (means.var(ddof=1) / n)
    return max(float(n), float(trials * (norm.isf(_TAIL) / student.isf(_TAIL, n - 1)) ** 2))


def _log_choose(n: npt.NDArray[np.int64], k: int) -> Means:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _sign_flip_p_value(differences: Means) -> float:
    """Two-sided p of mean 0 under random signs of `[P]` differences."""
    values = differences[differences != 0]
    observed = abs(values.sum())
    # Equal sums may differ in their last bits by the order of addition.
    threshold = observed - 1e-9 * max(1.0, observed)
    generator = np.random.default_rng(0)
    extreme = 0
    # A multiple of 4, as the generator draws four int8 at a time: batches then change no sign.
    batch = 4 * max(1, SIGNS_PER_BATCH // (4 * max(1, len(values))))
    for start in range(0, _RESAMPLES, batch):
        count = min(batch, _RESAMPLES - start)
        signs = generator.integers(0, 2, size=(count, len(values)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ values
        extreme += int((np.abs(sums) >= threshold).sum())
    return (1 + extreme) / (1 + _RESAMPLES)
