"""Differences over seeds against SciPy's paired t-test and by simulation of recipes."""

import numpy as np
import pytest
from scipy import stats

from reasoning_lab.evaluate.seed_inference import paired_difference_over_seeds
from reasoning_lab.types import UserError

PROBLEMS, SAMPLES = 300, 2


def simulated(
    generator: np.random.Generator,
    seeds: int,
    training_noise: float,
    difference: float = 0.0,
    spread: float = 0.0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two recipes on problems of all difficulties, a policy of each for each seed.

    Args:
        generator: What draws.
        seeds: Policies of each recipe.
        training_noise: Standard deviation over seeds of the difference of their accuracies.
        difference: Of the two recipes.
        spread: Standard deviation over problems of that difference, the same in every seed.
    """
    difficulty = generator.beta(1.2, 0.8, PROBLEMS)
    effect = generator.normal(difference, spread, PROBLEMS) if spread else difference
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for _ in range(seeds):
        shift = (effect + generator.normal(0.0, training_noise)) / 2
        for side, sign in zip(sides, (1, -1), strict=True):
            rate = np.clip(difficulty + sign * shift, 0.0, 1.0)
            side.append(generator.random((PROBLEMS, SAMPLES)) < rate[:, None])
    return sides


def test_where_problems_do_not_differ_it_is_the_paired_t_test() -> None:
    """Every problem of a seed has the same difference, so seeds alone have a variance."""
    gains = [3, 4, 2, 5]
    a = [np.arange(10)[None, :].repeat(30, axis=0) < gain for gain in gains]
    b = [np.zeros((30, 10), bool)] * 4
    expected = stats.ttest_1samp([gain / 10 for gain in gains], 0.0)
    difference = paired_difference_over_seeds(a, b)
    assert difference.mean == pytest.approx(0.35)
    assert difference.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_where_problems_differ_alike_in_all_seeds_it_is_wider_by_hand() -> None:
    """Two seeds that agree: half of four problems gains. Both parts by hand.

    d = [1, 1, 0, 0] in both, so seeds differ by nothing and no completion scatters; problems have
    the variance 1/3 of four, 1/12 of their mean: t = 0.5 / sqrt(1/12) with 3 degrees of freedom.
    """
    a = [np.array([[1], [1], [0], [0]], bool)] * 2
    b = [np.zeros((4, 1), bool)] * 2
    difference = paired_difference_over_seeds(a, b)
    expected = 2 * stats.t.sf(0.5 / np.sqrt(1 / 12), 3)
    assert difference.p_value == pytest.approx(expected)
    assert difference.low == pytest.approx(0.5 - stats.t.isf(0.025, 3) * np.sqrt(1 / 12))


def answers(*correct: int) -> np.ndarray:
    """Three samples of each problem, of which so many are correct."""
    return np.arange(3)[None, :] < np.array(correct)[:, None]


def test_seeds_that_agree_but_for_the_rounding_of_their_means_are_no_evidence() -> None:
    """Thirds added in another order give means that differ by 1e-17, not by nothing."""
    generator = np.random.default_rng(0)
    right = [1, 2, 0, 3, 1, 2, 1, 1, 2, 0, 1]
    worse = [0, 1, 0, 3, 1, 2, 0, 1, 2, 0, 1]
    a = [answers(*generator.permutation(right)) for _ in range(3)]
    b = [answers(*generator.permutation(worse)) for _ in range(3)]
    differences = np.array([x.mean(1) - y.mean(1) for x, y in zip(a, b, strict=True)])
    assert 0 < np.ptp(differences.mean(1)) < 1e-15
    assert paired_difference_over_seeds(a, b).p_value > 0.05
    # The same difference at every problem of every seed: three equal signs, one in four by chance.
    same = paired_difference_over_seeds([answers(*[1] * 9)] * 3, [answers(*[0] * 9)] * 3)
    assert same.p_value == 0.25
    assert (same.low, same.high) == pytest.approx((1 / 3, 1 / 3))


def test_sides_are_symmetric_and_equal_ones_do_not_differ() -> None:
    a, b = simulated(np.random.default_rng(3), seeds=4, training_noise=0.02)
    there, back = paired_difference_over_seeds(a, b), paired_difference_over_seeds(b, a)
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.mean, there.low) == pytest.approx((-back.mean, -back.high))
    same = paired_difference_over_seeds(a, a)
    assert (same.mean, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 2)])
def test_other_seeds_are_refused(a: int, b: int) -> None:
    one = np.ones((5, 2), bool)
    with pytest.raises(UserError, match="same two or more seeds"):
        paired_difference_over_seeds([one] * a, [one] * b)


def test_other_problems_are_refused() -> None:
    with pytest.raises(UserError, match="different numbers of problems"):
        paired_difference_over_seeds(
            [np.ones((5, 2), bool)] * 2, [np.ones((4, 2), bool), np.ones((5, 2), bool)]
        )


def rates(
    draws: int, seeds: int, noise: float, difference: float = 0.0, spread: float = 0.0
) -> tuple[float, float]:
    """How often p < 0.05: by this test, and by SciPy's paired t-test on the seeds' accuracies."""
    generator = np.random.default_rng(seeds)
    ours, means = 0, np.empty((draws, 2, seeds))
    for draw in range(draws):
        a, b = simulated(generator, seeds, noise, difference, spread)
        ours += paired_difference_over_seeds(a, b).p_value < 0.05
        means[draw] = [[one.mean() for one in side] for side in (a, b)]
    theirs = stats.ttest_rel(means[:, 0], means[:, 1], axis=1).pvalue < 0.05
    return ours / draws, float(theirs.mean())


def test_a_null_difference_is_rarely_called_one() -> None:
    """200 draws at 5% have a standard error of 1.5 points: at most 9.6%, 3 of them above."""
    assert rates(200, seeds=3, noise=0.01)[0] <= 0.096
    assert rates(200, seeds=5, noise=0.0, spread=0.3)[0] <= 0.096
    # The t-test over seeds takes what problems have in common for what recipes have.
    assert rates(200, seeds=5, noise=0.0, spread=0.3)[1] > 0.1


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_false_alarms_and_power_of_ten_thousand_draws(noise: float, seeds: int) -> None:
    false_alarms, _ = rates(10_000, seeds, noise)
    power, power_of_t_test = rates(2_000, seeds, noise, difference=0.03)
    assert false_alarms <= 0.06
    assert power >= 0.9 * power_of_t_test
