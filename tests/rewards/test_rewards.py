"""Reward terms by hand, and their composition from config."""

import math
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from reasoning_lab.config.targets import TRUSTED_VARIABLE
from reasoning_lab.models.tokenizer import template_thought
from reasoning_lab.rewards import functions as rewards
from reasoning_lab.rewards.functions import Rewards
from reasoning_lab.rewards.ngrams import text_units
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


@pytest.mark.parametrize("opened", ["", "<think>\n", "<think>"])
@pytest.mark.parametrize(
    ("text", "good"),
    [
        (GOOD, 1.0),
        (GOOD.replace("</think>", ""), 0.0),
        (GOOD + "\\boxed{3}", 0.0),
        (GOOD.replace("1 + 1", "\\boxed{2}"), 0.0),
        ("<think>" + GOOD, 0.0),
        ("<think>\n</think>\n\\boxed{2}", 0.0),
    ],
)
def test_the_format_reward_is_one_whoever_opens_the_thought(
    text: str, good: float, opened: str
) -> None:
    """Twins: the same turn, begun by the template or by the completion."""
    composed = Rewards({"format": term("reasoning_format")}, 40, "rewards", opened)
    written = text.removeprefix("<think>") if opened else text
    assert composed.of(rollout(text=written)) == {"format": good}


def test_only_a_template_that_leaves_the_thought_open_opens_it() -> None:
    def of(ending: str, system: str = "") -> str:
        tokenizer = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
        fast.chat_template = (
            f"{system}{{% for m in messages %}}<|{{{{ m['role'] }}}}|>{{{{ m['content'] }}}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{ending}{{% endif %}}"
        )
        return template_thought(fast)

    assert of("") == ""
    assert of("<think>\n") == "<think>\n"
    assert of("<think>") == "<think>"
    # A thought that is over, and a mark that is only spoken of.
    assert of("<think>\n\n</think>\n\n") == ""
    assert of("", "Think in <think> first. ") == ""
    assert of("<think>\n", "Think in <think> first. ") == "<think>\n"


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("再算一遍。再算一遍。再算一遍。", "再 算 一 遍 。 再 算 一 遍 。 再 算 一 遍 。"),
        ("もういちどもういちど", "も う い ち ど も う い ち ど"),
        ("ลองใหม่ลองใหม่", "ล อ ง ใ ห ม ่ ล อ ง ใ ห ม ่"),
        ("所以 x+1=2 所以 x+1=2", "所 以 x+1=2 所 以 x+1=2"),
    ],
)
def test_a_script_without_spaces_repeats_its_characters(text: str, spaced: str) -> None:
    assert text_units(text) == spaced.split()
    assert rewards.repetition(text, ngram=2) == rewards.repetition(spaced, ngram=2) < -0.2


def test_words_of_a_script_with_spaces_are_whole() -> None:
    text = "Thus \\frac{1}{2}, così  déjà-vu\t다시 계산 добро."
    assert text_units(text) == text.split()
    assert rewards.repetition("abc" * 6, ngram=2) == 0.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("overlong", {"soft_tokens": 0}, r"overlong\.soft_tokens: 0 .*1 to 40"),
        ("overlong", {"soft_tokens": 41}, r"soft_tokens: 41 .*1 to 40"),
        ("overlong", {"soft_tokens": 2.5}, r"soft_tokens: 2\.5"),
        ("overlong", {"soft_tokens": None}, r"soft_tokens: None"),
        ("overlong", {}, r"asks for 'soft_tokens'"),
        ("overlong", {"soft_tokens": 4, "weight": -1.0}, r"overlong\.weight: -1\.0"),
        ("repetition", {"ngram": 0}, r"repetition\.ngram: 0"),
        ("repetition", {"ngram": True}, r"repetition\.ngram: True"),
        ("repetition", {"ngrams": 4}, r"repetition\.ngrams: .*no such option; there is ngram"),
        ("repetition", {"weight": -0.5}, r"repetition\.weight"),
        ("reasoning_format", {"weight": -1}, r"reasoning_format\.weight"),
        ("reasoning_format", {"closing": "x"}, r"no such option; there is none"),
        ("linear_length", {"weight": math.nan}, r"linear_length\.weight: nan"),
        ("linear_length", {"weight": math.inf}, r"linear_length\.weight: inf"),
        ("linear_length", {"weight": "much"}, r"linear_length\.weight: 'much'"),
        ("linear_length", {"weight": None}, r"linear_length\.weight: None"),
        ("linear_length", {"weight": True}, r"linear_length\.weight: True"),
        ("linear_length", {"weight": 0.0}, r"every weight is 0"),
        ("linear_length", {"max_new_tokens": 0}, r"linear_length\.max_new_tokens: 0"),
        ("correctness", {"correct": math.nan}, r"correctness\.correct: nan"),
        ("correctness", {"wrong": "bad"}, r"correctness\.wrong: 'bad'"),
        ("correctness", {"wrong": 1.0}, r"correctness\.wrong: 1\.0 is not below correct=1\.0"),
        ("correctness", {"unparseable": 2}, r"correctness\.unparseable: 2 is not below"),
        ("correctness", {"weight": -1.0}, r"correctness\.weight"),
        ("cosine_length", {"correct": [2.0]}, r"cosine_length\.correct: \[2\.0\] is no pair"),
        ("cosine_length", {"wrong": [0.0, math.inf]}, r"cosine_length\.wrong"),
        ("cosine_length", {"wrong": "ab"}, r"cosine_length\.wrong"),
        ("cosine_length", {"truncated_reward": None}, r"cosine_length\.truncated_reward"),
    ],
)
def test_an_impossible_option_is_refused_by_its_key(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Rewards({name: term(name, **options)}, 40, "rewards")


@pytest.mark.parametrize("options", [None, 3, {}, {"weight": 1.0}, {"_target_": None}])
def test_a_term_without_a_function_is_refused(options: Any) -> None:
    with pytest.raises(UserError, match=r"rewards\.mine: there is no _target_"):
        Rewards({"mine": options}, 40, "rewards")


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
        return Rewards(mine, 40, "rewards").of(rollout())

    for value in (math.nan, math.inf, -math.inf, "1", [1.0]):
        with pytest.raises(UserError, match=r"rewards\.mine: the reward returned .*finite"):
            of("odd", value=value)
    with pytest.raises(UserError, match=r"rewards\.mine: .*odd_rewards\.py:4 \(ZeroDivision"):
        of("broken")
    assert of("odd") is None
    assert of("odd", value=True) == {"mine": 1.0}
    assert of("odd", value=2, weight=-0.5, more=1) == {"mine": -1.0}
    assert of("tensor") == {"mine": 0.5}
