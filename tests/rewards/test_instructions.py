"""Rewards for the form of a response, alone and beside correctness."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from reasoning_lab.rewards.weighted import WeightedRewards
from reasoning_lab.types import Completion, Problem, Rollout, UserError, Verdict
from tests.support.rewards import term

NO_COMMA = {"id": "punctuation:no_comma"}
TWO_WORDS = {"id": "length_constraints:number_words", "num_words": 2, "relation": "exactly"}
TITLE = {"id": "detectable_format:title"}


def terms(
    problem: Problem, text: str, rewards: Mapping[str, Any], prefix: str = ""
) -> dict[str, float] | None:
    rollout = Rollout(problem, Completion([1], text), "2", Verdict.CORRECT, "policy")
    return WeightedRewards(rewards, 40, "rewards", prefix).terms(rollout)


def problem(checker: str = "instructions", gold: str = "", **metadata: Any) -> Problem:
    gold = gold or json.dumps([NO_COMMA, TWO_WORDS, TITLE])
    return Problem("q?", gold, checker, "f", metadata=metadata)


@pytest.mark.parametrize(
    ("text", "fraction", "of_all"),
    [
        ("<think>a, b</think>one two", 2 / 3, 0.0),
        ("one, two", 1 / 3, 0.0),
        ("<<one two>>", 1.0, 1.0),
        ("<think>one two", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_the_reward_is_the_fraction_that_the_response_follows(
    text: str, fraction: float, of_all: float
) -> None:
    rewards = {"some": term("instructions"), "all": term("all_instructions")}
    assert terms(problem(), text, rewards) == {"some": fraction, "all": of_all}


def test_the_loose_criterion_counts_what_an_introduction_breaks() -> None:
    rewards = {"strict": term("instructions"), "loose": term("instructions", criterion="loose")}
    text = "Sure, gladly:\none two"
    assert terms(problem(), text, rewards) == {"strict": 0.0, "loose": 2 / 3}


def test_a_thought_that_the_template_opened_is_no_response() -> None:
    rewards = {"form": term("instructions")}
    text = "I count, and count.</think>\none two"
    assert terms(problem(), text, rewards, "<think>\n") == {"form": 2 / 3}
    assert terms(problem(), "one two", rewards, "<think>\n") == {"form": 0.0}


@pytest.mark.parametrize("listed", [[TITLE, NO_COMMA], json.dumps([TITLE, NO_COMMA])])
def test_form_is_rewarded_beside_the_correctness_of_a_formula(listed: Any) -> None:
    rewards = {"correctness": term("correctness"), "form": term("instructions", weight=0.5)}
    sums = problem("math", "2", instructions=listed)
    assert terms(sums, "<think>1, 1</think> \\boxed{2}", rewards) == {
        "correctness": 1.0,
        "form": 0.25,
    }


def test_a_config_gives_the_same_instructions_to_every_problem() -> None:
    rewards = {"form": term("instructions", instructions=[NO_COMMA, TITLE])}
    assert terms(problem("math", "2"), "a b", rewards) == {"form": 0.5}
    # They take the place of the problem's own.
    assert terms(problem(), "a b", rewards) == {"form": 0.5}


def test_a_problem_without_instructions_gets_nothing() -> None:
    rewards = {"some": term("instructions"), "all": term("all_instructions")}
    assert terms(problem("math", "2"), "a b", rewards) == {"some": 0.0, "all": 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instructions": [{"id": "a:b"}]}, r"rewards\.form\.instructions: instruction 1 has the"),
        ({"instructions": []}, r"rewards\.form\.instructions: \[\] is no list"),
        ({"criterion": "lax"}, r"rewards\.form\.criterion: 'lax'; choose strict or loose"),
        ({"weight": -1.0}, r"rewards\.form\.weight: -1\.0 reverses this reward"),
    ],
)
def test_options_that_cannot_be_checked_are_refused(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WeightedRewards({"form": term("instructions", **options)}, 40, "rewards")
