"""Advantage estimators against arithmetic by hand."""

import math

import pytest
import torch

from reasoning_lab.losses.advantages import ADVANTAGES

REWARDS = [torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0.0, 3.0])]


def test_advantages_by_hand() -> None:
    # Means 1/2 and 3/2, population deviations 1/2 and 3/2.
    centered = [[0.5, -0.5, -0.5, 0.5], [-1.5, 1.5]]
    eps = 1e-4
    # Over all six: mean 5/6, mean square 11/6, so variance 41/36; of the centered (1 + 4.5) / 6.
    over_all = [(r - 5 / 6) / (math.sqrt(41) / 6 + eps) for r in (1, 0, 0, 1, 0, 3)]
    spread = math.sqrt(5.5 / 6) + eps
    expected = {
        "grpo": [[c / (0.5 + eps) for c in centered[0]], [c / (1.5 + eps) for c in centered[1]]],
        "dr_grpo": centered,
        # Less the mean of the others: 1 - 1/3, 0 - 2/3; 0 - 3, 3 - 0.
        "rloo": [[2 / 3, -2 / 3, -2 / 3, 2 / 3], [-3.0, 3.0]],
        "reinforce_pp": [over_all[:4], over_all[4:]],
        "reinforce_pp_baseline": [[c / spread for c in group] for group in centered],
    }
    assert set(expected) == set(ADVANTAGES)
    for name, groups in expected.items():
        advantages = [values.tolist() for values in ADVANTAGES[name](REWARDS)]
        assert advantages == [pytest.approx(group, abs=1e-6) for group in groups], name


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("size", [1, 3, 7, 48])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -0.7])
def test_rewards_without_a_spread_give_exactly_0(name: str, size: int, reward: float) -> None:
    for values in ADVANTAGES[name]([torch.full((size,), reward)] * 2):
        assert torch.equal(values, torch.zeros(size))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_a_group_does_not_change_its_neighbour(name: str) -> None:
    alone = ADVANTAGES[name]([REWARDS[0]])[0]
    beside = ADVANTAGES[name]([torch.ones(3), REWARDS[0], torch.tensor([5.0, -5.0])])
    assert torch.equal(beside[1], alone)
    assert not beside[0].any()


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_of_an_update_sum_to_0(name: str) -> None:
    total = sum(float(values.sum()) for values in ADVANTAGES[name](REWARDS))
    assert total == pytest.approx(0.0, abs=1e-5)
