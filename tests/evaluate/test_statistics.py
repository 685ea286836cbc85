"""Intervals and tests against scipy, closed forms and simulated coverage."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from reasoning_lab.evaluate.statistics import (
    across_seeds,
    holm,
    over_seeds,
    paired_difference,
    pass_at_1,
    pass_at_k,
)
from reasoning_lab.types import UserError


def _draw(rates: np.ndarray, samples: int, generator: np.random.Generator) -> np.ndarray:
    return generator.random((len(rates), samples)) < rates[:, None]


def test_interval_is_scipys_t_interval_over_problem_means() -> None:
    generator = np.random.default_rng(1)
    correct = _draw(generator.beta(1, 1, 80), 4, generator)
    means = correct.mean(axis=1)
    expected = stats.t.interval(0.95, 79, loc=means.mean(), scale=stats.sem(means))

    estimate = pass_at_1(correct)

    assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-9)
    assert estimate.mean == pytest.approx(correct.mean())
    assert (estimate.n, estimate.samples) == (80, 4)


def test_repeated_samples_of_a_problem_do_not_narrow_the_interval() -> None:
    once = np.random.default_rng(2).random((200, 1)) < 0.5
    single, repeated = pass_at_1(once), pass_at_1(np.repeat(once, 16, axis=1))
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize(("right", "n"), [(0, 500), (3, 500), (500, 500), (1, 1), (5, 12)])
def test_few_right_or_wrong_answers_take_clopper_pearson(right: int, n: int) -> None:
    correct = np.arange(n)[:, None] < right
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="exact")

    estimate = pass_at_1(np.repeat(correct, 3, axis=1))

    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.high > estimate.low


def test_equal_problem_means_keep_a_width() -> None:
    correct = np.tile([True, False], (100, 1))
    expected = stats.binomtest(50, 100).proportion_ci(0.95, method="exact")
    estimate = pass_at_1(correct)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("a", "b", "n"), [(0.5, 0.5, 200), (0.4, 2.0, 60), (0.2, 8.0, 100), (0.02, 2.0, 100)]
)
def test_interval_covers_the_true_rate(a: float, b: float, n: int) -> None:
    """In 500 repetitions at least 92% of intervals hold Beta(a, b)'s mean: 95% less 3 s.d."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(500):
        estimate = pass_at_1(_draw(generator.beta(a, b, n), 4, generator))
        covered += estimate.low <= a / (a + b) <= estimate.high
    assert covered / 500 >= 0.92


@pytest.mark.parametrize(("n", "samples"), [(30, 64), (500, 4)])
@pytest.mark.parametrize("rate", [0.2, 0.4, 0.7])
def test_interval_of_aime_and_of_math500_is_neither_narrow_nor_wide(
    n: int, samples: int, rate: float
) -> None:
    """2,000 benchmarks of that size; a true 95% leaves 93.5% to 96.5% in 99.8% of such tests.

    Where a few problems' worth is right, Clopper-Pearson's steps make it a little wider.
    """
    generator = np.random.default_rng(6)
    covered = 0
    for _ in range(2000):
        rates = generator.beta(2 * rate, 2 * (1 - rate), n)
        right = generator.binomial(samples, rates)
        estimate = pass_at_1(np.arange(samples) < right[:, None])
        covered += estimate.low <= rate <= estimate.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_interval_is_not_needlessly_wide() -> None:
    """Where t is used, coverage stays below 98%: a wrong variance would exceed it."""
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(500):
        estimate = pass_at_1(_draw(generator.beta(2, 2, 150), 4, generator))
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= covered / 500 <= 0.98


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_pass_at_k_equals_counting_every_subset(k: int) -> None:
    correct = np.random.default_rng(5).random((40, 6)) < 0.3
    subsets = list(combinations(range(6), k))
    expected = np.mean([[row[list(subset)].any() for subset in subsets] for row in correct])
    assert pass_at_k(correct, k).mean == pytest.approx(expected)


def test_pass_at_k_by_hand() -> None:
    """1 of 4 correct, k = 2: 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6."""
    assert pass_at_k([[True, False, False, False]], 2).mean == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_more_than_the_samples(k: int) -> None:
    with pytest.raises(UserError, match="between 1 and the 4 samples"):
        pass_at_k(np.ones((3, 4)), k)


