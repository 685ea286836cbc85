"""Shifts between runs against SciPy's t-tests and by simulation of recipes."""

import numpy as np
import pytest
from scipy import stats

from reasoning_lab.evaluate.equivalence import Agreement, Shift, seeds_needed, shift_between
from reasoning_lab.types import UserError

PROBLEMS, SAMPLES = 300, 2
MARGIN = 0.03


def of_seeds(*means: float, problems: int = 40) -> np.ndarray:
    """Every problem of a seed has the same difference, so seeds alone have a variance."""
    return np.repeat(np.array(means)[:, None], problems, axis=1)


def test_from_three_seeds_on_it_is_welchs_test() -> None:
    earlier, new = [0.02, 0.05, 0.03, 0.04], [0.06, 0.01, 0.07]
    expected = stats.ttest_ind(new, earlier, equal_var=False)
    shift = shift_between(of_seeds(*earlier), of_seeds(*new))
    assert shift.mean == pytest.approx(np.mean(new) - np.mean(earlier))
    assert shift.p_value == pytest.approx(expected.pvalue)
    for level, interval in ((0.9, shift.ci90), (0.95, shift.ci95)):
        assert interval == pytest.approx(tuple(expected.confidence_interval(level)))


def test_with_two_new_seeds_both_runs_share_a_variance() -> None:
    earlier, new = [0.02, 0.05, 0.03, 0.04], [0.06, 0.02]
    expected = stats.ttest_ind(new, earlier, equal_var=True)
    shift = shift_between(of_seeds(*earlier), of_seeds(*new))
    assert shift.p_value == pytest.approx(expected.pvalue)
    assert shift.ci90 == pytest.approx(tuple(expected.confidence_interval(0.9)))
    pooled = (3 * np.var(earlier, ddof=1) + np.var(new, ddof=1)) / 4
    assert shift.seed_deviation == pytest.approx(np.sqrt(pooled))


def test_one_new_seed_has_the_variance_of_the_earlier_ones_by_hand() -> None:
    """Deviation 1 point, three seeds and one: t = 4 / sqrt(1 / 3 + 1) with 2 degrees of freedom."""
    shift = shift_between(of_seeds(0.01, 0.02, 0.03), of_seeds(0.06))
    assert shift.seed_deviation == pytest.approx(0.01)
    error = 0.01 * np.sqrt(4 / 3)
    assert shift.p_value == pytest.approx(2 * stats.t.sf(0.04 / error, 2))
    half = stats.t.isf(0.05, 2) * error
    assert shift.ci90 == pytest.approx((0.04 - half, 0.04 + half))


def test_what_problems_add_to_both_runs_cancels_and_to_one_does_not() -> None:
    noise = of_seeds(-0.01, 0.0, 0.01)
    by_problem = np.random.default_rng(0).normal(0, 0.3, 40)
    alone = shift_between(noise, noise)
    assert shift_between(noise + by_problem, noise + by_problem).ci90 == pytest.approx(alone.ci90)
    other = shift_between(noise, noise + by_problem - by_problem.mean())
    assert other.mean == pytest.approx(0)
    # Both parts by hand: seeds have 2 * 1e-4 / 3 with 4 degrees of freedom.
    seeds, problems = 2e-4 / 3, by_problem.var(ddof=1) / 40
    freedom = (seeds + problems) ** 2 / (seeds**2 / 4 + problems**2 / 39)
    half = stats.t.isf(0.05, freedom) * np.sqrt(seeds + problems)
    assert other.ci90 == pytest.approx((-half, half))


def test_where_nothing_scatters_few_problems_are_no_evidence() -> None:
    """None of 14 problems is solved by anyone: 1 - 0.05^(1/14) of all problems may be."""
    same = shift_between(np.zeros((3, 14)), np.zeros((2, 14)))
    assert same.ci90[1] == pytest.approx(1 - 0.05 ** (1 / 14))
    assert (same.mean, same.p_value) == (0.0, 1.0)
    assert same.agreement(0.05, same.p_value) is Agreement.UNDECIDED
    apart = shift_between(np.zeros((2, 14)), np.ones((2, 14)))
    assert apart.p_value == pytest.approx(2 / 6)
    assert seeds_needed(0.0, 0.05, 3) is None


@pytest.mark.parametrize(("earlier", "new"), [(1, 3), (3, 0)])
def test_too_few_seeds_are_refused(earlier: int, new: int) -> None:
    with pytest.raises(UserError, match=f"not {earlier} and {new}"):
        shift_between(np.zeros((earlier, 5)), np.zeros((new, 5)))


