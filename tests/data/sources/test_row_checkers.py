"""Rows of a mixed corpus that name their checker."""

import json
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.types import Problem
from reasoning_lab.verify import CHECKERS, Verifier

MIXED = RowMapping(
    checker_column="verifier", options="choices", instructions="form", family_column="verifier"
)
NO_COMMA = {"id": "punctuation:no_comma"}
EMPTY = {"prompt": "?", "gold": None, "choices": None, "form": None}


@pytest.mark.parametrize(
    ("row", "checker", "gold"),
    [
        ({"verifier": "math", "gold": "x^2"}, "math", "x^2"),
        ({"verifier": "number", "gold": 3}, "number", "3"),
        ({"verifier": "choice", "gold": "red", "choices": ["blue", "red"]}, "choice", "B"),
        ({"verifier": "instructions", "form": [NO_COMMA]}, "instructions", json.dumps([NO_COMMA])),
    ],
)
def test_a_row_is_read_with_the_checker_that_it_names(
    row: dict[str, Any], checker: str, gold: str
) -> None:
    problem = MIXED.problem(EMPTY | row, "row 1")
    assert problem is not None
    assert (problem.checker, problem.gold) == (checker, gold)
    assert ("choices" in problem.metadata) is (checker == "choice")


def test_a_row_without_a_name_has_the_checker_of_the_config() -> None:
    mapping = RowMapping(checker_column="verifier", checker="number")
    problem = mapping.problem({"prompt": "?", "gold": "3", "verifier": None}, "row 1")
    assert problem is not None
    assert problem.checker == "number"


def test_a_question_with_choices_needs_them() -> None:
    with pytest.raises(RowError, match="give a list of 2 to 26 texts"):
        MIXED.problem(EMPTY | {"verifier": "choice", "gold": "A"}, "row 1")


@pytest.mark.parametrize("name", ["math_verify", "os.system", "my_package.check", 3, ["math"]])
def test_only_the_labs_own_checkers_are_known(name: Any) -> None:
    with pytest.raises(RowError, match=r"give one of math, .*data\.rows\.cases\.verifier") as error:
        MIXED.problem(EMPTY | {"verifier": name, "gold": "3"}, "row 1")
    assert error.value.reason == "unknown_checker"


def test_names_of_a_corpus_are_explained_by_cases() -> None:
    cases = {"verifier": {"mcq": {"checker": "choice", "options": "choices"}, "exact": {}}}
    mapping = RowMapping(cases=cases, checker="number")
    row = {"prompt": "?", "gold": "B", "choices": ["1", "2"], "verifier": "mcq"}
    variant = mapping.for_row(row)
    assert variant is not None
    problem = variant.problem(row, "row 1")
    assert problem is not None
    assert problem.checker == "choice"


def test_every_name_is_a_checker(verifier: Verifier) -> None:
    tests = {"tests": ["assert f(1) == 1"]}
    problems = [Problem("?", "", name, "f", metadata=tests) for name in CHECKERS]
    # Nobody can read an empty gold; an unknown checker is an error of the user's.
    assert verifier.unreadable_golds(problems) == problems
