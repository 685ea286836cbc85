"""Impossible options of a reward are refused by their config key."""

import math
from typing import Any

import pytest

from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import UserError
from tests.support.rewards import term


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
        ("cosine_length", {"correct": [2.0]}, r"cosine_length\.correct: \[2\.0\] is not a pair"),
        ("cosine_length", {"wrong": [0.0, math.inf]}, r"cosine_length\.wrong"),
        ("cosine_length", {"wrong": "ab"}, r"cosine_length\.wrong"),
        ("cosine_length", {"truncated_reward": None}, r"cosine_length\.truncated_reward"),
    ],
)
def test_an_impossible_option_is_refused_by_its_key(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        WeightedRewards({name: term(name, **options)}, 40, "rewards")