@pytest.mark.parametrize(
    ("mean", "half", "p_value", "expected"),
    [
        (0.01, 0.015, 0.3, "equivalent"),
        (-0.01, 0.015, 0.3, "equivalent"),
        (0.01, 0.025, 0.3, "undecided"),
        # Larger than zero for sure, yet neither inside the margin nor beyond it.
        (0.025, 0.01, 0.001, "undecided"),
        (0.04, 0.03, 0.03, "different"),
        (-0.04, 0.03, 0.03, "different"),
        (0.04, 0.05, 0.06, "undecided"),
    ],
)
def test_the_word_follows_from_the_interval_the_margin_and_p(
    mean: float, half: float, p_value: float, expected: str
) -> None:
    shift = Shift(mean, (mean - half, mean + half), (0.0, 0.0), p_value, 0.01)
    assert shift.agreement(MARGIN, p_value) == expected


def rates(
    draws: int, earlier: int, new: int, noise: float, shift: float, margin: float = MARGIN
) -> tuple[float, float]:
    """How often simulated runs are called equivalent, and how often different.

    Args:
        draws: Pairs of runs.
        earlier: Seeds of the page.
        new: New seeds.
        noise: Standard deviation over seeds of the true difference.
        shift: How much larger the true difference is in the new run. Rates stay within 0 and 1, so
            that none of it is cut off.
        margin: Of the test.
    """
    generator = np.random.default_rng(100 * earlier + new)

    def differences(difficulty: np.ndarray, seeds: int, mean: float) -> np.ndarray:
        half = (mean + noise * generator.standard_normal((seeds, 1))) / 2
        uniform = generator.random((2, SAMPLES, seeds, PROBLEMS), dtype=np.float32)
        probabilities = np.stack([difficulty + half, difficulty - half])[:, None]
        a, b = (uniform < probabilities).mean(axis=1)
        return np.asarray(a - b)

    words = []
    for _ in range(draws):
        difficulty = 0.15 + 0.7 * generator.beta(1.2, 0.8, PROBLEMS)
        between = shift_between(
            differences(difficulty, earlier, 0.02), differences(difficulty, new, 0.02 + shift)
        )
        words.append(between.agreement(margin, between.p_value))
    return words.count(Agreement.EQUIVALENT) / draws, words.count(Agreement.DIFFERENT) / draws


def test_runs_a_margin_apart_are_rarely_equivalent_and_equal_ones_rarely_different() -> None:
    """500 draws at 5% have a standard error of 1 point: at most 8%, 3 of them above."""
    assert rates(500, earlier=8, new=2, noise=0.01, shift=MARGIN)[0] <= 0.08
    assert rates(500, earlier=3, new=3, noise=0.01, shift=0.0)[1] <= 0.08


def test_so_many_seeds_as_are_needed_find_equal_recipes_equivalent() -> None:
    """A completion has the variance 0.21 on average, two a problem on either side."""
    deviation = np.sqrt(0.01**2 + 2 * 0.21 / (PROBLEMS * SAMPLES))
    needed = seeds_needed(deviation, 0.05, earlier_seeds=8)
    assert needed is not None
    assert rates(500, 8, needed, 0.01, 0.0, margin=0.05)[0] > 0.75
    assert rates(500, 8, needed - 1, 0.01, 0.0, margin=0.05)[0] < 0.85


def test_more_new_seeds_cannot_mend_too_few_earlier_ones() -> None:
    """Deviation 3 points, margin 2: three earlier seeds alone have an error of 1.7 points."""
    assert seeds_needed(0.03, 0.02, earlier_seeds=3) is None
    both = seeds_needed(0.03, 0.02, earlier_seeds=None)
    assert both is not None
    # The normal approximation: n = 2 (z_0.05 + z_0.10)^2 (3 / 2)^2, of both one-sided tests.
    assert both == pytest.approx(2 * (1.645 + 1.282) ** 2 * 2.25, abs=2)
    assert seeds_needed(0.001, 0.02, earlier_seeds=3) == 1
    assert seeds_needed(0.001, 0.02, earlier_seeds=3, at_least=4) == 4


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("earlier", "new"), [(3, 1), (3, 2), (8, 2), (8, 5)])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_errors_of_ten_thousand_draws(noise: float, earlier: int, new: int) -> None:
    """5% plus three standard errors of 10,000 draws."""
    assert rates(10_000, earlier, new, noise, MARGIN)[0] <= 0.0566
    assert rates(10_000, earlier, new, noise, 0.0)[1] <= 0.0566