def test_paired_interval_is_scipys_and_uses_the_pairing() -> None:
    generator = np.random.default_rng(6)
    rates = generator.beta(0.5, 0.5, 300)
    b, a = _draw(rates * 0.9, 8, generator), _draw(rates, 8, generator)
    d = a.mean(axis=1) - b.mean(axis=1)
    expected = stats.ttest_1samp(d, 0).confidence_interval(0.95)

    difference = paired_difference(a, b)

    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(a.mean() - b.mean())
    assert difference.p_value < 0.01
    unpaired = stats.ttest_ind(a.mean(axis=1), b.mean(axis=1)).pvalue
    assert unpaired > 0.01


def test_p_value_agrees_with_scipys_permutation_test() -> None:
    generator = np.random.default_rng(7)
    a, b = _draw(np.full(60, 0.58), 2, generator), _draw(np.full(60, 0.48), 2, generator)
    d = a.mean(axis=1) - b.mean(axis=1)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True
    )
    difference = paired_difference(a, b)
    assert difference.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert 0.01 < difference.p_value < 0.99


def test_p_value_by_hand() -> None:
    """4 problems that all improved: 2 of the 2^4 sign patterns are as extreme, p = 1/8."""
    difference = paired_difference(np.ones((4, 1)), np.zeros((4, 1)))
    assert difference.p_value == pytest.approx(1 / 8, abs=0.015)


def test_swapping_sides_only_swaps_the_sign() -> None:
    generator = np.random.default_rng(8)
    a, b = generator.random((50, 3)) < 0.7, generator.random((50, 2)) < 0.5
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.p_value == back.p_value


def test_identical_results_are_no_evidence_but_keep_a_width() -> None:
    """Fraction q = 1 - 0.025^(1/100) of problems could differ by at most 1 either way."""
    same = np.random.default_rng(9).random((100, 4)) < 0.5
    difference = paired_difference(same, same)
    q = 1 - 0.025 ** (1 / 100)
    assert (difference.mean, difference.p_value) == (0.0, 1.0)
    assert (difference.low, difference.high) == pytest.approx((-q, q))


def test_false_alarms_are_as_rare_as_promised() -> None:
    generator = np.random.default_rng(10)
    alarms = 0
    for _ in range(150):
        rates = generator.beta(1, 1, 40)
        alarms += (
            paired_difference(_draw(rates, 4, generator), _draw(rates, 4, generator)).p_value < 0.05
        )
    assert alarms / 150 <= 0.11


def test_seeds_become_samples_of_the_same_problems() -> None:
    first, second = (
        np.array([[True, False], [False, False]]),
        np.array([[True, True], [True, False]]),
    )
    pooled = over_seeds([first, second])
    assert pooled.tolist() == [[True, False, True, True], [False, False, True, False]]


@pytest.mark.parametrize(
    "incomplete",
    [
        [[1, 0], [1]],
        [],
        [1, 0],
        np.empty((3, 0)),
        [[1.0, float("nan")], [0.0, 1.0]],
        [[True, None], [True, False]],
        np.ma.masked_array(np.ones((2, 2)), mask=[[False, True], [False, False]]),
        [[0.5, 1.0]],
    ],
)
def test_incomplete_results_are_refused(incomplete: object) -> None:
    with pytest.raises(UserError):
        pass_at_1(incomplete)  # type: ignore[arg-type]


def test_missing_samples_are_counted() -> None:
    with pytest.raises(UserError, match="1 of 2 problems miss samples"):
        pass_at_1([[1.0, float("nan")], [0.0, 1.0]])


def test_different_problem_counts_are_not_paired() -> None:
    with pytest.raises(UserError, match="one side has 3 and the other 2"):
        paired_difference(np.ones((3, 1)), np.ones((2, 1)))


def test_seeds_of_different_shape_are_not_pooled() -> None:
    with pytest.raises(UserError, match="every seed with the same n and samples"):
        over_seeds([np.ones((3, 1)), np.ones((3, 2))])


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.4."""
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_across_seeds_is_scipys() -> None:
    means = [0.70, 0.74, 0.79]
    expected = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert across_seeds(means) == pytest.approx(expected)
    assert across_seeds([0.0, 1.0]) == (0.0, 1.0)


@pytest.mark.parametrize("batch", [1, 100, 2**24])
def test_p_value_does_not_depend_on_how_the_signs_are_divided(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random((53, 3)) < 0.55, rng.random((53, 3)) < 0.5
    expected = paired_difference(one, other).p_value
    monkeypatch.setattr("reasoning_lab.evaluate.statistics.SIGNS_PER_BATCH", batch)
    assert 0.01 < expected < 0.99
    assert paired_difference(one, other).p_value == expected
