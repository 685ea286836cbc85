"""The options of a multiple-choice row, and which of them is right."""

from collections.abc import Mapping
from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.types import Problem, UserError


def mapped(options: Mapping[str, Any], row: Mapping[str, Any]) -> Problem:
    problem = RowMapping(**{"checker": "choice", **options}).problem(row, "row 1")
    assert problem is not None
    return problem


@pytest.mark.parametrize(
    ("options", "gold", "gold_names"),
    [
        (["A)red", "B)blue", "C)green"], "C", None),
        (["red", "blue", "green"], "(c)", None),
        (["red", "blue", "green"], "green", None),
        (["red", "blue", "green"], 2, "index_from_0"),
        (["red", "blue", "green"], "3", "index_from_1"),
        ({"A": "red", "B": "blue", "C": "green", "D": None}, "C", None),
        ({"text": ["red", "blue", "green"], "label": ["1", "2", "3"]}, "3", None),
        ([{"label": c, "text": c} for c in ("red", "blue", "green")], "green", "label"),
    ],
)
def test_options_are_read_in_published_layouts(
    options: Any, gold: Any, gold_names: str | None
) -> None:
    problem = mapped(
        {"options": "o", "gold_names": gold_names}, {"prompt": "?", "o": options, "gold": gold}
    )
    assert problem.prompt == "?\nA) red\nB) blue\nC) green"
    assert (problem.gold, problem.metadata["choices"]) == ("C", ["red", "blue", "green"])


def test_up_to_26_options_are_asked() -> None:
    options = [f"number {n}" for n in range(26)]
    problem = mapped({"options": "o"}, {"prompt": "?", "o": options, "gold": "Z"})
    assert problem.prompt.endswith("\nZ) number 25")
    assert problem.gold == "Z"


@pytest.mark.parametrize(
    ("options", "gold", "complaint"),
    [
        (["A)1", "B)", "C)3"], "A", "option 2 of 'o' is empty"),
        ({"A": "1", "B": " "}, "A", "option 2 of 'o' is empty"),
        (["1", "2"], "2", "gold_names"),  # An index or a text? Nothing says which.
        (["1", "2"], "D", "no letter of the 2 choices"),
        (["1", "1"], "1", "no letter of the 2 choices"),
        ([str(n) for n in range(27)], "A", "2 to 26 texts"),
        ({"text": ["1", "2"], "label": ["A"]}, "A", "2 to 26 texts"),
        ("A)1 B)2", "A", "2 to 26 texts"),
        (["1", "half \ud83d"], "A", "surrogate"),
    ],
)
def test_options_that_cannot_be_asked_are_refused(options: Any, gold: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        mapped({"options": "o"}, {"prompt": "?", "o": options, "gold": gold})


def test_texts_of_options_and_indices_are_told_apart() -> None:
    row = {"prompt": "?", "o": ["2", "3", "4", "5"], "gold": 2}
    for gold_names, letter in (("index_from_0", "C"), ("index_from_1", "B"), ("text", "A")):
        assert mapped({"options": "o", "gold_names": gold_names}, row).gold == letter


@pytest.mark.parametrize(
    "options",
    [
        ["A)1 cm", "B)2 cm", "C)B) 3"],
        ["(A) 1 cm", "(B) 2 cm", "(C) B) 3"],
        ["1 cm", "2 cm", "B) 3"],
    ],
)
def test_choices_become_lines_of_the_prompt(options: list[str]) -> None:
    mapping = {"options": "o", "gold": "c", "checker": "choice"}
    problem = mapped(mapping, {"prompt": "How long?", "o": options, "c": "C"})
    assert problem is not None
    assert problem.prompt == "How long?\nA) 1 cm\nB) 2 cm\nC) B) 3"
    assert (problem.gold, problem.checker) == ("C", "choice")
    assert problem.metadata["choices"] == ["1 cm", "2 cm", "B) 3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"o": ["1", "2"], "gold": "C"}, "'gold' is 'C', no letter of the 2 choices"),
        ({"o": "A)1", "gold": "A"}, "'o' is 'A\\)1'; give a list of 2 to 26 texts"),
        ({"o": ["1"], "gold": "A"}, "'o' is"),
        ({"o": ["1", None], "gold": "A"}, "option 2 of 'o' is neither text nor a number"),
        ({"o": ["1", " "], "gold": "A"}, "option 2 of 'o' is empty"),
    ],
)
def test_choices_that_are_none_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mapped({"options": "o"}, {"prompt": "?", **row})


def test_the_question_alone_decides_an_order_that_the_dataset_does_not_fix() -> None:
    # Published sets exist in which the first option is always the right one.
    options = {"options": "o", "option_order": "question"}
    letters = []
    for number in range(60):
        row = {"prompt": f"Question {number}?", "o": ["yes", "no", "perhaps"], "gold": "A"}
        problem = mapped(options, row)
        assert problem.gold == mapped(options, dict(row)).gold
        assert problem.metadata["choices"]["ABC".index(problem.gold)] == "yes"
        assert f"{problem.gold}) yes" in problem.prompt
        letters.append(problem.gold)
    assert min(map(letters.count, "ABC")) > 10


def test_wrong_choices_may_be_a_list() -> None:
    mapping = {"shuffled": ["wrong", "extra"]}
    row = {"prompt": "?", "gold": "right", "wrong": ["w1", "w2"], "extra": "w3"}
    problem = mapped(mapping, row)
    assert sorted(problem.metadata["choices"]) == ["right", "w1", "w2", "w3"]
    assert problem.metadata["choices"]["ABCD".index(problem.gold)] == "right"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["w1", ""], r"'wrong\.1' is ''; give a non-empty string"),
        ([], "'wrong' is \\[\\]; give a non-empty string"),
        (["w1", "right"], "the right choice is 'right', and so is a wrong one"),
        ([f"w{n}" for n in range(26)], "there are 26 wrong choices; give at most 25"),
    ],
)
def test_wrong_choices_that_are_none_are_refused(wrong: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mapped({"shuffled": ["wrong"]}, {"prompt": "?", "gold": "right", "wrong": wrong})
