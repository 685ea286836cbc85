"""The three stabilizers of reinforcement learning, by hand."""

from collections import Counter

import pytest

from reasoning_lab.stages.rl.options import TemperatureConfig
from reasoning_lab.stages.rl.prompts import screening_reason
from reasoning_lab.stages.rl.records import DropReason
from reasoning_lab.stages.rl.rollouts import balanced_indices, length_variation
from reasoning_lab.stages.rl.stage import RLStage
from tests.support.rollouts import group


@pytest.mark.parametrize(
    ("step", "temperature"), [(0, 1.0), (1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.6), (7, 0.6)]
)
def test_temperature_falls_linearly_over_half_the_steps(step: int, temperature: float) -> None:
    assert TemperatureConfig(1.0, 0.6, 0.5).at(step, 8) == pytest.approx(temperature)


def test_without_annealing_temperature_is_its_end() -> None:
    assert [TemperatureConfig(1.0, 0.6, 0.0).at(step, 4) for step in range(4)] == [0.6] * 4


def test_length_variation_by_hand() -> None:
    # Lengths 2, 4, 6: mean 4, population variance (4 + 0 + 4) / 3.
    assert length_variation(group("cwc", [2, 4, 6])) == pytest.approx((8 / 3) ** 0.5 / 4)
    assert length_variation(group("cwc", [5, 5, 5])) == 0


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [("cccc", False), ("wwww", False), ("wut", False), ("cw", True), ("cu", True), ("ct", True)],
)
def test_correctness_is_mixed_if_some_are_correct_and_some_are_not(
    verdicts: str, expected: bool
) -> None:
    reason = screening_reason(RLStage(max_new_tokens=9), group(verdicts))
    assert reason is (None if expected else DropReason.NO_SIGNAL)


@pytest.mark.parametrize(
    ("verdicts", "correct", "incorrect"),
    [("cwwwww", 1, 1), ("ccwutw", 2, 2), ("cccw", 3, 1), ("cw", 1, 1), ("ww", 0, 0)],
)
def test_balancing_keeps_all_correct_and_as_many_others(
    verdicts: str, correct: int, incorrect: int
) -> None:
    indices = balanced_indices(group(verdicts).rollouts, "0/1")
    counts = Counter(verdicts[index] == "c" for index in indices)
    assert (counts[True], counts[False]) == (correct, incorrect)


def test_balancing_is_fixed_by_its_seed_and_reaches_every_incorrect_one() -> None:
    rollouts = group("cwwwww").rollouts
    by_seed = {seed: balanced_indices(rollouts, str(seed)) for seed in range(60)}
    assert balanced_indices(rollouts, "7") == by_seed[7]
    assert all(0 in indices for indices in by_seed.values())
    assert set().union(*by_seed.values()) == {0, 1, 2, 3, 4, 5}
