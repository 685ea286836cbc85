"""Rows whose answer is a program: their tests, prompt and reference program."""

from typing import Any

import pytest

from reasoning_lab.data.sources.row_mapping import RowMapping
from reasoning_lab.data.sources.row_values import RowError
from reasoning_lab.types import Problem, UserError

MBPP = RowMapping(
    prompt="text",
    gold="code",
    solutions="code",
    checker="python",
    tests={"shown": "test_list", "hidden": "challenge_test_list", "setup": "test_setup_code"},
)
HUMANEVAL = RowMapping(
    gold="canonical_solution",
    checker="python",
    tests={"hidden": "test", "entry_point": "entry_point"},
)
BODY = "    return x + 1\n"


def mbpp_row(**changes: Any) -> dict[str, Any]:
    return {
        "text": "Add one.",
        "code": "def inc(x):\r\n    return x + 1",
        "test_list": ["assert inc(1) == 2", "assert inc(2) == 3"],
        "challenge_test_list": ["assert inc(-1) == 0"],
        "test_setup_code": "",
    } | changes


def humaneval_row(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": '\n\ndef inc(x: int) -> int:\n    """ Add one. """\n',
        "canonical_solution": BODY,
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        "entry_point": "inc",
    } | changes


def read(mapping: RowMapping, row: dict[str, Any]) -> Problem:
    mapping.check("data.rows")
    problem = mapping.problem(row, "row 1")
    assert problem is not None
    return problem


def test_mbpps_prompt_shows_its_tests() -> None:
    problem = read(MBPP, mbpp_row(test_setup_code="import math"))
    assert problem.prompt == (
        "Add one.\n\nYour code should pass these tests:\n\n"
        "```python\nassert inc(1) == 2\nassert inc(2) == 3\n```"
    )
    assert problem.gold == "def inc(x):\r\n    return x + 1"
    assert problem.metadata == {
        "row": "row 1",
        "solutions": ["```python\ndef inc(x):\r\n    return x + 1\n```"],
        "tests": ["assert inc(1) == 2", "assert inc(2) == 3", "assert inc(-1) == 0"],
        "setup": "import math",
    }


def test_a_setup_of_lines_and_a_test_of_one_text_are_read() -> None:
    row = mbpp_row(test_setup_code=["import math", "import re"], test_list="assert inc(1) == 2")
    problem = read(MBPP, row | {"challenge_test_list": None})
    assert problem.metadata["setup"] == "import math\nimport re"
    assert problem.metadata["tests"] == ["assert inc(1) == 2"]


def test_humanevals_prompt_is_code_to_complete() -> None:
    problem = read(HUMANEVAL, humaneval_row())
    code = 'def inc(x: int) -> int:\n    """ Add one. """'
    assert problem.prompt == f"Complete this function:\n\n```python\n{code}\n```"
    assert problem.gold == f"{code}\n{BODY}"
    assert problem.metadata["given_code"] == f"{code}\n"
    assert problem.metadata["entry_point"] == "inc"
    assert problem.metadata["tests"] == [humaneval_row()["test"]]


def test_a_solution_with_a_block_stays_as_it_is() -> None:
    solution = "<think>\nOne more.\n</think>\n```python\nx = 1\n```\nThat is all."
    mapping = RowMapping(
        gold="code", prompt="text", solutions="s", checker="python", tests=MBPP.tests
    )
    assert read(mapping, mbpp_row(s=solution)).metadata["solutions"] == [solution]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (mbpp_row(test_list=[], challenge_test_list=[]), "missing_tests", "has no test; give"),
        (mbpp_row(test_list=[" "], challenge_test_list=[""]), "missing_tests", "has no test"),
        (mbpp_row(test_list={"a": 1}), "unreadable_tests", "'test_list' is .*; give a text or a"),
        (mbpp_row(test_list=[1]), "unreadable_tests", "'test_list' is"),
        (mbpp_row(test_list=["assert '\0'"]), "malformed_text", "holds a NUL"),
        (
            {"text": "a", "code": "b"},
            "missing_tests",
            "no column 'test_list'.*data.rows.tests",
        ),
    ],
)
def test_a_row_without_tests_is_refused(row: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(RowError, match=message) as error:
        read(MBPP, row)
    assert error.value.reason == reason


def test_a_row_without_the_name_of_its_function_is_refused() -> None:
    with pytest.raises(RowError, match="'entry_point' names no function; name one"):
        read(HUMANEVAL, humaneval_row(entry_point=""))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (RowMapping(tests={"shown": "a"}), "tests are for the checker 'python'"),
        (RowMapping(checker="python"), "which needs some"),
        (
            RowMapping(checker="python", tests={"hiden": "a"}),
            "'hiden' is no part; choose among shown",
        ),
        (RowMapping(checker="python", tests={"setup": "a"}), "it names no tests; give the column"),
    ],
)
def test_a_mapping_that_fits_no_row_is_refused(mapping: RowMapping, message: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.rows\.tests: .*{message}"):
        mapping.check("data.rows")


def test_each_row_of_a_mixed_corpus_has_its_checker() -> None:
    cases = {"kind": {"code": {"checker": "python", "tests": MBPP.tests}, "math": {}}}
    mapping = RowMapping(prompt="text", gold="code", cases=cases)
    mapping.check("data.rows")
    chosen = mapping.for_row(mbpp_row(kind="code"))
    assert chosen is not None
    assert len(read(chosen, mbpp_row(kind="code")).metadata["tests"]) == 3
    other = mapping.for_row(mbpp_row(kind="math"))
    assert other is not None
    assert "tests" not in read(other, mbpp_row(kind="math")).metadata
