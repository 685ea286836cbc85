"""Reward terms by hand, and their composition from config."""

import math
from pathlib import Path
from typing import Any

import pytest

from reasoning_lab import rewards
from reasoning_lab.rewards import Rewards
from reasoning_lab.targets import TRUSTED_VARIABLE
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict

GOOD = "<think>\n1 + 1 = 2\n</think>\n\\boxed{2}"


def rollout(verdict: Verdict = Verdict.CORRECT, text: str = GOOD, tokens: int = 10) -> Rollout:
    problem = Problem("1 + 1?", "2", "math", "sums")
    return Rollout(problem, Completion([1] * tokens, text), "2", verdict, "policy")


def term(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"reasoning_lab.rewards.{name}", **options}


def test_weighted_terms_add_up() -> None:
    composed = Rewards(
        {
            "correctness": term("correctness", weight=2.0),
            "short": term("linear_length", weight=0.5),
            "format": term("reasoning_format"),
        },
        max_new_tokens=40,
        key="rewards",
    )
    expected = {"correctness": 2.0, "short": -0.125, "format": 1.0}
    assert composed.of(rollout()) == expected
    assert composed.of(rollout(Verdict.WRONG, "2", 40)) == {
        "correctness": -2.0,
        "short": -0.5,
        "format": 0.0,
    }


def test_every_verdict_has_its_number_and_none_takes_the_rollout_out() -> None:
    options = {"correct": 1.0, "wrong": 0.0, "unparseable": -0.5, "timeout": None}
    composed = Rewards({"c": term("correctness", **options)}, 40, "rewards")
    found = {verdict: composed.of(rollout(verdict)) for verdict in Verdict}
    assert found == {
        Verdict.CORRECT: {"c": 1.0},
        Verdict.WRONG: {"c": 0.0},
        Verdict.UNPARSEABLE: {"c": -0.5},
        Verdict.TIMEOUT: None,
    }
    papers = Rewards({"c": term("correctness")}, 40, "rewards")
    assert [papers.of(rollout(verdict)) for verdict in Verdict] == [
        {"c": 1.0 if verdict is Verdict.CORRECT else -1.0} for verdict in Verdict
    ]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (GOOD, 1.0),
        ("\n" + GOOD + "\n", 1.0),
        ("1 + 1 = 2\n\\boxed{2}", 0.0),
        ("<think>\n</think>", 0.0),
        (GOOD.replace("</think>", ""), 0.0),
        (GOOD + "\\boxed{3}", 0.0),
        (GOOD.replace("1 + 1", "\\boxed{2}"), 0.0),
        ("Well. " + GOOD, 0.0),
        ("<think>" + GOOD, 0.0),
        (GOOD + "<think>again", 0.0),
    ],
)
def test_reasoning_format(text: str, good: float) -> None:
    assert rewards.reasoning_format(text) == good


def test_cosine_length_by_hand() -> None:
    def of(verdict: Verdict, tokens: int, truncated: bool = False) -> float:
        return rewards.cosine_length(verdict, tokens, 100, truncated=truncated)

    assert of(Verdict.CORRECT, 0) == 2.0
    assert of(Verdict.CORRECT, 100) == pytest.approx(1.0)
    # A third of the way: (1 + cos 60 degrees) / 2 = 3/4 of the difference is left.
    assert rewards.cosine_length(Verdict.CORRECT, 20, 60) == pytest.approx(1.75)
    assert of(Verdict.WRONG, 0) == of(Verdict.TIMEOUT, 0) == -10.0
    assert of(Verdict.WRONG, 50) == pytest.approx(-5.0)
    assert of(Verdict.WRONG, 100) == pytest.approx(0.0)
    assert of(Verdict.CORRECT, 100, truncated=True) == -10.0


def test_overlong_by_hand() -> None:
    found = [rewards.overlong(tokens, 100, soft_tokens=20) for tokens in (0, 80, 85, 100)]
    assert found == [0.0, 0.0, -0.25, -1.0]


def test_repetition_by_hand() -> None:
    # Bigrams of "a b a b a": ab, ba, ab, ba: half of them were there before.
    assert rewards.repetition("a b a b a", ngram=2) == -0.5
    assert rewards.repetition("a b c d", ngram=2) == 0.0
    assert rewards.repetition("a b", ngram=8) == 0.0


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def close(completion, gold, scale=1.0):\n    return scale * (gold in completion)\n"
        "def needy(temperature):\n    return 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"mine": {"_target_": "my_rewards.close", "weight": 3.0, "scale": 0.5}}
    with pytest.raises(UserError, match=r"rewards\.mine\._target_.*may not be named.*TRUSTED"):
        Rewards(mine, 40, "rewards")
    monkeypatch.setenv(TRUSTED_VARIABLE, "others, my_rewards")
    assert Rewards(mine, 40, "rewards").of(rollout()) == {"mine": 1.5}
    with pytest.raises(UserError, match=r"asks for 'temperature'"):
        Rewards({"mine": {"_target_": "my_rewards.needy"}}, 40, "rewards")
    monkeypatch.setenv(TRUSTED_VARIABLE, "my_reward")
    with pytest.raises(UserError, match="may not be named"):
        Rewards(mine, 40, "rewards")


def test_without_a_term_there_is_no_reward() -> None:
    with pytest.raises(UserError, match="name at least one"):
        Rewards({}, 40, "stages.rl.rewards")


def test_the_cosine_falls_and_rises_monotonically() -> None:
    lengths = range(0, 101, 5)
    right = [rewards.cosine_length(Verdict.CORRECT, tokens, 100) for tokens in lengths]
    wrong = [rewards.cosine_length(Verdict.WRONG, tokens, 100) for tokens in lengths]
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert all(math.isfinite(value) for value in right + wrong)
