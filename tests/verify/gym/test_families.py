"""How each family of reasoning-gym is scored, against reasoning-gym's own scorers."""

import random
from collections.abc import Callable

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from reasoning_lab.data.sources.config import ReasoningGymConfig
from reasoning_lab.types import Problem, UserError, Verdict
from reasoning_lab.verify.checkers import check, gold_error
from reasoning_lab.verify.gym.families import (
    ANSWER_PATTERNS,
    REFUSED_FAMILIES,
    REVIEWED_FAMILIES,
)
from reasoning_lab.verify.gym.scorers import SCORERS
from tests.support.verification import SHIPPED_FAMILIES, generated_problems, gym_problem


def test_every_family_of_reasoning_gym_has_one_kind() -> None:
    names = [*SCORERS, *ANSWER_PATTERNS, *REVIEWED_FAMILIES, *REFUSED_FAMILIES]
    assert sorted(names) == sorted(DATASETS)


def test_families_that_cannot_be_scored_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "of_a_later_version", DATASETS["gcd"])
    for family, reason in (
        ("of_a_later_version", "never reviewed and may run an answer as code"),
        ("composite", "it mixes other families"),
        ("rubiks_cube", "without a gold answer"),
    ):
        with pytest.raises(UserError, match=rf"data\.families\.{family}: .*{reason}"):
            ReasoningGymConfig({family: {1: {}}}, 0.1, 0.1).build()
        with pytest.raises(UserError, match=reason):
            check(Problem("?", "5", f"reasoning_gym/{family}", "f"), "5")


SPELLINGS: list[Callable[[str], str]] = [
    str,
    lambda gold: gold.replace(" ", ""),
    lambda gold: gold.replace("*", " * ").replace("*  *", "**"),
    lambda gold: f"{gold}1",
    lambda gold: f"1{gold}",
    lambda gold: f"({gold})",
]


@pytest.mark.parametrize(
    "family", [*SHIPPED_FAMILIES, "binary_matrix", "n_queens", "number_sorting"]
)
def test_verdicts_are_those_of_reasoning_gym(family: str) -> None:
    """The answers here are variants of golds, so reasoning-gym's scorers can run them safely."""
    rng = random.Random(0)
    dataset = reasoning_gym.create_dataset(
        family, seed=5, size=20, **SHIPPED_FAMILIES.get(family, {})
    )
    problems = generated_problems(family, count=20)
    for problem in problems:
        assert gold_error(problem) is None
        assert check(problem, problem.gold) is Verdict.CORRECT
        other_golds = [rng.choice(problems).gold for _ in range(3)]
        for answer in [*(spell(problem.gold) for spell in SPELLINGS), *other_golds]:
            entry = {"answer": problem.gold, "metadata": problem.metadata}
            try:
                has_full_score = dataset.score_answer(answer, entry) == 1.0
            except ValueError:
                has_full_score = False
            # reasoning-gym parses a LaTeX fraction and ignores the text behind it.
            if answer.endswith(("}1", "$1")):
                has_full_score = False
            # reasoning-gym skips brackets and other words in an answer to this family.
            if family == "knights_knaves" and answer != problem.gold:
                has_full_score = has_full_score and answer in other_golds
            assert (check(problem, answer) is Verdict.CORRECT) is has_full_score, (
                problem.gold,
                answer,
            )


def test_no_answer_changes_the_metadata_of_a_problem() -> None:
    (problem,) = generated_problems("knight_swap")
    before = repr(problem.metadata)
    check(problem, problem.gold)
    assert repr(problem.metadata) == before


ISLAND = "Amelia is a hero, and Zoey is a villain."


@pytest.mark.parametrize(
    ("family", "gold", "answer", "expected"),
    [
        ("knights_knaves", ISLAND, "Zoey is a villain and Amelia is a hero", Verdict.CORRECT),
        ("knights_knaves", ISLAND, "Amelia is a hero, Zoey is a villain", Verdict.CORRECT),
        ("knights_knaves", ISLAND, "Amelia is a hero, and Zoey is a hero.", Verdict.WRONG),
        ("knights_knaves", ISLAND, "Zoey is a villain.", Verdict.WRONG),
        # Both roles of one person are no answer.
        (
            "knights_knaves",
            ISLAND,
            "Amelia is a hero, Amelia is a villain, and Zoey is a villain",
            Verdict.WRONG,
        ),
        # reasoning-gym gives these the full score.
        ("knights_knaves", ISLAND, f"It is false that {ISLAND}", Verdict.UNPARSEABLE),
        ("knights_knaves", ISLAND, f"{ISLAND[:-1]} or hero", Verdict.UNPARSEABLE),
        ("syllogism", "Yes", "No", Verdict.WRONG),
        ("syllogism", "Yes", "Yes and No", Verdict.UNPARSEABLE),
        ("aiw", "4", "4", Verdict.CORRECT),
        ("aiw", "4", "5", Verdict.WRONG),
        ("letter_counting", "2", "two", Verdict.UNPARSEABLE),
        ("spell_backward", "enoiD", "enoid", Verdict.CORRECT),
        ("spell_backward", "enoiD", "enoi", Verdict.WRONG),
        ("spell_backward", "enoiD", "e n o i D", Verdict.UNPARSEABLE),
        ("caesar_cipher", "AS YOU", "AS YOU", Verdict.CORRECT),
        ("caesar_cipher", "AS YOU", "AS YOV", Verdict.WRONG),
        ("word_sorting", "Only, act, way", "Only,act,way", Verdict.CORRECT),
        ("word_sorting", "Only, act, way", "act, Only, way", Verdict.WRONG),
        ("word_sorting", "Only, act, way", "Only act way", Verdict.UNPARSEABLE),
        ("family_relationships", "mother-in-law", "Mother-in-law", Verdict.CORRECT),
        ("family_relationships", "mother-in-law", "mother", Verdict.WRONG),
        ("family_relationships", "mother", "mother or aunt", Verdict.UNPARSEABLE),
        ("path_star", "1 4 8", "1  4 8", Verdict.CORRECT),
        ("path_star", "1 4 8", "8 4 1", Verdict.WRONG),
        ("path_star", "1 4 8", "1, 4, 8", Verdict.UNPARSEABLE),
        ("course_schedule", "True", "False", Verdict.WRONG),
        ("course_schedule", "True", "1", Verdict.UNPARSEABLE),
    ],
)
def test_answers_to_the_families_of_words(
    family: str, gold: str, answer: str, expected: Verdict
) -> None:
    problem = gym_problem(family, gold, sorted_words=["Only", "act", "way"])
    assert gold_error(problem) is None
    assert check(problem, answer) is expected
