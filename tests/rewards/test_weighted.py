"""The weighted sum of reward functions, and its composition from config."""

import math
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import UserError, Verdict
from tests.support.rewards import rollout, term


def test_weighted_terms_add_up() -> None:
    composed = WeightedRewards(
        {
            "correctness": term("correctness", weight=2.0),
            "short": term("linear_length", weight=0.5),
            "format": term("reasoning_format"),
        },
        max_new_tokens=40,
        key="rewards",
    )
    expected = {"correctness": 2.0, "short": -0.125, "format": 1.0}
    assert composed.terms(rollout()) == expected
    assert composed.terms(rollout(Verdict.WRONG, "2", 40)) == {
        "correctness": -2.0,
        "short": -0.5,
        "format": 0.0,
    }


def test_without_a_term_there_is_no_reward() -> None:
    with pytest.raises(UserError, match="name at least one"):
        WeightedRewards({}, 40, "stages.rl.rewards")


@pytest.mark.parametrize("options", [None, 3, {}, {"weight": 1.0}, {"_target_": None}])
def test_a_term_without_a_function_is_refused(options: Any) -> None:
    with pytest.raises(UserError, match=r"rewards\.mine: there is no _target_"):
        WeightedRewards({"mine": options}, 40, "rewards")


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def close(completion, gold, scale=1.0):\n    return scale * (gold in completion)\n"
        "def needy(temperature):\n    return 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"mine": {"_target_": "my_rewards.close", "weight": 3.0, "scale": 0.5}}
    with pytest.raises(UserError, match=r"rewards\.mine\._target_.*may not be named.*TRUSTED"):
        WeightedRewards(mine, 40, "rewards")
    monkeypatch.setenv(TRUSTED_VARIABLE, "others, my_rewards")
    assert WeightedRewards(mine, 40, "rewards").terms(rollout()) == {"mine": 1.5}
    with pytest.raises(UserError, match=r"asks for 'temperature'"):
        WeightedRewards({"mine": {"_target_": "my_rewards.needy"}}, 40, "rewards")
    monkeypatch.setenv(TRUSTED_VARIABLE, "my_reward")
    with pytest.raises(UserError, match="may not be named"):
        WeightedRewards(mine, 40, "rewards")


def test_what_a_function_of_ones_own_returns_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_rewards.py").write_text(
        "def odd(completion, value=None, **others):\n    return value\n"
        "def broken(completion):\n    return 1 / 0\n"
        "def tensor(completion):\n    import torch\n    return torch.tensor(0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED_VARIABLE, "odd_rewards")

    def of(name: str, **options: Any) -> dict[str, float] | None:
        mine = {"mine": {"_target_": f"odd_rewards.{name}", **options}}
        return WeightedRewards(mine, 40, "rewards").terms(rollout())

    for value in (math.nan, math.inf, -math.inf, "1", [1.0]):
        with pytest.raises(UserError, match=r"rewards\.mine: the function returned .*finite"):
            of("odd", value=value)
    with pytest.raises(UserError, match=r"rewards\.mine: .*odd_rewards\.py:4 \(ZeroDivision"):
        of("broken")
    assert of("odd") is None
    assert of("odd", value=True) == {"mine": 1.0}
    assert of("odd", value=2, weight=-0.5, more=1) == {"mine": -1.0}
    assert of("tensor") == {"mine": 0.5}
